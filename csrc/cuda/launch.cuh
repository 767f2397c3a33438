// Launches kernels on the caller's device and stream, without waiting. The only place where the code differs between
// nvcc and the stand-in that runs kernels as C++ (tests/cuda/stand_in.h), which defines DNAGPT_STAND_IN.
#pragma once

#ifdef DNAGPT_STAND_IN
#include "stand_in.h"
#else
#include <cuda_runtime.h>
#endif

#include <cstdint>

namespace dnagpt {

constexpr int kWarp = 32;
constexpr int kThreadsPerBlock = 128;
constexpr int kWarpsPerBlock = kThreadsPerBlock / kWarp;
// Blocks that a multiprocessor must hold at once. With this bound, ptxas does not spill registers to fit more.
constexpr int kLeastBlocks = 6;
constexpr int kBlocksPerMultiprocessor = 16;  // 2,048 threads, all that a multiprocessor holds

// Makes `device` the current device for the lifetime of the object.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    error_ = cudaGetDevice(&previous_);
    if (error_ == cudaSuccess && previous_ != device) {
      error_ = cudaSetDevice(device);
      changed_ = error_ == cudaSuccess;
    }
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(previous_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  cudaError_t error() const { return error_; }

 private:
  int previous_ = 0;
  bool changed_ = false;
  cudaError_t error_ = cudaSuccess;
};

// Blocks for `warps` warps of work, but no more than fill the device: a warp of the kernels takes several items then.
inline cudaError_t grid_for(int64_t warps, int device, unsigned* blocks) {
  int multiprocessors = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  const int64_t wanted = (warps + kWarpsPerBlock - 1) / kWarpsPerBlock;
  const int64_t most = static_cast<int64_t>(multiprocessors) * kBlocksPerMultiprocessor;
  *blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  return error;
}

// Returns `value`, but hides its origin from the compiler: it stays in a register instead of being computed again in
// every iteration of a loop.
template <typename T>
__device__ inline T pinned(T value) {
#ifndef DNAGPT_STAND_IN
  if constexpr (sizeof(T) == 8) {
    asm volatile("" : "+l"(value));
  } else {
    asm volatile("" : "+r"(value));
  }
#endif
  return value;
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), unsigned blocks, [[maybe_unused]] cudaStream_t stream,
                   Arguments... arguments) {
#ifdef DNAGPT_STAND_IN
  stand_in::run(blocks, kThreadsPerBlock, [&] { kernel(arguments...); });
#else
  // clang-format off
  kernel<<<blocks, kThreadsPerBlock, 0, stream>>>(arguments...);  // clang-format would split the >>>
  // clang-format on
#endif
  return cudaGetLastError();
}

}  // namespace dnagpt
