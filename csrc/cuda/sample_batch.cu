// (seed, first sample index, B) -> windows, ids, GC fraction and order label in one launch: no coordinate is copied
// from the host. A warp draws its sample again for each tile (a few dozen instructions) instead of waiting for another
// warp.
#include "gc_count.cuh"
#include "kmer_tokenize.cuh"

namespace dnagpt {

namespace {

// One warp writes the window, the GC fraction and the order label of sample i.
__device__ inline void describe_sample(const GenomeView& genome, const SampledWindow& window, bool inside,
                                       int64_t length_bp, int64_t i, const SampledBatch& batch, int lane) {
  const BaseCount count =
      inside ? count_bases(genome, window.contig, window.start_bp, window.start_bp + length_bp, lane) : BaseCount{0, 0};
  if (lane != 0) return;
  batch.genome[i] = window.genome;
  batch.contig[i] = window.contig;
  batch.start_bp[i] = window.start_bp;
  batch.orientation[i] = window.orientation;
  batch.gc_fraction[i] = count.known ? static_cast<float>(count.gc) / static_cast<float>(count.known) : 0.0F;
  batch.gc_known[i] = count.known > 0;
  // read backwards on its strand: orientations 1 and 2
  batch.reversed[i] = (window.orientation ^ window.orientation >> 1) & 1;
}

template <typename Token, int K>
__global__ void __launch_bounds__(kThreadsPerBlock, kLeastBlocks)
    sample_batch_kernel(const GenomeView* genomes, SamplerTables tables, uint64_t seed, uint64_t first_index,
                        const uint64_t* index_at, int64_t count, int64_t n_tokens, int k, int first_id, RowCut cut,
                        SampledBatch batch, RefusedWindow* refused) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarpsPerBlock;
  const int64_t items = cut.tiles + 1, length_bp = n_tokens * (K ? K : k);
  const uint64_t first = index_at ? *index_at : first_index;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp; item < count * items;
       item += warps) {
    const int64_t i = item / items, tile = item - i * items;
    const SampledWindow sampled = sampled_window(tables, seed, first + static_cast<uint64_t>(i));
    const GenomeView genome = genomes[sampled.genome];
    const int64_t code = reason_to_refuse(genome, sampled.contig, sampled.start_bp, length_bp, sampled.orientation);
    if (code != kAccepted && tile == 0 && lane == 0) {
      report_refused(refused, {code, kOpSampleBatch, sampled.genome, i, sampled.contig, sampled.start_bp});
    }
    Token* row = static_cast<Token*>(batch.tokens) + i * n_tokens;
    if (tile == cut.tiles) {
      describe_sample(genome, sampled, code == kAccepted, length_bp, i, batch, lane);
    } else if (code != kAccepted) {
      blank_tile(n_tokens, row, tile, cut.tiles, lane);
    } else {
      const Window window{sampled.contig, sampled.start_bp, static_cast<int>(sampled.orientation)};
      tokenize_tile<Token, K>(genome, window, n_tokens, k, first_id, row, tile, cut.chunks_per_tile, lane);
    }
  }
}

template <typename Token>
cudaError_t run(const GenomeView* genomes, const SamplerTables& tables, uint64_t seed, uint64_t first_index,
                const uint64_t* index_at, int64_t count, int64_t n_tokens, int k, int first_id,
                const SampledBatch& batch, const CudaCall& call) {
  const RowCut cut = cut_row<Token>(n_tokens);
  unsigned blocks = 0;
  const cudaError_t error = grid_for(count * (cut.tiles + 1), call.device, &blocks);
  if (error != cudaSuccess) return error;
  const auto kernel = k == kMaxK ? sample_batch_kernel<Token, kMaxK> : sample_batch_kernel<Token, 0>;
  return launch(kernel, blocks, static_cast<cudaStream_t>(call.stream), genomes, tables, seed, first_index, index_at,
                count, n_tokens, k, first_id, cut, batch, call.refused);
}

}  // namespace

int sample_batch_cuda(const GenomeView* genomes, const SamplerTables& tables, uint64_t seed, uint64_t first_index,
                      const uint64_t* index_at, int64_t count, int64_t n_tokens, int k, bool dynamic, TokenType type,
                      const SampledBatch& batch, const CudaCall& call) {
  if (count == 0) return cudaSuccess;
  const OnDevice on(call.device);
  if (on.error() != cudaSuccess) return on.error();
  const int first_id = first_kmer_id(k, dynamic);
  const auto run_as = [&](auto token) {
    return run<decltype(token)>(genomes, tables, seed, first_index, index_at, count, n_tokens, k, first_id, batch,
                                call);
  };
  switch (type) {
    case TokenType::kUint16:
      return run_as(uint16_t{});
    case TokenType::kInt32:
      return run_as(int32_t{});
    case TokenType::kInt64:
      return run_as(int64_t{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace dnagpt
