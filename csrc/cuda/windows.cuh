// One window as a warp sees it, checked; packed bases as a stream of bits.
#pragma once

#include "kernels_cuda.h"
#include "launch.cuh"

namespace dnagpt {

struct Window {
  int64_t contig, start_bp;
  int orientation;
};

// What is wrong with a window of this length. Length and start are compared without a sum that could overflow.
__device__ inline int64_t trouble_of(const GenomeView& genome, int64_t contig, int64_t start_bp, int64_t length_bp,
                                     int64_t orientation) {
  if (contig < 0 || contig >= genome.n_contigs) return kUnknownContig;
  const int64_t contig_bp = genome.length_bp[contig];
  if (start_bp < 0 || start_bp > contig_bp || length_bp < 0 || length_bp > contig_bp - start_bp) return kOutsideContig;
  return orientation < 0 || orientation > 3 ? kUnknownOrientation : kNoTrouble;
}

__device__ inline void tell_trouble(int64_t* trouble, int64_t code, int64_t window, int64_t contig, int64_t start_bp) {
  volatile int64_t* words = trouble;
  words[1] = window;
  words[2] = contig;
  words[3] = start_bp;
  __threadfence_system();
  words[0] = code;
}

// 16 bytes at an address that 16 divides, those outside [begin, end) read as 0.
__device__ inline uint4 load_16(const uint8_t* from, const uint8_t* begin, const uint8_t* end) {
  if (from >= begin && end - from >= 16) return __ldg(reinterpret_cast<const uint4*>(from));
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(from) + i;
    if (at >= reinterpret_cast<uintptr_t>(begin) && at < reinterpret_cast<uintptr_t>(end)) {
      words[i / 4] |= static_cast<uint32_t>(*reinterpret_cast<const uint8_t*>(at)) << (8 * (i % 4));
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// The little-endian word of four packed bytes with its first base in the two highest bits.
__device__ inline uint32_t first_base_highest(uint32_t word) {
  return __byte_perm(word, 0, 0x0123);
}

// kWords * 32 bits of packed bases from base `position_bp` of the contig at `byte_offset`, first base highest; of these
// `bits` matter, bases outside the buffer read as T. Two aligned 16-byte loads at most.
template <int kWords>
__device__ inline void load_bases(const GenomeView& genome, int64_t byte_offset, int64_t position_bp, int bits,
                                  uint32_t (&stream)[kWords]) {
  static_assert(kWords <= 3, "the shifts below reach seven of the eight words");
  const uint8_t* begin = genome.packed;
  const uint8_t* end = begin + genome.packed_bytes;
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin) + byte_offset + (position_bp >> 2);
  const int into = static_cast<int>(address & 15), phase = 2 * static_cast<int>(position_bp & 3);
  const uint8_t* aligned = reinterpret_cast<const uint8_t*>(address - into);
  const uint4 first = load_16(aligned, begin, end);
  uint4 second = make_uint4(0, 0, 0, 0);
  if (8 * into + phase + bits > 128) second = load_16(aligned + 16, begin, end);
  const uint32_t words[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
  uint32_t half[kWords + 2];
#pragma unroll
  for (int j = 0; j < kWords + 2; ++j) half[j] = into & 8 ? words[j + 2] : words[j];
  uint32_t full[kWords + 1];
#pragma unroll
  for (int j = 0; j < kWords + 1; ++j) full[j] = first_base_highest(into & 4 ? half[j + 1] : half[j]);
  const int shift = 8 * (into & 3) + phase;
#pragma unroll
  for (int j = 0; j < kWords; ++j) stream[j] = __funnelshift_l(full[j + 1], full[j], shift);
}

}  // namespace dnagpt
