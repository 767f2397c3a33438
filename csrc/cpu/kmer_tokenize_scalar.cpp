// One table lookup a token: 2k bits of the genome -> number of the oriented k-mer.
#include <array>
#include <cstddef>
#include <vector>

#include "cpu/kmer_tokenize.h"

namespace dnagpt {

namespace {

using Table = std::vector<uint16_t>;

std::array<std::array<Table, 4>, kMaxK + 1> make_tables() {
  std::array<std::array<Table, 4>, kMaxK + 1> tables;
  for (int k = 1; k <= kMaxK; ++k) {
    for (int orientation = 0; orientation < 4; ++orientation) {
      Table& table = tables[k][orientation];
      table.resize(std::size_t{1} << (2 * k));
      for (uint32_t codes = 0; codes < table.size(); ++codes) {
        table[codes] = static_cast<uint16_t>(kmer_number(codes, k, orientation));
      }
    }
  }
  return tables;
}

const uint16_t* kmer_table(int k, int orientation) {
  static const auto tables = make_tables();
  return tables[k][orientation].data();
}

// Up to 8 bytes from `from`, the first one highest; bytes at and behind `end` read as 0.
inline uint64_t load_big_endian(const uint8_t* from, const uint8_t* end) {
  uint64_t word = 0;
  if (end - from >= 8) {
    __builtin_memcpy(&word, from, 8);
    return __builtin_bswap64(word);
  }
  for (int i = 0; i < 8; ++i) word = word << 8 | (from + i < end ? from[i] : 0);
  return word;
}

template <typename Token, int k, int step>
void tokenize(const uint8_t* bases, int64_t start_bp, int64_t n_tokens, const uint16_t* table, int first_id,
              Token* token) {
  constexpr int kBits = 2 * k;
  // whatever the phase of its first base, 58 bits of a word are left
  constexpr int kPerWord = 58 / kBits;
  const uint8_t* end = bases + packed_bytes_for(start_bp + n_tokens * k);
  int64_t position_bp = start_bp;
  for (int64_t words = n_tokens / kPerWord; words > 0; --words, position_bp += kPerWord * k, token += step * kPerWord) {
    const uint64_t word = load_big_endian(bases + position_bp / 4, end) << (2 * (position_bp & 3));
    for (int i = 0; i < kPerWord; ++i) {
      token[step * i] = static_cast<Token>(table[(word << (kBits * i)) >> (64 - kBits)] + first_id);
    }
  }
  if (n_tokens % kPerWord) {
    uint64_t word = load_big_endian(bases + position_bp / 4, end) << (2 * (position_bp & 3));
    for (int64_t i = n_tokens % kPerWord; i > 0; --i, token += step, word <<= kBits) {
      *token = static_cast<Token>(table[word >> (64 - kBits)] + first_id);
    }
  }
}

template <typename Token, int k>
void tokenize_span(const uint8_t* bases, int64_t start_bp, int64_t n_tokens, int orientation, int first_id, bool,
                   Token* tokens) {
  const uint16_t* table = kmer_table(k, orientation);
  if (orientation & kReversed) {
    tokenize<Token, k, -1>(bases, start_bp, n_tokens, table, first_id, tokens + n_tokens - 1);
  } else {
    tokenize<Token, k, 1>(bases, start_bp, n_tokens, table, first_id, tokens);
  }
}

}  // namespace

template <typename Token>
TokenizeSpan<Token> tokenize_span_scalar(int k) {
  constexpr TokenizeSpan<Token> kSpans[kMaxK] = {tokenize_span<Token, 1>, tokenize_span<Token, 2>,
                                                 tokenize_span<Token, 3>, tokenize_span<Token, 4>,
                                                 tokenize_span<Token, 5>, tokenize_span<Token, 6>};
  return kSpans[k - 1];
}

template TokenizeSpan<uint16_t> tokenize_span_scalar<uint16_t>(int);
template TokenizeSpan<int32_t> tokenize_span_scalar<int32_t>(int);
template TokenizeSpan<int64_t> tokenize_span_scalar<int64_t>(int);

}  // namespace dnagpt
