// The seam between the CUDA kernels and Python. Addresses are device memory; nothing waits for the device.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace dnagpt {

// Where and after what a kernel runs. `trouble` is four int64 words that the device may write and the host may read at
// any time: {code, window, contig, start_bp} of one window that the kernel refused, code 0 as long as there is none.
struct CudaCall {
  int device;
  void* stream;
  int64_t* trouble;
};

// What is wrong with a window.
constexpr int64_t kNoTrouble = 0, kUnknownContig = 1, kOutsideContig = 2, kUnknownOrientation = 3;

// As their namesakes in kernels.h, but windows need not have been checked: one that leaves its contig gives the id 0
// (the unknown token), or no bases, and is told in `trouble`. Each returns a cudaError_t, 0 for success.
int kmer_tokenize_cuda(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                       TokenType type, void* tokens, const CudaCall& call);
int gc_count_cuda(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t* gc,
                  int64_t* known, const CudaCall& call);

// As sample_batch in kernels.h. `genomes` and all that `tables` and `batch` point to is device memory. The first index
// is read from `index_at` in device memory where it is not nullptr, so that a captured graph can go on with new
// samples.
int sample_batch_cuda(const GenomeView* genomes, const SamplerTables& tables, uint64_t seed, uint64_t first_index,
                      const uint64_t* index_at, int64_t count, int64_t n_tokens, int k, bool dynamic, TokenType type,
                      const SampledBatch& batch, const CudaCall& call);

// Text of a cudaError_t.
const char* cuda_error_text(int error);

}  // namespace dnagpt
