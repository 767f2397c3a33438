// A warp counts G and C codes of a range of packed bases.
#pragma once

#include "windows.cuh"

namespace dnagpt {

constexpr int kLoadBytes = 16;
constexpr int kBasesPerLoad = kLoadBytes * kBasesPerByte;

// Bits of the bases [from, to) of a word of 16 bases, first base highest; the range may lie outside the word.
__device__ inline uint32_t bits_of_bases(int from, int to) {
  from = from < 0 ? 0 : from;
  to = to > 16 ? 16 : to;
  if (from >= to) return 0;
  return 0xffffffffu >> (2 * from) & 0xffffffffu << (32 - 2 * to);
}

__device__ inline int gc_of(const uint4& bases) {
  constexpr uint32_t kLowBits = 0x55555555;
  return __popc(bases.x & kLowBits) + __popc(bases.y & kLowBits) + __popc(bases.z & kLowBits) +
         __popc(bases.w & kLowBits);
}

// G and C codes among [from_bp, to_bp) of the contig at byte_offset, the part of one lane. Codes under N blocks are
// counted too.
__device__ inline int64_t gc_codes(const GenomeView& genome, int64_t byte_offset, int64_t from_bp, int64_t to_bp,
                                   int lane) {
  const uint8_t *begin = genome.packed, *end = begin + genome.packed_bytes;
  const uintptr_t contig = reinterpret_cast<uintptr_t>(begin) + byte_offset;
  const uintptr_t first = (contig + (from_bp >> 2)) & ~static_cast<uintptr_t>(kLoadBytes - 1);
  const int64_t base_of_first = (static_cast<int64_t>(first) - static_cast<int64_t>(contig)) * kBasesPerByte;
  const int64_t last = (to_bp - base_of_first - 1) / kBasesPerLoad;
  int64_t count = 0;
  // Only the first and the last load hold bases outside the range: one lane takes each, and the other loads need no
  // mask. Loads between them are inside the contig, and so inside the buffer.
  if (lane == 0 || (lane == 1 && last > 0)) {
    const int64_t load = lane == 0 ? 0 : last, base = base_of_first + load * kBasesPerLoad;
    const int from = base < from_bp ? static_cast<int>(from_bp - base) : 0;
    const int to = base + kBasesPerLoad > to_bp ? static_cast<int>(to_bp - base) : kBasesPerLoad;
    const uint8_t* const at = reinterpret_cast<const uint8_t*>(first + load * kLoadBytes);
    const bool inside = at >= begin && at + kLoadBytes <= end;
    uint4 bases = inside ? __ldg(reinterpret_cast<const uint4*>(at)) : load_bytes(at, begin, end);
    bases.x &= first_base_highest(bits_of_bases(from, to));
    bases.y &= first_base_highest(bits_of_bases(from - 16, to - 16));
    bases.z &= first_base_highest(bits_of_bases(from - 32, to - 32));
    bases.w &= first_base_highest(bits_of_bases(from - 48, to - 48));
    count = gc_of(bases);
  }
  const uint4* whole = reinterpret_cast<const uint4*>(first);
#pragma unroll 4
  for (int64_t load = lane + 1; load < last; load += kWarp) count += gc_of(__ldg(whole + load));
  return count;
}

struct BaseCount {
  int64_t gc, known;
};

// G + C and known bases among [from_bp, to_bp); every lane gets the sums. All lanes of a warp call it together.
__device__ inline BaseCount count_bases(const GenomeView& genome, int64_t contig, int64_t from_bp, int64_t to_bp,
                                        int lane) {
  if (from_bp >= to_bp) return {0, 0};
  const int64_t byte_offset = genome.byte_offset[contig], last_block = genome.n_block_index[contig + 1];
  int64_t block = first_n_block_ending_after(genome, contig, from_bp);
  // first the whole range is counted, then each N block that overlaps it is subtracted
  int64_t gc = 0, known = 0, sign = 1, from = from_bp, to = to_bp;
  while (true) {
    gc += sign * gc_codes(genome, byte_offset, from, to, lane);
    known += sign * (to - from);
    if (block == last_block || genome.n_block_start_bp[block] >= to_bp) break;
    sign = -1;
    from = genome.n_block_start_bp[block] > from_bp ? genome.n_block_start_bp[block] : from_bp;
    to = genome.n_block_end_bp[block] < to_bp ? genome.n_block_end_bp[block] : to_bp;
    ++block;
  }
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) gc += __shfl_xor_sync(0xffffffffu, gc, step);
  return {gc, known};
}

}  // namespace dnagpt
