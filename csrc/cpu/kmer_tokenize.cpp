// Windows of packed bases -> token ids: windows are cut into chunks; if N blocks overlap a chunk, its kernel gets a
// mask of them in the layout of the packed bases.
#include "cpu/kmer_tokenize.h"

#include <algorithm>
#include <cstring>

#include "cpu/parallel.h"
#include "kernels.h"

namespace dnagpt {

namespace {

// 12 kB of packed bases for k = 6: their mask stays in the L1 cache until the kernel reads it
constexpr int64_t kChunkTokens = 8192;
// An output of this size or more does not stay in the caches: it is written with stores that bypass them. But pages
// that the system has just cleared are in the caches: stores that bypass them would first write the zeros to memory.
constexpr int64_t kStreamingBytes = 16 << 20;
constexpr int64_t kBytesPerThread = 2 << 20;
constexpr int kCacheLine = 64;

// Both bits of a base in its byte.
constexpr uint8_t kOneBase[kBasesPerByte] = {0xc0, 0x30, 0x0c, 0x03};

// Sets both bits of the `n_bases` >= 1 bases from base `from` on, in a mask in the layout of packed bases. May rewrite
// the 7 bytes after them with their own values.
inline void mark(int64_t from, int64_t n_bases, uint8_t* mask) {
  uint8_t* const first = mask + (from >> 2);
  const int phase = 2 * static_cast<int>(from & 3);
  if (n_bases == 1) {
    *first |= kOneBase[from & 3];
  } else if (n_bases <= 29) {  // at any phase they end within 8 bytes
    uint64_t word;
    std::memcpy(&word, first, 8);
    word |= __builtin_bswap64(~uint64_t{0} << (64 - 2 * n_bases) >> phase);
    std::memcpy(first, &word, 8);
  } else {
    const int64_t to = from + n_bases;
    *first |= static_cast<uint8_t>(0xff >> phase);
    std::memset(first + 1, 0xff, static_cast<size_t>((to >> 2) - (from >> 2) - 1));
    mask[to >> 2] |= static_cast<uint8_t>(0xff00 >> (2 * (to & 3)));
  }
}

// Masks of the bases under N blocks, for adjacent spans of a contig that are visited upwards or downwards.
class UnknownBases {
 public:
  // position_bp: the start of the first span, or its end if reversed.
  UnknownBases(const GenomeView& genome, int64_t contig, bool reversed, int64_t position_bp)
      : start_(genome.n_block_start_bp),
        end_(genome.n_block_end_bp),
        low_(genome.n_block_index[contig]),
        high_(genome.n_block_index[contig + 1]),
        reversed_(reversed),
        block_(first_n_block_ending_after(genome, contig, reversed ? position_bp - 1 : position_bp)) {
    // reversed: the search goes down from the last block that begins before position_bp
    if (reversed && (block_ == high_ || start_[block_] >= position_bp)) --block_;
  }

  // TokenizeSpan's mask of the next span, valid until the next call; nullptr if all its bases are known.
  const uint8_t* mask(int64_t start_bp, int64_t end_bp) {
    const bool has_n = low_ <= block_ && block_ < high_ && start_[block_] < end_bp && end_[block_] > start_bp;
    if (!has_n) return nullptr;
    std::memset(mask_, 0, static_cast<size_t>(packed_bytes_for(end_bp - start_bp) + 1 + kUnknownSlack));
    block_ = reversed_ ? mark_blocks<-1>(start_bp, end_bp) : mark_blocks<1>(start_bp, end_bp);
    return mask_;
  }

 private:
  // Marks the blocks of a span, beginning with block_. Returns the first block that is not wholly inside the span.
  template <int step>
  int64_t mark_blocks(int64_t start_bp, int64_t end_bp) {
    // kept in locals: stores to the mask may alias them
    const int64_t *const start = start_, *const end = end_;
    const int64_t first_bp = start_bp & ~int64_t{3}, stop = step > 0 ? high_ : low_ - 1;
    uint8_t* const mask = mask_;
    int64_t block = block_;
    // only the first and the last block may cross the edges of the span
    const int64_t from = std::max(start[block], start_bp), to = std::min(end[block], end_bp);
    mark(from - first_bp, to - from, mask);
    if (step > 0 ? end[block] > end_bp : start[block] < start_bp) return block;
    const auto inside = [&](int64_t b) { return step > 0 ? end[b] <= end_bp : start[b] >= start_bp; };
    block += step;
    // four one-base blocks at a time: the worst case is a genome full of single N
    while ((stop - block) * step >= 4 && inside(block + 3 * step)) {
      int64_t bases = 0;
      for (int i = 0; i < 4; ++i) bases |= end[block + i * step] - start[block + i * step];
      for (int i = 0; i < 4; ++i, block += step) {
        const int64_t base = start[block] - first_bp;
        if (bases == 1) {
          mask[base >> 2] |= kOneBase[base & 3];
        } else {
          mark(base, end[block] - start[block], mask);
        }
      }
    }
    for (; block != stop && inside(block); block += step) {
      mark(start[block] - first_bp, end[block] - start[block], mask);
    }
    if (block == stop) return block;
    if (step > 0 && start[block] < end_bp) mark(start[block] - first_bp, end_bp - start[block], mask);
    if (step < 0 && end[block] > start_bp) mark(start_bp - first_bp, end[block] - start_bp, mask);
    return block;
  }

  const int64_t *const start_, *const end_;
  const int64_t low_, high_;
  const bool reversed_;
  int64_t block_;
  uint8_t mask_[kChunkTokens * kMaxK / kBasesPerByte + 1 + kUnknownSlack];
};

template <typename Token>
struct Tokenizer {
  const GenomeView& genome;
  const Windows& windows;
  const int64_t n_tokens;
  const int k, first_id;
  const bool streaming;
  const TokenizeSpan<Token> span;
  Token* const tokens;  // (B, n_tokens)

  // Tokens [first, last), numbered through all windows.
  void operator()(int64_t first, int64_t last) const {
    for (int64_t w = first / n_tokens; first < last; ++w) {
      const int64_t from = first - w * n_tokens, to = std::min(last - w * n_tokens, n_tokens);
      window(w, from, to);
      first += to - from;
    }
  }

  // Tokens [from, to) of window w, chunk by chunk in the order of the output; chunks end on cache lines.
  void window(int64_t w, int64_t from, int64_t to) const {
    const int64_t contig = windows.contig[w], window_start_bp = windows.start_bp[w];
    const int64_t window_end_bp = window_start_bp + n_tokens * k;
    const int orientation = static_cast<int>(windows.orientation ? windows.orientation[w] : windows.same_orientation);
    const bool reversed = orientation & kReversed;
    const uint8_t* bases = genome.packed + genome.byte_offset[contig];
    Token* const out = tokens + w * n_tokens;
    const int64_t read_from_bp = reversed ? window_end_bp - from * k : window_start_bp + from * k;
    UnknownBases unknown(genome, contig, reversed, read_from_bp);
    while (from < to) {
      const int64_t past_line =
          static_cast<int64_t>(reinterpret_cast<uintptr_t>(out + from) % kCacheLine / sizeof(Token));
      const int64_t count = std::min(to - from, kChunkTokens - past_line);
      const int64_t start_bp = reversed ? window_end_bp - (from + count) * k : window_start_bp + from * k;
      const uint8_t* mask = unknown.mask(start_bp, start_bp + count * k);
      span(bases, mask, start_bp, count, orientation, first_id, streaming, out + from);
      from += count;
    }
  }
};

TokenizeSpans spans_for(int k, Isa isa) {
  if (k == 6) {
#if DNAGPT_X86
    if (isa == Isa::kAvx512) return tokenize_spans_avx512();
    if (isa == Isa::kAvx2) return tokenize_spans_avx2();
#elif DNAGPT_NEON
    if (isa == Isa::kNeon) return tokenize_spans_neon();
#endif
  }
  return tokenize_spans_scalar(k);
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
                                   bytes >= kStreamingBytes && !options.new_memory,
                                   std::get<TokenizeSpan<Token>>(spans_for(k, options.isa)),
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
