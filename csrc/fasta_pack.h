// Sequence text of one FASTA record -> packed bases, N runs and mask runs, fed piece by piece.
// dnagpt_fast/ops/fasta_pack.py is the definition.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/isa.h"
#include "packed_sequence.h"

namespace dnagpt {

// Runs of letters with a flag in a stream of letters, stored as edges: start, end, start, end, ...
class RunEdges {
 public:
  // The flags of n <= 64 letters from position_bp on, first letter in the lowest bit.
  void feed(uint64_t flags, int n, int64_t position_bp);
  // Closes an open run.
  const std::vector<int64_t>& finish(int64_t end_bp);

 private:
  std::vector<int64_t> edges_;
  uint64_t open_ = 0;
};

class FastaPacker {
 public:
  // Why feed() stopped.
  enum Stop { kEnd = 0, kHeader = 1, kInvalidLetter = 2, kLoneReturn = 3 };

  struct FeedResult {
    int64_t consumed;
    Stop stop;
  };

  // Packs text that begins at the start of a line or within one. Stops before a '>' that begins a line, a byte that is
  // not a sequence letter, or a carriage return without a line feed. A carriage return at the end of the text is left
  // for the next piece, unless this is the final one.
  FeedResult feed(const uint8_t* text, int64_t size, bool at_line_start, bool final, Isa isa);

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  // (length_bp + 3) / 4 bytes. Call it once, after the last feed().
  std::unique_ptr<uint8_t, Free> take_packed();
  RunEdges n_runs, mask_runs;
  int64_t length_bp = 0;
  int64_t ambiguous = 0;   // letters other than N that became N
  int64_t line_feeds = 0;  // in all text consumed

 private:
  void append(uint64_t high, uint64_t low, int n);
  FeedResult feed_letters(const uint8_t* text, int64_t from, int64_t to, int64_t size, bool at_line_start, bool final);
  void make_room(int64_t bases);

  std::unique_ptr<uint8_t, Free> packed_;
  int64_t room_bytes_ = 0;
};

// 64 letters of text. The first letter is in the lowest bit of a mask, and in the highest bits of the codes. The first
// three masks cover all 64 letters; the other fields cover only the letters that are not line ends, without gaps.
struct LetterBlock {
  uint64_t base;  // A C G T U N in either case
  uint64_t line_feed;
  uint64_t carriage_return;
  uint64_t n;                      // N in either case
  uint64_t lower;                  // lower case
  uint64_t codes_high, codes_low;  // 2 bits a letter; 0 for N and after the last letter
  int line_feeds, line_ends;       // counts; made here, where the instruction set may have a popcount
};

using ReadLetters = LetterBlock (*)(const uint8_t* text);
ReadLetters read_letters_for(Isa isa);

}  // namespace dnagpt
