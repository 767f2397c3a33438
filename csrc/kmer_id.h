// From 2-bit codes to token ids (dnagpt_fast/vocab.py), shared by host and device code.
//
// id = first id of its length + base-5 number of the k-mer, digits N A G C T = 0 1 2 3 4, most significant base first.
// N is the digit 0: ids are first computed as if there were no N, then the amount that the bases under N blocks added
// is subtracted.
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

// Id of the all-N k-mer of length k: after all shorter k-mers in the dynamic vocabulary, otherwise after the reserved
// ids.
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

// The amount to subtract from kmer_number for the N among the k bases. Precondition: N bases have code 0, and both of
// their bits are set in `unknown`.
DNAGPT_HOST_DEVICE inline int number_of_unknown(uint32_t unknown, int k, int orientation) {
  const int digit = digit_of_code(orientation & kComplemented ? kComplementBit : 0);
  int number = 0;
  for (int j = 0; j < k; ++j) {
    if (unknown >> (2 * j) & 3) number += digit * power_of_5(orientation & kReversed ? k - 1 - j : j);
  }
  return number;
}

// kmer_number in a dozen instructions: three bases become three bytes of digits by one table lookup, and one dot
// product with the powers of 5 joins them. `low` is the half with the last three bases, `high` the half before it.
struct NumberRecipe {
  uint32_t digits;  // byte c: the digit of code c, complemented or not
  uint32_t low_weights, high_weights;
  uint32_t low_factor, high_factor;
};

DNAGPT_HOST_DEVICE inline NumberRecipe number_recipe(int k, int orientation) {
  NumberRecipe recipe{orientation & kComplemented ? 0x03040201u : 0x02010304u, 0, 0, 1, 125};
  if (orientation & kReversed) {
    recipe.low_factor = power_of_5(k > 3 ? k - 3 : 0);
    recipe.high_factor = 1;
  }
  for (int place = 0; place < k; ++place) {  // 0: the last base
    const bool low = place < 3;
    int weight = power_of_5(place < 3 ? place : place - 3);
    if (orientation & kReversed) weight = power_of_5(k - 1 - place) / static_cast<int>(low ? recipe.low_factor : 1);
    (low ? recipe.low_weights : recipe.high_weights) |= static_cast<uint32_t>(weight)
                                                        << (8 * (low ? place : place - 3));
  }
  return recipe;
}

// Four bytes out of `table`: the two low bits of nibble i of `choice` select byte i of the result.
DNAGPT_HOST_DEVICE inline uint32_t pick_bytes(uint32_t table, uint32_t choice) {
#ifdef __CUDA_ARCH__
  return __byte_perm(table, 0, choice);
#else
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) picked |= (table >> (8 * (choice >> (4 * i) & 3)) & 0xff) << (8 * i);
  return picked;
#endif
}

DNAGPT_HOST_DEVICE inline uint32_t dot_bytes(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  return __dp4a(a, b, 0u);
#else
  uint32_t sum = 0;
  for (int i = 0; i < 32; i += 8) sum += (a >> i & 0xff) * (b >> i & 0xff);
  return sum;
#endif
}

// A byte mask from three flag bits: byte i is 0 if flag i is set, otherwise 0xff.
DNAGPT_HOST_DEVICE inline uint32_t bytes_not_set(uint32_t flags) {
  return ~((flags & 1) * 0xffu | (flags >> 1 & 1) * 0xff00u | (flags >> 2 & 1) * 0xff0000u);
}

// Base-5 number of the k bases in the low 2k bits of `codes` (all higher bits 0). Bit i of `unknown` marks base i,
// counted from the last one, as N.
DNAGPT_HOST_DEVICE inline uint32_t number_by_recipe(uint32_t codes, const NumberRecipe& recipe, uint32_t unknown = 0) {
  uint32_t spread = (codes & 0x3f) | (codes & 0xfc0) << 10;
  spread = (spread | spread << 4) & 0x030f030f;
  spread = (spread | spread << 2) & 0x03330333;
  uint32_t low = pick_bytes(recipe.digits, spread & 0xffff), high = pick_bytes(recipe.digits, spread >> 16);
  if (unknown) {
    low &= bytes_not_set(unknown);
    high &= bytes_not_set(unknown >> 3);
  }
  return dot_bytes(low, recipe.low_weights) * recipe.low_factor +
         dot_bytes(high, recipe.high_weights) * recipe.high_factor;
}

}  // namespace dnagpt
