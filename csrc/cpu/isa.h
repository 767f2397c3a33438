// The instruction set of the CPU kernels, chosen when a kernel is called.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define DNAGPT_X86 1
#elif defined(__aarch64__)
#define DNAGPT_NEON 1
#endif

// Only functions that call intrinsics are compiled for their instruction set; the rest of a file stays at the baseline.
#define DNAGPT_TARGET(features) __attribute__((target(features)))
#define DNAGPT_AVX2 DNAGPT_TARGET("avx2,popcnt")
#define DNAGPT_AVX512 DNAGPT_TARGET("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx512vpopcntdq,avx2,popcnt")

namespace dnagpt {

enum class Isa { kScalar, kAvx2, kAvx512, kNeon };

// The best instruction set of this machine, or the one that DNAGPT_FAST_CPU_ISA names. Throws std::invalid_argument for
// an unknown name and std::runtime_error for one that this machine lacks. Reads the environment, so no other thread may
// change the environment during the call.
Isa chosen_isa();

}  // namespace dnagpt
