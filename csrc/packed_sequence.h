// The bit layout of a packed genome, shared by host and device code.
//
// UCSC .2bit (https://genome.ucsc.edu/FAQ/FAQformat.html#format7): T=00 C=01 A=10 G=11, four bases to a byte, the first
// base in the two highest bits. The low bit of a code is set for G and C; complement is xor 0b10. Packed codes
// under an N block have no meaning. Coordinates are 0-based and half-open.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define DNAGPT_HOST_DEVICE __host__ __device__
#else
#define DNAGPT_HOST_DEVICE
#endif

namespace dnagpt {

constexpr int kBasesPerByte = 4;
constexpr int kCodeT = 0, kCodeC = 1, kCodeA = 2, kCodeG = 3;
constexpr int kComplementBit = 2;

// Orientation of a window: bit 0 reads it from its last base to its first, bit 1 complements every base.
constexpr int kReversed = 1;
constexpr int kComplemented = 2;

// The arrays of packed.PackedGenome: C contigs in one buffer. Owns nothing.
struct GenomeView {
  const uint8_t* packed;
  int64_t packed_bytes;
  const int64_t* byte_offset;       // (C,) first byte of each contig in `packed`
  const int64_t* length_bp;         // (C,)
  const int64_t* n_block_index;     // (C + 1,) contig c owns the N blocks [index[c], index[c + 1])
  const int64_t* n_block_start_bp;  // sorted within a contig, disjoint, never empty
  const int64_t* n_block_end_bp;
  int64_t n_contigs;
  int64_t n_blocks;
};

// Bytes that hold `length_bp` bases, the first of them in the highest bits of a byte.
DNAGPT_HOST_DEVICE inline int64_t packed_bytes_for(int64_t length_bp) {
  return (length_bp + 3) / kBasesPerByte;
}

// The 2-bit code of base `position_bp` of a contig whose first byte is `bases[0]`.
DNAGPT_HOST_DEVICE inline int base_code(const uint8_t* bases, int64_t position_bp) {
  return bases[position_bp >> 2] >> (6 - 2 * (position_bp & 3)) & 3;
}

// The first N block in [low, high) that ends after `position_bp`, or `high` if there is none. The blocks must belong to
// one contig.
DNAGPT_HOST_DEVICE inline int64_t first_n_block_ending_after(const GenomeView& genome, int64_t low, int64_t high,
                                                             int64_t position_bp) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (genome.n_block_end_bp[middle] > position_bp) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The first N block of `contig` that ends after `position_bp`, or the index after its last block.
DNAGPT_HOST_DEVICE inline int64_t first_n_block_ending_after(const GenomeView& genome, int64_t contig,
                                                             int64_t position_bp) {
  return first_n_block_ending_after(genome, genome.n_block_index[contig], genome.n_block_index[contig + 1],
                                    position_bp);
}

}  // namespace dnagpt
