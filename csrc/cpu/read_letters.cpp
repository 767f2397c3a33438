// 64 letters of text -> 2-bit codes and masks. The low four bits distinguish A C T G U N; a comparison then shows
// whether the byte is that letter.
#include <array>

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

constexpr uint8_t kIsN = 4, kIsLower = 8, kIsFeed = 16, kIsReturn = 32, kIsOther = 64;

std::array<uint8_t, 256> make_kinds() {
  std::array<uint8_t, 256> kinds{};
  for (int letter = 0; letter < 256; ++letter) {
    const int upper = letter & 0xdf;
    if (kLetter[letter & 15] != upper) {
      kinds[letter] = kIsOther;
    } else {
      kinds[letter] = kCode[letter & 15] | (upper == 'N' ? kIsN : 0) | (letter & 0x20 ? kIsLower : 0);
    }
  }
  kinds['\n'] = kIsFeed;
  kinds['\r'] = kIsReturn;
  return kinds;
}

const std::array<uint8_t, 256> kKinds = make_kinds();

// Eight bytes of codes, the first one lowest -> 16 bits, the first one highest.
inline uint64_t pack_8(const uint8_t* codes) {
  uint64_t word;
  __builtin_memcpy(&word, codes, 8);
  word = __builtin_bswap64(word);
  word = (word | word >> 6) & 0x000f000f000f000f;
  word = (word | word >> 12) & 0x000000ff000000ff;
  return (word | word >> 24) & 0xffff;
}

uint64_t mask_of(const uint8_t* kinds, uint8_t kind) {
  uint64_t mask = 0;
  for (int i = 0; i < 64; ++i) mask |= static_cast<uint64_t>((kinds[i] & kind) != 0) << i;
  return mask;
}

LetterBlock read_scalar(const uint8_t* text) {
  uint8_t kinds[64], kept[64] = {}, codes[64];
  int count = 0;
  uint8_t seen = 0;
  for (int i = 0; i < 64; ++i) {
    const uint8_t kind = kKinds[text[i]];
    kinds[i] = kept[count] = kind;
    seen |= kind;
    count += !(kind & (kIsFeed | kIsReturn));
  }
  if (count < 64) kept[count] = 0;
  for (int i = 0; i < 64; ++i) codes[i] = kept[i] & 3;
  LetterBlock block{};
  block.line_feed = seen & kIsFeed ? mask_of(kinds, kIsFeed) : 0;
  block.carriage_return = seen & kIsReturn ? mask_of(kinds, kIsReturn) : 0;
  block.line_feeds = __builtin_popcountll(block.line_feed);
  block.line_ends = block.line_feeds + __builtin_popcountll(block.carriage_return);
  block.base = seen & kIsOther ? ~(mask_of(kinds, kIsOther) | block.line_feed | block.carriage_return)
                               : ~(block.line_feed | block.carriage_return);
  block.n = seen & kIsN ? mask_of(kept, kIsN) : 0;
  block.lower = seen & kIsLower ? mask_of(kept, kIsLower) : 0;
  for (int i = 0; i < 32; i += 8) {
    block.codes_high = block.codes_high << 16 | pack_8(codes + i);
    block.codes_low = block.codes_low << 16 | pack_8(codes + 32 + i);
  }
  return block;
}

// Removes bit i; the bits above it move down.
[[maybe_unused]] inline uint64_t without_bit(uint64_t bits, int i) {
  const uint64_t below = (uint64_t{1} << i) - 1;
  return (bits & below) | (bits >> 1 & ~below);
}

// Removes the bits at line ends, the last line end first.
[[maybe_unused]] inline void remove_line_ends(LetterBlock& block) {
  for (uint64_t ends = block.line_feed | block.carriage_return; ends;) {
    const int i = 63 - __builtin_clzll(ends);
    ends ^= uint64_t{1} << i;
    block.n = without_bit(block.n, i);
    block.lower = without_bit(block.lower, i);
    if (i < 32) {
      const uint64_t from_i = ~uint64_t{0} >> (2 * i);
      block.codes_high = (block.codes_high & ~from_i) | (block.codes_high << 2 & from_i) | block.codes_low >> 62;
      block.codes_low <<= 2;
    } else {
      const uint64_t from_i = ~uint64_t{0} >> (2 * (i - 32));
      block.codes_low = (block.codes_low & ~from_i) | (block.codes_low << 2 & from_i);
    }
  }
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
  block.line_feeds = __builtin_popcountll(block.line_feed);
  block.line_ends = block.line_feeds + __builtin_popcountll(block.carriage_return);
  remove_line_ends(block);
  return block;
}

DNAGPT_AVX512 LetterBlock read_avx512(const uint8_t* text) {
  const __m512i letter = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(kLetter)));
  const __m512i code = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(kCode)));
  const __m512i low_bits = _mm512_set1_epi8(15), no_case = _mm512_set1_epi8(static_cast<char>(0xdf));
  const __m512i all = _mm512_loadu_si512(text);
  LetterBlock block;
  block.base = _mm512_cmpeq_epi8_mask(_mm512_shuffle_epi8(letter, _mm512_and_si512(all, low_bits)),
                                      _mm512_and_si512(all, no_case));
  block.line_feed = _mm512_cmpeq_epi8_mask(all, _mm512_set1_epi8('\n'));
  block.carriage_return = _mm512_cmpeq_epi8_mask(all, _mm512_set1_epi8('\r'));
  block.line_feeds = __builtin_popcountll(block.line_feed);
  block.line_ends = block.line_feeds + __builtin_popcountll(block.carriage_return);
  const __m512i letters = _mm512_maskz_compress_epi8(~(block.line_feed | block.carriage_return), all);
  const __m512i place = _mm512_and_si512(letters, low_bits);
  block.n = _mm512_cmpeq_epi8_mask(_mm512_and_si512(letters, no_case), _mm512_set1_epi8('N'));
  block.lower = _mm512_test_epi8_mask(letters, _mm512_set1_epi8(0x20));
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
  block.line_feeds = __builtin_popcountll(block.line_feed);
  block.line_ends = block.line_feeds + __builtin_popcountll(block.carriage_return);
  remove_line_ends(block);
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
