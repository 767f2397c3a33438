// The only C++ file that knows Python. Arrays come as addresses of buffers that the caller owns and keeps alive;
// ops/native.py is the one caller and checks types and shapes before.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "kernels.h"

namespace py = pybind11;
using namespace dnagpt;

namespace {

using Address = uintptr_t;

const int64_t* int64s(Address address) {
  return reinterpret_cast<const int64_t*>(address);
}

TokenType token_type(int bytes) {
  switch (bytes) {
    case 2:
      return TokenType::kUint16;
    case 4:
      return TokenType::kInt32;
    case 8:
      return TokenType::kInt64;
  }
  throw std::invalid_argument("tokens of " + std::to_string(bytes) + " bytes: wanted 2, 4 or 8");
}

GenomeView make_genome(Address packed, int64_t packed_bytes, Address byte_offset, Address length_bp, int64_t n_contigs,
                       Address n_block_index, Address n_block_start_bp, Address n_block_end_bp, int64_t n_blocks) {
  GenomeView genome{};
  genome.packed = reinterpret_cast<const uint8_t*>(packed);
  genome.packed_bytes = packed_bytes;
  genome.byte_offset = int64s(byte_offset);
  genome.length_bp = int64s(length_bp);
  genome.n_contigs = n_contigs;
  genome.n_block_index = int64s(n_block_index);
  genome.n_block_start_bp = int64s(n_block_start_bp);
  genome.n_block_end_bp = int64s(n_block_end_bp);
  genome.n_blocks = n_blocks;
  check_genome(genome);
  return genome;
}

Windows make_windows(Address contig, Address start_bp, Address orientation, int64_t same_orientation, int64_t count) {
  return {int64s(contig), int64s(start_bp), int64s(orientation), same_orientation, count};
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Kernels of dnagpt_fast over packed bases; call them through dnagpt_fast.ops.";

  py::class_<GenomeView>(m, "GenomeView").def(py::init(&make_genome), py::call_guard<py::gil_scoped_release>());

  m.def(
      "check_windows",
      [](const GenomeView& genome, Address contig, Address start_bp, Address orientation, int64_t same_orientation,
         int64_t count, Address length_bp, int64_t same_length_bp) {
        check_windows(genome, make_windows(contig, start_bp, orientation, same_orientation, count), int64s(length_bp),
                      same_length_bp);
      },
      py::call_guard<py::gil_scoped_release>());

  m.def(
      "kmer_tokenize",
      [](const GenomeView& genome, Address contig, Address start_bp, Address orientation, int64_t same_orientation,
         int64_t count, int64_t n_tokens, int k, bool dynamic, int token_bytes, Address tokens) {
        const Windows windows = make_windows(contig, start_bp, orientation, same_orientation, count);
        kmer_tokenize(genome, windows, n_tokens, k, dynamic, token_type(token_bytes), reinterpret_cast<void*>(tokens));
      },
      py::call_guard<py::gil_scoped_release>());

  m.def(
      "gc_count",
      [](const GenomeView& genome, Address contig, Address start_bp, Address length_bp, int64_t count, Address gc,
         Address known) {
        const Windows windows = make_windows(contig, start_bp, 0, 0, count);
        gc_count(genome, windows, int64s(length_bp), reinterpret_cast<int64_t*>(gc), reinterpret_cast<int64_t*>(known));
      },
      py::call_guard<py::gil_scoped_release>());

  m.def("cpu_isa", &cpu_isa);
#ifdef DNAGPT_CUDA_ARCHS
  m.attr("cuda_archs") = DNAGPT_CUDA_ARCHS;
#else
  m.attr("cuda_archs") = "";
#endif
}
