// Number formats of PTX: half, bfloat16, tf32, fp8, and rounding in every mode.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cfenv>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <vector>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef unsigned __int128 u128;
typedef __int128 s128;
using std::string;
using std::vector;
struct Err : std::runtime_error {
  using runtime_error::runtime_error;
};
static string fmt(const char* f, ...) {
  char b[2048];
  va_list v;
  va_start(v, f);
  vsnprintf(b, sizeof b, f, v);
  va_end(v);
  return b;
}

// ------------------------------------------------------------------ 1. arithmetic on 32 lanes
static inline u32 fbits(float f) {
  u32 u;
  memcpy(&u, &f, 4);
  return u;
}
static inline float bitsf(u32 u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline u64 dbits(double f) {
  u64 u;
  memcpy(&u, &f, 8);
  return u;
}
static inline double bitsd(u64 u) {
  double f;
  memcpy(&f, &u, 8);
  return f;
}
static inline float h2f(u16 h) {
  _Float16 x;
  memcpy(&x, &h, 2);
  return (float)x;
}
static inline u16 f2h(float f) {
  _Float16 x = (_Float16)f;
  u16 h;
  memcpy(&h, &x, 2);
  return h;
}
static inline float b2f(u16 h) {
  return bitsf((u32)h << 16);
}
static inline u16 f2b(float f) {
  u32 u = fbits(f);
  if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (u16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
enum RM { RN = 0, RZ, RM_, RP, RNA };
// round x to p significant bits with least exponent emin (of the unit in the last place), any mode
static double roundto(double x, int p, int ulpmin, int mode) {
  if (x == 0 || !std::isfinite(x)) return x;
  int e = std::ilogb(x) - (p - 1);
  if (e < ulpmin) e = ulpmin;
  double y = std::ldexp(x, -e), r;
  switch (mode) {
    case RZ:
      r = std::trunc(y);
      break;
    case RM_:
      r = std::floor(y);
      break;
    case RP:
      r = std::ceil(y);
      break;
    case RNA:
      r = std::round(y);
      break;
    default:
      r = std::nearbyint(y);
  }
  return std::ldexp(r, e);
}
static u16 d2h(double x, int mode = RN) {
  double r = roundto(x, 11, -24, mode);
  if (std::isfinite(x) && std::fabs(r) > 65504) {
    bool up = mode == RN || mode == RNA || (mode == RP && x > 0) || (mode == RM_ && x < 0);
    r = up ? std::copysign(INFINITY, x) : std::copysign(65504.0, x);
  }
  return f2h((float)r);
}
static u16 d2b(double x, int mode = RN) {
  if (std::isnan(x)) return 0x7fff;
  double r = roundto(x, 8, -133, mode), mx = bitsf(0x7f7f0000);
  if (std::isfinite(x) && std::fabs(r) > mx) {
    bool up = mode == RN || mode == RNA || (mode == RP && x > 0) || (mode == RM_ && x < 0);
    r = up ? std::copysign(INFINITY, x) : std::copysign(mx, x);
  }
  return (u16)(fbits((float)r) >> 16);
}
static float tf32rna(float f, int mode) {
  u32 u = fbits(f);
  if ((u & 0x7f800000) == 0x7f800000) return f;
  if (mode == RNA)
    u += 0x1000;
  else if (mode == RN)
    u += 0xfff + ((u >> 13) & 1);
  return bitsf(u & 0xffffe000);
}
typedef void (*Alu)(void*, const void*, const void*, const void*, const void*);
