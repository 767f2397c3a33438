// Intrinsics of x86. GCC 12 warns inside its own AVX-512 headers (bug 105593): not our code, so not our warnings.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
