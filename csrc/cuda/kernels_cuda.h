// The seam between the CUDA kernels and Python. Addresses are device memory; nothing waits for the device.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace dnagpt {

// A window that a kernel refused, in memory that the device may write and the host may read at any time. All zero as
// long as there is none; the first refused window stays until the host clears `code`. Read back as int64 (6,).
struct Trouble {
  int64_t code;  // one of the constants below
  int64_t op;
  int64_t genome;  // of a sampler's genomes, else 0
  int64_t window, contig, start_bp;
};

constexpr int64_t kNoTrouble = 0, kUnknownContig = 1, kOutsideContig = 2, kUnknownOrientation = 3;
constexpr int64_t kBeingTold = -1;  // the other words are on their way
constexpr int64_t kOpTokenize = 0, kOpGcCount = 1, kOpSampleBatch = 2;

// Where and after what a kernel runs, and where it tells of windows that it refused.
struct CudaCall {
  int device;
  void* stream;
  Trouble* trouble;
};

// As their namesakes in kernels.h, but windows need not have been checked: one that leaves its contig gives the id 0
// (the unknown token), or no bases, and is told in `trouble`. Each returns a cudaError_t, 0 for success.
int kmer_tokenize_cuda(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                       TokenType type, void* tokens, const CudaCall& call);
int gc_count_cuda(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t same_length_bp,
                  int64_t* gc, int64_t* known, const CudaCall& call);

// As sample_batch in kernels.h. `genomes` and all that `tables` and `batch` point to is device memory. The first index
// is read from `index_at` in device memory where it is not nullptr, so that a captured graph can go on with new
// samples.
int sample_batch_cuda(const GenomeView* genomes, const SamplerTables& tables, uint64_t seed, uint64_t first_index,
                      const uint64_t* index_at, int64_t count, int64_t n_tokens, int k, bool dynamic, TokenType type,
                      const SampledBatch& batch, const CudaCall& call);

// Text of a cudaError_t.
const char* cuda_error_text(int error);

// Version of the CUDA runtime linked in: 13000 for 13.0.
int cuda_runtime_version();

}  // namespace dnagpt
