// (seed, first sample index, B) -> windows, ids, GC fraction and order label, in one pass over the samples.
#include <mutex>
#include <stdexcept>

#include "cpu/parallel.h"
#include "kernels.h"

namespace dnagpt {

namespace {

constexpr int64_t kBasesPerThread = 4 << 20;

}  // namespace

void sample_batch(const GenomeView* const* genomes, const SamplerTables& tables, uint64_t seed, uint64_t first_index,
                  int64_t count, int64_t n_tokens, int k, bool dynamic, TokenType type, const SampledBatch& batch,
                  CpuOptions options) {
  const int64_t length_bp = n_tokens * k;
  const int64_t token_bytes = type == TokenType::kUint16 ? 2 : type == TokenType::kInt32 ? 4 : 8;
  const int threads = useful_threads(count * length_bp, kBasesPerThread, options.threads);
  std::mutex failure_lock;
  std::exception_ptr failure;
  parallel_ranges(count, threads, [&](int64_t first, int64_t last) {
    try {
      for (int64_t i = first; i < last; ++i) {
        const SampledWindow window = sampled_window(tables, seed, first_index + static_cast<uint64_t>(i));
        batch.genome[i] = window.genome;
        batch.contig[i] = window.contig;
        batch.start_bp[i] = window.start_bp;
        batch.orientation[i] = window.orientation;
        const GenomeView& genome = *genomes[window.genome];
        const Windows one{&window.contig, &window.start_bp, nullptr, window.orientation, 1};
        check_windows(genome, one, nullptr, length_bp);
        kmer_tokenize(genome, one, n_tokens, k, dynamic, type,
                      static_cast<char*>(batch.tokens) + i * n_tokens * token_bytes, {options.isa, 1});
        int64_t gc, known;
        gc_count(genome, one, nullptr, length_bp, &gc, &known, {options.isa, 1});
        batch.gc_fraction[i] = known ? static_cast<float>(gc) / static_cast<float>(known) : 0.0F;
        batch.gc_known[i] = known > 0;
        // read backwards on its strand: orientations 1 and 2
        batch.reversed[i] = (window.orientation ^ window.orientation >> 1) & 1;
      }
    } catch (...) {
      const std::lock_guard<std::mutex> guard(failure_lock);
      if (!failure) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace dnagpt
