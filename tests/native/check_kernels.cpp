// The CPU kernels against a short definition, for every instruction set of the machine, with inputs and outputs that
// end or begin at a page without access. Built with sanitizers, and for ARM, by test_kernels.py.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "fasta_pack.h"
#include "kernels.h"
#include "text_encode.h"

using namespace dnagpt;

namespace {

void fail(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", cpu_isa().c_str(), what.c_str());
  std::exit(1);
}

// `size` bytes between two pages without access, adjacent to the page after them or the page before them.
class Guarded {
 public:
  Guarded(size_t size, bool at_end) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    room_ = (size + page - 1) / page * page + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, room_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED) fail("mmap");
    mprotect(base_, page, PROT_NONE);
    mprotect(base_ + room_ - page, page, PROT_NONE);
    data_ = at_end ? base_ + room_ - page - size : base_ + page;
    std::memset(data_, 0x5a, size);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, room_); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  char *base_, *data_;
  size_t room_;
};

constexpr char kBases[] = "TCAG";

std::string random_letters(std::mt19937& random, int64_t length, int n_in) {
  std::string text;
  for (int64_t i = 0; i < length; ++i) text += n_in && random() % n_in == 0 ? 'N' : kBases[random() % 4];
  return text;
}

// One contig whose packed bytes touch a guard page; junk codes under N.
struct Genome {
  Genome(const std::string& letters, bool at_end)
      : text(letters), bytes(static_cast<size_t>(packed_bytes_for(static_cast<int64_t>(letters.size()))), at_end) {
    const int64_t length = static_cast<int64_t>(text.size());
    std::memset(bytes.as<char>(), 0, static_cast<size_t>(packed_bytes_for(length)));
    for (int64_t i = 0; i < length; ++i) {
      const char* found = std::strchr(kBases, text[i]);
      const int code = found ? static_cast<int>(found - kBases) : static_cast<int>(i * 7 & 3);
      bytes.as<uint8_t>()[i / 4] |= static_cast<uint8_t>(code << (6 - 2 * (i & 3)));
      if (text[i] == 'N' && (i == 0 || text[i - 1] != 'N')) starts.push_back(i);
      if (text[i] == 'N' && (i + 1 == length || text[i + 1] != 'N')) ends.push_back(i + 1);
    }
    length_bp = length;
    n_index[1] = static_cast<int64_t>(starts.size());
    view = {bytes.as<uint8_t>(), packed_bytes_for(length), &offset, &length_bp, n_index, starts.data(), ends.data(), 1,
            n_index[1]};
    check_genome(view);
  }
  std::string text;
  Guarded bytes;
  std::vector<int64_t> starts, ends;
  int64_t offset = 0, length_bp = 0, n_index[2] = {0, 0};
  GenomeView view;
};

std::string oriented(std::string text, int64_t orientation) {
  if (orientation & kComplemented) {
    for (char& base : text) base = base == 'A' ? 'T' : base == 'T' ? 'A' : base == 'C' ? 'G' : base == 'G' ? 'C' : base;
  }
  return orientation & kReversed ? std::string(text.rbegin(), text.rend()) : text;
}

int64_t id_of(const std::string& kmer, bool dynamic) {
  int64_t id = 0;
  for (const char base : kmer) id = id * 5 + (std::strchr("NAGCT", base) - "NAGCT");
  return id + first_kmer_id(static_cast<int>(kmer.size()), dynamic);
}

template <typename Token>
void check_tokens(const Genome& genome, TokenType type, int64_t start_bp, int64_t n_tokens, int k, int64_t orientation,
                  CpuOptions options, int64_t every = 1) {
  const int64_t contig = 0;
  const Windows windows{&contig, &start_bp, nullptr, orientation, 1};
  check_windows(genome.view, windows, nullptr, n_tokens * k);
  for (const bool at_end : {false, true}) {
    const Guarded out(static_cast<size_t>(n_tokens) * sizeof(Token), at_end);
    kmer_tokenize(genome.view, windows, n_tokens, k, start_bp % 2, type, out.as<void>(), options);
    const std::string window = oriented(genome.text.substr(start_bp, n_tokens * k), orientation);
    for (int64_t t = 0; t < n_tokens; t += every) {
      if (static_cast<int64_t>(out.as<Token>()[t]) != id_of(window.substr(t * k, k), start_bp % 2)) {
        fail("kmer_tokenize k " + std::to_string(k) + " orientation " + std::to_string(orientation) + " start " +
             std::to_string(start_bp) + " tokens " + std::to_string(n_tokens) + " at " + std::to_string(t));
      }
    }
  }
}

void check_kmer_tokenize(CpuOptions options) {
  std::mt19937 random(1);
  for (int k = 1; k <= kMaxK; ++k) {
    // k = 6 exceeds two blocks of the widest kernel, the other k two words of the scalar kernel
    std::vector<int64_t> lengths = {0, 1, 2, 5, 14, 58};
    for (int64_t n = 3; k == 6 && n <= 66; ++n) lengths.push_back(n);
    if (k == 6) lengths.insert(lengths.end(), {8191, 8200});  // chunks of 8,192
    for (const int64_t n_tokens : lengths) {
      for (int64_t start_bp = 0; start_bp < 4; ++start_bp) {
        // the window ends with the contig, the contig with the mapping, at every phase of the last byte; the window
        // that begins with the mapping is read downwards to its first byte
        const Genome genome(random_letters(random, start_bp + n_tokens * k, n_tokens % 3 ? 12 : 0), n_tokens % 2);
        for (int64_t orientation = 0; orientation < 4; ++orientation) {
          check_tokens<uint16_t>(genome, TokenType::kUint16, start_bp, n_tokens, k, orientation, options);
          check_tokens<int32_t>(genome, TokenType::kInt32, start_bp, n_tokens, k, orientation, options);
          check_tokens<int64_t>(genome, TokenType::kInt64, start_bp, n_tokens, k, orientation, options);
        }
      }
    }
  }
  // enough ids to bypass the caches, in one thread and in three, with N in every chunk and a run over two
  // chunks' ends; 101 shares no factor with a chunk
  std::string letters = random_letters(random, 6 * 2200000 + 3, 300);
  std::fill(letters.begin() + 40000, letters.begin() + 140000, 'N');
  const Genome genome(letters, true);
  check_tokens<int64_t>(genome, TokenType::kInt64, 3, 2200000, 6, 0, options, 101);
  check_tokens<int64_t>(genome, TokenType::kInt64, 1, 2200000, 6, 3, {options.isa, 3}, 101);
}

void check_gc_count(CpuOptions options) {
  std::mt19937 random(2);
  for (int64_t length = 0; length <= 2100; length += length < 100 ? 1 : 61) {
    const Genome genome(random_letters(random, length + 3, length % 2 ? 20 : 0), true);
    for (int64_t start_bp = 0; start_bp < 4; ++start_bp) {
      const int64_t contig = 0, span = length + 3 - start_bp;
      int64_t gc = -1, known = -1, expected_gc = 0, expected_known = 0;
      gc_count(genome.view, {&contig, &start_bp, nullptr, 0, 1}, &span, 0, &gc, &known, options);
      for (const char base : genome.text.substr(start_bp)) {
        expected_gc += base == 'G' || base == 'C';
        expected_known += base != 'N';
      }
      if (gc != expected_gc || known != expected_known) fail("gc_count of " + std::to_string(span));
    }
    for (const int64_t step_bp : {1, 7, 64}) {
      const int64_t n_windows = (length + 3 + step_bp - 1) / step_bp;
      std::vector<int64_t> gc(n_windows), known(n_windows);
      gc_track(genome.view, 0, 50, step_bp, n_windows, gc.data(), known.data(), options);
      for (int64_t w = 0; w < n_windows; ++w) {
        int64_t expected = 0;
        for (const char base : genome.text.substr(w * step_bp, 50)) expected += base == 'G' || base == 'C';
        if (gc[w] != expected) fail("gc_track by " + std::to_string(step_bp));
      }
    }
  }
  // windows that are read four at a time and as quarters, the last one to the end of the mapping
  const Genome genome(random_letters(random, 1100003, 300), true);
  for (const int64_t window_bp : {20001, 1100003}) {
    const int64_t n_windows = (1100003 + window_bp - 1) / window_bp;
    std::vector<int64_t> gc(n_windows), known(n_windows);
    gc_track(genome.view, 0, window_bp, window_bp, n_windows, gc.data(), known.data(), options);
    for (int64_t w = 0; w < n_windows; ++w) {
      int64_t expected = 0;
      for (const char base : genome.text.substr(w * window_bp, window_bp)) expected += base == 'G' || base == 'C';
      if (gc[w] != expected) fail("gc_track of long windows");
    }
  }
}

void check_fasta(CpuOptions options) {
  std::mt19937 random(3);
  for (int64_t length = 0; length < 400; length += length < 140 ? 1 : 7) {
    for (const char* line_end : {"", "\n", "\r\n"}) {
      const std::string letters = random_letters(random, length, 9);
      std::string text;
      for (int64_t i = 0; i < length; ++i) {
        text += random() % 3 ? letters[i] : static_cast<char>(letters[i] | 0x20);
        if (i % 61 == 60) text += line_end;
      }
      const Guarded at_end(text.size(), true);
      if (!text.empty()) std::memcpy(at_end.as<char>(), text.data(), text.size());
      FastaPacker packer;
      const auto fed = packer.feed(at_end.as<uint8_t>(), static_cast<int64_t>(text.size()), true, true, options.isa);
      if (fed.stop != FastaPacker::kEnd || packer.length_bp != length) fail("fasta_pack of " + std::to_string(length));
      const auto packed = packer.take_packed();
      const std::vector<int64_t>& n_runs = packer.n_runs.finish(length);
      std::vector<int64_t> starts, ends;
      for (size_t i = 0; i < n_runs.size(); i += 2) starts.push_back(n_runs[i]), ends.push_back(n_runs[i + 1]);
      const int64_t offset = 0, n_index[2] = {0, static_cast<int64_t>(starts.size())};
      const GenomeView view{
          packed.get(), packed_bytes_for(length), &offset, &length, n_index, starts.data(), ends.data(), 1, n_index[1]};
      check_genome(view);
      const Guarded back(static_cast<size_t>(length), true);
      sequence_text(view, 0, 0, length, back.as<char>());
      if (length && std::memcmp(back.as<char>(), letters.data(), letters.size()) != 0) fail("sequence_text");
    }
  }
}

void check_text_encode() {
  std::mt19937 random(4);
  const TextEncoder encoder(6, true, {"0", "R", "word"}, 0);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (unsigned i = random() % 90; i; --i) text += "ACGTNACGTN<>Rword0\n\xff"[random() % 20];
    const Guarded in(text.size(), true);
    if (!text.empty()) std::memcpy(in.as<char>(), text.data(), text.size());
    const std::string_view view(in.as<char>(), text.size());
    const Guarded out(static_cast<size_t>(encoder.count(view)) * 8, true);
    const auto result = encoder.encode(view, out.as<int64_t>());
    if (result.count != encoder.count(view)) fail("text_encode: " + text);
  }
}

}  // namespace

int main() {
  for (const std::string& name : machine_isas()) {
    setenv("DNAGPT_FAST_CPU_ISA", name.c_str(), 1);
    const CpuOptions options{chosen_isa(), 1};
    check_kmer_tokenize(options);
    check_gc_count(options);
    check_fasta(options);
    std::printf("%s ok\n", name.c_str());
  }
  check_text_encode();
  return 0;
}
