// Text -> token ids with the rules of the official KmerTokenizer (dnagpt_fast/ops/text_encode.py).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kmer_id.h"

namespace dnagpt {

class TextEncoder {
 public:
  // reserved: names without brackets in id order; k-mers follow them. unknown_id: for any other chunk.
  TextEncoder(int k, bool dynamic, const std::vector<std::string>& reserved, int64_t unknown_id);

  // Number of tokens of a text of one-byte characters.
  int64_t count(std::string_view text) const;

  struct Result {
    int64_t count, unknown;
  };

  // Writes the ids of a text of one-byte characters; `ids` has room for count(text).
  Result encode(std::string_view text, int64_t* ids) const;

 private:
  // Calls function(piece, id of its reserved token or -1) for every piece between brackets.
  template <typename Function>
  void for_each_piece(std::string_view text, Function function) const;
  int64_t* encode_kmers(std::string_view letters, int64_t* id, int64_t& unknown) const;
  template <int K>
  int64_t* encode_whole_kmers(const char* letters, int64_t n_kmers, int64_t* id, int64_t& unknown) const;
  int64_t reserved_id(std::string_view piece) const;

  int k_;
  bool dynamic_;
  int64_t unknown_id_;
  int64_t first_id_[kMaxK + 1];  // by length
  // what a letter adds to the number as letter j of k; a letter that is not a base adds kNoBase
  int32_t added_[kMaxK][256];
  std::array<int64_t, 256> reserved_letter_;  // ids of one-letter names, or -1
  std::unordered_map<std::string, int64_t> reserved_word_;
};

}  // namespace dnagpt
