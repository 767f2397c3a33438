// Packed bases -> token ids on the device. A warp takes one tile of one window at a time. Each lane makes 16 bytes of
// ids from at most two 16-byte loads, so that loads and stores are whole and aligned.
#include "kmer_tokenize.cuh"

namespace dnagpt {

namespace {

template <typename Token, int K>
__global__ void __launch_bounds__(kThreadsPerBlock, kLeastBlocks)
    kmer_tokenize_kernel(GenomeView genome, Windows windows, int64_t n_tokens, int k, int first_id, RowCut cut,
                         Token* tokens, RefusedWindow* refused) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarpsPerBlock;
  const int64_t work = windows.count * cut.tiles;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp; item < work;
       item += warps) {
    const int64_t w = cut.tiles == 1 ? item : item / cut.tiles;
    const int64_t tile = item - w * cut.tiles;
    const int64_t contig = windows.contig[w], start_bp = windows.start_bp[w];
    const int64_t orientation = windows.orientation ? windows.orientation[w] : windows.same_orientation;
    Token* row = tokens + w * n_tokens;
    const int64_t code = reason_to_refuse(genome, contig, start_bp, n_tokens * (K ? K : k), orientation);
    if (code != kAccepted) {
      if (tile == 0 && lane == 0) report_refused(refused, {code, kOpTokenize, 0, w, contig, start_bp});
      blank_tile(n_tokens, row, tile, cut.tiles, lane);
      continue;
    }
    const Window window{contig, start_bp, static_cast<int>(orientation)};
    tokenize_tile<Token, K>(genome, window, n_tokens, k, first_id, row, tile, cut.chunks_per_tile, lane);
  }
}

template <typename Token>
cudaError_t run(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, int first_id, Token* tokens,
                const CudaCall& call) {
  const RowCut cut = cut_row<Token>(n_tokens);
  unsigned blocks = 0;
  const cudaError_t error = grid_for(windows.count * cut.tiles, call.device, &blocks);
  if (error != cudaSuccess) return error;
  const auto kernel = k == kMaxK ? kmer_tokenize_kernel<Token, kMaxK> : kmer_tokenize_kernel<Token, 0>;
  return launch(kernel, blocks, static_cast<cudaStream_t>(call.stream), genome, windows, n_tokens, k, first_id, cut,
                tokens, call.refused);
}

}  // namespace

int kmer_tokenize_cuda(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                       TokenType type, void* tokens, const CudaCall& call) {
  if (windows.count == 0 || n_tokens == 0) return cudaSuccess;
  const OnDevice on(call.device);
  if (on.error() != cudaSuccess) return on.error();
  const int first_id = first_kmer_id(k, dynamic);
  switch (type) {
    case TokenType::kUint16:
      return run(genome, windows, n_tokens, k, first_id, static_cast<uint16_t*>(tokens), call);
    case TokenType::kInt32:
      return run(genome, windows, n_tokens, k, first_id, static_cast<int32_t*>(tokens), call);
    case TokenType::kInt64:
      return run(genome, windows, n_tokens, k, first_id, static_cast<int64_t*>(tokens), call);
  }
  return cudaErrorInvalidValue;
}

const char* cuda_error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

int cuda_runtime_version() {
  return CUDART_VERSION;
}

}  // namespace dnagpt
