// 64 letters of text -> 2-bit codes and masks. The low four bits of a letter tell A C T G N apart; whether it is that
// letter is asked afterwards.
#include "fasta_pack.h"

#if DNAGPT_X86
#include "cpu/x86.h"
#elif DNAGPT_NEON
#include <arm_neon.h>
#endif

namespace dnagpt {

namespace {

// by the low four bits: the letter in upper case (0xff: none), and its code; U is T
alignas(16) constexpr uint8_t kLetter[16] = {255, 'A', 255, 'C', 'T', 'U', 255, 'G',
                                             255, 255, 255, 255, 255, 255, 'N', 255};
alignas(16) constexpr uint8_t kCode[16] = {0, kCodeA, 0, kCodeC, kCodeT, kCodeT, 0, kCodeG};

LetterBlock read_scalar(const uint8_t* text) {
  LetterBlock block{};
  for (int i = 63; i >= 0; --i) {
    const uint8_t letter = text[i], upper = letter & 0xdf;
    block.base = block.base << 1 | (kLetter[letter & 15] == upper);
    block.n = block.n << 1 | (upper == 'N');
    block.lower = block.lower << 1 | (letter >> 5 & 1);
    block.line_feed = block.line_feed << 1 | (letter == '\n');
    block.carriage_return = block.carriage_return << 1 | (letter == '\r');
  }
  for (int i = 0; i < 32; ++i) {
    block.codes_high = block.codes_high << 2 | kCode[text[i] & 15];
    block.codes_low = block.codes_low << 2 | kCode[text[32 + i] & 15];
  }
  block.lower &= block.base;
  return block;
}

#if DNAGPT_X86

// codes of 32 letters -> 8 bytes, first letter highest
DNAGPT_AVX2 inline uint64_t pack_32(__m256i codes) {
  const __m256i fours =
      _mm256_madd_epi16(_mm256_maddubs_epi16(codes, _mm256_set1_epi16(1 << 8 | 4)), _mm256_set1_epi32(1 << 16 | 16));
  // the lowest byte of each 4-byte lane, first lane highest
  const __m256i gather = _mm256_setr_epi8(-1, -1, -1, -1, 12, 8, 4, 0, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                          12, 8, 4, 0, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i bytes = _mm256_shuffle_epi8(fours, gather);
  const __m128i both = _mm_or_si128(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(both));
}

DNAGPT_AVX2 inline uint64_t mask_of(__m256i low, __m256i high) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(low)) |
         static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(high))) << 32;
}

DNAGPT_AVX2 LetterBlock read_avx2(const uint8_t* text) {
  const __m256i letter = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kLetter)));
  const __m256i code = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kCode)));
  const __m256i low_bits = _mm256_set1_epi8(15), no_case = _mm256_set1_epi8(static_cast<char>(0xdf));
  const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text));
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text + 32));
  const __m256i a_place = _mm256_and_si256(a, low_bits), b_place = _mm256_and_si256(b, low_bits);
  const __m256i a_upper = _mm256_and_si256(a, no_case), b_upper = _mm256_and_si256(b, no_case);
  const __m256i n = _mm256_set1_epi8('N'), feed = _mm256_set1_epi8('\n'), carriage = _mm256_set1_epi8('\r');
  LetterBlock block;
  block.base = mask_of(_mm256_cmpeq_epi8(_mm256_shuffle_epi8(letter, a_place), a_upper),
                       _mm256_cmpeq_epi8(_mm256_shuffle_epi8(letter, b_place), b_upper));
  block.n = mask_of(_mm256_cmpeq_epi8(a_upper, n), _mm256_cmpeq_epi8(b_upper, n));
  block.lower = mask_of(_mm256_slli_epi16(a, 2), _mm256_slli_epi16(b, 2)) & block.base;
  block.line_feed = mask_of(_mm256_cmpeq_epi8(a, feed), _mm256_cmpeq_epi8(b, feed));
  block.carriage_return = mask_of(_mm256_cmpeq_epi8(a, carriage), _mm256_cmpeq_epi8(b, carriage));
  block.codes_high = pack_32(_mm256_shuffle_epi8(code, a_place));
  block.codes_low = pack_32(_mm256_shuffle_epi8(code, b_place));
  return block;
}

DNAGPT_AVX512 LetterBlock read_avx512(const uint8_t* text) {
  const __m512i letter = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(kLetter)));
  const __m512i code = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(kCode)));
  const __m512i letters = _mm512_loadu_si512(text);
  const __m512i place = _mm512_and_si512(letters, _mm512_set1_epi8(15));
  const __m512i upper = _mm512_and_si512(letters, _mm512_set1_epi8(static_cast<char>(0xdf)));
  LetterBlock block;
  block.base = _mm512_cmpeq_epi8_mask(_mm512_shuffle_epi8(letter, place), upper);
  block.n = _mm512_cmpeq_epi8_mask(upper, _mm512_set1_epi8('N'));
  block.lower = _mm512_test_epi8_mask(letters, _mm512_set1_epi8(0x20)) & block.base;
  block.line_feed = _mm512_cmpeq_epi8_mask(letters, _mm512_set1_epi8('\n'));
  block.carriage_return = _mm512_cmpeq_epi8_mask(letters, _mm512_set1_epi8('\r'));
  const __m512i fours =
      _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_shuffle_epi8(code, place), _mm512_set1_epi16(1 << 8 | 4)),
                        _mm512_set1_epi32(1 << 16 | 16));
  const __m128i bytes = _mm512_cvtepi32_epi8(fours);
  block.codes_high = __builtin_bswap64(static_cast<uint64_t>(_mm_cvtsi128_si64(bytes)));
  block.codes_low = __builtin_bswap64(static_cast<uint64_t>(_mm_extract_epi64(bytes, 1)));
  return block;
}

#elif DNAGPT_NEON

inline uint64_t mask_of(uint8x16_t lanes) {
  const uint8x16_t weights = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bits = vandq_u8(lanes, weights);
  return vaddv_u8(vget_low_u8(bits)) | static_cast<uint64_t>(vaddv_u8(vget_high_u8(bits))) << 8;
}

LetterBlock read_neon(const uint8_t* text) {
  const uint8x16_t letter = vld1q_u8(kLetter), code = vld1q_u8(kCode);
  const int8x16_t places = {6, 4, 2, 0, 6, 4, 2, 0, 6, 4, 2, 0, 6, 4, 2, 0};
  LetterBlock block{};
  for (int part = 0; part < 4; ++part) {
    const uint8x16_t letters = vld1q_u8(text + 16 * part);
    const uint8x16_t place = vandq_u8(letters, vdupq_n_u8(15)), upper = vandq_u8(letters, vdupq_n_u8(0xdf));
    const int shift = 16 * part;
    block.base |= mask_of(vceqq_u8(vqtbl1q_u8(letter, place), upper)) << shift;
    block.n |= mask_of(vceqq_u8(upper, vdupq_n_u8('N'))) << shift;
    block.lower |= mask_of(vtstq_u8(letters, vdupq_n_u8(0x20))) << shift;
    block.line_feed |= mask_of(vceqq_u8(letters, vdupq_n_u8('\n'))) << shift;
    block.carriage_return |= mask_of(vceqq_u8(letters, vdupq_n_u8('\r'))) << shift;
    // four letters a byte, in the four lanes of 32 bits
    const uint32x4_t fours = vpaddlq_u16(vpaddlq_u8(vshlq_u8(vqtbl1q_u8(code, place), places)));
    const uint64_t packed = static_cast<uint64_t>(vgetq_lane_u32(fours, 0)) << 24 | vgetq_lane_u32(fours, 1) << 16 |
                            vgetq_lane_u32(fours, 2) << 8 | vgetq_lane_u32(fours, 3);
    (part < 2 ? block.codes_high : block.codes_low) |= packed << (part % 2 ? 0 : 32);
  }
  block.lower &= block.base;
  return block;
}

#endif

}  // namespace

ReadLetters read_letters_for(Isa isa) {
#if DNAGPT_X86
  if (isa == Isa::kAvx512) return read_avx512;
  if (isa == Isa::kAvx2) return read_avx2;
#elif DNAGPT_NEON
  if (isa == Isa::kNeon) return read_neon;
#endif
  return read_scalar;
}

}  // namespace dnagpt
