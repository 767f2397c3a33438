// Work cut into equal parts, one thread each. Threads live as long as the call: the parts are megabytes of work.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

namespace dnagpt {

// How many threads `work` units are worth, at most `threads`, each with `least` units or more.
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
