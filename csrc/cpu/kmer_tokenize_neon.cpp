// 8 six-mers at a time with NEON: a four-register table lookup turns 3 bases (6 bits) into a base-5 number < 125.
#include "cpu/kmer_tokenize_shell.h"

#if DNAGPT_NEON
#include <arm_neon.h>

namespace dnagpt {

namespace {

constexpr int kK = 6;
constexpr int kBlock = 8;            // tokens
constexpr int64_t kBlockBytes = 12;  // 48 bases
constexpr int kReadBytes = 16;

// What differs between orientations and phases of the first base within its byte.
struct Control {
  // the two bytes around each token's first and second 3-mer, low byte first
  uint8_t first_order[16], second_order[16];
  // right shifts, which NEON takes as negative left shifts
  int16_t first_shift[8], second_shift[8];
};

Control control_for(int orientation, int phase) {
  Control control{};
  const bool reversed = orientation & kReversed;
  for (int token = 0; token < kBlock; ++token) {
    const int in_genome = reversed ? kBlock - 1 - token : token;
    for (int half = 0; half < 2; ++half) {
      const int bit = 2 * phase + 12 * in_genome + 6 * (reversed ? 1 - half : half);
      // the last 3-mer of phase 3 begins 6 bits before its second byte ends: never after byte 12
      uint8_t* order = half ? control.second_order : control.first_order;
      order[2 * token] = static_cast<uint8_t>(bit / 8 + 1);
      order[2 * token + 1] = static_cast<uint8_t>(bit / 8);
      (half ? control.second_shift : control.first_shift)[token] = static_cast<int16_t>(-(16 - bit % 8 - 6));
    }
  }
  return control;
}

inline void store_tokens(uint16_t* to, uint16x8_t ids) {
  vst1q_u16(to, ids);
}

inline void store_tokens(int32_t* to, uint16x8_t ids) {
  vst1q_s32(to, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(ids))));
  vst1q_s32(to + 4, vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(ids))));
}

inline void store_tokens(int64_t* to, uint16x8_t ids) {
  const uint32x4_t low = vmovl_u16(vget_low_u16(ids)), high = vmovl_u16(vget_high_u16(ids));
  vst1q_s64(to, vreinterpretq_s64_u64(vmovl_u32(vget_low_u32(low))));
  vst1q_s64(to + 2, vreinterpretq_s64_u64(vmovl_u32(vget_high_u32(low))));
  vst1q_s64(to + 4, vreinterpretq_s64_u64(vmovl_u32(vget_low_u32(high))));
  vst1q_s64(to + 6, vreinterpretq_s64_u64(vmovl_u32(vget_high_u32(high))));
}

struct Neon {
  static constexpr bool kStreams = false;

  template <typename Token, bool reversed, bool streaming, bool masked>
  static void tokenize(const uint8_t* bases, const uint8_t* unknown, int64_t start_bp, int64_t n_tokens,
                       int orientation, int first_id, Token* tokens) {
    const auto tokenize_scalar = std::get<TokenizeSpan<Token>>(tokenize_spans_scalar(kK));
    const uint8_t* from = bases + (start_bp >> 2);
    const uint8_t* end = bases + packed_bytes_for(start_bp + n_tokens * kK);

    uint8_t number[64], unknown_number[64];
    for (uint32_t codes = 0; codes < 64; ++codes) {
      number[codes] = static_cast<uint8_t>(kmer_number(codes, 3, orientation));
      unknown_number[codes] = static_cast<uint8_t>(number_of_unknown(codes, 3, orientation));
    }
    const uint8x16x4_t number_table = vld1q_u8_x4(number), unknown_number_table = vld1q_u8_x4(unknown_number);
    const Control control = control_for(orientation, static_cast<int>(start_bp & 3));
    const uint8x16_t first_order = vld1q_u8(control.first_order), second_order = vld1q_u8(control.second_order);
    const int16x8_t first_shift = vld1q_s16(control.first_shift), second_shift = vld1q_s16(control.second_shift);
    const uint16x8_t first = vdupq_n_u16(static_cast<uint16_t>(first_id)), six_bits = vdupq_n_u16(63);
    // table entries of both 3-mers of each token, the first one in the low byte
    const auto look_up = [&](const uint8x16x4_t& table, uint8x16_t bytes) {
      const uint16x8_t a =
          vandq_u16(vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(bytes, first_order)), first_shift), six_bits);
      const uint16x8_t b =
          vandq_u16(vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(bytes, second_order)), second_shift), six_bits);
      return vqtbl4q_u8(table, vreinterpretq_u8_u16(vorrq_u16(a, vshlq_n_u16(b, 8))));
    };

    int64_t done = 0;  // tokens, in the order of the genome
    for (; done + kBlock <= n_tokens && end - from >= kReadBytes; done += kBlock, from += kBlockBytes) {
      uint8x16_t bytes = vld1q_u8(from), entries;
      if (masked) {
        const uint8x16_t mask = vld1q_u8(unknown);
        entries = vsubq_u8(look_up(number_table, vbicq_u8(bytes, mask)), look_up(unknown_number_table, mask));
        unknown += kBlockBytes;
      } else {
        entries = look_up(number_table, bytes);
      }
      const uint16x8_t numbers = vreinterpretq_u16_u8(entries);
      const uint16x8_t low = vandq_u16(numbers, vdupq_n_u16(255)), high = vshrq_n_u16(numbers, 8);
      const uint16x8_t ids = vaddq_u16(vmlaq_n_u16(high, low, 125), first);
      store_tokens(reversed ? tokens + n_tokens - done - kBlock : tokens + done, ids);
    }
    tokenize_scalar(bases, unknown, start_bp + done * kK, n_tokens - done, orientation, first_id, false,
                    reversed ? tokens : tokens + done);
  }
};

}  // namespace

TokenizeSpans tokenize_spans_neon() {
  return spans_of<Neon>();
}

}  // namespace dnagpt
#endif
