// Integer and bit operations on the 32 lanes of a warp.

// Lists of operations are tables; clang-format would break their layout.
// clang-format off
#pragma once

#include "numbers.h"

#define ARGS void *D, const void *A, const void *B, const void *C, const void *E
#define LOOPN(N) _Pragma("GCC ivdep") for (int i = 0; i < N; i++)
#define LOOP LOOPN(32)
template <class T>
using Wide = typename std::conditional<sizeof(T) == 8, u64, u32>::type;
// integer operations: x,y,z the sources, E the fourth; W(x) a wide unsigned version
#define OP(NAME, EXPR)                                              \
  template <class T>                                                \
  struct NAME {                                                     \
    static void f(ARGS) {                                           \
      T* d = (T*)D;                                                 \
      const T *a = (const T*)A, *b = (const T*)B, *c = (const T*)C; \
      typedef Wide<T> W;                                            \
      (void)sizeof(W);                                              \
      (void)E;                                                      \
      LOOP {                                                        \
        T x = a[i], y = b[i], z = c[i];                             \
        (void)y;                                                    \
        (void)z;                                                    \
        d[i] = (T)(EXPR);                                           \
      }                                                             \
    }                                                               \
  };
// operations whose second source is a 32-bit register (shifts)
#define OPS(NAME, EXPR)             \
  template <class T>                \
  struct NAME {                     \
    static void f(ARGS) {           \
      (void)C;                      \
      (void)E;                      \
      T* d = (T*)D;                 \
      const T* a = (const T*)A;     \
      const u32* b = (const u32*)B; \
      const u32 NB = sizeof(T) * 8; \
      LOOP {                        \
        T x = a[i];                 \
        u32 n = b[i];               \
        d[i] = (T)(EXPR);           \
      }                             \
    }                               \
  };
OP(oAdd, (W)x + (W)y)
OP(oSub, (W)x - (W)y)
OP(oMul, (W)x*(W)y)
OP(oMad, (W)x*(W)y + (W)z) OP(oAnd, x& y) OP(oOr, x | y) OP(oXor, x ^ y) OP(oNot, ~x) OP(oCnot, x == 0) OP(oMov, x)
    OP(oMin, x < y ? x : y) OP(oMax, x > y ? x : y) OP(oMinRelu, x < 0 || y < 0 ? 0 : x < y ? x : y)
        OP(oMaxRelu, x < 0 && y < 0 ? 0 : x > y ? x : y) OP(oNeg, (W)0 - (W)x) OP(oAbs, x < 0 ? (W)0 - (W)x : (W)x)
        OPS(oShl, n >= NB ? 0 : (u64)x << n) OPS(oShr, n >= NB ? (x < 0 ? -1 : 0) : x >> n) static inline u64
    absdiff(u64 a, u64 b) {
  return a - b;
}
OP(oSad, (W)z + (x < y ? (W)y - (W)x : (W)x - (W)y))
template <class T>
static T idiv(T x, T y) {
  if (!y) return (T)-1;
  if (std::is_signed<T>::value && y == (T)-1) return (T)(0 - (Wide<T>)x);
  return x / y;
}
template <class T>
static T irem(T x, T y) {
  if (!y) return x;
  if (std::is_signed<T>::value && y == (T)-1) return 0;
  return x % y;
}
OP(oDiv, idiv<T>(x, y))
OP(oRem, irem<T>(x, y))
template <class T>
struct WideOf;
template <>
struct WideOf<s16> {
  typedef s32 t;
};
template <>
struct WideOf<u16> {
  typedef u32 t;
};
template <>
struct WideOf<s32> {
  typedef s64 t;
};
template <>
struct WideOf<u32> {
  typedef u64 t;
};
template <>
struct WideOf<s64> {
  typedef s128 t;
};
template <>
struct WideOf<u64> {
  typedef u128 t;
};
template <class T>
static T mulhi(T x, T y) {
  typedef typename WideOf<T>::t L;
  return (T)(((L)x * (L)y) >> (sizeof(T) * 8));
}
OP(oMulHi, mulhi<T>(x, y))
OP(oMadHi, (W)mulhi<T>(x, y) + (W)z)
template <class T>
struct oMulWide {
  static void f(ARGS) {
    (void)C;
    (void)E;
    typedef typename WideOf<T>::t L;
    L* d = (L*)D;
    const T *a = (const T*)A, *b = (const T*)B;
    LOOP d[i] = (L)a[i] * (L)b[i];
  }
};
template <class T>
struct oMadWide {
  static void f(ARGS) {
    (void)E;
    typedef typename WideOf<T>::t L;
    typedef typename std::make_unsigned<L>::type U;
    L* d = (L*)D;
    const T *a = (const T*)A, *b = (const T*)B;
    const U* c = (const U*)C;
    LOOP d[i] = (L)((U)((L)a[i] * (L)b[i]) + c[i]);
  }
};
template <class T>
struct oPopc {
  static void f(ARGS) {
    (void)B;
    (void)C;
    (void)E;
    u32* d = (u32*)D;
    const T* a = (const T*)A;
    LOOP d[i] = __builtin_popcountll((u64)a[i]);
  }
};
template <class T>
struct oClz {
  static void f(ARGS) {
    (void)B;
    (void)C;
    (void)E;
    u32* d = (u32*)D;
    const T* a = (const T*)A;
    LOOP d[i] = a[i] ? __builtin_clzll((u64)a[i]) - (64 - sizeof(T) * 8) : sizeof(T) * 8;
  }
};
template <class T>
static T brev(T x) {
  T r = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; i++) r = (T)((r << 1) | ((x >> i) & 1));
  return r;
}
OP(oBrev, brev<T>(x))
template <class T, bool SH>
static u32 bfind(T v) {
  u64 x = (u64)(typename std::make_unsigned<T>::type)(v < 0 ? ~v : v);
  if (!x) return ~0u;
  u32 p = 63 - __builtin_clzll(x);
  return SH ? (u32)sizeof(T) * 8 - 1 - p : p;
}
template <class T>
struct oBfind {
  static void f(ARGS) {
    (void)B;
    (void)C;
    (void)E;
    u32* d = (u32*)D;
    const T* a = (const T*)A;
    LOOP d[i] = bfind<T, false>(a[i]);
  }
};
template <class T>
struct oBfindS {
  static void f(ARGS) {
    (void)B;
    (void)C;
    (void)E;
    u32* d = (u32*)D;
    const T* a = (const T*)A;
    LOOP d[i] = bfind<T, true>(a[i]);
  }
};
template <class T>
static T bfe(T a, u32 pos, u32 len) {
  pos &= 255;
  len &= 255;
  const int msb = sizeof(T) * 8 - 1;
  bool sg = std::is_signed<T>::value;
  T sb = 0;
  if (sg && len) {
    unsigned q = std::min<unsigned>(pos + len - 1, msb);
    sb = (a >> q) & 1;
  }
  u64 r = 0, ua = (u64)a;
  for (int i = 0; i <= msb; i++) {
    bool bit = (i < (int)len && (int)pos + i <= msb) ? ((ua >> (pos + i)) & 1) : (bool)sb;
    r |= (u64)bit << i;
  }
  return (T)r;
}
template <class T>
struct oBfe {
  static void f(ARGS) {
    (void)E;
    T* d = (T*)D;
    const T* a = (const T*)A;
    const u32 *b = (const u32*)B, *c = (const u32*)C;
    LOOP {
      u32 p = b[i] & 255, n = c[i] & 255;
      if (!std::is_signed<T>::value && p < sizeof(T) * 8 && n < sizeof(T) * 8)
        d[i] = (T)(((u64)a[i] >> p) & ((1ull << n) - 1));
      else
        d[i] = bfe<T>(a[i], p, n);
    }
  }
};
template <class T>
struct oBfi {
  static void f(ARGS) {
    T* d = (T*)D;
    const T *a = (const T*)A, *b = (const T*)B;
    const u32 *c = (const u32*)C, *e = (const u32*)E;
    LOOP {
      u32 pos = c[i] & 255, len = e[i] & 255;
      u64 r = b[i];
      const u32 nb = sizeof(T) * 8;
      for (u32 k = 0; k < len && pos + k < nb; k++) {
        r &= ~(1ull << (pos + k));
        r |= (((u64)a[i] >> k) & 1) << (pos + k);
      }
      d[i] = (T)r;
    }
  }
};
template <bool LEFT, bool WRAP>
static void oShf(ARGS) {
  (void)E;
  u32* d = (u32*)D;
  const u32 *a = (const u32*)A, *b = (const u32*)B, *c = (const u32*)C;
  LOOP {
    u32 n = WRAP ? c[i] & 31 : std::min(c[i], 32u);
    u64 v = ((u64)b[i] << 32) | a[i];
    d[i] = LEFT ? (u32)((v << n) >> 32) : (u32)(v >> n);
  }
}
static u32 prmt1(u32 a, u32 b, u32 sel) {
  u64 v = ((u64)b << 32) | a;
  u32 r = 0;
  for (int k = 0; k < 4; k++) {
    u32 s = (sel >> (4 * k)) & 15;
    u8 x = (u8)(v >> (8 * (s & 7)));
    if (s & 8) x = (x & 128) ? 255 : 0;
    r |= (u32)x << (8 * k);
  }
  return r;
}
template <int M>
static void oPrmt(ARGS) {
  (void)E;
  u32* d = (u32*)D;
  const u32 *a = (const u32*)A, *b = (const u32*)B, *c = (const u32*)C;
  static const u32 t[6][4] = {{0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
                              {0, 0x1111, 0x2222, 0x3333},      {0x3210, 0x3211, 0x3222, 0x3333},
                              {0, 0x1110, 0x2210, 0x3210},      {0x1010, 0x3232, 0x1010, 0x3232}};
  LOOP d[i] = prmt1(a[i], b[i], M ? t[M - 1][c[i] & 3] : c[i]);
}
static void oLop3(ARGS) {
  u32* d = (u32*)D;
  const u32 *a = (const u32*)A, *b = (const u32*)B, *c = (const u32*)C;
  u32 t = *(const u32*)E;
  u32 m[8];
  for (int k = 0; k < 8; k++) m[k] = (t >> k & 1) ? ~0u : 0;
  LOOP {
    u32 x = a[i], y = b[i], z = c[i];
    d[i] = (~x & ~y & ~z & m[0]) | (~x & ~y & z & m[1]) | (~x & y & ~z & m[2]) | (~x & y & z & m[3]) |
           (x & ~y & ~z & m[4]) | (x & ~y & z & m[5]) | (x & y & ~z & m[6]) | (x & y & z & m[7]);
  }
}
template <bool SA, bool SB>
static void oDp4a(ARGS) {
  (void)E;
  u32* d = (u32*)D;
  const u32 *a = (const u32*)A, *b = (const u32*)B, *c = (const u32*)C;
  LOOP {
    u32 r = c[i];
    for (int k = 0; k < 32; k += 8) {
      s32 x = SA ? (s32)(s8)(a[i] >> k) : (s32)(u8)(a[i] >> k), y = SB ? (s32)(s8)(b[i] >> k) : (s32)(u8)(b[i] >> k);
      r += (u32)(x * y);
    }
    d[i] = r;
  }
}
template <bool ADD>
static void oSatS32(ARGS) {
  (void)C;
  (void)E;
  s32* d = (s32*)D;
  const s32 *a = (const s32*)A, *b = (const s32*)B;
  LOOP {
    s64 r = ADD ? (s64)a[i] + b[i] : (s64)a[i] - b[i];
    d[i] = (s32)std::max<s64>(INT32_MIN, std::min<s64>(INT32_MAX, r));
  }
}
// mixed precision of sm_100: 16-bit sources, an f32 last operand
template <class H, bool SUB>
static void oAddMix(ARGS) {
  (void)C;
  (void)E;
  float* d = (float*)D;
  const u16* a = (const u16*)A;
  const float* b = (const float*)B;
  LOOP d[i] = SUB ? H::ld(a[i]) - b[i] : H::ld(a[i]) + b[i];
}
template <class H>
static void oFmaMix(ARGS) {
  (void)E;
  float* d = (float*)D;
  const u16 *a = (const u16*)A, *b = (const u16*)B;
  const float* c = (const float*)C;
  LOOP d[i] = std::fma(H::ld(a[i]), H::ld(b[i]), c[i]);
}
template <int OP, class T>
static void oPair(ARGS) {
  (void)C;
  (void)E;
  T* d = (T*)D;
  const T *a = (const T*)A, *b = (const T*)B;
  LOOPN(64) d[i] = OP == 0 ? (T)(a[i] + b[i]) : OP == 1 ? std::min(a[i], b[i]) : std::max(a[i], b[i]);
}
template <class T>
struct oSel {
  static void f(ARGS) {
    (void)E;
    T* d = (T*)D;
    const T *a = (const T*)A, *b = (const T*)B;
    const u8* p = (const u8*)C;
    LOOP d[i] = p[i] ? a[i] : b[i];
  }
};
template <class T>
struct oSlctS {
  static void f(ARGS) {
    (void)E;
    T* d = (T*)D;
    const T *a = (const T*)A, *b = (const T*)B;
    const s32* p = (const s32*)C;
    LOOP d[i] = p[i] >= 0 ? a[i] : b[i];
  }
};
template <class T>
struct oSlctF {
  static void f(ARGS) {
    (void)E;
    T* d = (T*)D;
    const T *a = (const T*)A, *b = (const T*)B;
    const float* p = (const float*)C;
    LOOP d[i] = p[i] >= 0 ? a[i] : b[i];
  }
};
static void oPNot(ARGS) {
  (void)B;
  (void)C;
  (void)E;
  u8* d = (u8*)D;
  const u8* a = (const u8*)A;
  LOOP d[i] = !a[i];
}
