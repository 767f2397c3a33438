// One warp writes one tile of a row of token ids.
#pragma once

#include "six_mers.cuh"
#include "windows.cuh"

namespace dnagpt {

constexpr int kStoreBytes = 16;

// How a row of n_tokens ids is divided: into aligned chunks of 16 bytes, one lane each, and chunks into tiles, one warp
// each.
struct RowCut {
  int64_t tiles;
  int chunks_per_tile;
};

template <typename Token>
RowCut cut_row(int64_t n_tokens) {
  constexpr int64_t kMostChunks = 6 * kWarp;  // 3 kB of ids: N blocks are searched once per tile
  const int64_t chunks = (n_tokens * static_cast<int64_t>(sizeof(Token)) + kStoreBytes - 1) / kStoreBytes + 1;
  const int64_t tiles = (chunks + kMostChunks - 1) / kMostChunks;
  const int64_t per_tile = (chunks + tiles - 1) / tiles;
  return {tiles, static_cast<int>((per_tile + kWarp - 1) / kWarp * kWarp)};
}

// Finds the N bases of the V k-mers from position_bp on: bit p of unknown[v] marks base p of k-mer v, counted from its
// last base. Returns whether there are any.
template <int V>
__device__ inline bool find_unknown(const GenomeView& genome, int64_t low, int64_t high, int64_t position_bp, int k,
                                    uint32_t (&unknown)[V]) {
  const int64_t end_bp = position_bp + V * k;
  bool any = false;
#pragma unroll
  for (int v = 0; v < V; ++v) unknown[v] = 0;
  for (int64_t block = first_n_block_ending_after(genome, low, high, position_bp); block < high; ++block) {
    const int64_t block_start_bp = genome.n_block_start_bp[block], block_end_bp = genome.n_block_end_bp[block];
    if (block_start_bp >= end_bp) break;
    any = true;
    // relative to the chunk, where 32 bits suffice
    const int from = block_start_bp > position_bp ? static_cast<int>(block_start_bp - position_bp) : 0;
    const int to = block_end_bp < end_bp ? static_cast<int>(block_end_bp - position_bp) : V * k;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int first = from > v * k ? from - v * k : 0, last = to < (v + 1) * k ? to - v * k : k;
      if (first < last) unknown[v] |= ((1u << (last - first)) - 1) << (k - last);
    }
  }
  return any;
}

// 16 bytes of ids in one store: nvcc 13 would split an assignment into stores of single words.
template <typename Token, int V>
__device__ inline void store_16(Token* to, const uint32_t (&ids)[V]) {
  static_assert(V * sizeof(Token) == kStoreBytes, "one store");
  uint32_t words[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if constexpr (sizeof(Token) == 2) {
      words[j] = ids[2 * j] | ids[2 * j + 1] << 16;
    } else if constexpr (sizeof(Token) == 4) {
      words[j] = ids[j];
    } else {
      words[j] = j % 2 ? 0 : ids[j / 2];  // an id is never negative
    }
  }
  __stwb(reinterpret_cast<uint4*>(to), make_uint4(words[0], words[1], words[2], words[3]));
}

// Tile `tile` of the row of ids of one window. K = k at compile time, or 0. All lanes of a warp call it together.
template <typename Token, int K>
__device__ inline void tokenize_tile(const GenomeView& genome, const Window& window, int64_t n_tokens, int runtime_k,
                                     int first_id, Token* row, int64_t tile, int chunks_per_tile, int lane) {
  constexpr int V = kStoreBytes / sizeof(Token);
  constexpr int kWords = (12 * V + 31) / 32;
  const int k = K ? K : runtime_k;
  const bool reversed = window.orientation & kReversed;
  SixMerRecipe six_mer{};
  NumberRecipe any_k{};
  if (K == kMaxK) {
    six_mer = six_mer_recipe(window.orientation);
#pragma unroll
    for (int t = 0; t < 4 && t < V; ++t) {
      six_mer.left_weights[t] = pinned(six_mer.left_weights[t]);
      six_mer.right_weights[t] = pinned(six_mer.right_weights[t]);
    }
  } else {
    any_k = number_recipe(k, window.orientation);
  }
  // chunks are aligned, so the first one may begin before the row; the first and the last may be partly outside it
  const int before = static_cast<int>((reinterpret_cast<uintptr_t>(row) & (kStoreBytes - 1)) / sizeof(Token));
  const int64_t tile_first = tile * chunks_per_tile * V - before;
  const int64_t tile_end = tile_first + static_cast<int64_t>(chunks_per_tile) * V;
  const int64_t first = tile_first > 0 ? tile_first : 0, end = tile_end < n_tokens ? tile_end : n_tokens;
  if (first >= end) return;

  // N blocks that overlap the tile: nearly always none
  const int64_t from_bp = window.start_bp + (reversed ? n_tokens - end : first) * k;
  const int64_t to_bp = window.start_bp + (reversed ? n_tokens - first : end) * k;
  const int64_t last_block = genome.n_block_index[window.contig + 1];
  const int64_t block = first_n_block_ending_after(genome, window.contig, from_bp);
  const bool has_n = block < last_block && genome.n_block_start_bp[block] < to_bp;

  // from here on 32 bits suffice: chunks and bases are counted within the tile
  const int chunks = static_cast<int>((end - tile_first + V - 1) / V);
  const int first_whole = tile_first < 0 ? 1 : 0, end_whole = pinned(static_cast<int>((end - tile_first) / V));
  const int step = reversed ? -V * k : V * k;
  const int64_t tile_bp =
      window.start_bp + (reversed ? n_tokens - tile_first - static_cast<int64_t>(chunks) * V : tile_first) * k;
  const int first_offset = reversed ? (chunks - 1) * V * k : 0;
  const Stretch stretch = stretch_of(genome, window.contig, tile_bp, 0, (chunks - 1) * V * k);
  Token* const tile_row = reinterpret_cast<Token*>(
      pinned(reinterpret_cast<uint64_t>(row) + static_cast<uint64_t>(tile_first) * sizeof(Token)));

  for (int chunk = lane; chunk < chunks; chunk += kWarp) {
    const int offset = first_offset + chunk * step;
    uint32_t stream[kWords];
    load_bases<kWords>(stretch, offset, 2 * k * V, stream);
    uint32_t unknown[V] = {}, ids[V];
    const bool patch = has_n && find_unknown<V>(genome, block, last_block, tile_bp + offset, k, unknown);
    if (K == kMaxK && !patch) {
      six_mers<V>(stream, six_mer, first_id, ids);
    } else {
      // six-mers with N are rare: their recipe is not kept in registers
      const NumberRecipe recipe = K ? number_recipe(k, window.orientation) : any_k;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const uint32_t codes = stream[0] >> (32 - 2 * k);
#pragma unroll
        for (int j = 0; j + 1 < kWords; ++j) stream[j] = __funnelshift_l(stream[j + 1], stream[j], 2 * k);
        stream[kWords - 1] <<= 2 * k;
        ids[v] = number_by_recipe(codes, recipe, unknown[v]) + first_id;
      }
    }
    uint32_t in_order[V];
#pragma unroll
    for (int v = 0; v < V; ++v) in_order[v] = reversed ? ids[V - 1 - v] : ids[v];
    Token* const to = tile_row + chunk * V;
    if (chunk >= first_whole && chunk < end_whole) {
      store_16(to, in_order);
    } else {
      const int64_t id = tile_first + chunk * V;  // index in the row of the chunk's first id
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (id + v >= 0 && id + v < n_tokens) to[v] = static_cast<Token>(in_order[v]);
      }
    }
  }
}

// One warp's share of the row of a refused window: unknown tokens.
template <typename Token>
__device__ inline void blank_tile(int64_t n_tokens, Token* row, int64_t tile, int64_t tiles, int lane) {
  for (int64_t id = tile * kWarp + lane; id < n_tokens; id += tiles * kWarp) row[id] = 0;
}

}  // namespace dnagpt
