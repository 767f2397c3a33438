// The interface between the kernels and Python: plain functions that use neither Python nor torch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "kmer_id.h"
#include "packed_sequence.h"
#include "window_sampler.h"

namespace dnagpt {

// B windows of a genome, on the host. A window begins at start_bp of its contig on the forward strand.
struct Windows {
  const int64_t* contig;
  const int64_t* start_bp;
  const int64_t* orientation;  // (B,), or nullptr: all windows have `same_orientation`
  int64_t same_orientation;
  int64_t count;
};

enum class TokenType { kUint16, kInt32, kInt64 };

// How the CPU kernels run: instruction set, the most threads a call may use, and whether nobody has touched the
// output's memory yet. The system then clears each page when it is first written to, which brings it into the caches.
struct CpuOptions {
  Isa isa;
  int threads;
  bool new_memory = false;
};

// Name of the instruction set that chosen_isa() picks.
std::string cpu_isa();

// Names of all instruction sets that this machine can run, the simplest first.
std::vector<std::string> machine_isas();

// Asks the system to back this memory with huge pages; does nothing on a system that has none.
void use_huge_pages(void* memory, int64_t bytes);

// Throws std::invalid_argument if the arrays of a genome contradict each other. Linear in contigs and N blocks.
void check_genome(const GenomeView& genome);

// Throws std::out_of_range for an unknown contig or a window that leaves its contig, std::invalid_argument for an
// orientation outside 0..3 or a negative length. Lengths are `length_bp[i]`, or `same_length_bp` if it is nullptr.
void check_windows(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t same_length_bp);

// tokens (B, n_tokens): the ids of the k-mers of each window, k in 1..6. Windows must have been checked.
void kmer_tokenize(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                   TokenType type, void* tokens, CpuOptions options);

// gc (B,): G and C bases; known (B,): bases that are not N. Windows must have been checked. Lengths as above.
void gc_count(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t same_length_bp,
              int64_t* gc, int64_t* known, CpuOptions options);

// The same for the windows [i * step_bp, i * step_bp + window_bp), cut at the contig's end, i < n_windows.
void gc_track(const GenomeView& genome, int64_t contig, int64_t window_bp, int64_t step_bp, int64_t n_windows,
              int64_t* gc, int64_t* known, CpuOptions options);

// text (end_bp - start_bp,): the bases as letters over ACGTN. The range must have been checked.
void sequence_text(const GenomeView& genome, int64_t contig, int64_t start_bp, int64_t end_bp, char* text);

// The output arrays of sample_batch.
struct SampledBatch {
  int64_t *genome, *contig, *start_bp, *orientation;  // (B,)
  void* tokens;                                       // (B, n_tokens)
  float* gc_fraction;                                 // (B,) (G + C) / known bases, 0 if no base is known
  bool* gc_known;                                     // (B,)
  bool* reversed;                                     // (B,) the order label
};

// Samples first_index .. first_index + count - 1 of windows of n_tokens k-mers. Throws std::out_of_range if the
// tables name a window that its genome does not have.
void sample_batch(const GenomeView* const* genomes, const SamplerTables& tables, uint64_t seed, uint64_t first_index,
                  int64_t count, int64_t n_tokens, int k, bool dynamic, TokenType type, const SampledBatch& batch,
                  CpuOptions options);

}  // namespace dnagpt
