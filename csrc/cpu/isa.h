// Which instruction set the CPU kernels use, chosen when a kernel is called.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define DNAGPT_X86 1
#elif defined(__aarch64__)
#define DNAGPT_NEON 1
#endif

// An intrinsic needs its instruction set in the function that calls it; the rest of the file stays at the baseline.
#define DNAGPT_TARGET(features) __attribute__((target(features)))
#define DNAGPT_AVX2 DNAGPT_TARGET("avx2,popcnt")
#define DNAGPT_AVX512 DNAGPT_TARGET("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx512vpopcntdq,avx2,popcnt")

namespace dnagpt {

enum class Isa { kScalar, kAvx2, kAvx512, kNeon };

// The best the machine has, or what DNAGPT_FAST_CPU_ISA forces. Throws std::invalid_argument for an unknown name and
// std::runtime_error for one the machine lacks. Reads the environment: call it where nobody changes it meanwhile.
Isa chosen_isa();

}  // namespace dnagpt
