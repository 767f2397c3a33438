// Memory of the machine: bounds, alignment, races; loads, stores, atomics and cp.async.
#pragma once

#include "machine.h"

inline u64 Machine::rnd() {
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return rng * 0x2545F4914F6CDD1Dull >> 16;
}

inline string Machine::where(const Block& B, const Warp& w, int lane, const Ins& I) {
  u32 t = w.id * 32 + lane, x = L.block[0], y = L.block[1];
  return fmt("kernel %s, block (%u,%u,%u), thread (%u,%u,%u), PTX line %d: %s", L.K->name.c_str(), B.cta[0], B.cta[1],
             B.cta[2], t % x, t / x % y, t / x / y, I.line, I.text.substr(0, 300).c_str());
}

inline void Machine::startBlock(Block& B, u32 lin) {
  B.used = true;
  B.lin = lin;
  B.cta[0] = lin % L.grid[0];
  B.cta[1] = lin / L.grid[0] % L.grid[1];
  B.cta[2] = lin / L.grid[0] / L.grid[1];
  B.sh.assign(L.shTotal + 64, 0xFF);
  size_t rs = (L.regBytes + 255) & ~255ull;
  if (B.w.empty()) {
    B.w.resize(nw);
    B.regs.resize(rs * nw + 64);
    B.loc.resize((size_t)L.locBytes * 32 * nw + 64);
    if (L.race) {
      B.shadow.resize(L.shTotal);
      B.reads.resize((size_t)L.shTotal * nw);
    }
  }
  if (L.locBytes) std::fill(B.loc.begin(), B.loc.end(), 0xFF);
  B.live = bt;
  for (auto& b : B.bars) b = Barrier();
  B.tick++;
  if (L.race) {
    for (auto& w : B.w)
      for (u32 x : w.vc) B.tick = std::max(B.tick, x + 1);
    for (u32 x : B.agentClk) B.tick = std::max(B.tick, x + 1);
  }
  if (M.async) {
    B.mb.clear();
    B.agents.clear();
    B.agentClk.assign(AGENTS, B.tick);
    B.mbBytes.assign(L.shTotal / 8 + 8, 0);
    B.mark.assign(L.shTotal / 16 + 8, 0);
    B.fly.clear();
    B.wgLog.assign((nw + 3) / 4, {});
    B.stall = 0;
    B.cl = Barrier();
    B.clGen = 0;
    B.tmSeen.clear();
    memset(B.tmOwner, 0, sizeof B.tmOwner);
    memset(B.tmBusy, 0, sizeof B.tmBusy);
    memset(B.tmRead, 0, sizeof B.tmRead);
    memset(B.tmStored, 0, sizeof B.tmStored);
    B.tq.clear();
    B.tdone.clear();
    B.tcVc.clear();
  }
  u8* base = (u8*)(((uintptr_t)B.regs.data() + 63) & ~(uintptr_t)63);
  for (int i = 0; i < nw; i++) {
    Warp& w = B.w[i];
    w.id = i;
    w.R = base + rs * i;
    w.loc = B.loc.data() + (size_t)L.locBytes * 32 * i;
    memcpy(w.R, L.image.data(), L.regBytes);
    int n = std::min<int>(32, bt - 32 * i);
    w.alive = n == 32 ? ~0u : (1u << n) - 1;
    w.blocked = w.inbar = w.inws = w.inmb = w.mbFalse = w.mbGave = 0;
    w.fair = false;
    if (M.async) {
      w.tcRegs.clear();
      w.wg.clear();
      w.bulk.clear();
      w.wgGroup = w.wgEpoch = w.wgSeq = 0;
      w.wgUse.assign(L.regBytes / 32 + 1, 0);
      w.wgDirty.assign(L.regBytes / 32 + 1, 0);
      w.wgMoved.assign(L.regBytes / 32 + 1, ~0u);
      for (int l = 0; l < 32; l++) w.bgrp[l] = w.clGen[l] = 0;
    }
    w.cpPending = 0;
    for (int l = 0; l < 32; l++) {
      w.pc[l] = L.K->pc;
      w.depth[l] = 0;
      w.cp[l].clear();
      w.cpg[l] = 0;
    }
    auto set = [&](int r, int l, u32 v) { memcpy(w.R + r * 128 + l * 4, &v, 4); };
    for (int l = 0; l < 32; l++) {
      u32 t = i * 32 + l;
      set(R_TIDX, l, t % L.block[0]);
      set(R_TIDY, l, t / L.block[0] % L.block[1]);
      set(R_TIDZ, l, t / L.block[0] / L.block[1]);
      for (int k = 0; k < 3; k++) {
        set(R_NTIDX + k, l, L.block[k]);
        set(R_NCTAX + k, l, L.grid[k]);
        set(R_CTAX + k, l, B.cta[k]);
      }
      set(R_LANE, l, l);
      set(R_WARP, l, i);
      set(R_NWARP, l, nw);
      set(R_MEQ, l, 1u << l);
      set(R_MLT, l, (1u << l) - 1);
      set(R_MLE, l, ((1u << l) - 1) | (1u << l));
      set(R_MGE, l, ~((1u << l) - 1));
      set(R_MGT, l, ~(((1u << l) - 1) | (1u << l)));
      set(R_DYN, l, L.dynBytes);
      set(R_TOT, l, L.shTotal);
    }
    if (L.race) {
      w.vc.assign(M.async ? 2 * nv : nw, B.tick);
      w.vc[i] = B.tick + 1;
    }
  }
}

// ---- memory
inline void Machine::raceHit(Block& B, const char* what, u32 addr, int wa, u32 pca, int wb, u32 pcb) {
  std::lock_guard<std::mutex> g(L.mu);
  std::array<u32, 3> key{std::min(pca, pcb), std::max(pca, pcb), (u32)(what[0] == 'n')};
  if (L.races.size() >= 32 || L.races.count(key)) return;
  L.races[key] =
      fmt("shared memory race (%s) at byte 0x%x, kernel %s, block (%u,%u,%u): warp %d [line %d: %s] and warp %d "
          "[line %d: %s]",
          what, addr, L.K->name.c_str(), B.cta[0], B.cta[1], B.cta[2], wa < nw ? wa : -1, code[pca].line,
          code[pca].text.substr(0, 160).c_str(), wb, code[pcb].line, code[pcb].text.substr(0, 160).c_str());
}

// kind 0 read, 1 write, 2 atomic, 3 a copy in flight (checked against reads, not recorded).  `old`: the bytes before
// the write; two warps that write the same value are not reported (Triton lets warps with equal data store it twice)
inline void Machine::raceNote(Block& B, Warp& w, u32 a, u32 n, int kind, u32 pc, const u8* old) {
  for (u32 i = a; i < a + n; i++) {
    Shadow& s = B.shadow[i];
    auto* rd = &B.reads[(size_t)i * nw];
    int me = w.id;
    if (kind != 3 && s.ww >= 0 && s.ww != me && s.wclk >= B.tick && s.wclk > w.vc[s.ww] &&
        !(kind == 1 && old && old[i - a] == B.sh[i]))
      raceHit(B,
              s.ww >= nw  ? "bulk copy into it, then an access without a wait on the copy's mbarrier"
              : kind == 0 ? "write then read"
              : kind == 2 ? "write then atomic"
                          : "write then write",
              i, s.ww, s.wpc, me, pc);
    if (kind < 2 && s.aw >= 0 && s.aw != me && s.aclk >= B.tick && s.aclk > w.vc[s.aw])
      raceHit(B, "atomic and plain access", i, s.aw, s.apc, me, pc);
    if (kind != 0)
      for (int o = 0; o < nw; o++)
        if (o != me && rd[o].first >= B.tick && rd[o].first > w.vc[o])
          raceHit(B, "read then write", i, o, rd[o].second, me, pc);
    if (kind == 0)
      rd[me] = {w.vc[me], pc};
    else if (kind == 3)
      continue;
    else if (kind == 1) {
      s.ww = me;
      s.wclk = w.vc[me];
      s.wpc = pc;
      s.viaCp = code[pc].kind == CPASYNC || code[pc].kind == TCALLOC;
    } else {
      s.aw = me;
      s.aclk = w.vc[me];
      s.apc = pc;
    }
  }
}

// the async proxy (wgmma, bulk copies) reads, or with agent >= 0 a bulk copy will write, 16-byte pieces: on behalf of
// warp w
inline void Machine::asyncNote(Block& B, Warp& w, u32 a, u32 n, u32 pc, int agent, u32 clk) {
  raceNote(B, w, a, n, agent < 0 ? 0 : 3, pc);
  for (u32 i = a; i < a + n; i++) {
    Shadow& s = B.shadow[i];
    if (s.ww >= 0 && s.ww < nw && s.wclk >= B.tick && s.wclk <= w.vc[s.ww] && s.wclk > w.vc[nv + s.ww]) {
      if (!s.viaCp)
        raceHit(B,
                agent < 0 ? "no fence.proxy.async between a plain write and the asynchronous read"
                          : "no fence.proxy.async between a plain write and the bulk copy over it",
                i, s.ww, s.wpc, w.id, pc);
      else if (agent < 0)
        note(pc, "data of a cp.async is read without a fence.proxy.async");
    }
    if (agent >= 0) {
      s.ww = agent;
      s.wclk = clk;
      s.wpc = pc;
      s.viaCp = false;
    }
  }
}

inline u64 Machine::address(const Warp& w, u32 reg, u8 aw, s64 imm, u32 l) {
  u64 b = 0;
  if (aw == 8) {
    memcpy(&b, w.R + reg + 8 * l, 8);
    return b + imm;
  }
  if (aw == 4) {
    u32 x;
    memcpy(&x, w.R + reg + 4 * l, 4);
    return (u32)(x + imm);
  }
  return imm;
}

inline string Machine::near(u64 a) {
  string s;
  u64 best = ~0ull;
  for (auto& b : L.bufs) {
    s64 o = (s64)(a - b.fake);
    u64 d = o < 0 ? -o : o;
    if (a >> SLOT == b.fake >> SLOT && d < best) {
      best = d;
      s = fmt("; nearest buffer: %s (%llu bytes), offset %lld", b.name.c_str(), (unsigned long long)b.size,
              (long long)o);
    }
  }
  return s.empty() ? "; no buffer is near" : s;
}

inline u8* Machine::locate(Block& B, Warp& w, int l, const Ins& I, u64 a, Space sp, u32 n, bool write, Space* got,
                           u64* norm) {
  if (sp == PARAM && a < W_PARAM) a += W_PARAM;
  if (sp == GENERIC || sp == PARAM) {
    if (a >= W_LOCAL) {
      sp = LOCAL;
      a -= W_LOCAL;
    } else if (a >= W_SHARED) {
      sp = SHARED;
      a -= W_SHARED;
    } else if (a >= W_PARAM) {
      sp = PARAM;
      a -= W_PARAM;
    } else
      sp = GLOBAL;
  }
  *got = sp;
  *norm = a;
  const char* rw = write ? "write" : "read";
  if (a & (n - 1))
    fail(B, w, l, I,
         fmt("misaligned %u-byte %s at address 0x%llx", n, rw, (unsigned long long)a) + (sp == GLOBAL ? near(a) : ""));
  switch (sp) {
    case SHARED:
      if (a + n > L.shTotal || a > L.shTotal || !L.valid[a] || !L.valid[a + n - 1])
        fail(B, w, l, I,
             fmt("shared memory %s of %u bytes out of range at 0x%llx (static up to 0x%x, dynamic 0x%x..0x%x)", rw, n,
                 (unsigned long long)a, L.K->shEnd, M.dynBase, L.shTotal));
      if (M.async) asyncCheck(B, w, l, I, a, n, write);
      return B.sh.data() + a;
    case LOCAL:
      if (a + n > L.locBytes || a > L.locBytes)
        fail(B, w, l, I, fmt("local memory %s out of range at 0x%llx", rw, (unsigned long long)a));
      return w.loc + (size_t)l * L.locBytes + a;
    case PARAM:
      if (a + n > L.params.size() || write)
        fail(B, w, l, I, fmt("parameter %s out of range at 0x%llx", rw, (unsigned long long)a));
      return L.params.data() + a;
    default:
      return global(B, w, l, I, a, n, write);
  }
}

inline u8* Machine::global(Block& B, Warp& w, int l, const Ins& I, u64 a, u32 n, bool write) {
  u64 i = (a >> SLOT) - 1;
  if (i < L.bufs.size()) {
    Buf& b = L.bufs[i];
    u64 o = a - b.fake;
    if (o < b.size && n <= b.size - o) {
      if (write && !b.writable)
        fail(B, w, l, I, fmt("write to the read-only buffer %s at offset %llu", b.name.c_str(), (unsigned long long)o));
      return b.host + o;
    }
  }
  fail(B, w, l, I,
       fmt("global memory %s of %u bytes outside every registered buffer at address 0x%llx", write ? "write" : "read",
           n, (unsigned long long)a) +
           near(a));
}

inline void Machine::countGlobal(u32 pc, u64* ga, int ng, int ns, u32 bytes) {
  gl[pc] += ng;
  sl[pc] += ns;
  gb[pc] += (u64)ng * bytes;
  if (!ng) return;
  for (int i = 0; i < ng; i++) ga[i] >>= 5;
  if (!std::is_sorted(ga, ga + ng)) std::sort(ga, ga + ng);
  int c = 1;
  for (int i = 1; i < ng; i++) c += ga[i] != ga[i - 1];
  sec[pc] += c;
}

inline void Machine::ldst(Block& B, Warp& w, const Ins& I, u32 pc, u32 m) {
  bool st = I.kind == ST;
  u32 n = I.width * I.vec;
  u64 ga[32];
  int ng = 0, ns = 0;
  bool sg = isSigned((T)I.type);
  LANES(m) {
    Space got;
    u64 na;
    u8* p = locate(B, w, l, I, address(w, I.a, I.aw, I.imm, l), I.space, n, st, &got, &na);
    u8 old[64];
    if (got == SHARED) {
      ns++;
      if (L.race && !I.flag) {
        if (st)
          memcpy(old, p, n);
        else
          raceNote(B, w, na, n, 0, pc);
      }
    } else if (got == GLOBAL)
      ga[ng++] = na;
    for (u32 k = 0; k < I.vec; k++, p += I.width) {
      u32 rw = I.vw[k];
      u8* r = w.R + I.v[k] + l * rw;
      if (st) {
        if (I.width == 4) {
          u32 x;
          memcpy(&x, r, 4);
          memcpy(p, &x, 4);
        } else
          memcpy(p, r, I.width);
      } else if (rw == I.width) {
        if (rw == 4) {
          u32 x;
          memcpy(&x, p, 4);
          memcpy(r, &x, 4);
        } else
          memcpy(r, p, rw);
      } else {
        u64 x = 0;
        memcpy(&x, p, I.width);
        if (sg) {
          int s = 64 - 8 * I.width;
          x = (u64)((s64)(x << s) >> s);
        }
        memcpy(r, &x, rw);
      }
    }
    if (st && got == SHARED && L.race && !I.flag) raceNote(B, w, na, n, 1, pc, old);
  }
  countGlobal(pc, ga, ng, ns, n);
}

inline u64 Machine::atomOp(int op, int t, u64 o, u64 b) {
  switch (t) {
    case U32:
    case B32:
      return atomInt<u32>(op, o, b);
    case U64:
    case B64:
      return atomInt<u64>(op, o, b);
    case S32:
      return op == A_MIN || op == A_MAX ? (u32)atomInt<s32>(op, o, b) : atomInt<u32>(op, o, b);
    case S64:
      return op == A_MIN || op == A_MAX ? (u64)atomInt<s64>(op, o, b) : atomInt<u64>(op, o, b);
    case U16:
    case B16:
      return atomInt<u16>(op, o, b);
    case TF32_: {
      float x = bitsf(o), y = bitsf(b);
      return fbits(op == A_ADD ? x + y : op == A_MIN ? fmin_(x, y) : fmax_(x, y));
    }
    case TF64: {
      double x = bitsd(o), y = bitsd(b);
      return dbits(op == A_ADD ? x + y : op == A_MIN ? fmin_(x, y) : fmax_(x, y));
    }
    case TF16: {
      float x = h2f(o), y = h2f(b);
      return f2h(op == A_ADD ? x + y : op == A_MIN ? fmin_(x, y) : fmax_(x, y));
    }
    case TBF16: {
      float x = b2f(o), y = b2f(b);
      return f2b(op == A_ADD ? x + y : op == A_MIN ? fmin_(x, y) : fmax_(x, y));
    }
    case TF16X2:
      return atomOp(op, TF16, o & 0xffff, b & 0xffff) | atomOp(op, TF16, o >> 16, b >> 16) << 16;
    case TBF16X2:
      return atomOp(op, TBF16, o & 0xffff, b & 0xffff) | atomOp(op, TBF16, o >> 16, b >> 16) << 16;
  }
  throw Err("atomic type");
}

inline void Machine::atom(Block& B, Warp& w, const Ins& I, u32 pc, u32 m) {
  u32 n = I.width * I.vec;
  u64 ga[32];
  int ng = 0, ns = 0;
  std::unique_lock<std::mutex> g(L.atomMu, std::defer_lock);
  if (L.nthreads > 1) g.lock();
  u32 rot = L.seed ? rnd() & 31 : 0;  // lanes in a rotated order: the hardware promises none
  for (u32 j = 0; j < 32; j++) {
    u32 l = (j + rot) & 31;
    if (!(m >> l & 1)) continue;
    Space got;
    u64 na;
    u8* p = locate(B, w, l, I, address(w, I.a, I.aw, I.imm, l), I.space, n, true, &got, &na);
    if (got == SHARED) {
      ns++;
      if (L.race) raceNote(B, w, na, n, 2, pc);
    } else if (got == GLOBAL)
      ga[ng++] = na;
    for (u32 k = 0; k < I.vec; k++, p += I.width) {
      u64 o = 0, b = 0, c = 0, r;
      memcpy(&o, p, I.width);
      memcpy(&b, w.R + I.v2[k] + l * I.width, I.width);
      if (I.op == A_CAS) {
        memcpy(&c, w.R + I.c + l * I.width, I.width);
        r = o == b ? c : o;
      } else
        r = atomOp(I.op, I.type, o, b);
      memcpy(p, &r, I.width);
      if (!I.v.empty()) memcpy(w.R + I.v[k] + l * (I.v[k] == R_SINK * 128 ? 8 : I.width), &o, I.width);
    }
  }
  countGlobal(pc, ga, ng, ns, n);
}

inline void Machine::cpDo(Block& B, Warp& w, const CpOp& c) {
  u8 old[16];
  memcpy(old, B.sh.data() + c.dst, c.n + c.fill);
  if (c.n) memcpy(B.sh.data() + c.dst, c.src, c.n);
  memset(B.sh.data() + c.dst + c.n, 0, c.fill);
  if (L.race) raceNote(B, w, c.dst, c.n + c.fill, 1, c.pc, old);
}

inline void Machine::cpIssue(Block& B, Warp& w, const Ins& I, u32 pc, u32 m) {
  u64 ga[32];
  int ng = 0;
  u64 bytes = 0;
  LANES(m) {
    u32 n = I.width, k = n;
    if (I.q == 1) {
      u32 x;
      memcpy(&x, w.R + I.c + 4 * l, 4);
      if (x > n) fail(B, w, l, I, "cp.async source size larger than the copy");
      k = x;
    } else if (I.q == 2 && (w.R[I.c + l] != 0) != (I.cneg != 0))
      k = 0;
    Space got;
    u64 nd, na;
    locate(B, w, l, I, address(w, I.d, I.dw, I.imm2, l), SHARED, n, true, &got, &nd);
    const u8* s = nullptr;
    u64 a = address(w, I.a, I.aw, I.imm, l);
    if (k) {
      if (a & (n - 1)) fail(B, w, l, I, fmt("misaligned cp.async source 0x%llx", (unsigned long long)a));
      if (k == n)
        s = locate(B, w, l, I, a, GLOBAL, n, false, &got, &na);
      else {
        s = locate(B, w, l, I, a, GLOBAL, 1, false, &got, &na);
        locate(B, w, l, I, a + k - 1, GLOBAL, 1, false, &got, &na);
      }
      ga[ng++] = a;
      bytes += k;
    }
    CpOp c{(u32)nd, (u8)k, (u8)(n - k), s, w.cpg[l], pc};
    if (L.race) raceNote(B, w, nd, n, 3, pc);
    if (L.seed && (rnd() & 1))
      cpDo(B, w, c);
    else {
      w.cp[l].push_back(c);
      w.cpPending |= 1u << l;
    }
  }
  u64 g0 = gb[pc];
  countGlobal(pc, ga, ng, 0, 0);
  gb[pc] = g0 + bytes;
  sl[pc] += __builtin_popcount(m);
}

inline void Machine::cpWait(Block& B, Warp& w, const Ins& I, u32 m) {
  LANES(m & w.cpPending) {
    auto& v = w.cp[l];
    size_t k = 0;
    for (auto& c : v) {
      bool due = I.flag || (c.group < w.cpg[l] && w.cpg[l] - c.group > (u32)I.imm);
      if (due)
        cpDo(B, w, c);
      else
        v[k++] = c;
    }
    v.resize(k);
    if (!k) w.cpPending &= ~(1u << l);
  }
}
