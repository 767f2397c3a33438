// tcgen05: tensor memory and its products.
#pragma once

#include "bulk_copies.h"

inline void Machine::tcColumns(Block& B, Warp& w, int l, const Ins& I, u32 col, u32 n) {
  for (u32 c = col; c < col + n; c++)
    if (c >= 512 || !B.tmOwner[c / 32]) fail(B, w, l, I, fmt("tensor memory column %u is not allocated", c));
}

inline void Machine::tcAlloc(Block& B, Warp& w, const Ins& I, u32 pc, u32 s) {
  u32 l = __builtin_ctz(s), n, at = 0;
  memcpy(&n, w.R + I.c + 4 * l, 4);
  if (s != ~0u || n < 32 || n > 512 || (n & (n - 1)))
    fail(B, w, l, I, "tcgen05.alloc: a whole warp, and a power of two from 32 to 512 columns");
  if (B.tmem.empty()) B.tmem.resize(128 * 512);
  for (; at + n <= 512; at += 32) {
    bool ok = true;
    for (u32 c = at / 32; c < (at + n) / 32; c++) ok &= !B.tmOwner[c];
    if (ok) break;
  }
  if (at + n > 512) fail(B, w, l, I, fmt("no %u columns of tensor memory are left", n));
  for (u32 c = at; c < at + n; c++) {
    B.tmOwner[c / 32] = n;
    for (u32 r = 0; r < 128; r++) B.tmem[r * 512 + c] = ~0u;
  }
  Space got;
  u64 na;
  u8 old[4], *p = locate(B, w, l, I, address(w, I.a, I.aw, I.imm, l), I.space, 4, true, &got, &na);
  memcpy(old, p, 4);
  memcpy(p, &at, 4);
  if (L.race) raceNote(B, w, na, 4, 1, pc, old);
}

inline void Machine::tcFree(Block& B, Warp& w, const Ins& I, u32 s) {
  u32 l = __builtin_ctz(s), a, n;
  memcpy(&a, w.R + I.a + 4 * l, 4);
  memcpy(&n, w.R + I.c + 4 * l, 4);
  if (a % 32 || n % 32 || a + n > 512) fail(B, w, l, I, "tcgen05.dealloc of other columns than were allocated");
  for (u32 c = a; c < a + n; c++) {
    if (B.tmOwner[c / 32] != n) fail(B, w, l, I, "tcgen05.dealloc of other columns than were allocated");
    if (B.tmBusy[c] || B.tmRead[c] || B.tmBusy[512 + c] || B.tmRead[512 + c])
      fail(B, w, l, I, "tcgen05.dealloc while a tcgen05.mma uses the columns");
  }
  for (u32 c = a / 32; c < (a + n) / 32; c++) B.tmOwner[c] = 0;
}

inline void Machine::tcMove(Block& B, Warp& w, const Ins& I, u32 s) {
  if (s != ~0u) fail(B, w, __builtin_ctz(s), I, "tcgen05.ld/st without all 32 lanes");
  u32 a = (u32)address(w, I.a, I.aw, I.imm, 0), lane0 = a >> 16, col0 = a & 0xffff, n = I.v.size(),
      base = 32 * (w.id & 3);
  bool st = I.kind == TCST;
  for (int l = 1; l < 32; l++)
    if ((u32)address(w, I.a, I.aw, I.imm, l) != a) fail(B, w, l, I, "tensor memory address differs between lanes");
  if (lane0 < base || lane0 + (I.q ? 16 : 32) > base + 32)
    fail(B, w, 0, I, fmt("warp %d of its warpgroup cannot access tensor memory lane %u", w.id & 3, lane0));
  for (u32 half = 0; half < (I.q ? 2u : 1u); half++) {
    u32 c0 = col0 + (half ? (u32)I.imm2 : 0);
    tcColumns(B, w, 0, I, c0, n);
    cells(c0, n, I.q ? 1u << (lane0 >> 4 & 1) : 3, [&](u32 x, u32 c) {
      if (B.tmBusy[x])
        fail(B, w, 0, I,
             fmt("tensor memory column %u is %s while a tcgen05.mma that writes it is in flight", c,
                 st ? "written" : "read"));
      if (st && B.tmRead[x])
        fail(B, w, 0, I, fmt("tensor memory column %u is overwritten while a tcgen05.mma reads it", c));
      if (st)
        B.tmStored[x] |= 1u << w.id;
      else if (B.tmStored[x] >> w.id & 1)
        fail(B, w, 0, I, "tcgen05.ld of what a tcgen05.st wrote, without tcgen05.wait::st");
    });
  }
  for (u32 l = 0; l < 32; l++) {
    u32* row = &B.tmem[(lane0 + (I.q ? l & 15 : l)) * 512 + col0 + (I.q && l > 15 ? (u32)I.imm2 : 0)];
    for (u32 k = 0; k < n; k++)
      if (st)
        memcpy(&row[k], w.R + I.v[k] + 4 * l, 4);
      else
        memcpy(w.R + I.v[k] + 4 * l, &row[k], 4);
  }
  if (!st)
    for (u32 r : I.v) {
      w.wgUse[r / 32]++;
      w.tcRegs.push_back(r / 32);
    }
  else
    for (u32 r : I.v)
      if (w.wgUse[r / 32]) note(&I - code, "a register of a tcgen05.ld is used before tcgen05.wait::ld");
}

inline void Machine::tcIssue(Block& B, Warp& w, const Ins& I, u32 pc, int l) {
  TcOp o;
  o.I = &I;
  o.pc = pc;
  o.warp = w.id;
  o.lane = l;
  o.mma = I.kind == TCMMA;
  o.done = false;
  o.bar = o.dcol = o.acol = o.dlane = o.alane = o.idesc = 0;
  o.sd = false;
  if (!o.mma) {
    u64 at = address(w, I.a, I.aw, I.imm, l);
    Space sp = I.space;
    if (sp == GENERIC && at < L.shTotal) {
      sp = SHARED;
      note(pc, "a shared address given as a generic one");
    }
    mbFind(B, w, l, I, pc, at, sp, &o.bar);
    if (L.race) {
      join(B.tcVc, w.vc);
      w.vc[w.id]++;
    }
    B.tq.push_back(std::move(o));
    return;
  }
  u32 d = tcAddr(w, I.as->dst, l), a = I.flag ? tcAddr(w, I.as->src, l) : 0;
  u64 da = 0, db;
  memcpy(&o.idesc, w.R + I.b + 4 * l, 4);
  memcpy(&db, w.R + I.c + 8 * l, 8);
  if (!I.flag) memcpy(&da, w.R + I.a + 8 * l, 8);
  o.sd = (w.R[I.e + l] != 0) != (I.cneg != 0);
  o.dcol = d & 0xffff;
  o.dlane = d >> 16;
  o.acol = a & 0xffff;
  o.alane = a >> 16;
  u32 N = (o.idesc >> 17 & 63) << 3, Mr = (o.idesc >> 24 & 31) << 4, at = o.idesc >> 7 & 7, bt = o.idesc >> 10 & 7;
  bool ok = (Mr == 64 || Mr == 128) && N >= 8 && N <= 256 && !(o.idesc & 0xC080004F) && (o.idesc >> 4 & 3) == 1 &&
            (I.op == 0   ? at < 2 && at == bt
             : I.op == 1 ? at == 2 && bt == 2
                         : at < 2 && bt < 2) &&
            (I.op == 0 || !(o.idesc >> 15 & 3));
  if (!ok) fail(B, w, l, I, fmt("tcgen05.mma instruction descriptor 0x%08x is not supported", o.idesc));
  if (o.dlane > (Mr == 64 ? 16 : 0) || o.dlane % 16 || (I.flag && o.alane != o.dlane))
    fail(B, w, l, I, "tensor memory lane of tcgen05.mma");
  tcColumns(B, w, l, I, o.dcol, N);
  if (I.flag) tcColumns(B, w, l, I, o.acol, 8);
  u32 hv = tcHalves(o);
  auto stored = [&](u32 x, u32 c) {
    if (B.tmStored[x])
      fail(B, w, l, I, fmt("tcgen05.mma uses tensor memory column %u, whose tcgen05.st has not been waited for", c));
  };
  cells(o.dcol, N, hv, [&](u32 x, u32 c) {
    stored(x, c);
    if (B.tmRead[x]) fail(B, w, l, I, fmt("tcgen05.mma writes tensor memory column %u while another reads it", c));
  });
  if (I.flag)
    cells(o.acol, 8, hv, [&](u32 x, u32 c) {
      stored(x, c);
      if (B.tmBusy[x]) fail(B, w, l, I, fmt("tcgen05.mma reads tensor memory column %u while another writes it", c));
    });
  auto smem = [&](u64 q, int rows, bool mn, vector<u32>& out, const char* name) {
    static const int sw[] = {0, -1, 1, -1, 2, -1, 3, -1};
    int k = sw[q >> 61];
    if (k < 0 || (q >> 46 & 7) != 1 || (q >> 52 & 511))
      fail(B, w, l, I, fmt("tcgen05 descriptor of %s 0x%llx is not supported", name, (unsigned long long)q));
    pieces(B, w, I, (q & ((1ull << 46) - 1)) | (q & 7ull << 49) | (u64)k << 62, rows, mn, out, name);
  };
  if (!I.flag) smem(da, Mr, o.idesc >> 15 & 1, o.ga, "A");
  smem(db, N, o.idesc >> 16 & 1, o.gb, "B");
  for (auto* v : {&o.ga, &o.gb})
    for (u32 x : *v) {
      B.mark[x >> 4]++;
      if (L.race) asyncNote(B, w, x, 16, pc);
    }
  cells(o.dcol, N, hv, [&](u32 x, u32) { B.tmBusy[x]++; });
  if (I.flag) cells(o.acol, 8, hv, [&](u32 x, u32) { B.tmRead[x]++; });
  bool now = L.seed && (rnd() & 1);
  for (auto& x : B.tq) now &= x.done || !x.mma;
  if (now) {
    tcRun(B, o);
    o.done = true;
  }
  B.tq.push_back(std::move(o));
}

// the oldest product is computed; a commit ends those before it and arrives at its mbarrier
inline void Machine::tcStep(Block& B) {
  TcOp o = std::move(B.tq.front());
  B.tq.erase(B.tq.begin());
  if (o.mma) {
    if (!o.done) tcRun(B, o);
    B.tdone.push_back(std::move(o));
    return;
  }
  Warp& w = B.w[o.warp];
  u32 clk = L.race ? ++w.vc[o.warp] : 0;
  for (auto& x : B.tdone) {
    u32 N = (x.idesc >> 17 & 63) << 3;
    for (auto* v : {&x.ga, &x.gb})
      for (u32 a : *v) {
        B.mark[a >> 4]--;
        if (L.race)
          for (u32 i = a; i < a + 16; i++) B.reads[(size_t)i * nw + o.warp] = {clk, x.pc};
      }
    cells(x.dcol, N, tcHalves(x), [&](u32 y, u32) { B.tmBusy[y]--; });
    if (x.I->flag) cells(x.acol, 8, tcHalves(x), [&](u32 y, u32) { B.tmRead[y]--; });
  }
  B.tdone.clear();
  auto it = B.mb.find(o.bar);
  if (it == B.mb.end()) fail(B, w, o.lane, *o.I, "the mbarrier of a tcgen05.commit is gone");
  MBar& b = it->second;
  if (!b.pending) fail(B, w, o.lane, *o.I, "tcgen05.commit arrives at an mbarrier that expects nobody");
  if (L.race) {
    join(b.cur, B.tcVc);
    b.cur[o.warp] = std::max(b.cur[o.warp], clk);
    w.vc[o.warp]++;
  }
  b.pending--;
  mbCheck(B, o.bar, b);
}

inline void Machine::tcEnd(Block& B) {
  for (auto& v : {&B.tq, &B.tdone})
    for (auto& x : *v)
      if (x.mma || v == &B.tq)
        fail(B, B.w[x.warp], x.lane, *x.I, "the block ends although a tcgen05.mma or commit has not been waited for");
  for (u32 c = 0; c < 16; c++)
    if (B.tmOwner[c])
      throw Err(fmt("kernel %s, block (%u,%u,%u): the block ends without tcgen05.dealloc of its tensor memory",
                    L.K->name.c_str(), B.cta[0], B.cta[1], B.cta[2]));
}

// rows: lane r of M = 128; for M = 64, 16 rows in each warp's 32 lanes
inline void Machine::tcRun(Block& B, const TcOp& o) {
  static thread_local float a[128][32], b[32][256];
  float t[16];
  const Ins& I = *o.I;
  const int N = (o.idesc >> 17 & 63) << 3, Mr = (o.idesc >> 24 & 31) << 4, K = I.width, T = K / 2;
  int ta = o.idesc >> 7 & 7, tb = o.idesc >> 10 & 7;
  if (I.op == 2) ta += 3, tb += 3;
  const u8* S = B.sh.data();
  auto lane = [&](int r) { return Mr == 128 ? r : 32 * (r / 16) + r % 16; };
  for (int r = 0; r < Mr; r++)
    if (I.flag)
      unpackAs(ta, (const u8*)&B.tmem[(lane(r) + o.alane) * 512 + o.acol], K, a[r]);
    else if (!(o.idesc >> 15 & 1))
      for (int h = 0; h < 2; h++) unpackAs(ta, S + o.ga[2 * r + h], T, &a[r][h * T]);
  if (!I.flag && (o.idesc >> 15 & 1))
    for (int k = 0; k < K; k++)
      for (int j = 0; j < Mr / T; j++) {
        unpackAs(ta, S + o.ga[k * (Mr / T) + j], T, t);
        for (int x = 0; x < T; x++) a[j * T + x][k] = t[x];
      }
  if (o.idesc >> 16 & 1) {
    for (int k = 0; k < K; k++)
      for (int j = 0; j < N / T; j++) unpackAs(tb, S + o.gb[k * (N / T) + j], T, &b[k][j * T]);
  } else
    for (int r = 0; r < N; r++)
      for (int h = 0; h < 2; h++) {
        unpackAs(tb, S + o.gb[2 * r + h], T, t);
        for (int x = 0; x < T; x++) b[h * T + x][r] = t[x];
      }
  float sg = ((o.idesc >> 13 ^ o.idesc >> 14) & 1) ? -1.f : 1.f;
  for (int r = 0; r < Mr; r++) {
    float* d = (float*)&B.tmem[(lane(r) + o.dlane) * 512 + o.dcol];
    for (int n = 0; n < N; n += 8) {
      float acc[8];
      for (int j = 0; j < 8; j++) acc[j] = o.sd ? d[n + j] : 0;
      for (int k = 0; k < K; k++) {
        float x = sg * a[r][k];
        for (int j = 0; j < 8; j++) acc[j] = fmadd(x, b[k][n + j], acc[j]);
      }
      for (int j = 0; j < 8; j++) d[n + j] = acc[j];
    }
  }
}
