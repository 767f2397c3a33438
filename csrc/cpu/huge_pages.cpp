// Advice on the pages of large outputs: one page fault for every 4 KiB costs several times what the kernels take.
#include <cstdint>

#include "kernels.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace dnagpt {

void use_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // only whole pages of 2 MiB inside the memory: what lies beside it belongs to others
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (begin + kHugePage - 1) & ~(kHugePage - 1);
  const uintptr_t last = (begin + static_cast<uintptr_t>(bytes)) & ~(kHugePage - 1);
  // advice: where the system refuses it, small pages serve as well
  if (first < last) static_cast<void>(madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE));
#endif
}

}  // namespace dnagpt
