// Text -> token ids: brackets, reserved names, chunks of k letters.

#include "text_encode.h"

#include <algorithm>

namespace dnagpt {

namespace {

// more than any k-mer's number; the sum of six fits into int32
constexpr int32_t kNoBase = 1 << 24;
constexpr char kLetters[] = "NAGCT";

}  // namespace

TextEncoder::TextEncoder(int k, bool dynamic, const std::vector<std::string>& reserved, int64_t unknown_id)
    : k_(k), dynamic_(dynamic), unknown_id_(unknown_id) {
  for (int length = 1; length <= k; ++length) {
    first_id_[length] = first_kmer_id(length, dynamic) - kReservedTokens + static_cast<int64_t>(reserved.size());
  }
  for (int j = 0; j < k; ++j) {
    std::fill(added_[j], added_[j] + 256, kNoBase);
    for (int digit = 0; digit < 5; ++digit) {
      added_[j][static_cast<unsigned char>(kLetters[digit])] = digit * power_of_5(k - 1 - j);
    }
  }
  reserved_letter_.fill(-1);
  for (size_t id = 0; id < reserved.size(); ++id) {
    if (reserved[id].size() == 1) {
      reserved_letter_[static_cast<unsigned char>(reserved[id][0])] = static_cast<int64_t>(id);
    } else {
      reserved_word_[reserved[id]] = static_cast<int64_t>(id);
    }
  }
}

int64_t TextEncoder::reserved_id(std::string_view piece) const {
  if (piece.size() == 1) return reserved_letter_[static_cast<unsigned char>(piece[0])];
  if (reserved_word_.empty()) return -1;
  const auto found = reserved_word_.find(std::string(piece));
  return found == reserved_word_.end() ? -1 : found->second;
}

template <int K>
int64_t* TextEncoder::encode_whole_kmers(const char* letters, int64_t n_kmers, int64_t* id, int64_t& unknown) const {
  const auto* letter = reinterpret_cast<const unsigned char*>(letters);
  // kept in locals: stores to `id` may alias them
  const int64_t first_id = first_id_[K], unknown_id = unknown_id_;
  int64_t n_unknown = 0;
  for (int64_t i = 0; i < n_kmers; ++i, letter += K) {
    int32_t number = 0;
    for (int j = 0; j < K; ++j) number += added_[j][letter[j]];
    const bool known = number < kNoBase;
    n_unknown += !known;
    id[i] = known ? first_id + number : unknown_id;
  }
  unknown += n_unknown;
  return id + n_kmers;
}

int64_t* TextEncoder::encode_kmers(std::string_view letters, int64_t* id, int64_t& unknown) const {
  const int64_t length = static_cast<int64_t>(letters.size()), n_whole = length / k_, tail = length % k_;
  switch (k_) {
    case 1:
      id = encode_whole_kmers<1>(letters.data(), n_whole, id, unknown);
      break;
    case 2:
      id = encode_whole_kmers<2>(letters.data(), n_whole, id, unknown);
      break;
    case 3:
      id = encode_whole_kmers<3>(letters.data(), n_whole, id, unknown);
      break;
    case 4:
      id = encode_whole_kmers<4>(letters.data(), n_whole, id, unknown);
      break;
    case 5:
      id = encode_whole_kmers<5>(letters.data(), n_whole, id, unknown);
      break;
    default:
      id = encode_whole_kmers<6>(letters.data(), n_whole, id, unknown);
  }
  if (tail == 0) return id;
  int32_t number = 0;
  for (int64_t j = 0; j < tail; ++j) {
    number += added_[k_ - tail + j][static_cast<unsigned char>(letters[n_whole * k_ + j])];
  }
  const bool known = dynamic_ && number < kNoBase;
  unknown += !known;
  *id++ = known ? first_id_[tail] + number : unknown_id_;
  return id;
}

template <typename Function>
void TextEncoder::for_each_piece(std::string_view text, Function function) const {
  // the next bracket of a kind is searched only when the last one is passed: no letter is searched twice for one kind
  const auto next = [&](char bracket, size_t from) { return std::min(text.find(bracket, from), text.size()); };
  size_t open = next('<', 0), close = next('>', 0);
  for (size_t from = 0; from < text.size();) {
    const size_t to = std::min(open, close);
    const std::string_view piece = text.substr(from, to - from);
    from = to + 1;
    if (to == open) open = next('<', std::min(from, text.size()));
    if (to == close) close = next('>', std::min(from, text.size()));
    if (!piece.empty()) function(piece, reserved_id(piece));
  }
}

int64_t TextEncoder::count(std::string_view text) const {
  int64_t tokens = 0;
  for_each_piece(text, [&](std::string_view piece, int64_t reserved) {
    tokens += reserved >= 0 ? 1 : (static_cast<int64_t>(piece.size()) + k_ - 1) / k_;
  });
  return tokens;
}

TextEncoder::Result TextEncoder::encode(std::string_view text, int64_t* ids) const {
  int64_t* id = ids;
  int64_t unknown = 0;
  for_each_piece(text, [&](std::string_view piece, int64_t reserved) {
    if (reserved >= 0) {
      *id++ = reserved;
    } else {
      id = encode_kmers(piece, id, unknown);
    }
  });
  return {id - ids, unknown};
}

}  // namespace dnagpt
