// Detects the instruction sets of the processor, and reads DNAGPT_FAST_CPU_ISA.

#include "cpu/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace dnagpt {

namespace {

constexpr const char* kEnvironment = "DNAGPT_FAST_CPU_ISA";
constexpr struct {
  Isa isa;
  const char* name;
} kNames[] = {{Isa::kScalar, "scalar"}, {Isa::kAvx2, "avx2"}, {Isa::kAvx512, "avx512"}, {Isa::kNeon, "neon"}};

bool machine_has(Isa isa) {
#if DNAGPT_X86
  __builtin_cpu_init();
  if (isa == Isa::kAvx2) return __builtin_cpu_supports("avx2");
  if (isa == Isa::kAvx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vpopcntdq");
  }
#elif DNAGPT_NEON
  if (isa == Isa::kNeon) return true;
#endif
  return isa == Isa::kScalar;
}

Isa best_isa() {
  static const Isa best = [] {
    for (const Isa isa : {Isa::kAvx512, Isa::kAvx2, Isa::kNeon}) {
      if (machine_has(isa)) return isa;
    }
    return Isa::kScalar;
  }();
  return best;
}

const char* name_of(Isa isa) {
  for (const auto& entry : kNames) {
    if (entry.isa == isa) return entry.name;
  }
  return "";
}

}  // namespace

Isa chosen_isa() {
  const char* forced = std::getenv(kEnvironment);
  if (!forced || !*forced) return best_isa();
  for (const auto& entry : kNames) {
    if (std::string(forced) != entry.name) continue;
    if (machine_has(entry.isa)) return entry.isa;
    throw std::runtime_error(std::string(kEnvironment) + "=" + forced +
                             ": this machine or build lacks it; its best is " + name_of(best_isa()));
  }
  throw std::invalid_argument(std::string(kEnvironment) + "=" + forced + ": wanted scalar, avx2, avx512 or neon");
}

std::string cpu_isa() {
  return name_of(chosen_isa());
}

std::vector<std::string> machine_isas() {
  std::vector<std::string> names;
  for (const auto& entry : kNames) {
    if (machine_has(entry.isa)) names.emplace_back(entry.name);
  }
  return names;
}

}  // namespace dnagpt
