// 32 six-mers at a time with AVX-512 VBMI, as base64 is encoded (Mula & Lemire, "Base64 encoding and decoding at almost
// the speed of a memory copy", 2019): 3 bases are 6 bits, and a 64-entry table turns them into a base-5 number < 125.
#include "cpu/kmer_tokenize_shell.h"

#if DNAGPT_X86
#include "cpu/x86.h"

namespace dnagpt {

namespace {

constexpr int kBlock = 32;            // tokens
constexpr int64_t kBlockBases = 192;  // 48 bytes
constexpr int kK = 6;

// What differs between orientations and phases of the first base within its byte; 0 <= phase <= 3.
struct Control {
  alignas(64) uint8_t order[64];           // byte order: eight 8-byte words, 6 bytes apart, first byte highest
  alignas(64) uint8_t shift[4][64];        // per phase: bit at which each 3-mer begins in its word
  alignas(64) uint8_t number[64];          // base-5 number of each 3-mer
  alignas(64) uint8_t unknown_number[64];  // number_of_unknown of each 3-mer
};

struct Controls {
  Control of[4];

  Controls() {
    for (int orientation = 0; orientation < 4; ++orientation) {
      Control& control = of[orientation];
      const bool reversed = orientation & kReversed;
      for (int i = 0; i < 64; ++i) {
        const int word = reversed ? 7 - i / 8 : i / 8, byte = i % 8;
        control.order[i] = static_cast<uint8_t>(6 * word + 7 - byte);
        const int threemer = reversed ? 7 - byte : byte;
        for (int phase = 0; phase < 4; ++phase) {
          control.shift[phase][i] = static_cast<uint8_t>(58 - 2 * phase - 6 * threemer);
        }
        control.number[i] = static_cast<uint8_t>(kmer_number(static_cast<uint32_t>(i), 3, orientation));
        control.unknown_number[i] = static_cast<uint8_t>(number_of_unknown(static_cast<uint32_t>(i), 3, orientation));
      }
    }
  }
};

const Control& control_of(int orientation) {
  static const Controls controls;
  return controls.of[orientation];
}

struct Constants {
  __m512i order, shift, number, unknown_number, weights, first_id;
};

// 64 bytes at `from`; bytes at or after `end` are not read and are 0.
DNAGPT_AVX512 inline __m512i load_before(const uint8_t* end, const uint8_t* from) {
  return end - from >= 64 ? _mm512_loadu_si512(from)
                          : _mm512_maskz_loadu_epi8(~uint64_t{0} >> (64 - (end - from)), from);
}

// Six bits (a 3-mer) in each byte, in the order of the output.
DNAGPT_AVX512 inline __m512i threemers_of(__m512i bytes, const Constants& c) {
  return _mm512_multishift_epi64_epi8(c.shift, _mm512_permutexvar_epi8(c.order, bytes));
}

// 32 ids from the first 49 of `bytes`; if masked, with the N mask of the same bytes at `unknown`.
template <bool masked>
DNAGPT_AVX512 inline __m512i tokens_of(__m512i bytes, const uint8_t* unknown, const Constants& c) {
  __m512i numbers;
  if (masked) {
    const __m512i mask = _mm512_loadu_si512(unknown);
    const __m512i known = threemers_of(_mm512_andnot_si512(mask, bytes), c);
    numbers = _mm512_sub_epi8(_mm512_permutexvar_epi8(known, c.number),
                              _mm512_permutexvar_epi8(threemers_of(mask, c), c.unknown_number));
  } else {
    numbers = _mm512_permutexvar_epi8(threemers_of(bytes, c), c.number);
  }
  return _mm512_add_epi16(_mm512_maddubs_epi16(numbers, c.weights), c.first_id);
}

template <bool streaming>
DNAGPT_AVX512 inline void store(void* to, __m512i value) {
  if (streaming) {
    _mm512_stream_si512(static_cast<__m512i*>(to), value);
  } else {
    _mm512_storeu_si512(to, value);
  }
}

template <bool streaming>
DNAGPT_AVX512 inline void store_tokens(uint16_t* to, __m512i ids) {
  store<streaming>(to, ids);
}

template <bool streaming>
DNAGPT_AVX512 inline void store_tokens(int32_t* to, __m512i ids) {
  store<streaming>(to, _mm512_cvtepu16_epi32(_mm512_castsi512_si256(ids)));
  store<streaming>(to + 16, _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(ids, 1)));
}

template <bool streaming>
DNAGPT_AVX512 inline void store_tokens(int64_t* to, __m512i ids) {
  store<streaming>(to, _mm512_cvtepu16_epi64(_mm512_castsi512_si128(ids)));
  store<streaming>(to + 8, _mm512_cvtepu16_epi64(_mm512_extracti32x4_epi32(ids, 1)));
  store<streaming>(to + 16, _mm512_cvtepu16_epi64(_mm512_extracti32x4_epi32(ids, 2)));
  store<streaming>(to + 24, _mm512_cvtepu16_epi64(_mm512_extracti32x4_epi32(ids, 3)));
}

// Fewer tokens than a block, from position_bp on, with masked loads, so that no byte outside the span is read.
template <bool masked, typename Token>
DNAGPT_AVX512 inline void tokenize_partial(const uint8_t* bases, const uint8_t* unknown, int64_t position_bp,
                                           int n_tokens, bool reversed, const Constants& c, Token* tokens) {
  const int64_t first_byte = position_bp / 4;
  const uint8_t* end = bases + packed_bytes_for(position_bp + n_tokens * kK);
  const __m512i bytes = load_before(end, bases + first_byte);
  alignas(64) uint16_t ids[kBlock];
  _mm512_store_si512(ids, tokens_of<masked>(bytes, unknown, c));
  // in a reversed block, the tokens wanted are the last ones
  const uint16_t* from = reversed ? ids + kBlock - n_tokens : ids;
  for (int i = 0; i < n_tokens; ++i) tokens[i] = from[i];
}

struct Avx512 {
  static constexpr bool kStreams = true;

  template <typename Token, bool reversed, bool streaming, bool masked>
  DNAGPT_AVX512 static void tokenize(const uint8_t* bases, const uint8_t* unknown, int64_t start_bp, int64_t n_tokens,
                                     int orientation, int first_id, Token* tokens) {
    const Control& control = control_of(orientation);
    Constants c;
    c.order = _mm512_load_si512(control.order);
    c.number = _mm512_load_si512(control.number);
    c.unknown_number = _mm512_load_si512(control.unknown_number);
    c.weights = _mm512_set1_epi16(1 << 8 | 125);
    c.first_id = _mm512_set1_epi16(static_cast<int16_t>(first_id));

    // The output is written in order; a reversed window is read from its end to its start.
    const int64_t end_bp = start_bp + n_tokens * kK;
    const uint8_t* end = bases + packed_bytes_for(end_bp);
    const auto unknown_at = [&](int64_t position_bp) {
      return masked ? unknown + (position_bp >> 2) - (start_bp >> 2) : nullptr;
    };
    int64_t done = 0;
    if (streaming) {
      const int64_t head = static_cast<int64_t>((0 - reinterpret_cast<uintptr_t>(tokens)) % 64 / sizeof(Token));
      done = head < n_tokens ? head : n_tokens;
      if (done) {
        const int64_t position_bp = reversed ? end_bp - done * kK : start_bp;
        c.shift = _mm512_load_si512(control.shift[position_bp & 3]);
        tokenize_partial<masked>(bases, unknown_at(position_bp), position_bp, static_cast<int>(done), reversed, c,
                                 tokens);
      }
    }
    int64_t position_bp = reversed ? end_bp - (done + kBlock) * kK : start_bp + done * kK;
    // a block is a whole number of bytes, so the phase stays the same
    c.shift = _mm512_load_si512(control.shift[position_bp & 3]);
    for (; done + kBlock <= n_tokens; done += kBlock, position_bp += reversed ? -kBlockBases : kBlockBases) {
      const uint8_t* from = bases + (position_bp >> 2);
      store_tokens<streaming>(tokens + done, tokens_of<masked>(load_before(end, from), unknown_at(position_bp), c));
    }
    if (done == n_tokens) return;
    const int64_t rest = n_tokens - done;
    if (!streaming && n_tokens >= kBlock) {
      // a whole last block that overlaps the previous one is cheaper than a partial block
      position_bp = reversed ? start_bp : end_bp - kBlockBases;
      c.shift = _mm512_load_si512(control.shift[position_bp & 3]);
      const uint8_t* from = bases + (position_bp >> 2);
      store_tokens<false>(tokens + n_tokens - kBlock,
                          tokens_of<masked>(load_before(end, from), unknown_at(position_bp), c));
    } else {
      position_bp = reversed ? start_bp : end_bp - rest * kK;
      c.shift = _mm512_load_si512(control.shift[position_bp & 3]);
      tokenize_partial<masked>(bases, unknown_at(position_bp), position_bp, static_cast<int>(rest), reversed, c,
                               tokens + done);
    }
  }
};

}  // namespace

TokenizeSpans tokenize_spans_avx512() {
  return spans_of<Avx512>();
}

}  // namespace dnagpt
#endif
