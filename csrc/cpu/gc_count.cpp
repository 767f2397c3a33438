// G + C bases and known bases of windows and of tracks over whole contigs.
#include "cpu/gc_count.h"

#include <algorithm>

#include "cpu/parallel.h"
#include "kernels.h"

namespace dnagpt {

namespace {

constexpr int64_t kBasesPerThread = 32 << 20;

struct Count {
  int64_t gc, known;
};

struct Counter {
  const GenomeView& genome;
  const GcOfBytes gc_of_bytes;

  // G and C codes in [start_bp, end_bp), including those under N blocks
  int64_t gc_codes(const uint8_t* bases, int64_t start_bp, int64_t end_bp) const {
    if (start_bp >= end_bp) return 0;
    const int64_t first = start_bp / kBasesPerByte, last = (end_bp - 1) / kBasesPerByte;
    const int head = 0x55 >> (2 * (start_bp & 3)), tail = 0x55 << (6 - 2 * ((end_bp - 1) & 3)) & 0x55;
    if (first == last) return __builtin_popcount(bases[first] & head & tail);
    return __builtin_popcount(bases[first] & head) + __builtin_popcount(bases[last] & tail) +
           gc_of_bytes(bases + first + 1, last - first - 1);
  }

  Count operator()(int64_t contig, int64_t start_bp, int64_t end_bp) const {
    const uint8_t* bases = genome.packed + genome.byte_offset[contig];
    Count count{gc_codes(bases, start_bp, end_bp), end_bp - start_bp};
    const int64_t last_block = genome.n_block_index[contig + 1];
    for (int64_t block = first_n_block_ending_after(genome, contig, start_bp);
         block < last_block && genome.n_block_start_bp[block] < end_bp; ++block) {
      const int64_t from = std::max(genome.n_block_start_bp[block], start_bp);
      const int64_t to = std::min(genome.n_block_end_bp[block], end_bp);
      count.gc -= gc_codes(bases, from, to);
      count.known -= to - from;
    }
    return count;
  }
};

}  // namespace

void gc_count(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t same_length_bp,
              int64_t* gc, int64_t* known, CpuOptions options) {
  const Counter counter{genome, gc_of_bytes_for(options.isa)};
  const auto length_of = [&](int64_t w) { return length_bp ? length_bp[w] : same_length_bp; };
  // A single window is cut into spans; several windows are divided among the threads.
  if (windows.count == 1) {
    const int64_t length = length_of(0);
    const int threads = useful_threads(length, kBasesPerThread, options.threads);
    std::vector<Count> parts(threads);
    parallel_ranges(threads, threads, [&](int64_t part, int64_t) {
      const int64_t from = length / threads * part;
      const int64_t to = part + 1 == threads ? length : length / threads * (part + 1);
      parts[part] = counter(windows.contig[0], windows.start_bp[0] + from, windows.start_bp[0] + to);
    });
    gc[0] = known[0] = 0;
    for (const Count& part : parts) gc[0] += part.gc, known[0] += part.known;
    return;
  }
  int64_t bases = 0;
  for (int64_t w = 0; w < windows.count; ++w) bases += length_of(w);
  parallel_ranges(windows.count, useful_threads(bases, kBasesPerThread, options.threads),
                  [&](int64_t first, int64_t last) {
                    for (int64_t w = first; w < last; ++w) {
                      const int64_t start_bp = windows.start_bp[w];
                      const Count count = counter(windows.contig[w], start_bp, start_bp + length_of(w));
                      gc[w] = count.gc;
                      known[w] = count.known;
                    }
                  });
}

void gc_track(const GenomeView& genome, int64_t contig, int64_t window_bp, int64_t step_bp, int64_t n_windows,
              int64_t* gc, int64_t* known, CpuOptions options) {
  const Counter counter{genome, gc_of_bytes_for(options.isa)};
  const int64_t length_bp = genome.length_bp[contig];
  const auto end_of = [&](int64_t start_bp) {
    return length_bp - start_bp < window_bp ? length_bp : start_bp + window_bp;
  };
  const int threads = useful_threads(length_bp, kBasesPerThread, options.threads);
  parallel_ranges(n_windows, threads, [&](int64_t first, int64_t last) {
    if (first == last) return;
    Count count = counter(contig, first * step_bp, end_of(first * step_bp));
    for (int64_t w = first;; ++w) {
      gc[w] = count.gc;
      known[w] = count.known;
      if (w + 1 == last) return;
      const int64_t start_bp = w * step_bp, next_bp = start_bp + step_bp;
      if (2 * step_bp >= window_bp) {
        count = counter(contig, next_bp, end_of(next_bp));
        continue;
      }
      // it overlaps the previous window by more than half: count only the bases that leave and those that enter
      const Count leaving = counter(contig, start_bp, next_bp);
      const Count entering = counter(contig, end_of(start_bp), end_of(next_bp));
      count = {count.gc - leaving.gc + entering.gc, count.known - leaving.known + entering.known};
    }
  });
}

}  // namespace dnagpt
