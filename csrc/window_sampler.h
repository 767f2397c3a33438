// Which window sample i is, shared by host and device code; dnagpt_fast/genome/sampler.py is its definition.
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), key = seed, counter = sample
// index and stream. Integers only, so that every device draws the same windows.
#pragma once

#include "packed_sequence.h"

namespace dnagpt {

constexpr uint32_t kStreamWindows = 0;

// G genomes, S intervals of allowed starts. Owns nothing.
struct SamplerTables {
  const uint64_t* genome_threshold;       // (G - 1,) ascending, up to 2^32
  const uint64_t* orientation_threshold;  // (3,) ascending, up to 2^32
  const int64_t* interval_index;          // (G + 1,) genome g owns the intervals [index[g], index[g + 1])
  const int64_t* rank_before;             // (S + 1,) ranks in all intervals before this one
  const int64_t* contig;                  // (S,) where the interval begins
  const int64_t* start_bp;                // (S,)
  const int64_t* ranks_per_start;         // (S,) >= 1: the weight of the interval's starts
  int64_t n_genomes;
};

struct SampledWindow {
  int64_t genome, contig, start_bp, orientation;
};

struct Philox4x32 {
  uint32_t word[4];
};

DNAGPT_HOST_DEVICE inline Philox4x32 philox4x32_10(Philox4x32 counter, uint64_t key) {
  uint32_t key_0 = static_cast<uint32_t>(key), key_1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product_0 = uint64_t{0xD2511F53} * counter.word[0];
    const uint64_t product_1 = uint64_t{0xCD9E8D57} * counter.word[2];
    counter = {static_cast<uint32_t>(product_1 >> 32) ^ counter.word[1] ^ key_0, static_cast<uint32_t>(product_1),
               static_cast<uint32_t>(product_0 >> 32) ^ counter.word[3] ^ key_1, static_cast<uint32_t>(product_0)};
    key_0 += 0x9E3779B9;
    key_1 += 0xBB67AE85;
  }
  return counter;
}

// (a * b) >> 64 in 32-bit pieces: not every device compiler has 128-bit integers.
DNAGPT_HOST_DEVICE inline uint64_t multiply_high(uint64_t a, uint64_t b) {
  const uint64_t a_low = a & 0xffffffff, a_high = a >> 32, b_low = b & 0xffffffff, b_high = b >> 32;
  const uint64_t middle = a_high * b_low + (a_low * b_low >> 32);
  return a_high * b_high + (middle >> 32) + ((a_low * b_high + (middle & 0xffffffff)) >> 32);
}

DNAGPT_HOST_DEVICE inline int64_t entries_up_to(const uint64_t* threshold, int64_t count, uint64_t word) {
  int64_t entries = 0;
  while (entries < count && threshold[entries] <= word) ++entries;
  return entries;
}

DNAGPT_HOST_DEVICE inline SampledWindow sampled_window(const SamplerTables& tables, uint64_t seed, uint64_t index) {
  const Philox4x32 random =
      philox4x32_10({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), kStreamWindows, 0}, seed);
  SampledWindow window{};
  window.genome = entries_up_to(tables.genome_threshold, tables.n_genomes - 1, random.word[0]);
  int64_t low = tables.interval_index[window.genome], high = tables.interval_index[window.genome + 1];
  const int64_t first_rank = tables.rank_before[low], n_ranks = tables.rank_before[high] - first_rank;
  const int64_t rank = first_rank + static_cast<int64_t>(multiply_high(uint64_t{random.word[2]} << 32 | random.word[1],
                                                                       static_cast<uint64_t>(n_ranks)));
  // the last interval that begins at or before the rank
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (tables.rank_before[middle] <= rank) {
      low = middle;
    } else {
      high = middle;
    }
  }
  window.contig = tables.contig[low];
  const int64_t inside = rank - tables.rank_before[low], per_start = tables.ranks_per_start[low];
  // 64-bit division is slow on a GPU, and in most runs all starts have weight 1
  window.start_bp = tables.start_bp[low] + (per_start == 1 ? inside : inside / per_start);
  // forward, reversed, reverse complement, complement: orientations 0, 1, 3, 2
  const int64_t choice = entries_up_to(tables.orientation_threshold, 3, random.word[3]);
  window.orientation = choice ^ choice >> 1;
  return window;
}

}  // namespace dnagpt
