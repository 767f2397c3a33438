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

// G and C codes among [from_bp, to_bp) of the contig at byte_offset: one lane's part. Whatever lies under N blocks is
// counted as it is packed.
__device__ inline int64_t gc_codes(const GenomeView& genome, int64_t byte_offset, int64_t from_bp, int64_t to_bp,
                                   int lane) {
  constexpr uint32_t kLowBits = 0x55555555;
  const uint8_t* begin = genome.packed;
  const uint8_t* end = begin + genome.packed_bytes;
  const uintptr_t contig = reinterpret_cast<uintptr_t>(begin) + byte_offset;
  const uintptr_t first = (contig + (from_bp >> 2)) & ~static_cast<uintptr_t>(kLoadBytes - 1);
  const int64_t base_of_first = (static_cast<int64_t>(first) - static_cast<int64_t>(contig)) * kBasesPerByte;
  const int64_t loads = (to_bp - base_of_first + kBasesPerLoad - 1) / kBasesPerLoad;
  int64_t count = 0;
#pragma unroll 4
  for (int64_t load = lane; load < loads; load += kWarp) {
    const uint4 bases = load_16(reinterpret_cast<const uint8_t*>(first + load * kLoadBytes), begin, end);
    const int64_t base = base_of_first + load * kBasesPerLoad;
    uint32_t x = bases.x & kLowBits, y = bases.y & kLowBits, z = bases.z & kLowBits, w = bases.w & kLowBits;
    if (base < from_bp || base + kBasesPerLoad > to_bp) {
      const int from = base < from_bp ? static_cast<int>(from_bp - base) : 0;
      const int to = base + kBasesPerLoad > to_bp ? static_cast<int>(to_bp - base) : kBasesPerLoad;
      x &= first_base_highest(bits_of_bases(from, to));
      y &= first_base_highest(bits_of_bases(from - 16, to - 16));
      z &= first_base_highest(bits_of_bases(from - 32, to - 32));
      w &= first_base_highest(bits_of_bases(from - 48, to - 48));
    }
    count += __popc(x) + __popc(y) + __popc(z) + __popc(w);
  }
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
  int64_t gc = gc_codes(genome, byte_offset, from_bp, to_bp, lane), known = to_bp - from_bp;
  for (int64_t block = first_n_block_behind(genome, contig, from_bp); block < last_block; ++block) {
    const int64_t block_start_bp = genome.n_block_start_bp[block], block_end_bp = genome.n_block_end_bp[block];
    if (block_start_bp >= to_bp) break;
    const int64_t from = block_start_bp > from_bp ? block_start_bp : from_bp;
    const int64_t to = block_end_bp < to_bp ? block_end_bp : to_bp;
    gc -= gc_codes(genome, byte_offset, from, to, lane);
    known -= to - from;
  }
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) gc += __shfl_xor_sync(0xffffffffu, gc, step);
  return {gc, known};
}

}  // namespace dnagpt
