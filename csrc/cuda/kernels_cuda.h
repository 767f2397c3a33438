// The interface between the CUDA kernels and Python. Addresses are in device memory; no function waits for the device.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace dnagpt {

// The record of a window that a kernel refused, in memory that the device may write and the host may read at any time.
// All zero while there is none; the first record stays until the host clears `code`. Python reads it as int64 (6,).
struct RefusedWindow {
  int64_t code;  // one of the constants below
  int64_t op;
  int64_t genome;  // index into a sampler's genomes, otherwise 0
  int64_t window, contig, start_bp;
};

constexpr int64_t kAccepted = 0, kUnknownContig = 1, kOutsideContig = 2, kUnknownOrientation = 3;
constexpr int64_t kBeingWritten = -1;  // the other fields are not complete yet
constexpr int64_t kOpTokenize = 0, kOpGcCount = 1, kOpSampleBatch = 2;

// The device and the stream of a kernel, and its record of a refused window.
struct CudaCall {
  int device;
  void* stream;
  RefusedWindow* refused;
};

// The functions of the same names in kernels.h, but windows need not have been checked: the kernels refuse a window
// that leaves its contig, give it the id 0 (the unknown token) or zero counts, and record it in `refused`. Each
// function returns a cudaError_t, 0 for success.
int kmer_tokenize_cuda(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                       TokenType type, void* tokens, const CudaCall& call);
int gc_count_cuda(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t same_length_bp,
                  int64_t* gc, int64_t* known, const CudaCall& call);

// As sample_batch in kernels.h. `genomes`, and all arrays of `tables` and `batch`, are in device memory. The first
// index is read from `index_at` in device memory if it is not nullptr, so that a captured graph can continue with new
// samples.
int sample_batch_cuda(const GenomeView* genomes, const SamplerTables& tables, uint64_t seed, uint64_t first_index,
                      const uint64_t* index_at, int64_t count, int64_t n_tokens, int k, bool dynamic, TokenType type,
                      const SampledBatch& batch, const CudaCall& call);

// Text of a cudaError_t.
const char* cuda_error_text(int error);

// Version of the CUDA runtime linked in: 13000 for 13.0.
int cuda_runtime_version();

}  // namespace dnagpt
