// Spans of packed bases -> ids, per instruction set; kmer_tokenize.cpp cuts windows into spans and marks the N in them.
#pragma once

#include "cpu/isa.h"
#include "kmer_id.h"

namespace dnagpt {

// Tokenizes n_tokens k-mers from start_bp of the contig that begins at `bases`. Reads no byte behind the last base of
// the span. `unknown`: nullptr where no base is N; else one byte for each byte of `bases` from that of start_bp on,
// both bits of an N base set in it, with kUnknownSlack readable bytes behind. `streaming`: write around the caches
// where the instruction set can.
template <typename Token>
using TokenizeSpan = void (*)(const uint8_t* bases, const uint8_t* unknown, int64_t start_bp, int64_t n_tokens,
                              int orientation, int first_id, bool streaming, Token* tokens);

constexpr int64_t kUnknownSlack = 64;

// For every k in 1..6.
template <typename Token>
TokenizeSpan<Token> tokenize_span_scalar(int k);

// For k = 6.
template <typename Token>
TokenizeSpan<Token> tokenize_span_avx2();
template <typename Token>
TokenizeSpan<Token> tokenize_span_avx512();
template <typename Token>
TokenizeSpan<Token> tokenize_span_neon();

}  // namespace dnagpt
