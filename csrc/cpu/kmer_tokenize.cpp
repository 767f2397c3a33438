// Windows of packed bases -> token ids: windows are cut into chunks, tokenized as if every base were known, and what
// the bases under N blocks added is taken off again while a chunk is in the cache.
#include "cpu/kmer_tokenize.h"

#include <algorithm>

#include "cpu/parallel.h"
#include "kernels.h"

namespace dnagpt {

namespace {

// 16 kB of uint16: stays in the first-level cache between a chunk's two passes
constexpr int64_t kChunkTokens = 8192;
// Ids of more bytes than this do not stay in the caches anyway: write them past them.
constexpr int64_t kStreamingBytes = 16 << 20;
constexpr int64_t kBytesPerThread = 2 << 20;
constexpr int kCacheLine = 64;

template <typename Token>
struct Tokenizer {
  const GenomeView& genome;
  const Windows& windows;
  const int64_t n_tokens;
  const int k, first_id;
  const bool streaming;
  const TokenizeSpan<Token> span;
  Token* const tokens;  // (B, n_tokens)

  // Tokens [first, last) of all windows, counted through.
  void operator()(int64_t first, int64_t last) const {
    for (int64_t w = first / n_tokens; first < last; ++w) {
      const int64_t from = first - w * n_tokens, to = std::min(last - w * n_tokens, n_tokens);
      window(w, from, to);
      first += to - from;
    }
  }

  // Tokens [from, to) of window w, chunk by chunk, upwards in the output; chunks end on cache lines.
  void window(int64_t w, int64_t from, int64_t to) const {
    const int64_t contig = windows.contig[w], window_start_bp = windows.start_bp[w];
    const int64_t window_end_bp = window_start_bp + n_tokens * k;
    const int orientation = static_cast<int>(windows.orientation ? windows.orientation[w] : windows.same_orientation);
    const bool reversed = orientation & kReversed;
    const uint8_t* bases = genome.packed + genome.byte_offset[contig];
    Token* const out = tokens + w * n_tokens;
    const int64_t no_block = genome.n_block_index[contig], last_block = genome.n_block_index[contig + 1];
    int64_t block = first_n_block_behind(genome, contig, reversed ? window_end_bp - from * k : window_start_bp);
    while (from < to) {
      const int64_t past_line =
          static_cast<int64_t>(reinterpret_cast<uintptr_t>(out + from) % kCacheLine / sizeof(Token));
      const int64_t count = std::min(to - from, kChunkTokens - past_line);
      const int64_t start_bp = reversed ? window_end_bp - (from + count) * k : window_start_bp + from * k;
      const int64_t end_bp = start_bp + count * k;
      // the first N block that ends behind start_bp is near that of the chunk before
      while (block > no_block && genome.n_block_end_bp[block - 1] > start_bp) --block;
      while (block < last_block && genome.n_block_end_bp[block] <= start_bp) ++block;
      const bool has_n = block < last_block && genome.n_block_start_bp[block] < end_bp;
      span(bases, start_bp, count, orientation, first_id, streaming && !has_n, out + from);
      if (has_n) patch_n(bases, start_bp, end_bp, block, last_block, orientation, count, out + from);
      from += count;
    }
  }

  // Takes from the tokens of the span [start_bp, end_bp) what its bases under N blocks, from `block` on, have added.
  void patch_n(const uint8_t* bases, int64_t start_bp, int64_t end_bp, int64_t block, int64_t last_block,
               int orientation, int64_t count, Token* out) const {
    const bool reversed = orientation & kReversed;
    const int complement = orientation & kComplemented ? kComplementBit : 0;
    // what a base adds, by its place in the k-mer as it stands in the genome and its code
    int added[kMaxK][4];
    for (int j = 0; j < k; ++j) {
      const int power = power_of_5(reversed ? j : k - 1 - j);
      for (int code = 0; code < 4; ++code) added[j][code] = power * digit_of_code(code ^ complement);
    }
    Token* const first_token = reversed ? out + count - 1 : out;
    const int64_t step = reversed ? -1 : 1;
    // p / k for 0 <= p < 2^37 without a division
    const uint64_t reciprocal = (uint64_t{1} << 40) / static_cast<uint64_t>(k) + 1;
    for (; block < last_block && genome.n_block_start_bp[block] < end_bp; ++block) {
      int64_t p = std::max(genome.n_block_start_bp[block], start_bp) - start_bp;
      const int64_t to = std::min(genome.n_block_end_bp[block], end_bp) - start_bp;
      int64_t i = static_cast<int64_t>(static_cast<uint64_t>(p) * reciprocal >> 40);
      int64_t j = p - i * k;
      const auto drop = [&] {
        first_token[step * i] = static_cast<Token>(first_token[step * i] - added[j][base_code(bases, start_bp + p)]);
      };
      drop();
      for (++p; p < to; ++p) {
        if (++j == k) j = 0, ++i;
        if (j == 0 && to - p >= k) {
          // whole k-mers of N
          const int64_t whole = (to - p) / k;
          for (const int64_t last = i + whole; i < last; ++i) first_token[step * i] = static_cast<Token>(first_id);
          p += whole * k;
          if (p == to) break;
        }
        drop();
      }
    }
  }
};

template <typename Token>
TokenizeSpan<Token> span_for(int k, Isa isa) {
  if (k == 6) {
#if DNAGPT_X86
    if (isa == Isa::kAvx512) return tokenize_span_avx512<Token>();
    if (isa == Isa::kAvx2) return tokenize_span_avx2<Token>();
#elif DNAGPT_NEON
    if (isa == Isa::kNeon) return tokenize_span_neon<Token>();
#endif
  }
  return tokenize_span_scalar<Token>(k);
}

template <typename Token>
void tokenize_windows(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                      CpuOptions options, Token* tokens) {
  const int64_t total = windows.count * n_tokens, bytes = total * static_cast<int64_t>(sizeof(Token));
  if (total == 0) return;
  const Tokenizer<Token> tokenizer{genome,
                                   windows,
                                   n_tokens,
                                   k,
                                   first_kmer_id(k, dynamic),
                                   bytes >= kStreamingBytes,
                                   span_for<Token>(k, options.isa),
                                   tokens};
  parallel_ranges(total, useful_threads(bytes, kBytesPerThread, options.threads), tokenizer);
}

}  // namespace

void kmer_tokenize(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                   TokenType type, void* tokens, CpuOptions options) {
  switch (type) {
    case TokenType::kUint16:
      return tokenize_windows(genome, windows, n_tokens, k, dynamic, options, static_cast<uint16_t*>(tokens));
    case TokenType::kInt32:
      return tokenize_windows(genome, windows, n_tokens, k, dynamic, options, static_cast<int32_t*>(tokens));
    case TokenType::kInt64:
      return tokenize_windows(genome, windows, n_tokens, k, dynamic, options, static_cast<int64_t*>(tokens));
  }
}

}  // namespace dnagpt
