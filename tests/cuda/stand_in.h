// A replacement for CUDA's execution model, so that the .cu files compile and run as C++ under ASan and UBSan.
//
// Every thread of a block is a fiber; a fiber runs until it reaches a barrier or ends. Blocks run one after the other.
// STAND_IN_SEED shuffles the order of blocks and of lanes. A barrier that some thread never reaches stops the run.
#pragma once

#include <sanitizer/common_interface_defs.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__

struct uint3 {
  unsigned x, y, z;
};
struct uint4 {
  unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

inline uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace stand_in {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 256 << 10;

struct Barrier {
  int arrived = 0;
  uint64_t generation = 0;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* fake_stack = nullptr;
  bool done = false;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warp_barriers;
  Barrier barrier;
  std::vector<uint64_t> slots;
  ucontext_t scheduler;
  void* scheduler_fake = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_bytes = 0;
  const std::function<void()>* body = nullptr;
  unsigned current = 0;
  uint64_t steps = 0;  // barriers passed and threads ended: a round without a step is a deadlock
};

inline Block* block = nullptr;

inline void to_scheduler(bool last) {
  Block* b = block;
  Fiber& fiber = b->fibers[b->current];
  __sanitizer_start_switch_fiber(last ? nullptr : &fiber.fake_stack, b->scheduler_stack, b->scheduler_bytes);
  swapcontext(&fiber.context, &b->scheduler);
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
}

inline void enter() {
  Block* b = block;
  __sanitizer_finish_switch_fiber(nullptr, &b->scheduler_stack, &b->scheduler_bytes);
  (*b->body)();
  b->fibers[b->current].done = true;
  ++b->steps;
  to_scheduler(true);
}

inline void wait(Barrier& barrier, int threads) {
  const uint64_t generation = barrier.generation;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    ++barrier.generation;
    ++block->steps;
    return;
  }
  while (barrier.generation == generation) to_scheduler(false);
}

inline void wait_for_warp() {
  wait(block->warp_barriers[threadIdx.x / kWarp], kWarp);
}

inline void run_block(unsigned threads, const std::function<void()>& body, std::mt19937& chance) {
  static Block storage;
  block = &storage;
  if (storage.fibers.size() != threads) storage.fibers = std::vector<Fiber>(threads);
  storage.warp_barriers.assign(threads / kWarp, {});
  storage.barrier = {};
  storage.slots.assign(threads, 0);
  storage.body = &body;
  for (Fiber& fiber : storage.fibers) {
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  std::vector<unsigned> order(threads);
  std::iota(order.begin(), order.end(), 0u);
  for (unsigned left = threads; left > 0;) {
    std::shuffle(order.begin(), order.end(), chance);
    const uint64_t steps = storage.steps;
    for (const unsigned thread : order) {
      Fiber& fiber = storage.fibers[thread];
      if (fiber.done) continue;
      storage.current = thread;
      threadIdx = {thread, 0, 0};
      __sanitizer_start_switch_fiber(&storage.scheduler_fake, fiber.stack.get(), kStackBytes);
      swapcontext(&storage.scheduler, &fiber.context);
      __sanitizer_finish_switch_fiber(storage.scheduler_fake, nullptr, nullptr);
      if (fiber.done) --left;
    }
    if (storage.steps == steps) {
      std::fprintf(stderr, "stand-in: threads of block %u wait at a barrier that others never reach\n", blockIdx.x);
      std::abort();
    }
  }
}

inline void run(unsigned blocks, unsigned threads, const std::function<void()>& body) {
  const char* seed = std::getenv("STAND_IN_SEED");
  std::mt19937 chance(seed ? static_cast<unsigned>(std::atoi(seed)) : 0);
  gridDim = {blocks, 1, 1};
  blockDim = {threads, 1, 1};
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), chance);
  for (const unsigned i : order) {
    blockIdx = {i, 0, 0};
    run_block(threads, body, chance);
  }
}

}  // namespace stand_in

// Device functions, as the CUDA C++ Programming Guide defines them.

inline void __syncthreads() {
  stand_in::wait(stand_in::block->barrier, static_cast<int>(blockDim.x));
}

inline void __syncwarp() {
  stand_in::wait_for_warp();
}

inline void __threadfence_system() {}

template <typename T>
T __ldg(const T* from) {
  return *from;
}

template <typename T>
void __stwb(T* to, T value) {
  *to = value;
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<unsigned>(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  return out;
}

inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}

inline int __popc(unsigned value) {
  return __builtin_popcount(value);
}

inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  static_assert(sizeof(T) <= 8, "one slot per lane");
  if (mask != 0xffffffffu) std::abort();
  auto& slots = stand_in::block->slots;
  std::memcpy(&slots[threadIdx.x], &value, sizeof(T));
  stand_in::wait_for_warp();
  std::memcpy(&value, &slots[threadIdx.x ^ static_cast<unsigned>(lane_mask)], sizeof(T));
  stand_in::wait_for_warp();
  return value;
}

template <typename T>
T atomicAdd(T* to, T value) {
  const T old = *to;
  *to += value;
  return old;
}

template <typename T>
T atomicCAS(T* to, T compare, T value) {
  const T old = *to;
  if (old == compare) *to = value;
  return old;
}

// The host functions of the runtime that csrc/cuda calls.

#define CUDART_VERSION 13000
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
using cudaStream_t = void*;
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 1;
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}
