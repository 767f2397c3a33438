// G + C bases and known bases of windows: the low bit of a code is set for G and C, so the count is a popcount.
#include "kernels.h"

namespace dnagpt {

namespace {

constexpr uint64_t kLowBits = 0x5555555555555555;

// G + C codes among [start_bp, end_bp), whatever lies under N blocks counted as it is packed
int64_t gc_codes(const uint8_t* bases, int64_t start_bp, int64_t end_bp) {
  if (start_bp >= end_bp) return 0;
  int64_t byte = start_bp / 4;
  const int64_t last_byte = (end_bp - 1) / 4;
  const int head = 0xff >> (2 * (start_bp & 3)), tail = 0xff << (6 - 2 * ((end_bp - 1) & 3)) & 0xff;
  if (byte == last_byte) return __builtin_popcount(bases[byte] & head & tail & 0x55);
  int64_t count = __builtin_popcount(bases[byte] & head & 0x55) + __builtin_popcount(bases[last_byte] & tail & 0x55);
  for (++byte; byte + 8 <= last_byte; byte += 8) {
    uint64_t word;
    __builtin_memcpy(&word, bases + byte, 8);
    count += __builtin_popcountll(word & kLowBits);
  }
  for (; byte < last_byte; ++byte) count += __builtin_popcount(bases[byte] & 0x55);
  return count;
}

}  // namespace

void gc_count(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t* gc, int64_t* known) {
  for (int64_t w = 0; w < windows.count; ++w) {
    const int64_t contig = windows.contig[w], start_bp = windows.start_bp[w], end_bp = start_bp + length_bp[w];
    const uint8_t* bases = genome.packed + genome.byte_offset[contig];
    gc[w] = gc_codes(bases, start_bp, end_bp);
    known[w] = length_bp[w];
    const int64_t last_block = genome.n_block_index[contig + 1];
    for (int64_t block = first_n_block_behind(genome, contig, start_bp); block < last_block; ++block) {
      if (genome.n_block_start_bp[block] >= end_bp) break;
      const int64_t from = genome.n_block_start_bp[block] > start_bp ? genome.n_block_start_bp[block] : start_bp;
      const int64_t to = genome.n_block_end_bp[block] < end_bp ? genome.n_block_end_bp[block] : end_bp;
      gc[w] -= gc_codes(bases, from, to);
      known[w] -= to - from;
    }
  }
}

}  // namespace dnagpt
