// G + C and known bases of windows on the device. A warp counts one part of one window; long windows are cut into as
// many parts as keep the device busy, and the parts are added as integers, so that their order does not matter.
#include "gc_count.cuh"

namespace dnagpt {

namespace {

__global__ void __launch_bounds__(kThreadsPerBlock, kLeastBlocks)
    gc_count_kernel(GenomeView genome, Windows windows, const int64_t* length_bp, int64_t same_length_bp, int64_t parts,
                    int64_t* gc, int64_t* known, RefusedWindow* refused) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarpsPerBlock;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
       item < windows.count * parts; item += warps) {
    const int64_t w = parts == 1 ? item : item / parts;
    const int64_t part = item - w * parts;
    const int64_t contig = windows.contig[w], start_bp = windows.start_bp[w],
                  length = length_bp ? length_bp[w] : same_length_bp;
    const int64_t code = reason_to_refuse(genome, contig, start_bp, length, 0);
    BaseCount count{0, 0};
    if (code == kAccepted) {
      // parts are whole loads of the window, so that two warps read the same 16 bytes only at the edges
      const int64_t loads = (length + kBasesPerLoad - 1) / kBasesPerLoad, per_part = (loads + parts - 1) / parts;
      const int64_t from = part * per_part * kBasesPerLoad, to = from + per_part * kBasesPerLoad;
      count = count_bases(genome, contig, start_bp + from, start_bp + (to < length ? to : length), lane);
    } else if (part == 0 && lane == 0) {
      report_refused(refused, {code, kOpGcCount, 0, w, contig, start_bp});
    }
    if (lane != 0) continue;
    if (parts == 1) {
      gc[w] = count.gc;
      known[w] = count.known;
    } else {
      atomicAdd(reinterpret_cast<unsigned long long*>(gc + w), static_cast<unsigned long long>(count.gc));
      atomicAdd(reinterpret_cast<unsigned long long*>(known + w), static_cast<unsigned long long>(count.known));
    }
  }
}

}  // namespace

int gc_count_cuda(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t same_length_bp,
                  int64_t* gc, int64_t* known, const CudaCall& call) {
  if (windows.count == 0) return cudaSuccess;
  const OnDevice on(call.device);
  if (on.error() != cudaSuccess) return on.error();
  // The host does not know the lengths, and a window may be as long as its contig: few windows get many warps each.
  unsigned most_blocks = 0;
  cudaError_t error = grid_for(int64_t{1} << 40, call.device, &most_blocks);
  if (error != cudaSuccess) return error;
  const int64_t warps = static_cast<int64_t>(most_blocks) * kWarpsPerBlock;
  const int64_t parts = windows.count >= warps ? 1 : (warps + windows.count - 1) / windows.count;
  unsigned blocks = 0;
  error = grid_for(windows.count * parts, call.device, &blocks);
  const cudaStream_t stream = static_cast<cudaStream_t>(call.stream);
  const size_t bytes = static_cast<size_t>(windows.count) * sizeof(int64_t);
  if (parts > 1 && error == cudaSuccess) error = cudaMemsetAsync(gc, 0, bytes, stream);
  if (parts > 1 && error == cudaSuccess) error = cudaMemsetAsync(known, 0, bytes, stream);
  if (error != cudaSuccess) return error;
  return launch(gc_count_kernel, blocks, stream, genome, windows, length_bp, same_length_bp, parts, gc, known,
                call.refused);
}

}  // namespace dnagpt
