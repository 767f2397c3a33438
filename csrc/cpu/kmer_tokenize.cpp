// Packed bases -> token ids. Windows are read once, upwards in genome coordinates; orientation changes the table that
// turns 2k bits into an id, and the place the id is written to.
#include <array>
#include <vector>

#include "kernels.h"

namespace dnagpt {

namespace {

using Table = std::vector<uint16_t>;

// id of every oriented k-mer by its 2k bits as they stand in the genome, without the first id
std::array<std::array<Table, 4>, kMaxK + 1> make_tables() {
  std::array<std::array<Table, 4>, kMaxK + 1> tables;
  for (int k = 1; k <= kMaxK; ++k) {
    for (int orientation = 0; orientation < 4; ++orientation) {
      Table& table = tables[k][orientation];
      table.resize(size_t{1} << (2 * k));
      for (uint32_t codes = 0; codes < table.size(); ++codes) {
        table[codes] = static_cast<uint16_t>(kmer_number(codes, k, orientation));
      }
    }
  }
  return tables;
}

const uint16_t* kmer_table(int k, int orientation) {
  static const auto tables = make_tables();
  return tables[k][orientation].data();
}

// The 8 bytes from `from`, first byte highest; bytes at and behind `end` read as 0.
inline uint64_t load_big_endian(const uint8_t* from, const uint8_t* end) {
  uint64_t word = 0;
  if (end - from >= 8) {
    __builtin_memcpy(&word, from, 8);
    return __builtin_bswap64(word);
  }
  for (int i = 0; i < 8; ++i) word = word << 8 | (from + i < end ? from[i] : 0);
  return word;
}

template <typename Token>
void tokenize_span(const uint8_t* bases, int64_t start_bp, int64_t n_tokens, int k, int orientation, int first_id,
                   Token* tokens) {
  const uint16_t* table = kmer_table(k, orientation);
  const int bits = 2 * k;
  // 58 bits of a word are left whatever the phase of its first base
  const int per_word = 58 / bits;
  const uint8_t* end = bases + packed_bytes_for(start_bp + n_tokens * k);
  const int64_t step = orientation & kReversed ? -1 : 1;
  Token* token = orientation & kReversed ? tokens + n_tokens - 1 : tokens;
  for (int64_t done = 0; done < n_tokens; done += per_word) {
    const int64_t position_bp = start_bp + done * k;
    uint64_t word = load_big_endian(bases + position_bp / 4, end) << (2 * (position_bp & 3));
    const int n = n_tokens - done < per_word ? static_cast<int>(n_tokens - done) : per_word;
    for (int i = 0; i < n; ++i, token += step, word <<= bits) {
      *token = static_cast<Token>(table[word >> (64 - bits)] + first_id);
    }
  }
}

// Takes from the tokens what the bases under N blocks have added.
template <typename Token>
void patch_n(const GenomeView& genome, int64_t contig, int64_t start_bp, int64_t n_tokens, int k, int orientation,
             int first_id, Token* tokens) {
  const uint8_t* bases = genome.packed + genome.byte_offset[contig];
  const int64_t end_bp = start_bp + n_tokens * k, last_block = genome.n_block_index[contig + 1];
  int powers[kMaxK];
  for (int j = 0; j < k; ++j) powers[j] = power_of_5(orientation & kReversed ? j : k - 1 - j);
  const int complement = orientation & kComplemented ? kComplementBit : 0;
  const auto at = [&](int64_t i) { return orientation & kReversed ? n_tokens - 1 - i : i; };
  for (int64_t block = first_n_block_behind(genome, contig, start_bp); block < last_block; ++block) {
    if (genome.n_block_start_bp[block] >= end_bp) break;
    const int64_t from = genome.n_block_start_bp[block] > start_bp ? genome.n_block_start_bp[block] - start_bp : 0;
    const int64_t to = (genome.n_block_end_bp[block] < end_bp ? genome.n_block_end_bp[block] : end_bp) - start_bp;
    for (int64_t p = from; p < to;) {
      const int64_t i = p / k;
      if (p == i * k && p + k <= to) {
        tokens[at(i)] = static_cast<Token>(first_id);
        p += k;
        continue;
      }
      const int digit = digit_of_code(base_code(bases, start_bp + p) ^ complement);
      tokens[at(i)] = static_cast<Token>(tokens[at(i)] - digit * powers[p - i * k]);
      ++p;
    }
  }
}

template <typename Token>
void tokenize_windows(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                      Token* tokens) {
  const int first_id = first_kmer_id(k, dynamic);
  for (int64_t w = 0; w < windows.count; ++w, tokens += n_tokens) {
    const int64_t contig = windows.contig[w], start_bp = windows.start_bp[w];
    const int orientation = static_cast<int>(windows.orientation ? windows.orientation[w] : windows.same_orientation);
    tokenize_span(genome.packed + genome.byte_offset[contig], start_bp, n_tokens, k, orientation, first_id, tokens);
    patch_n(genome, contig, start_bp, n_tokens, k, orientation, first_id, tokens);
  }
}

}  // namespace

void kmer_tokenize(const GenomeView& genome, const Windows& windows, int64_t n_tokens, int k, bool dynamic,
                   TokenType type, void* tokens) {
  switch (type) {
    case TokenType::kUint16:
      return tokenize_windows(genome, windows, n_tokens, k, dynamic, static_cast<uint16_t*>(tokens));
    case TokenType::kInt32:
      return tokenize_windows(genome, windows, n_tokens, k, dynamic, static_cast<int32_t*>(tokens));
    case TokenType::kInt64:
      return tokenize_windows(genome, windows, n_tokens, k, dynamic, static_cast<int64_t*>(tokens));
  }
}

std::string cpu_isa() {
  return "scalar";
}

}  // namespace dnagpt
