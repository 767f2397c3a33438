// A warp makes a stretch of one row of token ids.
#pragma once

#include "windows.cuh"

namespace dnagpt {

constexpr int kStoreBytes = 16;

// How a row of n_tokens ids is cut: into aligned 16-byte chunks, a lane each, and these into tiles, a warp each.
struct RowCut {
  int64_t tiles;
  int chunks_per_tile;
};

template <typename Token>
RowCut cut_row(int64_t n_tokens) {
  constexpr int64_t kMostChunks = 6 * kWarp;  // 3 kB of ids: the search for N blocks is paid once for them
  const int64_t chunks = (n_tokens * static_cast<int64_t>(sizeof(Token)) + kStoreBytes - 1) / kStoreBytes + 1;
  const int64_t tiles = (chunks + kMostChunks - 1) / kMostChunks;
  const int64_t per_tile = (chunks + tiles - 1) / tiles;
  return {tiles, static_cast<int>((per_tile + kWarp - 1) / kWarp * kWarp)};
}

// Which bases of V k-mers from position_bp on are N: bit p of unknown[v] is base p of k-mer v, counted from its last.
template <int V>
__device__ inline bool find_unknown(const GenomeView& genome, int64_t low, int64_t high, int64_t position_bp, int k,
                                    uint32_t (&unknown)[V]) {
  const int64_t end_bp = position_bp + V * k;
  bool any = false;
#pragma unroll
  for (int v = 0; v < V; ++v) unknown[v] = 0;
  for (int64_t block = first_n_block_behind(genome, low, high, position_bp); block < high; ++block) {
    const int64_t block_start_bp = genome.n_block_start_bp[block], block_end_bp = genome.n_block_end_bp[block];
    if (block_start_bp >= end_bp) break;
    any = true;
    // relative to the chunk: small numbers from here on
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

template <typename Token, int V>
__device__ inline void store_16(Token* to, const Token (&values)[V]) {
  static_assert(sizeof(values) == kStoreBytes, "one store");
  uint4 packed;
  __builtin_memcpy(&packed, values, kStoreBytes);
  *reinterpret_cast<uint4*>(to) = packed;
}

// Tile `tile` of the row of ids of one window. K = k at compile time, or 0. All lanes of a warp call it together.
template <typename Token, int K>
__device__ inline void tokenize_tile(const GenomeView& genome, const Window& window, int64_t n_tokens, int runtime_k,
                                     int first_id, Token* row, int64_t tile, int chunks_per_tile, int lane) {
  constexpr int V = kStoreBytes / sizeof(Token);
  constexpr int kWords = (12 * V + 31) / 32;
  const int k = K ? K : runtime_k;
  const bool reversed = window.orientation & kReversed;
  const NumberRecipe recipe = number_recipe(k, window.orientation);
  const int64_t byte_offset = genome.byte_offset[window.contig];
  // chunks begin at or before the row: its first and last may hold only some ids of it
  const int before = static_cast<int>((reinterpret_cast<uintptr_t>(row) & (kStoreBytes - 1)) / sizeof(Token));
  const int64_t tile_first = tile * chunks_per_tile * V - before;
  const int64_t tile_end = tile_first + static_cast<int64_t>(chunks_per_tile) * V;
  const int64_t first = tile_first > 0 ? tile_first : 0, end = tile_end < n_tokens ? tile_end : n_tokens;
  if (first >= end) return;

  // N blocks that meet the tile: none, nearly always
  const int64_t from_bp = window.start_bp + (reversed ? n_tokens - end : first) * k;
  const int64_t to_bp = window.start_bp + (reversed ? n_tokens - first : end) * k;
  const int64_t last_block = genome.n_block_index[window.contig + 1];
  const int64_t block = first_n_block_behind(genome, window.contig, from_bp);
  const bool has_n = block < last_block && genome.n_block_start_bp[block] < to_bp;

  for (int chunk = lane; chunk < chunks_per_tile; chunk += kWarp) {
    const int64_t id = tile_first + static_cast<int64_t>(chunk) * V;  // place in the row of the chunk's first id
    if (id >= n_tokens) break;
    const int64_t position_bp = window.start_bp + (reversed ? n_tokens - V - id : id) * k;
    uint32_t stream[kWords];
    load_bases<kWords>(genome, byte_offset, position_bp, 2 * k * V, stream);
    uint32_t unknown[V];
    const bool patch = has_n && find_unknown<V>(genome, block, last_block, position_bp, k, unknown);
    uint32_t ids[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const uint32_t codes = stream[0] >> (32 - 2 * k);
#pragma unroll
      for (int j = 0; j + 1 < kWords; ++j) stream[j] = __funnelshift_l(stream[j + 1], stream[j], 2 * k);
      stream[kWords - 1] <<= 2 * k;
      ids[v] = number_by_recipe(codes, recipe, patch ? unknown[v] : 0) + first_id;
    }
    Token values[V];
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = static_cast<Token>(reversed ? ids[V - 1 - v] : ids[v]);
    if (id >= 0 && id + V <= n_tokens) {
      store_16(row + id, values);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (id + v >= 0 && id + v < n_tokens) row[id + v] = values[v];
      }
    }
  }
}

// The same place of a row whose window is refused: the unknown token.
template <typename Token>
__device__ inline void blank_tile(int64_t n_tokens, Token* row, int64_t tile, int64_t tiles, int lane) {
  for (int64_t id = tile * kWarp + lane; id < n_tokens; id += tiles * kWarp) row[id] = 0;
}

}  // namespace dnagpt
