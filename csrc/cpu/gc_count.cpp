// G + C bases and known bases of windows and of tracks over whole contigs.
#include "cpu/gc_count.h"

#include <algorithm>

#include "cpu/parallel.h"
#include "kernels.h"

namespace dnagpt {

namespace {

constexpr int64_t kBasesPerThread = 32 << 20;
// Windows of more bytes are read four at a time, and a longer one as its four quarters. For shorter ones the order of
// the windows, which are often neighbours, is worth more.
constexpr int64_t kBytesForFour = 4 << 10;
constexpr int64_t kBytesForQuarters = 256 << 10;

struct Count {
  int64_t gc, known;
};

// The codes of a range of bases: those in bytes that it shares with others are counted, the rest are whole bytes.
struct Codes {
  int64_t counted;
  const uint8_t* bytes;
  int64_t n_bytes;
};

Codes codes_of(const uint8_t* bases, int64_t start_bp, int64_t end_bp) {
  if (start_bp >= end_bp) return {0, bases, 0};
  const int64_t first = start_bp / kBasesPerByte, last = (end_bp - 1) / kBasesPerByte;
  const int head = 0x55 >> (2 * (start_bp & 3)), tail = 0x55 << (6 - 2 * ((end_bp - 1) & 3)) & 0x55;
  if (first == last) return {__builtin_popcount(bases[first] & head & tail), bases, 0};
  return {__builtin_popcount(bases[first] & head) + __builtin_popcount(bases[last] & tail), bases + first + 1,
          last - first - 1};
}

struct Window {
  int64_t contig, start_bp, end_bp;
};

struct Counter {
  const GenomeView& genome;
  const GcOfBytes gc_of_bytes;
  const GcOfFour gc_of_four;

  Counter(const GenomeView& genome, Isa isa)
      : genome(genome), gc_of_bytes(gc_of_bytes_for(isa)), gc_of_four(gc_of_four_for(isa)) {}

  const uint8_t* bases(int64_t contig) const { return genome.packed + genome.byte_offset[contig]; }

  int64_t gc_codes(Codes codes) const {
    int64_t count = codes.counted;
    if (gc_of_four && codes.n_bytes >= kBytesForQuarters) {
      const int64_t quarter = codes.n_bytes / 4;
      const uint8_t* at[4];
      for (int i = 0; i < 4; ++i) at[i] = codes.bytes + i * quarter;
      int64_t counts[4];
      gc_of_four(at, quarter, counts);
      count += counts[0] + counts[1] + counts[2] + counts[3];
      codes.bytes += 4 * quarter, codes.n_bytes -= 4 * quarter;
    }
    return count + gc_of_bytes(codes.bytes, codes.n_bytes);
  }

  // The count of a window with gc codes of G and C, including those under N blocks.
  Count without_unknown(const Window& window, int64_t gc) const {
    Count count{gc, window.end_bp - window.start_bp};
    const int64_t last_block = genome.n_block_index[window.contig + 1];
    for (int64_t block = first_n_block_ending_after(genome, window.contig, window.start_bp);
         block < last_block && genome.n_block_start_bp[block] < window.end_bp; ++block) {
      const int64_t from = std::max(genome.n_block_start_bp[block], window.start_bp);
      const int64_t to = std::min(genome.n_block_end_bp[block], window.end_bp);
      count.gc -= gc_codes(codes_of(bases(window.contig), from, to));
      count.known -= to - from;
    }
    return count;
  }

  Count operator()(const Window& window) const {
    return without_unknown(window, gc_codes(codes_of(bases(window.contig), window.start_bp, window.end_bp)));
  }

  // Four windows read side by side, as far as all of them reach.
  void of_four(const Window* windows, Count* counts) const {
    Codes codes[4];
    const uint8_t* at[4];
    int64_t common = INT64_MAX, gc[4];
    for (int i = 0; i < 4; ++i) {
      codes[i] = codes_of(bases(windows[i].contig), windows[i].start_bp, windows[i].end_bp);
      at[i] = codes[i].bytes;
      common = std::min(common, codes[i].n_bytes);
    }
    gc_of_four(at, common, gc);
    for (int i = 0; i < 4; ++i) {
      gc[i] += gc_codes({codes[i].counted, codes[i].bytes + common, codes[i].n_bytes - common});
      counts[i] = without_unknown(windows[i], gc[i]);
    }
  }
};

// Counts windows that overlap by half or less, divided among the threads. window(w) is a Window, keep(w, count) takes
// its count; `bases` are those of all windows.
template <typename WindowOf, typename Keep>
void count_each(const Counter& counter, int64_t n_windows, int64_t bases, int threads, const WindowOf& window,
                const Keep& keep) {
  const bool in_fours = counter.gc_of_four && bases / kBasesPerByte >= n_windows * kBytesForFour;
  parallel_ranges(n_windows, useful_threads(bases, kBasesPerThread, threads), [&](int64_t first, int64_t last) {
    // windows far from each other, as neighbours would be one stream again
    const int64_t apart = in_fours ? (last - first) / 4 : 0;
    for (int64_t w = first; w < first + apart; ++w) {
      Window four[4];
      Count counts[4];
      for (int i = 0; i < 4; ++i) four[i] = window(w + i * apart);
      counter.of_four(four, counts);
      for (int i = 0; i < 4; ++i) keep(w + i * apart, counts[i]);
    }
    for (int64_t w = first + 4 * apart; w < last; ++w) keep(w, counter(window(w)));
  });
}

}  // namespace

void gc_count(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t same_length_bp,
              int64_t* gc, int64_t* known, CpuOptions options) {
  const Counter counter(genome, options.isa);
  const auto length_of = [&](int64_t w) { return length_bp ? length_bp[w] : same_length_bp; };
  // A single window is cut into spans; several windows are divided among the threads.
  if (windows.count == 1) {
    const int64_t length = length_of(0);
    const int threads = useful_threads(length, kBasesPerThread, options.threads);
    std::vector<Count> parts(threads);
    parallel_ranges(threads, threads, [&](int64_t part, int64_t) {
      const int64_t from = length / threads * part;
      const int64_t to = part + 1 == threads ? length : length / threads * (part + 1);
      parts[part] = counter({windows.contig[0], windows.start_bp[0] + from, windows.start_bp[0] + to});
    });
    gc[0] = known[0] = 0;
    for (const Count& part : parts) gc[0] += part.gc, known[0] += part.known;
    return;
  }
  int64_t bases = 0;
  for (int64_t w = 0; w < windows.count; ++w) bases += length_of(w);
  count_each(
      counter, windows.count, bases, options.threads,
      [&](int64_t w) { return Window{windows.contig[w], windows.start_bp[w], windows.start_bp[w] + length_of(w)}; },
      [&](int64_t w, const Count& count) { gc[w] = count.gc, known[w] = count.known; });
}

void gc_track(const GenomeView& genome, int64_t contig, int64_t window_bp, int64_t step_bp, int64_t n_windows,
              int64_t* gc, int64_t* known, CpuOptions options) {
  const Counter counter(genome, options.isa);
  const int64_t length_bp = genome.length_bp[contig];
  const auto end_of = [&](int64_t start_bp) {
    return length_bp - start_bp < window_bp ? length_bp : start_bp + window_bp;
  };
  const auto window = [&](int64_t w) { return Window{contig, w * step_bp, end_of(w * step_bp)}; };
  const auto keep = [&](int64_t w, const Count& count) { gc[w] = count.gc, known[w] = count.known; };
  if (2 * step_bp >= window_bp) {
    const int64_t bases = n_windows * std::min(window_bp, length_bp);
    return count_each(counter, n_windows, bases, options.threads, window, keep);
  }
  // A window overlaps the one before it by more than half: only the bases that leave and those that enter are counted.
  const int threads = useful_threads(length_bp, kBasesPerThread, options.threads);
  parallel_ranges(n_windows, threads, [&](int64_t first, int64_t last) {
    if (first == last) return;
    Count count = counter(window(first));
    for (int64_t w = first;; ++w) {
      keep(w, count);
      if (w + 1 == last) return;
      const Window now = window(w), next = window(w + 1);
      const Count leaving = counter({contig, now.start_bp, next.start_bp});
      const Count entering = counter({contig, now.end_bp, next.end_bp});
      count = {count.gc - leaving.gc + entering.gc, count.known - leaving.known + entering.known};
    }
  });
}

}  // namespace dnagpt
