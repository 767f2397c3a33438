// Checks of one window on the device, and packed bases as a stream of bits.
#pragma once

#include "kernels_cuda.h"
#include "launch.cuh"

namespace dnagpt {

struct Window {
  int64_t contig, start_bp;
  int orientation;
};

// Why a window must be refused, or kAccepted. Length and start are compared without a sum that could overflow.
__device__ inline int64_t reason_to_refuse(const GenomeView& genome, int64_t contig, int64_t start_bp,
                                           int64_t length_bp, int64_t orientation) {
  if (contig < 0 || contig >= genome.n_contigs) return kUnknownContig;
  const int64_t contig_bp = genome.length_bp[contig];
  if (start_bp < 0 || start_bp > contig_bp || length_bp < 0 || length_bp > contig_bp - start_bp) return kOutsideContig;
  return orientation < 0 || orientation > 3 ? kUnknownOrientation : kAccepted;
}

// Only the first reporter writes the record. `code` is written last, so that the host never reads half a record.
__device__ inline void report_refused(RefusedWindow* record, const RefusedWindow& found) {
  auto* const code = reinterpret_cast<unsigned long long*>(&record->code);
  if (atomicCAS(code, 0ULL, static_cast<unsigned long long>(kBeingWritten)) != 0) return;
  volatile RefusedWindow* const written = record;
  written->op = found.op;
  written->genome = found.genome;
  written->window = found.window;
  written->contig = found.contig;
  written->start_bp = found.start_bp;
  __threadfence_system();
  written->code = found.code;
}

// 16 bytes at `from`, one by one; those outside [begin, end) are not read and are 0: for the ends of a genome. Not
// unrolled: it would be most of the code of every kernel.
__device__ inline uint4 load_bytes(const uint8_t* from, const uint8_t* begin, const uint8_t* end) {
  uint4 words = make_uint4(0, 0, 0, 0);
#pragma unroll 1
  for (int i = 15; i >= 0; --i) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(from) + i;
    const bool inside = at >= reinterpret_cast<uintptr_t>(begin) && at < reinterpret_cast<uintptr_t>(end);
    words.w = __funnelshift_l(words.z, words.w, 8);
    words.z = __funnelshift_l(words.y, words.z, 8);
    words.y = __funnelshift_l(words.x, words.y, 8);
    words.x = words.x << 8 | (inside ? *reinterpret_cast<const uint8_t*>(at) : 0);
  }
  return words;
}

// The little-endian word of four packed bytes with its first base in the two highest bits.
__device__ inline uint32_t first_base_highest(uint32_t word) {
  return __byte_perm(word, 0, 0x0123);
}

// A run of packed bases that a warp reads piece by piece, at small offsets from an aligned address.
struct Stretch {
  const uint8_t* aligned;  // 16 divides it; at most 15 bytes before the first base
  int first;               // bases from `aligned` to the first base of the stretch
  const uint8_t* begin;    // of the buffer
  const uint8_t* end;
  bool inside;  // every 16 bytes that a piece may touch lie in the buffer
};

// The bases from `from_bp` on, which may be outside the contig and even outside the buffer. Pieces begin `least` to
// `most` bases after it.
__device__ inline Stretch stretch_of(const GenomeView& genome, int64_t contig, int64_t from_bp, int least, int most) {
  Stretch stretch{};
  stretch.begin = genome.packed;
  stretch.end = genome.packed + genome.packed_bytes;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(stretch.begin), end = reinterpret_cast<uintptr_t>(stretch.end);
  const uintptr_t address = begin + genome.byte_offset[contig] + (from_bp >> 2), aligned = address & ~uintptr_t{15};
  stretch.aligned = reinterpret_cast<const uint8_t*>(aligned);
  stretch.first = static_cast<int>(address - aligned) * kBasesPerByte + static_cast<int>(from_bp & 3);
  stretch.inside = aligned + ((stretch.first + least) >> 6) * 16 >= begin &&
                   aligned + ((stretch.first + most) >> 6) * 16 + 32 <= end;
  return stretch;
}

// kWords * 32 bits of packed bases from base `offset` of the stretch on, first base highest. Only the first `bits` of
// them are valid; bases outside the buffer are read as T. At most two aligned 16-byte loads.
template <int kWords>
__device__ inline void load_bases(const Stretch& stretch, int offset, int bits, uint32_t (&stream)[kWords]) {
  static_assert(kWords <= 3, "the shifts below reach seven of the eight words");
  const int place = stretch.first + offset, into = 2 * (place & 63);
  const uint8_t* from = stretch.aligned + (place >> 6) * 16;
  const auto load = [&](const uint8_t* at) {
    return stretch.inside ? __ldg(reinterpret_cast<const uint4*>(at)) : load_bytes(at, stretch.begin, stretch.end);
  };
  const uint4 first = load(from);
  uint4 second = make_uint4(0, 0, 0, 0);
  if (into + bits > 128) second = load(from + 16);
  const uint32_t words[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
  uint32_t half[kWords + 2];
#pragma unroll
  for (int j = 0; j < kWords + 2; ++j) half[j] = into & 64 ? words[j + 2] : words[j];
  uint32_t full[kWords + 1];
#pragma unroll
  for (int j = 0; j < kWords + 1; ++j) full[j] = first_base_highest(into & 32 ? half[j + 1] : half[j]);
#pragma unroll
  for (int j = 0; j < kWords; ++j) stream[j] = __funnelshift_l(full[j + 1], full[j], into & 31);
}

}  // namespace dnagpt
