// Counts of G and C codes in whole bytes of packed bases, one function per instruction set.
#pragma once

#include "cpu/isa.h"
#include "packed_sequence.h"

namespace dnagpt {

// G and C codes among the 4 * n_bytes bases at `bytes`; n_bytes may be 0.
using GcOfBytes = int64_t (*)(const uint8_t* bytes, int64_t n_bytes);

GcOfBytes gc_of_bytes_for(Isa isa);

}  // namespace dnagpt
