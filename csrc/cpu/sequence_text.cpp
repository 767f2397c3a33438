// Packed bases -> letters, four letters per table lookup.
#include <algorithm>
#include <array>
#include <cstring>

#include "kernels.h"

namespace dnagpt {

namespace {

using FourLetters = std::array<char, 4>;

std::array<FourLetters, 256> make_letters() {
  std::array<FourLetters, 256> letters;
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < 4; ++i) letters[byte][i] = "TCAG"[byte >> (6 - 2 * i) & 3];
  }
  return letters;
}

const std::array<FourLetters, 256> kLettersOfByte = make_letters();

}  // namespace

void sequence_text(const GenomeView& genome, int64_t contig, int64_t start_bp, int64_t end_bp, char* text) {
  const uint8_t* bases = genome.packed + genome.byte_offset[contig];
  int64_t p = start_bp;
  char* letter = text;
  for (; p < end_bp && p % kBasesPerByte; ++p) *letter++ = "TCAG"[base_code(bases, p)];
  for (; p + kBasesPerByte <= end_bp; p += kBasesPerByte, letter += kBasesPerByte) {
    std::memcpy(letter, kLettersOfByte[bases[p / kBasesPerByte]].data(), kBasesPerByte);
  }
  for (; p < end_bp; ++p) *letter++ = "TCAG"[base_code(bases, p)];
  const int64_t last_block = genome.n_block_index[contig + 1];
  for (int64_t block = first_n_block_ending_after(genome, contig, start_bp);
       block < last_block && genome.n_block_start_bp[block] < end_bp; ++block) {
    const int64_t from = std::max(genome.n_block_start_bp[block], start_bp);
    const int64_t to = std::min(genome.n_block_end_bp[block], end_bp);
    std::memset(text + (from - start_bp), 'N', static_cast<size_t>(to - from));
  }
}

}  // namespace dnagpt
