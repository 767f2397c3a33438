// FASTA text -> packed bases and runs: 64 letters at a time, or one at a time in blocks with rare letters.

#include "fasta_pack.h"

#include <algorithm>
#include <array>
#include <new>

namespace dnagpt {

namespace {

constexpr uint8_t kCodeBits = 3, kIsN = 4, kIsMasked = 8, kIsAmbiguous = 16, kIsInvalid = 64;

// The table for one letter at a time.
std::array<uint8_t, 256> make_letters() {
  std::array<uint8_t, 256> letters;
  letters.fill(kIsInvalid);
  const auto set = [&](const char* these, uint8_t value) {
    for (; *these; ++these) {
      letters[static_cast<uint8_t>(*these)] = value;
      letters[static_cast<uint8_t>(*these + 32)] = value | kIsMasked;
    }
  };
  set("TU", kCodeT);
  set("C", kCodeC);
  set("A", kCodeA);
  set("G", kCodeG);
  set("N", kIsN);
  set("RYKMSWBDHVX", kIsN | kIsAmbiguous);
  return letters;
}

const std::array<uint8_t, 256> kLetters = make_letters();

uint64_t lowest_bits(int n) {
  return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

}  // namespace

void RunEdges::feed(uint64_t flags, int n, int64_t position_bp) {
  for (uint64_t changes = (flags ^ (flags << 1 | open_)) & lowest_bits(n); changes; changes &= changes - 1) {
    edges_.push_back(position_bp + __builtin_ctzll(changes));
    open_ ^= 1;
  }
}

const std::vector<int64_t>& RunEdges::finish(int64_t end_bp) {
  if (open_) edges_.push_back(end_bp);
  open_ = 0;
  return edges_;
}

void FastaPacker::make_room(int64_t bases) {
  // append() writes 17 bytes, beginning with the byte of the next base
  const int64_t wanted = packed_bytes_for(length_bp + bases) + 17;
  if (wanted <= room_bytes_) return;
  const int64_t room = std::max(wanted, room_bytes_ + room_bytes_ / 2);
  void* memory = std::realloc(packed_.get(), static_cast<size_t>(room));
  if (!memory) throw std::bad_alloc();
  static_cast<void>(packed_.release());
  packed_.reset(static_cast<uint8_t*>(memory));
  if (room_bytes_ == 0) packed_.get()[0] = 0;
  room_bytes_ = room;
}

std::unique_ptr<uint8_t, FastaPacker::Free> FastaPacker::take_packed() {
  make_room(0);
  void* memory = std::realloc(packed_.get(), static_cast<size_t>(std::max<int64_t>(packed_bytes_for(length_bp), 1)));
  if (!memory) throw std::bad_alloc();
  static_cast<void>(packed_.release());
  room_bytes_ = 0;
  return std::unique_ptr<uint8_t, Free>(static_cast<uint8_t*>(memory));
}

// Appends n bases: the highest bits of 128; the bits below are 0. The byte of the next base has 0 from that base on,
// before and after.
void FastaPacker::append(uint64_t high, uint64_t low, int n) {
  uint8_t* to = packed_.get() + length_bp / 4;
  const int shift = 2 * static_cast<int>(length_bp & 3);
  const uint64_t first = __builtin_bswap64(high >> shift | static_cast<uint64_t>(*to) << 56);
  const uint64_t second = __builtin_bswap64(low >> shift | high << 1 << (63 - shift));
  __builtin_memcpy(to, &first, 8);
  __builtin_memcpy(to + 8, &second, 8);
  to[16] = static_cast<uint8_t>(low << (8 - shift));
  length_bp += n;
}

FastaPacker::FeedResult FastaPacker::feed_letters(const uint8_t* text, int64_t from, int64_t to, int64_t size,
                                                  bool at_line_start, bool final) {
  for (int64_t i = from; i < to; ++i) {
    const uint8_t letter = text[i];
    if (letter == '\n') {
      at_line_start = true;
      ++line_feeds;
      continue;
    }
    if (letter == '\r') {
      if (i + 1 == size && !final) return {i, kEnd};
      if (i + 1 < size && text[i + 1] != '\n') return {i, kLoneReturn};
      continue;
    }
    const bool starts_line = at_line_start;
    at_line_start = false;
    if (letter == ' ' || letter == '\t') continue;
    if (letter == '>' && starts_line) return {i, kHeader};
    const uint8_t value = kLetters[letter];
    if (value == kIsInvalid) return {i, kInvalidLetter};
    n_runs.feed((value & kIsN) != 0, 1, length_bp);
    mask_runs.feed((value & kIsMasked) != 0, 1, length_bp);
    ambiguous += (value & kIsAmbiguous) != 0;
    append(static_cast<uint64_t>(value & kCodeBits) << 62, 0, 1);
  }
  return {to, kEnd};
}

FastaPacker::FeedResult FastaPacker::feed(const uint8_t* text, int64_t size, bool at_line_start, bool final, Isa isa) {
  make_room(size);
  const ReadLetters read = read_letters_for(isa);
  int64_t from = 0;
  while (from < size) {
    const bool starts_line = from ? text[from - 1] == '\n' : at_line_start;
    if (size - from < 64) return feed_letters(text, from, size, size, starts_line, final);
    const LetterBlock block = read(text + from);
    const uint64_t line_ends = block.line_feed | block.carriage_return;
    // a carriage return whose line feed is in the next block is read letter by letter, too
    const bool returns_have_feeds = !(block.carriage_return >> 63) && !(block.carriage_return << 1 & ~block.line_feed);
    if (~(block.base | line_ends) || !returns_have_feeds) {
      const FeedResult result = feed_letters(text, from, from + 64, size, starts_line, final);
      if (result.consumed < from + 64) return result;
      from += 64;
      continue;
    }
    const int count = 64 - block.line_ends;
    line_feeds += block.line_feeds;
    n_runs.feed(block.n, count, length_bp);
    mask_runs.feed(block.lower, count, length_bp);
    append(block.codes_high, block.codes_low, count);
    from += 64;
  }
  return {size, kEnd};
}

}  // namespace dnagpt
