// The low bit of a 2-bit code is set for G and C: the count is a popcount of the bytes under 0b01010101.
#include <algorithm>

#include "cpu/gc_count.h"

#if DNAGPT_X86
#include "cpu/x86.h"
#elif DNAGPT_NEON
#include <arm_neon.h>
#endif

namespace dnagpt {

namespace {

constexpr uint64_t kLowBits = 0x5555555555555555;

uint64_t load(const uint8_t* from) {
  uint64_t word;
  __builtin_memcpy(&word, from, 8);
  return word;
}

// The baseline has no popcount instruction. Three words are added in fields of 2 bits (at most 3 each), four fields are
// added into a byte (at most 12), and twenty rounds are added in bytes (at most 240) before the bytes are summed.
int64_t gc_scalar(const uint8_t* bytes, int64_t n_bytes) {
  int64_t count = 0;
  while (n_bytes >= 24) {
    uint64_t sums = 0;
    for (int round = 0; round < 20 && n_bytes >= 24; ++round, bytes += 24, n_bytes -= 24) {
      // fields of 2 bits, at most 3 each
      const uint64_t three = (load(bytes) & kLowBits) + (load(bytes + 8) & kLowBits) + (load(bytes + 16) & kLowBits);
      const uint64_t nibbles = (three & 0x3333333333333333) + (three >> 2 & 0x3333333333333333);
      sums += (nibbles & 0x0f0f0f0f0f0f0f0f) + (nibbles >> 4 & 0x0f0f0f0f0f0f0f0f);
    }
    const uint64_t pairs = (sums & 0x00ff00ff00ff00ff) + (sums >> 8 & 0x00ff00ff00ff00ff);
    count += static_cast<int64_t>(pairs * 0x0001000100010001 >> 48);
  }
  for (; n_bytes > 0; ++bytes, --n_bytes) count += __builtin_popcount(*bytes & 0x55);
  return count;
}

#if DNAGPT_X86

// The G and C codes of 96 bytes, added up as in gc_scalar: 32 sums of at most 12.
DNAGPT_AVX2 inline __m256i gc_of_96_bytes(const uint8_t* bytes) {
  const __m256i low_bits = _mm256_set1_epi8(0x55), twos = _mm256_set1_epi8(0x33), nibble = _mm256_set1_epi8(0x0f);
  const __m256i* from = reinterpret_cast<const __m256i*>(bytes);
  const __m256i three = _mm256_add_epi8(_mm256_and_si256(_mm256_loadu_si256(from), low_bits),
                                        _mm256_add_epi8(_mm256_and_si256(_mm256_loadu_si256(from + 1), low_bits),
                                                        _mm256_and_si256(_mm256_loadu_si256(from + 2), low_bits)));
  const __m256i nibbles =
      _mm256_add_epi8(_mm256_and_si256(three, twos), _mm256_and_si256(_mm256_srli_epi16(three, 2), twos));
  return _mm256_add_epi8(_mm256_and_si256(nibbles, nibble), _mm256_and_si256(_mm256_srli_epi16(nibbles, 4), nibble));
}

// Adds the counts of `places` places of n_bytes each, a multiple of 96, which are read side by side. One place alone
// asks for its lines in advance, also beyond its end, where the next window often begins.
template <int places>
DNAGPT_AVX2 inline void gc_avx2_of(const uint8_t* const* bytes, int64_t n_bytes, int64_t* count) {
  constexpr int64_t kAtOnce = 20 * 96;  // a byte is at most 240 then
  constexpr int64_t kAhead = 512;
  __m256i total[places];
  for (__m256i& one : total) one = _mm256_setzero_si256();
  for (int64_t at = 0; at < n_bytes;) {
    const int64_t end = std::min(at + kAtOnce, n_bytes);
    __m256i sums[places];
    for (__m256i& one : sums) one = _mm256_setzero_si256();
    for (; at < end; at += 96) {
      if constexpr (places == 1) {
        _mm_prefetch(reinterpret_cast<const char*>(bytes[0] + at + kAhead), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(bytes[0] + at + kAhead + 64), _MM_HINT_T0);
      }
      for (int place = 0; place < places; ++place) {
        sums[place] = _mm256_add_epi8(sums[place], gc_of_96_bytes(bytes[place] + at));
      }
    }
    for (int place = 0; place < places; ++place) {
      total[place] = _mm256_add_epi64(total[place], _mm256_sad_epu8(sums[place], _mm256_setzero_si256()));
    }
  }
  for (int place = 0; place < places; ++place) {
    alignas(32) int64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), total[place]);
    count[place] += lanes[0] + lanes[1] + lanes[2] + lanes[3];
  }
}

DNAGPT_AVX2 int64_t gc_avx2(const uint8_t* bytes, int64_t n_bytes) {
  const int64_t vectors = n_bytes / 96 * 96;
  int64_t count = gc_scalar(bytes + vectors, n_bytes - vectors);
  gc_avx2_of<1>(&bytes, vectors, &count);
  return count;
}

DNAGPT_AVX2 void gc_avx2_of_four(const uint8_t* const* bytes, int64_t n_bytes, int64_t* count) {
  const int64_t vectors = n_bytes / 96 * 96;
  for (int place = 0; place < 4; ++place) count[place] = gc_scalar(bytes[place] + vectors, n_bytes - vectors);
  gc_avx2_of<4>(bytes, vectors, count);
}

DNAGPT_AVX512 int64_t gc_avx512(const uint8_t* bytes, int64_t n_bytes) {
  const __m512i low_bits = _mm512_set1_epi8(0x55);
  __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
  for (; n_bytes >= 128; bytes += 128, n_bytes -= 128) {
    even = _mm512_add_epi64(even, _mm512_popcnt_epi64(_mm512_and_si512(_mm512_loadu_si512(bytes), low_bits)));
    odd = _mm512_add_epi64(odd, _mm512_popcnt_epi64(_mm512_and_si512(_mm512_loadu_si512(bytes + 64), low_bits)));
  }
  for (; n_bytes > 0; bytes += 64, n_bytes -= 64) {
    const __mmask64 mask = n_bytes >= 64 ? ~uint64_t{0} : ~uint64_t{0} >> (64 - n_bytes);
    even =
        _mm512_add_epi64(even, _mm512_popcnt_epi64(_mm512_and_si512(_mm512_maskz_loadu_epi8(mask, bytes), low_bits)));
  }
  return _mm512_reduce_add_epi64(_mm512_add_epi64(even, odd));
}

#elif DNAGPT_NEON

int64_t gc_neon(const uint8_t* bytes, int64_t n_bytes) {
  uint64x2_t total = vdupq_n_u64(0);
  while (n_bytes >= 16) {
    uint8x16_t sums = vdupq_n_u8(0);
    // each round adds at most 4 to a byte, so at most 248 in all
    for (int round = 0; round < 62 && n_bytes >= 16; ++round, bytes += 16, n_bytes -= 16) {
      sums = vaddq_u8(sums, vcntq_u8(vandq_u8(vld1q_u8(bytes), vdupq_n_u8(0x55))));
    }
    total = vpadalq_u32(total, vpaddlq_u16(vpaddlq_u8(sums)));
  }
  return static_cast<int64_t>(vgetq_lane_u64(total, 0) + vgetq_lane_u64(total, 1)) + gc_scalar(bytes, n_bytes);
}

#endif

}  // namespace

GcOfBytes gc_of_bytes_for(Isa isa) {
#if DNAGPT_X86
  if (isa == Isa::kAvx512) return gc_avx512;
  if (isa == Isa::kAvx2) return gc_avx2;
#elif DNAGPT_NEON
  if (isa == Isa::kNeon) return gc_neon;
#endif
  return gc_scalar;
}

GcOfFour gc_of_four_for([[maybe_unused]] Isa isa) {
#if DNAGPT_X86
  if (isa == Isa::kAvx2) return gc_avx2_of_four;
#endif
  return nullptr;
}

}  // namespace dnagpt
