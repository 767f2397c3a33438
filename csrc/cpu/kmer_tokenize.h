// Spans of packed bases -> ids, per instruction set; kmer_tokenize.cpp cuts windows into spans and marks the N in them.
#pragma once

#include <tuple>

#include "cpu/isa.h"
#include "kmer_id.h"

namespace dnagpt {

// Tokenizes n_tokens k-mers from start_bp of the contig that begins at `bases`. Reads no byte after the last base of
// the span. `unknown`: nullptr if no base is N; otherwise a mask in the layout of the packed bases, which begins at the
// byte of start_bp, has both bits of every N base set, and kUnknownSlack readable bytes after its end. `streaming`: use
// stores that bypass the caches, if the instruction set has them.
template <typename Token>
using TokenizeSpan = void (*)(const uint8_t* bases, const uint8_t* unknown, int64_t start_bp, int64_t n_tokens,
                              int orientation, int first_id, bool streaming, Token* tokens);

constexpr int64_t kUnknownSlack = 64;

using TokenizeSpans = std::tuple<TokenizeSpan<uint16_t>, TokenizeSpan<int32_t>, TokenizeSpan<int64_t>>;

// For every k in 1..6.
TokenizeSpans tokenize_spans_scalar(int k);

// For k = 6.
TokenizeSpans tokenize_spans_avx2();
TokenizeSpans tokenize_spans_avx512();
TokenizeSpans tokenize_spans_neon();

}  // namespace dnagpt
