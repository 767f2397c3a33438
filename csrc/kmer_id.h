// From 2-bit codes to token ids (dnagpt_fast/vocab.py), shared by host and device code.
//
// id = first id of its length + base-5 number of the k-mer, digits N A G C T = 0 1 2 3 4, most significant base first.
// N is the digit 0, so a base under an N block only loses what it added: ids are made as if there were no N, then
// patched by subtraction.
#pragma once

#include "packed_sequence.h"

namespace dnagpt {

constexpr int kReservedTokens = 34;
constexpr int kMaxK = 6;

// Base-5 digit of a 2-bit code: T C A G -> 4 3 1 2, one nibble each.
DNAGPT_HOST_DEVICE inline int digit_of_code(int code) {
  return 0x2134 >> (4 * code) & 7;
}

DNAGPT_HOST_DEVICE inline int power_of_5(int exponent) {
  int power = 1;
  for (int i = 0; i < exponent; ++i) power *= 5;
  return power;
}

// Id of the all-N k-mer of length k: behind all shorter k-mers in the dynamic vocabulary, else behind the reserved ids.
DNAGPT_HOST_DEVICE inline int first_kmer_id(int k, bool dynamic) {
  int id = kReservedTokens;
  for (int length = 1; dynamic && length < k; ++length) id += power_of_5(length);
  return id;
}

// Base-5 number of the k bases in the low 2k bits of `codes` (first base highest), read in `orientation`.
DNAGPT_HOST_DEVICE inline int kmer_number(uint32_t codes, int k, int orientation) {
  int number = 0;
  for (int j = 0; j < k; ++j) {
    const int place = orientation & kReversed ? j : k - 1 - j;
    int code = codes >> (2 * place) & 3;
    if (orientation & kComplemented) code ^= kComplementBit;
    number = number * 5 + digit_of_code(code);
  }
  return number;
}

}  // namespace dnagpt
