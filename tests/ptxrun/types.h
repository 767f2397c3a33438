// The types of PTX, and the lane function of each operation on them.

// Lists of operations are tables; clang-format would break their layout.
// clang-format off
#pragma once

#include "float_lanes.h"

enum T {
  U8,
  S8,
  B8,
  U16,
  S16,
  B16,
  U32,
  S32,
  B32,
  U64,
  S64,
  B64,
  TF16,
  TBF16,
  TF32_,
  TF64,
  TF16X2,
  TBF16X2,
  PRED,
  TTF32,
  NOTYPE
};
static const char* TN[] = {"u8",  "s8",  "b8",  "u16",  "s16", "b16", "u32",   "s32",    "b32",  "u64",
                           "s64", "b64", "f16", "bf16", "f32", "f64", "f16x2", "bf16x2", "pred", "tf32"};
static const int TS[] = {1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 2, 2, 4, 8, 4, 4, 1, 4, 0};
static T typeOf(const string& s) {
  for (int i = 0; i < NOTYPE; i++)
    if (s == TN[i]) return (T)i;
  return NOTYPE;
}
static bool isF(T t) {
  return t >= TF16 && t <= TBF16X2;
}
static bool isSigned(T t) {
  return t == S8 || t == S16 || t == S32 || t == S64;
}
template <template <class> class F>
static Alu pickInt(T t) {  // by signedness and size
  switch (t) {
    case U16:
    case B16:
      return F<u16>::f;
    case S16:
      return F<s16>::f;
    case U32:
    case B32:
      return F<u32>::f;
    case S32:
      return F<s32>::f;
    case U64:
    case B64:
      return F<u64>::f;
    case S64:
      return F<s64>::f;
    default:
      return nullptr;
  }
}
template <template <class> class F>
static Alu pickUns(T t) {  // by size only, floats allowed (bit moves)
  switch (TS[t]) {
    case 2:
      return F<u16>::f;
    case 4:
      return F<u32>::f;
    case 8:
      return F<u64>::f;
    default:
      return nullptr;
  }
}
template <template <class> class F>
static Alu pickFlt(T t, bool ftz) {
  switch (t) {
    case TF32_:
      return ftz ? F<F32Z>::f : F<F32>::f;
    case TF64:
      return F<F64>::f;
    case TF16:
      return F<F16>::f;
    case TBF16:
      return F<BF16>::f;
    case TF16X2:
      return F<F16X2>::f;
    case TBF16X2:
      return F<BF16X2>::f;
    default:
      return nullptr;
  }
}
template <template <class> class F, template <class> class G>
static Alu pickCmp(T t, bool ftz) {
  switch (t) {
    case TF32_:
      return ftz ? G<F32Z>::f : G<F32>::f;
    case TF64:
      return G<F64>::f;
    case TF16:
      return G<F16>::f;
    case TBF16:
      return G<BF16>::f;
    default:
      return pickInt<F>(t);
  }
}
template <class Dt>
static Alu pickII2(T s, bool sat) {
#define R(TT, ct) \
  case TT:        \
    return sat ? cvIIsat<Dt, ct> : cvII<Dt, ct>;
  switch (s) {
    R(U8, u8)
    R(B8, u8)
    R(S8, s8)
    R(U16, u16) R(B16, u16) R(S16, s16) R(U32, u32) R(B32, u32) R(S32, s32) R(U64, u64) R(B64, u64) R(S64, s64) default
        : return nullptr;
  }
#undef R
}
static Alu pickII(T d, T s, bool sat) {
  switch (d) {
    case U8:
    case B8:
      return pickII2<u8>(s, sat);
    case S8:
      return pickII2<s8>(s, sat);
    case U16:
    case B16:
      return pickII2<u16>(s, sat);
    case S16:
      return pickII2<s16>(s, sat);
    case U32:
    case B32:
      return pickII2<u32>(s, sat);
    case S32:
      return pickII2<s32>(s, sat);
    case U64:
    case B64:
      return pickII2<u64>(s, sat);
    case S64:
      return pickII2<s64>(s, sat);
    default:
      return nullptr;
  }
}
static Alu pickIF(T d, T s) {
#define R(TT, ct)                          \
  case TT:                                 \
    return d == TF32_   ? cvIF<float, ct>  \
           : d == TF64  ? cvIF<double, ct> \
           : d == TF16  ? cvIH<ct>         \
           : d == TBF16 ? cvIB<ct>         \
                        : (Alu) nullptr;
  switch (s) {
    R(U8, u8)
    R(S8, s8) R(U16, u16) R(S16, s16) R(U32, u32) R(S32, s32) R(U64, u64) R(S64, s64) default : return nullptr;
  }
#undef R
}
template <class Dt, class St>
static Alu pickFI3(int m) {
  return m == 0 ? cvFI<Dt, St, 0> : m == 1 ? cvFI<Dt, St, 1> : m == 2 ? cvFI<Dt, St, 2> : cvFI<Dt, St, 3>;
}
template <class Dt>
static Alu pickFI2(T s, bool z, int m) {
  switch (s) {
    case TF32_:
      return z ? pickFI3<Dt, F32Z>(m) : pickFI3<Dt, F32>(m);
    case TF64:
      return pickFI3<Dt, F64>(m);
    case TF16:
      return pickFI3<Dt, F16>(m);
    case TBF16:
      return pickFI3<Dt, BF16>(m);
    default:
      return nullptr;
  }
}
static Alu pickFI(T d, T s, bool z, int m) {
  switch (d) {
    case U8:
      return pickFI2<u8>(s, z, m);
    case S8:
      return pickFI2<s8>(s, z, m);
    case U16:
      return pickFI2<u16>(s, z, m);
    case S16:
      return pickFI2<s16>(s, z, m);
    case U32:
      return pickFI2<u32>(s, z, m);
    case S32:
      return pickFI2<s32>(s, z, m);
    case U64:
      return pickFI2<u64>(s, z, m);
    case S64:
      return pickFI2<s64>(s, z, m);
    default:
      return nullptr;
  }
}
template <class Dt>
static Alu pickFF2(T s, bool z) {
  switch (s) {
    case TF32_:
      return z ? cvFF<Dt, F32Z> : cvFF<Dt, F32>;
    case TF64:
      return cvFF<Dt, F64>;
    case TF16:
      return cvFF<Dt, F16>;
    case TBF16:
      return cvFF<Dt, BF16>;
    default:
      return nullptr;
  }
}
static Alu pickFF(T d, T s, bool z, int rm) {
  if (d == TF16 || d == TBF16) {
    bool bf = d == TBF16;
    bool exact = s == TF16 || s == TBF16 || s == TF32_;
    if (rm == RN && exact) return bf ? pickFF2<BF16>(s, z) : pickFF2<F16>(s, z);
    switch (s) {
      case TF32_:
        return bf ? cvFHm<F32, true> : cvFHm<F32, false>;
      case TF64:
        return bf ? cvFHm<F64, true> : cvFHm<F64, false>;
      case TF16:
        return bf ? cvFHm<F16, true> : cvFHm<F16, false>;
      case TBF16:
        return bf ? cvFHm<BF16, true> : cvFHm<BF16, false>;
      default:
        return nullptr;
    }
  }
  if (d == TF32_) return z ? pickFF2<F32Z>(s, z) : pickFF2<F32>(s, z);
  if (d == TF64) return pickFF2<F64>(s, z);
  return nullptr;
}
