// The only C++ file that uses Python. Arrays are passed as addresses of buffers that the caller owns and keeps alive;
// the callers in dnagpt_fast/ops check types and shapes first.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "fasta_pack.h"
#include "kernels.h"
#include "text_encode.h"
#ifdef DNAGPT_WITH_CUDA
#include "cuda/kernels_cuda.h"
#endif

namespace py = pybind11;
using namespace dnagpt;

namespace {

using Address = uintptr_t;

const int64_t* int64s(Address address) {
  return reinterpret_cast<const int64_t*>(address);
}

// The characters of a str, which must be ASCII and outlive the view.
std::string_view view(const py::str& text) {
  Py_ssize_t size = 0;
  const char* characters = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (!characters) throw py::error_already_set();
  return {characters, static_cast<size_t>(size)};
}

int64_t* mutable_int64s(Address address) {
  return reinterpret_cast<int64_t*>(address);
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

// `out`: addresses of the arrays of ops.sample_batch.SampledBatch, windows first.
SampledBatch make_batch(const std::vector<Address>& out) {
  return {mutable_int64s(out.at(0)),          mutable_int64s(out.at(1)),          mutable_int64s(out.at(2)),
          mutable_int64s(out.at(3)),          reinterpret_cast<void*>(out.at(4)), reinterpret_cast<float*>(out.at(5)),
          reinterpret_cast<bool*>(out.at(6)), reinterpret_cast<bool*>(out.at(7))};
}

#ifdef DNAGPT_WITH_CUDA

// A genome in device memory whose arrays were checked on the host.
struct CudaGenome {
  GenomeView view;
  int device;
  RefusedWindow* refused;
};

CudaGenome make_cuda_genome(const GenomeView& host, int device, Address refused, Address packed, Address byte_offset,
                            Address length_bp, Address n_block_index, Address n_block_start_bp,
                            Address n_block_end_bp) {
  GenomeView view = host;  // for counts and sizes; the addresses are those on the device
  view.packed = reinterpret_cast<const uint8_t*>(packed);
  view.byte_offset = int64s(byte_offset);
  view.length_bp = int64s(length_bp);
  view.n_block_index = int64s(n_block_index);
  view.n_block_start_bp = int64s(n_block_start_bp);
  view.n_block_end_bp = int64s(n_block_end_bp);
  return {view, device, reinterpret_cast<RefusedWindow*>(refused)};
}

void raise_for(const char* op, int error) {
  if (error == 0) return;
  throw std::runtime_error(std::string(op) + ": CUDA error: " + cuda_error_text(error) +
                           "; CUDA reports late, so the error may belong to an earlier kernel: with "
                           "CUDA_LAUNCH_BLOCKING=1 in the environment the op named here is the one that failed");
}

CudaCall call_on(const CudaGenome& genome, Address stream) {
  return {genome.device, reinterpret_cast<void*>(stream), genome.refused};
}

void bind_cuda(py::module_& m) {
  py::class_<CudaGenome>(m, "CudaGenome")
      .def(py::init(&make_cuda_genome))
      // the bytes of the view, to be copied into device memory
      .def("view_bytes", [](const CudaGenome& genome) {
        return py::bytes(reinterpret_cast<const char*>(&genome.view), sizeof genome.view);
      });

  m.def("kmer_tokenize_cuda", [](const CudaGenome& genome, Address contig, Address start_bp, Address orientation,
                                 int64_t same_orientation, int64_t count, int64_t n_tokens, int k, bool dynamic,
                                 int token_bytes, Address tokens, Address stream) {
    const Windows windows = make_windows(contig, start_bp, orientation, same_orientation, count);
    raise_for("kmer_tokenize", kmer_tokenize_cuda(genome.view, windows, n_tokens, k, dynamic, token_type(token_bytes),
                                                  reinterpret_cast<void*>(tokens), call_on(genome, stream)));
  });

  m.def("gc_count_cuda", [](const CudaGenome& genome, Address contig, Address start_bp, Address length_bp,
                            int64_t same_length_bp, int64_t count, Address gc, Address known, Address stream) {
    const Windows windows = make_windows(contig, start_bp, 0, 0, count);
    raise_for("gc_count", gc_count_cuda(genome.view, windows, int64s(length_bp), same_length_bp, mutable_int64s(gc),
                                        mutable_int64s(known), call_on(genome, stream)));
  });

  m.def("sample_batch_cuda", [](const CudaGenome& first_genome, Address genomes, const SamplerTables& tables,
                                uint64_t seed, uint64_t first_index, Address index_at, int64_t count, int64_t n_tokens,
                                int k, bool dynamic, int token_bytes, const std::vector<Address>& out, Address refused,
                                Address stream) {
    const CudaCall call{first_genome.device, reinterpret_cast<void*>(stream),
                        reinterpret_cast<RefusedWindow*>(refused)};
    raise_for("sample_batch", sample_batch_cuda(reinterpret_cast<const GenomeView*>(genomes), tables, seed, first_index,
                                                reinterpret_cast<const uint64_t*>(index_at), count, n_tokens, k,
                                                dynamic, token_type(token_bytes), make_batch(out), call));
  });
}

#endif  // DNAGPT_WITH_CUDA

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

  m.def("kmer_tokenize", [](const GenomeView& genome, Address contig, Address start_bp, Address orientation,
                            int64_t same_orientation, int64_t count, int64_t n_tokens, int k, bool dynamic,
                            int token_bytes, Address tokens, int threads, bool new_memory) {
    const CpuOptions options{chosen_isa(), threads, new_memory};
    const TokenType type = token_type(token_bytes);
    const py::gil_scoped_release release;
    kmer_tokenize(genome, make_windows(contig, start_bp, orientation, same_orientation, count), n_tokens, k, dynamic,
                  type, reinterpret_cast<void*>(tokens), options);
  });

  m.def("gc_count", [](const GenomeView& genome, Address contig, Address start_bp, Address length_bp,
                       int64_t same_length_bp, int64_t count, Address gc, Address known, int threads) {
    const CpuOptions options{chosen_isa(), threads};
    const py::gil_scoped_release release;
    gc_count(genome, make_windows(contig, start_bp, 0, 0, count), int64s(length_bp), same_length_bp, mutable_int64s(gc),
             mutable_int64s(known), options);
  });

  m.def("gc_track", [](const GenomeView& genome, int64_t contig, int64_t window_bp, int64_t step_bp, int64_t n_windows,
                       Address gc, Address known, int threads) {
    const CpuOptions options{chosen_isa(), threads};
    const py::gil_scoped_release release;
    gc_track(genome, contig, window_bp, step_bp, n_windows, mutable_int64s(gc), mutable_int64s(known), options);
  });

  m.def(
      "sequence_text",
      [](const GenomeView& genome, int64_t contig, int64_t start_bp, int64_t end_bp, Address text) {
        sequence_text(genome, contig, start_bp, end_bp, reinterpret_cast<char*>(text));
      },
      py::call_guard<py::gil_scoped_release>());

  py::class_<SamplerTables>(m, "SamplerTables")
      .def(py::init([](Address genome_threshold, Address orientation_threshold, Address interval_index,
                       Address rank_before, Address contig, Address start_bp, Address ranks_per_start,
                       int64_t n_genomes) {
        return SamplerTables{reinterpret_cast<const uint64_t*>(genome_threshold),
                             reinterpret_cast<const uint64_t*>(orientation_threshold),
                             int64s(interval_index),
                             int64s(rank_before),
                             int64s(contig),
                             int64s(start_bp),
                             int64s(ranks_per_start),
                             n_genomes};
      }));

  m.def("sample_batch", [](const std::vector<const GenomeView*>& genomes, const SamplerTables& tables, uint64_t seed,
                           uint64_t first_index, int64_t count, int64_t n_tokens, int k, bool dynamic, int token_bytes,
                           const std::vector<Address>& out, int threads) {
    const CpuOptions options{chosen_isa(), threads};
    const TokenType type = token_type(token_bytes);
    const SampledBatch batch = make_batch(out);
    const py::gil_scoped_release release;
    sample_batch(genomes.data(), tables, seed, first_index, count, n_tokens, k, dynamic, type, batch, options);
  });

  py::class_<TextEncoder>(m, "TextEncoder")
      .def(py::init<int, bool, const std::vector<std::string>&, int64_t>())
      .def("count", [](const TextEncoder& encoder, const py::str& text) { return encoder.count(view(text)); })
      // returns the number of unknown chunks
      .def("encode", [](const TextEncoder& encoder, const py::str& text, Address ids) {
        const std::string_view letters = view(text);
        const py::gil_scoped_release release;
        return encoder.encode(letters, mutable_int64s(ids)).unknown;
      });

  py::class_<FastaPacker>(m, "FastaPacker")
      .def(py::init<>())
      .def("feed",
           [](FastaPacker& packer, const py::bytes& text, int64_t from, bool at_line_start, bool final) {
             const std::string_view letters = text;
             if (from < 0 || from > static_cast<int64_t>(letters.size()))
               throw std::out_of_range("FastaPacker.feed: from = " + std::to_string(from) + ", wanted 0.." +
                                       std::to_string(letters.size()));
             const Isa isa = chosen_isa();
             FastaPacker::FeedResult result;
             {
               const py::gil_scoped_release release;
               result = packer.feed(reinterpret_cast<const uint8_t*>(letters.data()) + from,
                                    static_cast<int64_t>(letters.size()) - from, at_line_start, final, isa);
             }
             return py::make_tuple(from + result.consumed, static_cast<int>(result.stop));
           })
      .def_readonly("length_bp", &FastaPacker::length_bp)
      .def_readonly("ambiguous", &FastaPacker::ambiguous)
      .def_readonly("line_feeds", &FastaPacker::line_feeds)
      .def("finish", [](FastaPacker& packer) {
        const auto runs = [&](RunEdges& edges) {
          const std::vector<int64_t>& all = edges.finish(packer.length_bp);
          return py::array_t<int64_t>({static_cast<py::ssize_t>(all.size() / 2), py::ssize_t{2}}, all.data());
        };
        uint8_t* const packed = packer.take_packed().release();
        const py::capsule owner(packed, [](void* memory) { std::free(memory); });
        return py::make_tuple(py::array_t<uint8_t>(packed_bytes_for(packer.length_bp), packed, owner),
                              runs(packer.n_runs), runs(packer.mask_runs));
      });

  m.def("use_huge_pages",
        [](Address memory, int64_t bytes) { use_huge_pages(reinterpret_cast<void*>(memory), bytes); });
  m.def("cpu_isa", &cpu_isa);
  m.def("machine_isas", &machine_isas);
#ifdef DNAGPT_WITH_CUDA
  bind_cuda(m);
  m.attr("cuda_archs") = DNAGPT_CUDA_ARCHS;
  m.attr("cuda_runtime") = cuda_runtime_version();
#else
  m.attr("cuda_archs") = "";
  m.attr("cuda_runtime") = 0;
#endif
}
