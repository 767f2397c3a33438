// Runs the CUDA kernels on cases from a file and writes their outputs. Every array is a heap block of its exact size,
// so that AddressSanitizer sees a read or write one byte outside.
//
// Case: int64 op, then arrays, each int64 bytes + bytes, in the order of `Case`. Output: the output arrays, likewise.
#include <sys/mman.h>

#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels_cuda.h"

namespace {

using namespace dnagpt;

// bytes [shift, end) of a heap block; the pointer is as misaligned as `shift` says
struct Array {
  std::unique_ptr<char[]> block;
  size_t shift = 0, bytes = 0;
  char* far = nullptr;  // instead of `block`

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(far ? far : block.get() + shift);
  }
};

Array make_array(size_t bytes, size_t shift = 0) {
  Array array{std::unique_ptr<char[]>(new char[bytes + shift]), shift, bytes, nullptr};
  std::memset(array.block.get(), 0xA5, bytes + shift);
  return array;
}

int64_t read_word(std::istream& in) {
  int64_t word = 0;
  if (!in.read(reinterpret_cast<char*>(&word), sizeof word)) throw std::runtime_error("the case file ends early");
  return word;
}

Array read_array(std::istream& in, size_t shift = 0) {
  Array array = make_array(static_cast<size_t>(read_word(in)), shift);
  in.read(array.as<char>(), static_cast<std::streamsize>(array.bytes));
  return array;
}

// The array after `lead` unused bytes; only touched pages take memory. Freed at the end of the process.
Array far_array(std::istream& in, size_t lead) {
  const size_t bytes = static_cast<size_t>(read_word(in));
  void* block = mmap(nullptr, lead + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED) throw std::runtime_error("no address space");
  in.read(static_cast<char*>(block) + lead, static_cast<std::streamsize>(bytes));
  Array array;
  array.far = static_cast<char*>(block);
  array.bytes = lead + bytes;
  return array;
}

void write_array(std::ostream& out, const Array& array) {
  const int64_t bytes = static_cast<int64_t>(array.bytes);
  out.write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
  out.write(array.as<char>(), static_cast<std::streamsize>(array.bytes));
}

void check(int error) {
  if (error != 0) throw std::runtime_error(cuda_error_text(error));
}

// A genome's arrays in the order of packed.PackedGenome, kept as long as the view is used.
struct GenomeArrays {
  Array packed, byte_offset, length_bp, n_block_index, n_block_start_bp, n_block_end_bp;
  GenomeView view;
};

GenomeArrays read_genome(std::istream& in) {
  const size_t shift = static_cast<size_t>(read_word(in)), lead = static_cast<size_t>(read_word(in));
  GenomeArrays g{lead ? far_array(in, lead) : read_array(in, shift),
                 read_array(in),
                 read_array(in),
                 read_array(in),
                 read_array(in),
                 read_array(in),
                 {}};
  g.view.packed = g.packed.as<uint8_t>();
  g.view.packed_bytes = static_cast<int64_t>(g.packed.bytes);
  g.view.byte_offset = g.byte_offset.as<int64_t>();
  g.view.length_bp = g.length_bp.as<int64_t>();
  g.view.n_block_index = g.n_block_index.as<int64_t>();
  g.view.n_block_start_bp = g.n_block_start_bp.as<int64_t>();
  g.view.n_block_end_bp = g.n_block_end_bp.as<int64_t>();
  g.view.n_contigs = static_cast<int64_t>(g.length_bp.bytes / 8);
  g.view.n_blocks = static_cast<int64_t>(g.n_block_start_bp.bytes / 8);
  return g;
}

void tokenize_case(std::istream& in, std::ostream& out) {
  const GenomeArrays genome = read_genome(in);
  const Array contig = read_array(in), start_bp = read_array(in), orientation = read_array(in);
  const int64_t n_tokens = read_word(in), k = read_word(in), dynamic = read_word(in), token_bytes = read_word(in);
  const int64_t shift = read_word(in);
  const int64_t count = static_cast<int64_t>(contig.bytes / 8);
  const bool one = orientation.bytes == 8 && count != 1;  // one for all windows
  const Windows windows{contig.as<int64_t>(), start_bp.as<int64_t>(), one ? nullptr : orientation.as<int64_t>(),
                        one ? *orientation.as<int64_t>() : 0, count};
  const Array refused = make_array(sizeof(RefusedWindow));
  std::memset(refused.as<char>(), 0, sizeof(RefusedWindow));
  const Array tokens = make_array(static_cast<size_t>(count * n_tokens * token_bytes), static_cast<size_t>(shift));
  const TokenType type = token_bytes == 2   ? TokenType::kUint16
                         : token_bytes == 4 ? TokenType::kInt32
                                            : TokenType::kInt64;
  check(kmer_tokenize_cuda(genome.view, windows, n_tokens, static_cast<int>(k), dynamic != 0, type, tokens.as<char>(),
                           {0, nullptr, refused.as<RefusedWindow>()}));
  write_array(out, refused);
  write_array(out, tokens);
}

void gc_case(std::istream& in, std::ostream& out) {
  const GenomeArrays genome = read_genome(in);
  const Array contig = read_array(in), start_bp = read_array(in), length_bp = read_array(in);
  const int64_t count = static_cast<int64_t>(contig.bytes / 8);
  const Windows windows{contig.as<int64_t>(), start_bp.as<int64_t>(), nullptr, 0, count};
  const Array refused = make_array(sizeof(RefusedWindow)), gc = make_array(contig.bytes),
              known = make_array(contig.bytes);
  std::memset(refused.as<char>(), 0, sizeof(RefusedWindow));
  const bool same = length_bp.bytes == 8 && count != 1;  // one for all windows
  check(gc_count_cuda(genome.view, windows, same ? nullptr : length_bp.as<int64_t>(),
                      same ? *length_bp.as<int64_t>() : 0, gc.as<int64_t>(), known.as<int64_t>(),
                      {0, nullptr, refused.as<RefusedWindow>()}));
  write_array(out, refused);
  write_array(out, gc);
  write_array(out, known);
}

void sample_case(std::istream& in, std::ostream& out) {
  std::vector<GenomeArrays> genomes;
  const int64_t n_genomes = read_word(in);
  for (int64_t g = 0; g < n_genomes; ++g) genomes.push_back(read_genome(in));
  const Array views = make_array(static_cast<size_t>(n_genomes) * sizeof(GenomeView));
  for (int64_t g = 0; g < n_genomes; ++g) views.as<GenomeView>()[g] = genomes[static_cast<size_t>(g)].view;
  const Array genome_threshold = read_array(in), orientation_threshold = read_array(in),
              interval_index = read_array(in);
  const Array rank_before = read_array(in), contig = read_array(in), start_bp = read_array(in),
              ranks_per_start = read_array(in);
  const SamplerTables tables{genome_threshold.as<uint64_t>(),
                             orientation_threshold.as<uint64_t>(),
                             interval_index.as<int64_t>(),
                             rank_before.as<int64_t>(),
                             contig.as<int64_t>(),
                             start_bp.as<int64_t>(),
                             ranks_per_start.as<int64_t>(),
                             n_genomes};
  const Array seed = read_array(in), first_index = read_array(in);
  const int64_t by_address = read_word(in), count = read_word(in), n_tokens = read_word(in), k = read_word(in);
  const int64_t dynamic = read_word(in), token_bytes = read_word(in);
  std::vector<Array> rows;
  for (int i = 0; i < 4; ++i) rows.push_back(make_array(static_cast<size_t>(count) * 8));
  rows.push_back(make_array(static_cast<size_t>(count * n_tokens * token_bytes)));
  rows.push_back(make_array(static_cast<size_t>(count) * 4));
  for (int i = 0; i < 2; ++i) rows.push_back(make_array(static_cast<size_t>(count)));
  const SampledBatch batch{rows[0].as<int64_t>(), rows[1].as<int64_t>(), rows[2].as<int64_t>(), rows[3].as<int64_t>(),
                           rows[4].as<char>(),    rows[5].as<float>(),   rows[6].as<bool>(),    rows[7].as<bool>()};
  const Array refused = make_array(sizeof(RefusedWindow));
  std::memset(refused.as<char>(), 0, sizeof(RefusedWindow));
  const TokenType type = token_bytes == 2   ? TokenType::kUint16
                         : token_bytes == 4 ? TokenType::kInt32
                                            : TokenType::kInt64;
  check(sample_batch_cuda(views.as<GenomeView>(), tables, *seed.as<uint64_t>(),
                          by_address ? 0 : *first_index.as<uint64_t>(),
                          by_address ? first_index.as<uint64_t>() : nullptr, count, n_tokens, static_cast<int>(k),
                          dynamic != 0, type, batch, {0, nullptr, refused.as<RefusedWindow>()}));
  write_array(out, refused);
  for (const Array& row : rows) write_array(out, row);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: stand_in CASES ANSWERS\n";
    return 2;
  }
  std::ifstream in(argv[1], std::ios::binary);
  std::ofstream out(argv[2], std::ios::binary);
  while (in.peek() != std::ifstream::traits_type::eof()) {
    const int64_t op = read_word(in);
    if (op == 0) tokenize_case(in, out);
    if (op == 1) gc_case(in, out);
    if (op == 2) sample_case(in, out);
  }
  return 0;
}
