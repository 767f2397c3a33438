// Huge pages for large outputs: with pages of 4 KiB, the page faults take several times as long as the kernels.
#include <cstdint>

#include "kernels.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace dnagpt {

void use_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // only whole pages of 2 MiB: the rest of a page at either end may belong to others
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (begin + kHugePage - 1) & ~(kHugePage - 1);
  const uintptr_t last = (begin + static_cast<uintptr_t>(bytes)) & ~(kHugePage - 1);
  // this is advice: if the system refuses it, small pages work too
  if (first < last) static_cast<void>(madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE));
#endif
}

}  // namespace dnagpt
