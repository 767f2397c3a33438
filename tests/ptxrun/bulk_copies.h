// Bulk copies and tensor maps (TMA).
#pragma once

#include "mbarriers.h"

inline void Machine::tmReplace(Block& B, Warp& w, const Ins& I, u32 pc, u32 m) {
  LANES(m) {
    u64 a = address(w, I.a, I.aw, I.imm, l), na = 0, v = 0;
    Space got = GENERIC;
    TMap t;
    u8 *p[2], old[128];
    for (int k = 0; k < 2; k++) {
      u64 x;
      p[k] = locate(B, w, l, I, a + 64 * k, I.space, 64, true, &got, &x);
      if (!k) na = x;
      memcpy((u8*)&t + 64 * k, p[k], 64);
    }
    memcpy(old, &t, 128);
    memcpy(&v, w.R + I.c + I.width * l, I.width);
    switch (I.op) {
      case 0:
        t.addr = v;
        break;
      case 1:
        t.rank = v;
        break;
      case 2:
        t.etype = v;
        break;
      case 3:
        t.inter = v;
        break;
      case 4:
        t.swz = v;
        break;
      case 5:
        t.fill = v;
        break;
      case 6:
        t.atom = v;
        break;
      case 7:
        t.box[I.q] = v;
        break;
      case 8:
        t.dim[I.q] = v;
        break;
      case 9:
        if (I.q > 3) fail(B, w, l, I, "ordinal above 3");
        t.stride[I.q] = v;
        break;
      default:
        t.est[I.q] = v;
    }
    for (int k = 0; k < 2; k++) memcpy(p[k], (u8*)&t + 64 * k, 64);
    if (got == SHARED && L.race) raceNote(B, w, na, 128, 1, pc, old);
    if (got == GLOBAL) {
      std::lock_guard<std::mutex> g(L.mu);
      L.tmaps[na]++;
    }
  }
}

// the tensor map at a generic address, checked as the driver and the hardware would
inline TMap Machine::tmap(Block& B, Warp& w, int l, const Ins& I, u64 a) {
  TMap t;
  Space got;
  u64 na, n0 = 0;
  for (int k = 0; k < 2; k++) {
    memcpy((u8*)&t + 64 * k, locate(B, w, l, I, a + 64 * k, GENERIC, 64, false, &got, &na), 64);
    if (!k) n0 = na;
  }
  if (got == GLOBAL) {
    std::lock_guard<std::mutex> g(L.mu);
    auto it = L.tmaps.find(n0);
    if (it != L.tmaps.end() && B.tmSeen[n0] != it->second)
      fail(B, w, l, I, "the tensor map was changed on the device: fence.proxy.tensormap::generic.acquire is missing");
  }
  string e;
  u32 r = t.rank + 1;
  if ((t.mark[0] | t.mark[1]) && (t.mark[0] != 'T' || t.mark[1] != 'M'))
    e = "not a tensor map (or uninitialised bytes in it)";
  else if (r > 5)
    e = fmt("rank %u", r);
  else if (t.etype > 12)
    e = fmt("element type %u is not supported", t.etype);
  else if (t.inter)
    e = "interleaved layouts are not supported";
  else if (t.swz > 3 || t.atom)
    e = "swizzle mode is not supported";
  else if (r != I.as->coord.size())
    e = fmt("rank %u, the instruction has %zu coordinates", r, I.as->coord.size());
  else {
    u32 es = TMSIZE[t.etype], row = t.box[0] * es;
    for (u32 k = 0; k < r; k++) {
      if (t.box[k] < 1 || t.box[k] > 256) e = fmt("box size %u", t.box[k]);
      if (t.est[k] != 1) e = fmt("element stride %u is not supported", t.est[k]);
      if (k && (t.stride[k - 1] % 16 || !t.stride[k - 1] || t.stride[k - 1] >> 40))
        e = fmt("stride %llu is not a multiple of 16", (unsigned long long)t.stride[k - 1]);
    }
    if (row % 16) e = fmt("box rows of %u bytes", row);
    if (t.swz && row > 16u << t.swz)
      e = fmt("box rows of %u bytes do not fit the swizzle of %u bytes", row, 16u << t.swz);
    if (t.swz && row < 16u << t.swz)
      e = fmt("box rows of %u bytes under a swizzle of %u bytes are not supported", row, 16u << t.swz);
    if (t.addr % 16) e = "address is not aligned to 16 bytes";
  }
  if (!e.empty()) fail(B, w, l, I, "bad tensor map: " + e);
  return t;
}

// move a box (or a row of bytes): rows along dimension 0, in 16-byte pieces, swizzled by the bits of their shared
// address
inline void Machine::move(Block& B, const Bulk& k) {
  const Ins& I = *k.I;
  Warp& w = B.w[k.warp];
  int l = k.lane;
  bool load = I.kind == TMALOAD;
  u64 bytes = 0;
  if (!I.as->tensor) {
    u8 *g = global(B, w, l, I, k.g, k.bytes, !load), *s = B.sh.data() + k.smem;
    if (load)
      memcpy(s, g, k.bytes);
    else
      reduce(I, g, s, k.bytes, I.as->redType);
    gb[k.pc] += k.bytes;
    sec[k.pc] += (k.bytes + 31) / 32;
    return;
  }
  const TMap& t = k.t;
  u32 es = TMSIZE[t.etype], rank = t.rank + 1, row = t.box[0] * es, msk = t.swz ? (1u << t.swz) - 1 : 0, s = k.smem,
      i[5] = {0};
  alignas(16) u8 buf[2048];
  static const T ty[] = {U8, U16, U32, S32, U64, S64, TF16, TF32_, TF32_, TF64, TBF16, TF32_, TF32_};
  for (;;) {
    bool in = true;
    u64 g = t.addr;
    for (u32 d = 1; d < rank; d++) {
      s64 x = (s64)k.c[d] + i[d];
      in &= x >= 0 && (u64)x < (t.dim[d] ? t.dim[d] : 1ull << 32);
      g += (u64)x * t.stride[d - 1];
    }
    s64 lo = std::max<s64>(0, -(s64)k.c[0]),
        hi = std::min<s64>(t.box[0], (s64)(t.dim[0] ? t.dim[0] : 1ull << 32) - k.c[0]);
    if (!in || hi < lo) lo = hi = 0;
    auto piece = [&](u32 q) {
      u32 a = s + q;
      return B.sh.data() + (a ^ ((a >> 7 & msk) << 4));
    };
    if (load) {
      memset(buf, 0, row);
      if (t.fill)
        for (u32 x = 0; x < row; x++) buf[x] = x % es == es - 1 ? 0x7f : 0xff;
      if (hi > lo)
        memcpy(buf + lo * es, global(B, w, l, I, g + (k.c[0] + lo) * es, (hi - lo) * es, false), (hi - lo) * es);
      for (u32 q = 0; q < row; q += 16) memcpy(piece(q), buf + q, 16);
    } else {
      for (u32 q = 0; q < row; q += 16) memcpy(buf + q, piece(q), 16);
      if (hi > lo)
        reduce(I, global(B, w, l, I, g + (k.c[0] + lo) * es, (hi - lo) * es, true), buf + lo * es, (hi - lo) * es,
               ty[t.etype]);
    }
    bytes += (hi - lo) * es;
    sec[k.pc] += ((hi - lo) * es + 31) / 32;
    s += row;
    u32 d = 1;
    for (; d < rank; d++) {
      if (++i[d] < t.box[d]) break;
      i[d] = 0;
    }
    if (d >= rank) break;
  }
  gb[k.pc] += bytes;
}

// store, or reduce by element
inline void Machine::reduce(const Ins& I, u8* d, const u8* s, u32 n, T t) {
  if (I.as->red < 0) {
    memcpy(d, s, n);
    return;
  }
  static const u8 op[] = {A_ADD, A_MIN, A_MAX, A_INC, A_DEC, A_AND, A_OR, A_XOR};
  std::unique_lock<std::mutex> g(L.atomMu, std::defer_lock);
  if (L.nthreads > 1) g.lock();
  u32 es = TS[t];
  for (u32 i = 0; i < n; i += es) {
    u64 a = 0, b = 0;
    memcpy(&a, d + i, es);
    memcpy(&b, s + i, es);
    a = atomOp(op[I.as->red], t, a, b);
    memcpy(d + i, &a, es);
  }
}

inline void Machine::bulkIssue(Block& B, Warp& w, const Ins& I, u32 pc, u32 m) {
  LANES(m) {
    const AsyncInfo& a = *I.as;
    bool load = I.kind == TMALOAD;
    const Adr &sa = load ? a.dst : a.src, &ga = load ? a.src : a.dst;
    Bulk k;
    k.I = &I;
    k.pc = pc;
    k.warp = w.id;
    k.lane = l;
    k.group = w.bgrp[l];
    k.done = false;
    k.bar = 0;
    k.agent = -1;
    k.clk = 0;
    if (I.q) {
      u16 x;
      memcpy(&x, w.R + I.c + 2 * l, 2);
      if (x != 1) fail(B, w, l, I, "multicast to other blocks of the cluster");
    }
    k.g = address(w, ga.reg, ga.aw, ga.imm, l);
    u64 s = address(w, sa.reg, sa.aw, sa.imm, l);
    if (s >= W_SHARED && s < W_LOCAL) s -= W_SHARED;
    if (a.tensor) {
      k.t = tmap(B, w, l, I, k.g);
      k.bytes = TMSIZE[k.t.etype];
      for (size_t d = 0; d < a.coord.size(); d++) {
        memcpy(&k.c[d], w.R + a.coord[d] + 4 * l, 4);
        k.bytes *= k.t.box[d];
      }
    } else {
      memcpy(&k.bytes, w.R + I.e + 4 * l, 4);
      if (k.bytes % 16 || k.g % 16) fail(B, w, l, I, "bulk copy: size and addresses must be multiples of 16");
    }
    if (!k.bytes) continue;
    if (s % (a.tensor ? 128 : 16))
      fail(B, w, l, I,
           fmt("bulk copy: shared address 0x%llx is not aligned to %d bytes", (unsigned long long)s,
               a.tensor ? 128 : 16));
    if (s + k.bytes > L.shTotal || s > L.shTotal || !L.valid[s] || !L.valid[s + k.bytes - 1])
      fail(B, w, l, I,
           fmt("bulk copy of %u bytes outside shared memory at 0x%llx (it ends at 0x%x)", k.bytes,
               (unsigned long long)s, L.shTotal));
    k.smem = s;
    for (u32 g = s >> 4; g < (s + k.bytes) >> 4; g++) {
      if (B.mark[g] & FLYING)
        fail(B, w, l, I,
             fmt("bulk copy %s shared memory at 0x%x while another bulk copy writes it", load ? "into" : "out of",
                 g << 4));
      if (load && B.mark[g])
        fail(B, w, l, I,
             fmt("bulk copy into shared memory at 0x%x while a wgmma or bulk copy reads it: no wait_group has ended "
                 "it",
                 g << 4));
      if (B.mbBytes[2 * g] | B.mbBytes[2 * g + 1]) fail(B, w, l, I, "bulk copy over an mbarrier object");
    }
    sl[pc]++;
    int when = L.seed ? rnd() % 3 : 0;
    k.late = when == 0;  // as late as possible, at random, at once
    if (load) {
      MBar& b = mbFind(B, w, l, I, pc, address(w, a.bar.reg, a.bar.aw, a.bar.imm, l), SHARED, &k.bar);
      k.agent = b.agent;
      k.clk = ++B.agentClk[b.agent];
      if (L.race) asyncNote(B, w, s, k.bytes, pc, nw + k.agent, k.clk);
      for (u32 g = s >> 4; g < (s + k.bytes) >> 4; g++) B.mark[g] |= FLYING;
      memset(B.sh.data() + s, 0xFF, k.bytes);
      B.fly.push_back(k);
      if (when == 2) complete(B, B.fly.size() - 1);
    } else {
      if (L.race) asyncNote(B, w, s, k.bytes, pc);
      for (u32 g = s >> 4; g < (s + k.bytes) >> 4; g++) B.mark[g]++;
      if (when == 2) {
        move(B, k);
        k.done = true;
      }
      w.bulk.push_back(k);
    }
  }
}

// a bulk copy into shared memory arrives
inline void Machine::complete(Block& B, u32 i) {
  Bulk k = B.fly[i];
  B.fly.erase(B.fly.begin() + i);
  Warp& w = B.w[k.warp];
  auto it = B.mb.find(k.bar);
  if (it == B.mb.end()) fail(B, w, k.lane, *k.I, "the mbarrier of a bulk copy in flight is gone");
  for (u32 g = k.smem >> 4; g < (k.smem + k.bytes) >> 4; g++) B.mark[g] &= ~FLYING;
  move(B, k);
  MBar& b = it->second;
  if (L.race) {
    if (b.cur.empty()) b.cur.assign(2 * nv, 0);
    b.cur[nw + k.agent] = std::max(b.cur[nw + k.agent], k.clk);
  }
  mbTx(B, w, k.lane, *k.I, k.bar, b, -(s64)k.bytes);
  mbCheck(B, k.bar, b);
}

// a block has ended: some warp has waited for every copy into its shared memory
inline void Machine::waitedFor(Block& B) {
  if (L.race)
    for (auto& a : B.agents) {
      u32 k = B.agentClk[a.second], seen = B.tick;
      for (auto& w : B.w) seen = std::max(seen, w.vc[nw + a.second]);
      if (k > seen)
        throw Err(
            fmt("kernel %s, block (%u,%u,%u): the block ends although a bulk copy into its shared memory has not "
                "been waited for (mbarrier at 0x%x)",
                L.K->name.c_str(), B.cta[0], B.cta[1], B.cta[2], a.first));
    }
}

inline void Machine::bulkWait(Block& B, Warp& w, const Ins& I, u32 m) {
  size_t n = 0;
  for (size_t i = 0; i < w.bulk.size(); i++) {
    Bulk& k = w.bulk[i];
    if (!(m >> k.lane & 1) || k.group >= w.bgrp[k.lane] || w.bgrp[k.lane] - k.group <= (u32)I.imm) {
      if (n != i) w.bulk[n] = k;
      n++;
      continue;
    }
    if (!k.done) move(B, k);
    for (u32 g = k.smem >> 4; g < (k.smem + k.bytes) >> 4; g++) B.mark[g]--;
    if (L.race)
      for (u32 x = k.smem; x < k.smem + k.bytes; x++) B.reads[(size_t)x * nw + w.id] = {w.vc[w.id], k.pc};
  }
  w.bulk.resize(n);
}
