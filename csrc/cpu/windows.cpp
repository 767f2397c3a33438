// Checks of genomes and windows, made before any kernel reads them.
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace dnagpt {

namespace {

std::string number(int64_t value) {
  return std::to_string(value);
}

void check_blocks(const GenomeView& genome, int64_t contig) {
  int64_t previous_end_bp = 0;
  for (int64_t block = genome.n_block_index[contig]; block < genome.n_block_index[contig + 1]; ++block) {
    const int64_t start_bp = genome.n_block_start_bp[block], end_bp = genome.n_block_end_bp[block];
    if (start_bp < previous_end_bp || end_bp <= start_bp || end_bp > genome.length_bp[contig]) {
      throw std::invalid_argument("N block " + number(block) + " [" + number(start_bp) + ", " + number(end_bp) +
                                  ") of contig " + number(contig) + " (" + number(genome.length_bp[contig]) +
                                  " bp): wanted sorted, disjoint, non-empty blocks inside the contig");
    }
    previous_end_bp = end_bp;
  }
}

}  // namespace

void check_genome(const GenomeView& genome) {
  for (int64_t contig = 0; contig < genome.n_contigs; ++contig) {
    const int64_t offset = genome.byte_offset[contig], length_bp = genome.length_bp[contig];
    if (offset < 0 || length_bp < 0 || offset > genome.packed_bytes ||
        packed_bytes_for(length_bp) > genome.packed_bytes - offset) {
      throw std::invalid_argument("contig " + number(contig) + ": " + number(length_bp) + " bp at byte " +
                                  number(offset) + " do not fit into " + number(genome.packed_bytes) + " packed bytes");
    }
  }
  if (genome.n_block_index[0] != 0) {
    throw std::invalid_argument("n_block_index begins with " + number(genome.n_block_index[0]) + ", wanted 0");
  }
  for (int64_t contig = 0; contig < genome.n_contigs; ++contig) {
    if (genome.n_block_index[contig + 1] < genome.n_block_index[contig]) {
      throw std::invalid_argument("n_block_index decreases at contig " + number(contig));
    }
  }
  if (genome.n_block_index[genome.n_contigs] != genome.n_blocks) {
    throw std::invalid_argument("n_block_index ends with " + number(genome.n_block_index[genome.n_contigs]) +
                                ", wanted the number of N blocks, " + number(genome.n_blocks));
  }
  for (int64_t contig = 0; contig < genome.n_contigs; ++contig) check_blocks(genome, contig);
}

void check_windows(const GenomeView& genome, const Windows& windows, const int64_t* length_bp, int64_t same_length_bp) {
  for (int64_t i = 0; i < windows.count; ++i) {
    const int64_t contig = windows.contig[i];
    if (contig < 0 || contig >= genome.n_contigs) {
      throw std::out_of_range("window " + number(i) + ": contig " + number(contig) + ", the genome has contigs 0.." +
                              number(genome.n_contigs - 1));
    }
    const int64_t length = length_bp ? length_bp[i] : same_length_bp;
    if (length < 0) {
      throw std::invalid_argument("window " + number(i) + ": length " + number(length) + " bp, wanted 0 or more");
    }
    const int64_t start_bp = windows.start_bp[i], contig_bp = genome.length_bp[contig];
    if (start_bp < 0 || start_bp > contig_bp || length > contig_bp - start_bp) {
      throw std::out_of_range("window " + number(i) + ": " + number(length) + " bp from " + number(start_bp) +
                              " leave contig " + number(contig) + " of " + number(contig_bp) + " bp");
    }
    const int64_t orientation = windows.orientation ? windows.orientation[i] : windows.same_orientation;
    if (orientation < 0 || orientation > 3) {
      throw std::invalid_argument("window " + number(i) + ": orientation " + number(orientation) +
                                  ", wanted 0..3 (bit 0 reversed, bit 1 complemented)");
    }
  }
}

}  // namespace dnagpt
