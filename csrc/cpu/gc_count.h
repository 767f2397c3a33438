// Counts of G and C codes in whole bytes of packed bases, one function per instruction set.
#pragma once

#include "cpu/isa.h"
#include "packed_sequence.h"

namespace dnagpt {

// G and C codes among the 4 * n_bytes bases at `bytes`; n_bytes may be 0.
using GcOfBytes = int64_t (*)(const uint8_t* bytes, int64_t n_bytes);

GcOfBytes gc_of_bytes_for(Isa isa);

// The same at four places of n_bytes each, which are read side by side: a core keeps more reads of memory under way for
// several streams than for one. Null for instruction sets where this was not measured to be faster.
using GcOfFour = void (*)(const uint8_t* const* bytes, int64_t n_bytes, int64_t* count);

GcOfFour gc_of_four_for(Isa isa);

}  // namespace dnagpt
