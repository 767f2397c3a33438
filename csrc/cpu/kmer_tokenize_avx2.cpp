// 16 six-mers at a time with AVX2: two bases are a nibble, and a shuffle turns it into a base-5 number < 25.
#include "cpu/kmer_tokenize_shell.h"

#if DNAGPT_X86
#include "cpu/x86.h"

namespace dnagpt {

namespace {

constexpr int kK = 6;
constexpr int kBlock = 16;           // tokens: 8 in each half of a register
constexpr int64_t kBlockBytes = 24;  // 96 bases
constexpr int kHalfBytes = 12;
constexpr int kReadBytes = kHalfBytes + 16;

struct Constants {
  __m256i order, number, unknown_number, first_weight, last_weight, first_id;
  __m128i phase_shift;
};

// Each 4-byte lane holds the 3 bytes of two tokens and one more for the phase, first byte highest.
template <bool reversed>
DNAGPT_AVX2 inline Constants constants_for(int orientation, int first_id) {
  Constants c;
  const __m128i order = reversed ? _mm_setr_epi8(12, 11, 10, 9, 9, 8, 7, 6, 6, 5, 4, 3, 3, 2, 1, 0)
                                 : _mm_setr_epi8(3, 2, 1, 0, 6, 5, 4, 3, 9, 8, 7, 6, 12, 11, 10, 9);
  c.order = _mm256_broadcastsi128_si256(order);
  alignas(16) uint8_t number[16], unknown_number[16];
  for (uint32_t codes = 0; codes < 16; ++codes) {
    number[codes] = static_cast<uint8_t>(kmer_number(codes, 2, orientation));
    unknown_number[codes] = static_cast<uint8_t>(number_of_unknown(codes, 2, orientation));
  }
  c.number = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(number)));
  c.unknown_number = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(unknown_number)));
  c.first_weight = _mm256_set1_epi16(reversed ? 1 : 625);
  c.last_weight = _mm256_set1_epi16(reversed ? 625 : 1);
  c.first_id = _mm256_set1_epi16(static_cast<int16_t>(first_id));
  return c;
}

// The bytes of 16 tokens: 24 at `from`, and one more for the phase; 28 are read.
template <bool reversed>
DNAGPT_AVX2 inline __m256i load_block(const uint8_t* from) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + kHalfBytes));
  return reversed ? _mm256_set_m128i(first, second) : _mm256_set_m128i(second, first);
}

// 12 bits at the bottom of each 2-byte lane, in the order of the output.
template <bool reversed>
DNAGPT_AVX2 inline __m256i codes_of(__m256i bytes, const Constants& c) {
  // 24 bits at the top of each 4-byte lane
  const __m256i pair = _mm256_sll_epi32(_mm256_shuffle_epi8(bytes, c.order), c.phase_shift);
  const __m256i low_mask = _mm256_set1_epi32(0x00000fff), high_mask = _mm256_set1_epi32(0x0fff0000);
  return reversed
             ? _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(pair, 8), low_mask),
                               _mm256_and_si256(_mm256_srli_epi32(pair, 4), high_mask))
             : _mm256_or_si256(_mm256_srli_epi32(pair, 20), _mm256_and_si256(_mm256_slli_epi32(pair, 8), high_mask));
}

// Table entries of the three base pairs of each six-mer: the first and the last pair in the bytes of `outer`, the
// middle pair in `middle`.
struct Pairs {
  __m256i outer, middle;
};

DNAGPT_AVX2 inline Pairs look_up(__m256i table, __m256i codes) {
  return {_mm256_shuffle_epi8(table, _mm256_and_si256(codes, _mm256_set1_epi16(0x0f0f))),
          _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi16(0x000f)))};
}

template <bool reversed, bool masked>
DNAGPT_AVX2 inline __m256i tokens_of(const uint8_t* from, const uint8_t* unknown, const Constants& c) {
  const __m256i bytes = load_block<reversed>(from);
  const __m256i mask = masked ? load_block<reversed>(unknown) : _mm256_setzero_si256();
  Pairs numbers = look_up(c.number, codes_of<reversed>(_mm256_andnot_si256(mask, bytes), c));
  if (masked && !_mm256_testz_si256(mask, mask)) {
    const Pairs excess = look_up(c.unknown_number, codes_of<reversed>(mask, c));
    numbers = {_mm256_sub_epi8(numbers.outer, excess.outer), _mm256_sub_epi8(numbers.middle, excess.middle)};
  }
  const auto [outer, middle] = numbers;
  const __m256i first_part = _mm256_mullo_epi16(_mm256_srli_epi16(outer, 8), c.first_weight);
  const __m256i last_part = _mm256_mullo_epi16(_mm256_and_si256(outer, _mm256_set1_epi16(0x00ff)), c.last_weight);
  // the upper byte of `middle` holds the number of nibble 0: weight 0
  const __m256i middle_part = _mm256_maddubs_epi16(middle, _mm256_set1_epi16(25));
  return _mm256_add_epi16(_mm256_add_epi16(first_part, last_part), _mm256_add_epi16(middle_part, c.first_id));
}

template <bool streaming>
DNAGPT_AVX2 inline void store(void* to, __m256i value) {
  if (streaming) {
    _mm256_stream_si256(static_cast<__m256i*>(to), value);
  } else {
    _mm256_storeu_si256(static_cast<__m256i*>(to), value);
  }
}

template <bool streaming>
DNAGPT_AVX2 inline void store_tokens(uint16_t* to, __m256i ids) {
  store<streaming>(to, ids);
}

template <bool streaming>
DNAGPT_AVX2 inline void store_tokens(int32_t* to, __m256i ids) {
  store<streaming>(to, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(ids)));
  store<streaming>(to + 8, _mm256_cvtepu16_epi32(_mm256_extracti128_si256(ids, 1)));
}

template <bool streaming>
DNAGPT_AVX2 inline void store_tokens(int64_t* to, __m256i ids) {
  const __m128i low = _mm256_castsi256_si128(ids), high = _mm256_extracti128_si256(ids, 1);
  store<streaming>(to, _mm256_cvtepu16_epi64(low));
  store<streaming>(to + 4, _mm256_cvtepu16_epi64(_mm_srli_si128(low, 8)));
  store<streaming>(to + 8, _mm256_cvtepu16_epi64(high));
  store<streaming>(to + 12, _mm256_cvtepu16_epi64(_mm_srli_si128(high, 8)));
}

struct Avx2 {
  static constexpr bool kStreams = true;

  template <typename Token, bool reversed, bool streaming, bool masked>
  DNAGPT_AVX2 static void tokenize(const uint8_t* bases, const uint8_t* unknown, int64_t start_bp, int64_t n_tokens,
                                   int orientation, int first_id, Token* tokens) {
    const auto tokenize_scalar = std::get<TokenizeSpan<Token>>(tokenize_spans_scalar(kK));
    const int64_t end_bp = start_bp + n_tokens * kK;
    const uint8_t* end = bases + packed_bytes_for(end_bp);
    Constants c = constants_for<reversed>(orientation, first_id);
    const auto unknown_at = [&](int64_t position_bp) {
      return masked ? unknown + (position_bp >> 2) - (start_bp >> 2) : nullptr;
    };

    // The output is written in order; a reversed window is read from its end to its start.
    int64_t done = 0;
    if (streaming) {
      const int64_t head = static_cast<int64_t>((0 - reinterpret_cast<uintptr_t>(tokens)) % 32 / sizeof(Token));
      done = head < n_tokens ? head : n_tokens;
    }
    if (reversed) {
      // only the first block could be read past the end of the span
      while (done + kBlock <= n_tokens && bases + ((end_bp - (done + kBlock) * kK) >> 2) + kReadBytes > end)
        done += kBlock;
    }
    if (done > n_tokens) done = n_tokens;
    const int64_t head_bp = reversed ? end_bp - done * kK : start_bp;
    tokenize_scalar(bases, unknown_at(head_bp), head_bp, done, orientation, first_id, false, tokens);
    const int64_t block_bp = reversed ? end_bp - (done + kBlock) * kK : start_bp + done * kK;
    const uint8_t *from = bases + (block_bp >> 2), *mask = unknown_at(block_bp);
    c.phase_shift = _mm_cvtsi32_si128(2 * static_cast<int>((reversed ? end_bp - done * kK : start_bp + done * kK) & 3));
    for (; done + kBlock <= n_tokens && (reversed || end - from >= kReadBytes); done += kBlock) {
      store_tokens<streaming>(tokens + done, tokens_of<reversed, masked>(from, mask, c));
      from += reversed ? -kBlockBytes : kBlockBytes;
      if (masked) mask += reversed ? -kBlockBytes : kBlockBytes;
    }
    const int64_t tail_bp = reversed ? start_bp : start_bp + done * kK;
    tokenize_scalar(bases, unknown_at(tail_bp), tail_bp, n_tokens - done, orientation, first_id, false, tokens + done);
  }
};

}  // namespace

TokenizeSpans tokenize_spans_avx2() {
  return spans_of<Avx2>();
}

}  // namespace dnagpt
#endif
