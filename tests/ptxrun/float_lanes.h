// Floating-point operations, comparisons and conversions on the 32 lanes of a warp.

// Lists of operations are tables; clang-format would break their layout.
// clang-format off
#pragma once

#include "integer_lanes.h"

// floating formats: storage S, computation type c, N elements in a register row
struct F32 {
  typedef float S;
  typedef float c;
  enum { N = 32 };
  static c ld(S s) { return s; }
  static S st(c v) { return v; }
};
struct F32Z {
  typedef float S;
  typedef float c;
  enum { N = 32 };
  static float fl(float x) { return (fbits(x) & 0x7f800000) ? x : bitsf(fbits(x) & 0x80000000); }
  static c ld(S s) { return fl(s); }
  static S st(c v) { return fl(v); }
};
struct F64 {
  typedef double S;
  typedef double c;
  enum { N = 32 };
  static c ld(S s) { return s; }
  static S st(c v) { return v; }
};
struct F16 {
  typedef u16 S;
  typedef float c;
  enum { N = 32 };
  static c ld(S s) { return h2f(s); }
  static S st(c v) { return f2h(v); }
};
struct BF16 {
  typedef u16 S;
  typedef float c;
  enum { N = 32 };
  static c ld(S s) { return b2f(s); }
  static S st(c v) { return f2b(v); }
};
struct F32X2 : F32 {
  enum { N = 64 };
};
struct F32ZX2 : F32Z {
  enum { N = 64 };
};
struct F16X2 : F16 {
  enum { N = 64 };
};
struct BF16X2 : BF16 {
  enum { N = 64 };
};
#define FOP(NAME, EXPR)                                                \
  template <class T>                                                   \
  struct NAME {                                                        \
    static void f(ARGS) {                                              \
      typedef typename T::S S;                                         \
      typedef typename T::c c;                                         \
      (void)E;                                                         \
      S* d = (S*)D;                                                    \
      const S *pa = (const S*)A, *pb = (const S*)B, *pc = (const S*)C; \
      (void)pb;                                                        \
      (void)pc;                                                        \
      LOOPN(T::N) {                                                    \
        c x = T::ld(pa[i]), y = T::ld(pb[i]), z = T::ld(pc[i]);        \
        (void)y;                                                       \
        (void)z;                                                       \
        d[i] = T::st((c)(EXPR));                                       \
      }                                                                \
    }                                                                  \
  };
template <class c>
static inline c fmin_(c a, c b) {
  return a != a ? b : b != b ? a : a < b ? a : b < a ? b : std::signbit(a) ? a : b;
}
template <class c>
static inline c fmax_(c a, c b) {
  return a != a ? b : b != b ? a : a > b ? a : b > a ? b : std::signbit(a) ? b : a;
}
template <class c>
static inline c nanq() {
  return std::numeric_limits<c>::quiet_NaN();
}
FOP(fAdd, x + y)
FOP(fSub, x - y)
FOP(fMul, x* y)
FOP(fDiv, x / y) FOP(fSqrt, std::sqrt(x)) FOP(fRsqrt, 1 / std::sqrt((double)x)) FOP(fRcp, 1 / x)
    FOP(fMin, fmin_<c>(x, y)) FOP(fMax, fmax_<c>(x, y)) FOP(fMinN, (x != x || y != y) ? nanq<c>() : fmin_<c>(x, y))
        FOP(fMaxN, (x != x || y != y) ? nanq<c>() : fmax_<c>(x, y)) FOP(fMin3, fmin_<c>(fmin_<c>(x, y), z))
            FOP(fMax3, fmax_<c>(fmax_<c>(x, y), z))
                FOP(fMinN3, (x != x || y != y || z != z) ? nanq<c>() : fmin_<c>(fmin_<c>(x, y), z))
                    FOP(fMaxN3, (x != x || y != y || z != z) ? nanq<c>() : fmax_<c>(fmax_<c>(x, y), z))
                        FOP(fEx2, std::exp2(x)) FOP(fLg2, std::log2(x)) FOP(fSin, std::sin(x)) FOP(fCos, std::cos(x))
                            FOP(fTanh, std::tanh(x)) FOP(fNeg, -x) FOP(fAbs, std::fabs(x)) FOP(fSat, x != x  ? 0
                                                                                                     : x < 0 ? 0
                                                                                                     : x > 1 ? 1
                                                                                                             : x)
                                FOP(fRelu, x != x  ? x
                                           : x > 0 ? x
                                                   : 0) FOP(fCopysign, std::copysign(y, x)) FOP(fRni, std::nearbyint(x))
                                    FOP(fRzi, std::trunc(x)) FOP(fRmi, std::floor(x)) FOP(fRpi, std::ceil(x))
                                        FOP(fId, x) template <class T>
                                        struct fFma {
  static void f(ARGS) {
    (void)E;
    typedef typename T::S S;
    S* d = (S*)D;
    const S *a = (const S*)A, *b = (const S*)B, *c = (const S*)C;
    LOOPN(T::N) d[i] = T::st(std::fma(T::ld(a[i]), T::ld(b[i]), T::ld(c[i])));
  }
};
template <bool BF, int N>
static void fFmaH(ARGS) {
  (void)E;
  u16* d = (u16*)D;
  const u16 *a = (const u16*)A, *b = (const u16*)B, *c = (const u16*)C;
  for (int i = 0; i < N; i++)
    d[i] = BF ? d2b(std::fma((double)b2f(a[i]), (double)b2f(b[i]), (double)b2f(c[i])))
              : d2h(std::fma((double)h2f(a[i]), (double)h2f(b[i]), (double)h2f(c[i])));
}
template <>
struct fFma<F16> {
  static void f(ARGS) { fFmaH<false, 32>(D, A, B, C, E); }
};
template <>
struct fFma<F16X2> {
  static void f(ARGS) { fFmaH<false, 64>(D, A, B, C, E); }
};
template <>
struct fFma<BF16> {
  static void f(ARGS) { fFmaH<true, 32>(D, A, B, C, E); }
};
template <>
struct fFma<BF16X2> {
  static void f(ARGS) { fFmaH<true, 64>(D, A, B, C, E); }
};
// comparisons: result one byte a lane
#define CMP(NAME, EXPR)                                 \
  template <class T>                                    \
  struct NAME {                                         \
    static void f(ARGS) {                               \
      (void)C;                                          \
      (void)E;                                          \
      u8* d = (u8*)D;                                   \
      const T *a = (const T*)A, *b = (const T*)B;       \
      LOOP {                                            \
        T x = a[i], y = b[i];                           \
        d[i] = (EXPR);                                  \
      }                                                 \
    }                                                   \
  };                                                    \
  template <class T>                                    \
  struct NAME##F {                                      \
    static void f(ARGS) {                               \
      (void)C;                                          \
      (void)E;                                          \
      u8* d = (u8*)D;                                   \
      typedef typename T::S S;                          \
      const S *a = (const S*)A, *b = (const S*)B;       \
      LOOP {                                            \
        typename T::c x = T::ld(a[i]), y = T::ld(b[i]); \
        d[i] = (EXPR);                                  \
      }                                                 \
    }                                                   \
  };
CMP(cEq, x == y)
CMP(cNe, (x < y) | (x > y))
CMP(cLt, x < y)
CMP(cLe, x <= y) CMP(cGt, x > y) CMP(cGe, x >= y) CMP(cEqu, !((x < y) | (x > y))) CMP(cNeu, !(x == y))
    CMP(cLtu, !(x >= y)) CMP(cLeu, !(x > y)) CMP(cGtu, !(x <= y)) CMP(cGeu, !(x < y)) CMP(cNum, (x == x) & (y == y))
        CMP(cNan, (x != x) | (y != y))
    // conversions
    template <class Dt, class St>
    static void cvII(ARGS) {
  (void)B;
  (void)C;
  (void)E;
  Dt* d = (Dt*)D;
  const St* a = (const St*)A;
  LOOP d[i] = (Dt)a[i];
}
template <class Dt, class St>
static void cvIIsat(ARGS) {
  (void)B;
  (void)C;
  (void)E;
  Dt* d = (Dt*)D;
  const St* a = (const St*)A;
  LOOP {
    s128 v = a[i];
    s128 lo = std::numeric_limits<Dt>::min(), hi = std::numeric_limits<Dt>::max();
    d[i] = (Dt)(v < lo ? lo : v > hi ? hi : v);
  }
}
template <class Dt, class St>
static void cvIF(ARGS) {
  (void)B;
  (void)C;
  (void)E;
  Dt* d = (Dt*)D;
  const St* a = (const St*)A;
  LOOP d[i] = (Dt)a[i];
}
template <class St>
static void cvIH(ARGS) {
  (void)B;
  (void)C;
  u16* d = (u16*)D;
  const St* a = (const St*)A;
  int m = *(const u32*)E;
  for (int i = 0; i < 32; i++) d[i] = d2h((double)a[i], m);
}
template <class St>
static void cvIB(ARGS) {
  (void)B;
  (void)C;
  u16* d = (u16*)D;
  const St* a = (const St*)A;
  int m = *(const u32*)E;
  for (int i = 0; i < 32; i++) d[i] = d2b((double)a[i], m);
}
template <class Dt, class St, int M>
static void cvFI(ARGS) {
  (void)B;
  (void)C;
  (void)E;
  Dt* d = (Dt*)D;
  const typename St::S* a = (const typename St::S*)A;
  const double lo = (double)std::numeric_limits<Dt>::min(),
               hi = std::ldexp(1.0, (int)sizeof(Dt) * 8 - (std::is_signed<Dt>::value ? 1 : 0));
  for (int i = 0; i < 32; i++) {
    double x = St::ld(a[i]);
    if (x != x) {
      d[i] = (sizeof(Dt) == 8 || sizeof(typename St::S) == 8) ? (Dt)(1ull << (sizeof(Dt) * 8 - 1)) : 0;
      continue;
    }
    x = M == 0 ? std::nearbyint(x) : M == 1 ? std::trunc(x) : M == 2 ? std::floor(x) : std::ceil(x);
    d[i] = x < lo ? std::numeric_limits<Dt>::min() : x >= hi ? std::numeric_limits<Dt>::max() : (Dt)x;
  }
}
template <class Dt, class St>
static void cvFF(ARGS) {
  (void)B;
  (void)C;
  (void)E;
  typename Dt::S* d = (typename Dt::S*)D;
  const typename St::S* a = (const typename St::S*)A;
  LOOP d[i] = Dt::st((typename Dt::c)St::ld(a[i]));
}
template <class St, bool BF>
static void cvFHm(ARGS) {
  (void)B;
  (void)C;
  u16* d = (u16*)D;
  const typename St::S* a = (const typename St::S*)A;
  int m = *(const u32*)E;
  for (int i = 0; i < 32; i++) {
    double x = St::ld(a[i]);
    d[i] = BF ? d2b(x, m) : d2h(x, m);
  }
}
static void cvTf32(ARGS) {
  (void)B;
  (void)C;
  float* d = (float*)D;
  const float* a = (const float*)A;
  int m = *(const u32*)E;
  LOOP d[i] = tf32rna(a[i], m);
}
// cvt.rn.f16x2.f32 d, a, b: a goes to the upper half
template <bool BF, bool FAST>
static void cvX2(ARGS) {
  (void)C;
  u16* d = (u16*)D;
  const float *a = (const float*)A, *b = (const float*)B;
  int m = *(const u32*)E;
  (void)m;
  for (int i = 0; i < 32; i++) {
    if (FAST) {
      d[2 * i] = BF ? f2b(b[i]) : f2h(b[i]);
      d[2 * i + 1] = BF ? f2b(a[i]) : f2h(a[i]);
    } else {
      d[2 * i] = BF ? d2b(b[i], m) : d2h(b[i], m);
      d[2 * i + 1] = BF ? d2b(a[i], m) : d2h(a[i], m);
    }
  }
}
