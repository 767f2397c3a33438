// One table lookup per token: 2k bits of the genome -> number of the oriented k-mer.
#include <array>
#include <cstddef>
#include <vector>

#include "cpu/kmer_tokenize_shell.h"

namespace dnagpt {

namespace {

struct Tables {
  std::vector<uint16_t> number;          // of 2k bits
  std::vector<uint16_t> unknown_number;  // number_of_unknown of 2k bits
};

std::array<std::array<Tables, 4>, kMaxK + 1> make_tables() {
  std::array<std::array<Tables, 4>, kMaxK + 1> tables;
  for (int k = 1; k <= kMaxK; ++k) {
    for (int orientation = 0; orientation < 4; ++orientation) {
      Tables& both = tables[k][orientation];
      for (uint32_t codes = 0; codes < uint32_t{1} << (2 * k); ++codes) {
        both.number.push_back(static_cast<uint16_t>(kmer_number(codes, k, orientation)));
        both.unknown_number.push_back(static_cast<uint16_t>(number_of_unknown(codes, k, orientation)));
      }
    }
  }
  return tables;
}

const Tables& tables_of(int k, int orientation) {
  static const auto tables = make_tables();
  return tables[k][orientation];
}

inline uint64_t load_big_endian(const uint8_t* from) {
  uint64_t word;
  __builtin_memcpy(&word, from, 8);
  return __builtin_bswap64(word);
}

// The same; bytes at or after `end` are not read and count as 0.
inline uint64_t load_big_endian(const uint8_t* from, const uint8_t* end) {
  uint64_t word = 0;
  for (int i = 0; i < 8; ++i) word = word << 8 | (from + i < end ? from[i] : 0);
  return word;
}

template <int k>
struct Scalar {
  static constexpr bool kStreams = false;

  template <typename Token, bool reversed, bool streaming, bool masked>
  static void tokenize(const uint8_t* bases, const uint8_t* unknown, int64_t start_bp, int64_t n_tokens,
                       int orientation, int first_id, Token* token) {
    constexpr int kBits = 2 * k, kStep = reversed ? -1 : 1;
    // at any phase of the first base, 58 bits of a word are left; four k-mers are whole bytes, which keeps the phase
    constexpr int kPerWord = 58 / kBits & ~3;
    constexpr int kWordBytes = kPerWord * k / kBasesPerByte;
    const Tables& tables = tables_of(k, orientation);
    const uint16_t *const number = tables.number.data(), *const unknown_number = tables.unknown_number.data();
    const uint8_t *from = bases + start_bp / 4, *const end = bases + packed_bytes_for(start_bp + n_tokens * k);
    const int phase = 2 * static_cast<int>(start_bp & 3);
    if (reversed) token += n_tokens - 1;

    const auto write = [&](uint64_t word, int count) {
      word <<= phase;
      const uint64_t mask = masked ? load_big_endian(unknown) << phase : 0;
      word &= ~mask;
      for (int i = 0; i < count; ++i) {
        token[kStep * i] = static_cast<Token>(number[word << (kBits * i) >> (64 - kBits)] + first_id);
      }
      if (mask) {
        for (int i = 0; i < count; ++i) {
          token[kStep * i] = static_cast<Token>(token[kStep * i] - unknown_number[mask << (kBits * i) >> (64 - kBits)]);
        }
      }
      token += kStep * count;
      from += kWordBytes;
      if (masked) unknown += kWordBytes;
    };
    int64_t words = n_tokens / kPerWord;
    for (; words > 0 && end - from >= 8; --words) write(load_big_endian(from), kPerWord);
    for (; words > 0; --words) write(load_big_endian(from, end), kPerWord);
    if (n_tokens % kPerWord) write(load_big_endian(from, end), static_cast<int>(n_tokens % kPerWord));
  }
};

}  // namespace

TokenizeSpans tokenize_spans_scalar(int k) {
  static const TokenizeSpans spans[kMaxK] = {spans_of<Scalar<1>>(), spans_of<Scalar<2>>(), spans_of<Scalar<3>>(),
                                             spans_of<Scalar<4>>(), spans_of<Scalar<5>>(), spans_of<Scalar<6>>()};
  return spans[k - 1];
}

}  // namespace dnagpt
