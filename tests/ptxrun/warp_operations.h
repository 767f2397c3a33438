// What the lanes of a warp do together: shuffles, votes, ldmatrix, mma.sync.
#pragma once

#include "memory.h"

// ---- warp-wide operations over the lanes of `s` (all lanes named by the member mask that are alive)
inline void Machine::warpOp(Block& B, Warp& w, const Ins& I, u32 pc, u32 s) {
  u8* R = w.R;
  const u32* A = (const u32*)(R + I.a);
  switch (I.kind) {
    case SHFL: {
      u32 out[32];
      const u32 *b = (const u32*)(R + I.c), *c = (const u32*)(R + I.e);
      u8 pr[32];
      LANES(s) {
        int bv = b[l] & 31, cv = c[l] & 31, sm = (c[l] >> 8) & 31, mx = ((int)l & sm) | (cv & ~sm), mn = (int)l & sm,
            j = 0;
        bool p = false;
        switch (I.op) {
          case 0:
            j = (int)l - bv;
            p = j >= mx;
            break;
          case 1:
            j = (int)l + bv;
            p = j <= mx;
            break;
          case 2:
            j = (int)l ^ bv;
            p = j <= mx;
            break;
          default:
            j = mn | (bv & ~sm);
            p = j <= mx;
        }
        if (!p) j = l;
        pr[l] = p;
        out[l] = (s >> j & 1) ? A[j] : 0xFFFFFFFFu;
      }  // reading a lane that does not take part: undefined, poison
      u32* d = (u32*)(R + I.d);
      LANES(s) {
        d[l] = out[l];
        if (I.q) R[I.d2 + l] = pr[l];
      }
      break;
    }
    case VOTE: {
      u32 p = pmask(R + I.a);
      if (I.cneg) p = ~p;
      p &= s;
      bool r = I.op == 0 ? p == s : I.op == 1 ? p != 0 : p == s || p == 0;
      LANES(s) if (I.op == 3)((u32*)(R + I.d))[l] = p;
      else R[I.d + l] = r;
      break;
    }
    case MATCH: {
      u32 out[32];
      u64 v[32];
      LANES(s) {
        v[l] = 0;
        memcpy(&v[l], R + I.a + l * I.width, I.width);
      }
      u32 all = s;
      LANES(s) {
        u32 r = 0;
        for (u32 k = 0; k < 32; k++)
          if ((s >> k & 1) && v[k] == v[l]) r |= 1u << k;
        out[l] = r;
        all &= r;
      }
      LANES(s) {
        ((u32*)(R + I.d))[l] = I.op == 0 ? out[l] : all == s ? s : 0;
        if (I.q) R[I.d2 + l] = all == s;
      }
      break;
    }
    case REDUX: {
      u64 r = 0;
      bool first = true;
      bool nan = false;
      LANES(s) {
        u32 x = I.flag ? A[l] & 0x7fffffff : A[l];
        nan |= I.q && (x & 0x7fffffff) > 0x7f800000;
        r = first ? x : atomOp(I.op, I.type, r, x);
        first = false;
      }
      if (nan) r = 0x7fffffff;
      LANES(s)((u32*)(R + I.d))[l] = (u32)r;
      break;
    }
    case ELECT: {
      u32 k = L.seed & 1 ? 31 - __builtin_clz(s) : __builtin_ctz(s); /* any lane, but always the same one */
      LANES(s) {
        ((u32*)(R + I.d))[l] = k;
        R[I.d2 + l] = l == k;
      }
      break;
    }
    case MMA:
      mma(B, w, I, s);
      break;
    case WGFENCE:
      w.wgEpoch++;
      break;
    case WGCOMMIT:
      w.wgGroup++;
      break;
    case WGWAIT:
      wgWait(B, w, I);
      break;
    case WGMMA:
      wgIssue(B, w, I, pc, s);
      break;
    case TCALLOC:
      tcAlloc(B, w, I, pc, s);
      break;
    case TCDEALLOC:
      tcFree(B, w, I, s);
      break;
    case TCLD:
    case TCST:
      tcMove(B, w, I, s);
      break;
    case TCWAIT:
      if (I.flag) {
        for (u32& x : B.tmStored) x &= ~(1u << w.id);
      } else {
        for (u32 r : w.tcRegs) w.wgUse[r]--;
        w.tcRegs.clear();
      }
      break;
    case TMCOPY: {
      u32 l = __builtin_ctz(s);
      const AsyncInfo& a = *I.as;
      Space got;
      u64 na, ng;
      u8 *src = nullptr, *dst = nullptr;
      u8 t[128];
      u64 sa = address(w, a.src.reg, a.src.aw, a.src.imm, l), ga = address(w, a.dst.reg, a.dst.aw, a.dst.imm, l);
      for (u32 k = 0; k < 128; k += 64) {
        src = locate(B, w, l, I, sa + k, SHARED, 64, false, &got, &na);
        memcpy(t + k, src, 64);
        if (L.race) raceNote(B, w, na, 64, 0, pc);
        dst = locate(B, w, l, I, ga + k, GLOBAL, 64, true, &got, &ng);
        memcpy(dst, t + k, 64);
      }
      if (ga & 127) fail(B, w, l, I, "tensor map is not aligned to 128 bytes");
      std::lock_guard<std::mutex> g(L.mu);
      L.tmaps[ga]++;
      break;
    }
    case LDMAT:
    case STMAT: {
      if (s != ~0u) fail(B, w, __builtin_ctz(s), I, "ldmatrix/stmatrix without all 32 lanes");
      u8 *row[32], old[32][16];
      u64 nas[32];
      bool st = I.kind == STMAT;
      for (u32 l = 0; l < 8u * I.vec; l++) {
        Space got;
        u64 na;
        row[l] = locate(B, w, l, I, address(w, I.a, I.aw, I.imm, l), I.space, 16, st, &got, &na);
        if (got != SHARED) fail(B, w, l, I, "matrix row is not in shared memory");
        nas[l] = na;
        memcpy(old[l], row[l], 16);
        if (L.race && !st) raceNote(B, w, na, 16, 0, pc);
      }
      sl[pc] += 8 * I.vec;
      for (u32 k = 0; k < I.vec; k++)
        for (u32 l = 0; l < 32; l++) {
          u8* d = R + I.v[k] + 4 * l;
          u8 *p0, *p1;
          if (I.q) {
            p0 = row[8 * k + 2 * (l & 3)] + 2 * (l >> 2);
            p1 = row[8 * k + 2 * (l & 3) + 1] + 2 * (l >> 2);
          } else {
            p0 = row[8 * k + (l >> 2)] + 4 * (l & 3);
            p1 = p0 + 2;
          }
          if (st) {
            memcpy(p0, d, 2);
            memcpy(p1, d + 2, 2);
          } else {
            memcpy(d, p0, 2);
            memcpy(d + 2, p1, 2);
          }
        }
      if (st && L.race)
        for (u32 l = 0; l < 8u * I.vec; l++) raceNote(B, w, nas[l], 16, 1, pc, old[l]);
      break;
    }
    default:
      throw Err("internal: warp operation");
  }
}

inline void Machine::mma(Block& B, Warp& w, const Ins& I, u32 s) {
  if (s != ~0u) fail(B, w, __builtin_ctz(s), I, "mma without all 32 lanes");
  u8* R = w.R;
  const int K = I.width;
  auto reg = [&](const vector<u32>& v, int k, int l) {
    u32 x;
    memcpy(&x, R + v[k] + 4 * l, 4);
    return x;
  };
  if (I.op == 3) {
    s32 a[16][32], b[32][8];
    int na = K / 8;  // registers of A
    for (int l = 0; l < 32; l++) {
      int g = l >> 2, t = l & 3;
      for (int k = 0; k < na; k++) {
        u32 x = reg(I.v2, k, l);
        for (int j = 0; j < 4; j++) {
          u8 y = x >> (8 * j);
          a[g + 8 * (k & 1)][4 * t + 16 * (k >> 1) + j] = I.q & 1 ? (s32)(s8)y : y;
        }
      }
      for (int k = 0; k < na / 2; k++) {
        u32 x = reg(I.v2, na + k, l);
        for (int j = 0; j < 4; j++) {
          u8 y = x >> (8 * j);
          b[4 * t + 16 * k + j][g] = I.q & 2 ? (s32)(s8)y : y;
        }
      }
    }
    u32 out[4][32];
    for (int l = 0; l < 32; l++)
      for (int k = 0; k < 4; k++) {
        int r = (l >> 2) + 8 * (k >> 1), c = 2 * (l & 3) + (k & 1);
        s64 acc = (s32)reg(I.v3, k, l);
        for (int j = 0; j < K; j++) acc += a[r][j] * b[j][c];
        if (I.q & 4) acc = std::max<s64>(INT32_MIN, std::min<s64>(INT32_MAX, acc));
        out[k][l] = (u32)acc;
      }
    for (int k = 0; k < 4; k++) memcpy(R + I.v[k], out[k], 128);
    return;
  }
  float a[16][16], b[16][8], c[16][8];
  for (int l = 0; l < 32; l++) {
    int g = l >> 2, t = l & 3;
    if (I.op == 2) {
      int na = K / 2;
      for (int k = 0; k < na; k++) a[g + 8 * (k & 1)][t + 4 * (k >> 1)] = bitsf(reg(I.v2, k, l) & 0xffffe000);
      for (int k = 0; k < na / 2; k++) b[t + 4 * k][g] = bitsf(reg(I.v2, na + k, l) & 0xffffe000);
    } else {
      int na = K / 4;
      bool bf = I.op == 1;
      for (int k = 0; k < na; k++) {
        u32 x = reg(I.v2, k, l);
        float* p = &a[g + 8 * (k & 1)][2 * t + 8 * (k >> 1)];
        p[0] = bf ? b2f(x) : h2f(x);
        p[1] = bf ? b2f(x >> 16) : h2f(x >> 16);
      }
      for (int k = 0; k < na / 2; k++) {
        u32 x = reg(I.v2, na + k, l);
        b[2 * t + 8 * k][g] = bf ? b2f(x) : h2f(x);
        b[2 * t + 8 * k + 1][g] = bf ? b2f(x >> 16) : h2f(x >> 16);
      }
    }
    if (I.flag)
      for (int k = 0; k < 2; k++) {
        u32 x = reg(I.v3, k, l);
        c[g + 8 * k][2 * t] = h2f(x);
        c[g + 8 * k][2 * t + 1] = h2f(x >> 16);
      }
    else
      for (int k = 0; k < 4; k++) c[g + 8 * (k >> 1)][2 * t + (k & 1)] = bitsf(reg(I.v3, k, l));
  }
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < K; k++) {
      float x = a[i][k];
      for (int j = 0; j < 8; j++) c[i][j] = std::fma(x, b[k][j], c[i][j]);
    }
  for (int l = 0; l < 32; l++) {
    int g = l >> 2, t = l & 3;
    if (I.flag)
      for (int k = 0; k < 2; k++) {
        u32 x = f2h(c[g + 8 * k][2 * t]) | (u32)f2h(c[g + 8 * k][2 * t + 1]) << 16;
        memcpy(R + I.v[k] + 4 * l, &x, 4);
      }
    else
      for (int k = 0; k < 4; k++) memcpy(R + I.v[k] + 4 * l, &c[g + 8 * (k >> 1)][2 * t + (k & 1)], 4);
  }
}
