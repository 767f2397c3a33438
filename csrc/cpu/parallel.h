// Divides work into equal parts, one thread per part. Threads end with the call: a part is megabytes of work, so the
// start of a thread costs little beside it.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

namespace dnagpt {

// The number of threads for `work` units: 1 to `threads`, and more than 1 only if each gets `least` units or more.
inline int useful_threads(int64_t work, int64_t least, int threads) {
  const int64_t worth = work / least;
  return static_cast<int>(worth < 1 ? 1 : worth < threads ? worth : threads);
}

// Calls function(first, last) for `threads` ranges that cover [0, count). The function must not throw.
template <typename Function>
void parallel_ranges(int64_t count, int threads, const Function& function) {
  const auto bound = [&](int part) {
    return count / threads * part + (part < count % threads ? part : count % threads);
  };
  std::vector<std::thread> others;
  for (int part = 1; part < threads; ++part) others.emplace_back(function, bound(part), bound(part + 1));
  function(bound(0), bound(1));
  for (std::thread& other : others) other.join();
}

}  // namespace dnagpt
