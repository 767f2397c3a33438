// Several six-mers at a time, for k = 6 without N: base pairs become bytes < 25 by table lookups on 16 bits of the
// genome at a time, and two dot products join three pairs. Ten instructions per id; one k-mer at a time takes twenty.
#pragma once

#include "../kmer_id.h"

namespace dnagpt {

// How the pairs p0 p1 p2 of a six-mer make its number: 625 p0 + 25 p1 + p2 with 5 a + b for the bases a b of a pair, or
// p0 + 25 p1 + 625 p2 with a + 5 b if the window is read backwards. Four six-mers are three words of four pairs
// each, first pair highest; entry t is for six-mer t of the four, whose pairs lie in one word or in two neighbours.
struct SixMerRecipe {
  uint32_t first_digits, second_digits;  // byte c: what the first (second) base of a pair adds if its code is c
  uint32_t left_weights[4], right_weights[4];
  uint32_t left_factor, right_factor;
};

DNAGPT_HOST_DEVICE inline SixMerRecipe six_mer_recipe(int orientation) {
  const bool reversed = orientation & kReversed;
  const uint32_t digits = orientation & kComplemented ? 0x03040201u : 0x02010304u;
  SixMerRecipe recipe{};
  recipe.first_digits = reversed ? digits : digits * 5;
  recipe.second_digits = reversed ? digits * 5 : digits;
  recipe.left_weights[0] = reversed ? 0x01000000u : 0x19010000u;
  recipe.left_weights[1] = reversed ? 0x00000001u : 0x00000019u;
  recipe.left_weights[2] = reversed ? 0x00000119u : 0x00001901u;
  recipe.left_weights[3] = reversed ? 0x00010000u : 0x00190100u;
  recipe.right_weights[0] = reversed ? 0x00011900u : 0x00000100u;
  recipe.right_weights[1] = reversed ? 0x01190000u : 0x19010000u;
  recipe.right_weights[2] = reversed ? 0x19000000u : 0x01000000u;
  recipe.right_weights[3] = reversed ? 0x00000119u : 0x00000001u;
  recipe.left_factor = reversed ? 1 : 25;
  recipe.right_factor = reversed ? 25 : 1;
  return recipe;
}

// Ids of the V six-mers in the 12 V highest bits of `stream`, in the order of the genome.
template <int V, int kWords>
DNAGPT_HOST_DEVICE inline void six_mers(const uint32_t (&stream)[kWords], const SixMerRecipe& recipe, int first_id,
                                        uint32_t (&ids)[V]) {
  static_assert(12 * V <= 32 * kWords, "12 bits a six-mer");
  uint32_t pairs[2 * kWords];
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    const uint32_t first = stream[j] >> 2 & 0x33333333, second = stream[j] & 0x33333333;
    pairs[2 * j] = pick_bytes(recipe.first_digits, first >> 16) + pick_bytes(recipe.second_digits, second >> 16);
    pairs[2 * j + 1] = pick_bytes(recipe.first_digits, first) + pick_bytes(recipe.second_digits, second);
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int left = 3 * v / 4, right = (3 * v + 2) / 4, t = v % 4;  // words of its first and its last pair
    ids[v] = dot_bytes(pairs[left], recipe.left_weights[t]) * recipe.left_factor +
             dot_bytes(pairs[right], recipe.right_weights[t]) * recipe.right_factor + first_id;
  }
}

}  // namespace dnagpt
