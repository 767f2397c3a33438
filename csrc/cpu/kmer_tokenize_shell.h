// From the arguments of TokenizeSpan to the template arguments of a kernel: the same code for every instruction set.
//
// Each instruction set has a struct `Kernel` with
//   kStreams   whether it has stores that bypass the caches
//   tokenize<Token, reversed, streaming, masked>(bases, unknown, start_bp, n_tokens, orientation, first_id, tokens)
// The arguments are those of TokenizeSpan; masked: `unknown` is given.
#pragma once

#include "cpu/kmer_tokenize.h"

namespace dnagpt {

template <class Kernel, typename Token, bool streaming, bool masked>
void tokenize_either_way(const uint8_t* bases, const uint8_t* unknown, int64_t start_bp, int64_t n_tokens,
                         int orientation, int first_id, Token* tokens) {
  const auto kernel = orientation & kReversed ? Kernel::template tokenize<Token, true, streaming, masked>
                                              : Kernel::template tokenize<Token, false, streaming, masked>;
  kernel(bases, unknown, start_bp, n_tokens, orientation, first_id, tokens);
}

template <class Kernel, typename Token>
void tokenize_span(const uint8_t* bases, const uint8_t* unknown, int64_t start_bp, int64_t n_tokens, int orientation,
                   int first_id, [[maybe_unused]] bool streaming, Token* tokens) {
  auto kernel =
      unknown ? tokenize_either_way<Kernel, Token, false, true> : tokenize_either_way<Kernel, Token, false, false>;
  if constexpr (Kernel::kStreams) {
    if (streaming) {
      kernel =
          unknown ? tokenize_either_way<Kernel, Token, true, true> : tokenize_either_way<Kernel, Token, true, false>;
    }
  }
  kernel(bases, unknown, start_bp, n_tokens, orientation, first_id, tokens);
}

template <class Kernel>
TokenizeSpans spans_of() {
  return {tokenize_span<Kernel, uint16_t>, tokenize_span<Kernel, int32_t>, tokenize_span<Kernel, int64_t>};
}

}  // namespace dnagpt
