// mbarriers: arrivals, byte counts, phases, waits.
#pragma once

#include "memory.h"

// ---- sm_90: mbarriers, bulk copies (TMA), wgmma.  Depending on the seed, asynchronous work is done at once, at a
// random time, or as late as allowed
inline void Machine::join(vector<u32>& a, const vector<u32>& b) {
  if (a.size() < b.size()) a.resize(b.size(), 0);
  for (size_t k = 0; k < b.size(); k++) a[k] = std::max(a[k], b[k]);
}

// a plain access to shared memory
inline void Machine::asyncCheck(Block& B, Warp& w, int l, const Ins& I, u32 a, u32 n, bool write) {
  if (I.kind == MBAR || I.kind == MBWAIT || I.kind == CPMBAR || I.kind == TMALOAD || I.kind == TCCOMMIT) return;
  for (u32 g = a >> 4; g <= (a + n - 1) >> 4; g++)
    if (B.mark[g]) {
      if (B.mark[g] & FLYING)
        fail(B, w, l, I,
             fmt("shared memory at 0x%x is %s while a bulk copy into it is in flight: the phase of its mbarrier has "
                 "not completed",
                 a, write ? "written" : "read"));
      if (write)
        fail(B, w, l, I,
             fmt("shared memory at 0x%x is overwritten while a wgmma or bulk copy reads it: no wait_group has ended "
                 "it",
                 a));
    }
  for (u32 g = a >> 3; g <= (a + n - 1) >> 3; g++)
    if (B.mbBytes[g]) fail(B, w, l, I, fmt("plain access to an mbarrier object at shared address 0x%x", g << 3));
}

inline string Machine::mbText(Block& B, u32 a) {
  if (a == ~0u) return "in a cluster barrier";
  auto it = B.mb.find(a);
  if (it == B.mb.end()) return fmt("waiting for the mbarrier at 0x%x, which is gone", a);
  MBar& b = it->second;
  return fmt(
      "waiting for the mbarrier at 0x%x (phase %u, %u of %u arrivals and %lld bytes outstanding, no copy in flight)", a,
      b.phase, b.pending, b.count, (long long)b.tx);
}

inline MBar& Machine::mbFind(Block& B, Warp& w, int l, const Ins& I, u32 pc, u64 a, Space sp, u32* at) {
  Space got;
  u64 na;
  locate(B, w, l, I, a, sp, 8, false, &got, &na);
  auto it = got == SHARED ? B.mb.find(na) : B.mb.end();
  if (it == B.mb.end())
    fail(B, w, l, I, fmt("no initialised mbarrier at shared address 0x%llx", (unsigned long long)na));
  if (L.race) raceNote(B, w, na, 8, 0, pc);
  *at = na;
  return it->second;
}

// a phase completes when no arrival and no byte is outstanding
inline void Machine::mbCheck(Block& B, u32 a, MBar& b) {
  if (b.pending || b.tx) return;
  b.phase++;
  b.pending = b.count;
  b.seen = false;
  B.stall = 0;
  if (L.race) {
    join(b.done, b.cur);
    b.cur.clear();
  }
  wake(B, a);
}

inline void Machine::mbTx(Block& B, Warp& w, int l, const Ins& I, u32 a, MBar& b, s64 n) {
  b.tx += n;
  if (b.tx < -1048575 || b.tx > 1048575) fail(B, w, l, I, fmt("tx-count of the mbarrier at 0x%x out of range", a));
}

inline void Machine::mbArrive(Block& B, Warp& w, int l, const Ins& I, u32 a, MBar& b, u32 n, bool relaxed) {
  if (!n || n > b.pending)
    fail(B, w, l, I,
         fmt("%u arrivals at the mbarrier at 0x%x, whose phase %u expects %u more", n, a, b.phase, b.pending));
  if (b.phase && !b.seen)
    fail(B, w, l, I,
         fmt("arrival at the mbarrier at 0x%x in phase %u, though nobody has waited for phase %u", a, b.phase,
             b.phase - 1));
  if (L.race && !relaxed) {
    join(b.cur, w.vc);
    w.vc[w.id]++;
  }
  b.pending -= n;
  mbCheck(B, a, b);
}

inline void Machine::mbar(Block& B, Warp& w, const Ins& I, u32 pc, u32 m) {
  LANES(m) {
    u32 n = 1, at;
    if (I.op == MB_PENDING) {
      u64 st;
      memcpy(&st, w.R + I.c + 8 * l, 8);
      u32 v = (u32)st;
      memcpy(w.R + I.d + 4 * l, &v, 4);
      continue;
    }
    u64 a = address(w, I.a, I.aw, I.imm, l);
    if (I.op != MB_INVAL) memcpy(&n, w.R + I.c + 4 * l, 4);
    if (I.op == MB_INIT) {
      Space got;
      u64 na;
      locate(B, w, l, I, a, I.space, 8, true, &got, &na);
      if (got != SHARED) fail(B, w, l, I, "mbarrier outside shared memory");
      if (B.mb.count(na)) fail(B, w, l, I, "mbarrier.init of an initialised mbarrier (mbarrier.inval is missing)");
      if (!n || n >= 1u << 20) fail(B, w, l, I, "mbarrier count out of range");
      if (B.mark[na >> 4]) fail(B, w, l, I, "mbarrier.init in shared memory that a wgmma or bulk copy uses");
      if (L.race) raceNote(B, w, na, 8, 1, pc);
      if (!B.agents.count(na)) {
        int k = B.agents.size();
        if (k >= AGENTS) fail(B, w, l, I, "more than 64 mbarriers in a block");
        B.agents[na] = k;
      }
      MBar b;
      b.count = b.pending = n;
      b.agent = B.agents[na];
      B.mb[na] = b;
      B.mbBytes[na >> 3] = 1;
      continue;
    }
    MBar& b = mbFind(B, w, l, I, pc, a, I.space, &at);
    switch (I.op) {
      case MB_INVAL:
        while (std::any_of(B.tq.begin(), B.tq.end(), [&](const TcOp& x) { return !x.mma && x.bar == at; })) {
          note(pc, "mbarrier.inval although a tcgen05.commit is to arrive at it (taken to arrive in time)");
          tcStep(B);
        }
        for (auto& k : B.fly)
          if (k.bar == at) fail(B, w, l, I, "mbarrier.inval while a bulk copy is to arrive at it");
        if (L.race) raceNote(B, w, at, 8, 1, pc);
        B.mbBytes[at >> 3] = 0;
        B.mb.erase(at);
        break;
      case MB_EXPECT:
        mbTx(B, w, l, I, at, b, n);
        break;
      case MB_COMPLETE:
        mbTx(B, w, l, I, at, b, -(s64)n);
        mbCheck(B, at, b);
        break;
      default: {
        u64 st = (u64)b.phase << 32 | b.pending;
        if (I.d != R_SINK * 128) memcpy(w.R + I.d + 8 * l, &st, 8);
        if (I.q) {
          mbTx(B, w, l, I, at, b, n);
          n = 1;
        }
        if (I.cneg && n >= b.pending) fail(B, w, l, I, "mbarrier.arrive.noComplete completes the phase");
        if (I.op == MB_DROP) b.count -= n;
        mbArrive(B, w, l, I, at, b, n, I.flag);
      }
    }
  }
}

// lanes whose phase has not completed
inline u32 Machine::mbWait(Block& B, Warp& w, const Ins& I, u32 pc, u32 m) {
  u32 stuck = 0;
  LANES(m) {
    u32 at;
    MBar& b = mbFind(B, w, l, I, pc, address(w, I.a, I.aw, I.imm, l), I.space, &at);
    bool ok;
    if (I.q) {
      u32 p;
      memcpy(&p, w.R + I.c + 4 * l, 4);
      if (p > 1) fail(B, w, l, I, "phase parity is not 0 or 1");
      ok = (b.phase & 1) != p;
    } else {
      u64 st;
      memcpy(&st, w.R + I.c + 8 * l, 8);
      u32 p = st >> 32;
      if (p != b.phase && p + 1 != b.phase)
        fail(B, w, l, I, fmt("mbarrier state of phase %u, the mbarrier is in phase %u", p, b.phase));
      ok = p != b.phase;
    }
    if (ok) {
      b.seen = true;
      if (L.race && !I.flag) join(w.vc, b.done);
      w.R[I.d + l] = 1;
      w.mbFalse &= ~(1u << l);
      w.mbGave &= ~(1u << l);
      continue;
    }
    bool again = w.mbGave >> l & 1;
    w.mbGave |= 1u << l;  // a wait may give up: the first time it does
    if (!again || (w.mbFalse >> l & 1) || (L.seed && (rnd() & 3) == 0)) {
      w.mbFalse &= ~(1u << l);
      w.R[I.d + l] = 0;
      continue;
    }
    w.mbAddr[l] = at;
    stuck |= 1u << l;
  }
  return stuck;
}

// no warp can run: the latest moment for a copy to complete, or for a try_wait to give up
inline bool Machine::unstick(Block& B) {
  if (!B.fly.empty() && (B.tq.empty() || !L.seed || (rnd() & 1))) {
    complete(B, L.seed ? rnd() % B.fly.size() : 0);
    return true;
  }
  if (!B.tq.empty()) {
    tcStep(B);
    return true;
  }
  u32 any = 0;
  for (auto& w : B.w) LANES(w.inmb & w.alive) if (w.mbAddr[l] != ~0u) any = 1;
  if (!any || B.stall++ >= 8) return false;
  for (auto& w : B.w) LANES(w.inmb & w.alive) if (w.mbAddr[l] != ~0u) {
      w.inmb &= ~(1u << l);
      w.mbFalse |= 1u << l;
    }
  return true;
}

inline void Machine::clCheck(Block& B) {
  if (B.cl.n < B.live) return;
  B.cl.n = 0;
  B.clGen++;
  B.stall = 0;
  wake(B, ~0u);
}

inline void Machine::clArrive(Block& B, Warp& w, u32 m) {
  if (L.race) {
    join(B.cl.vc, w.vc);
    w.vc[w.id]++;
  }
  LANES(m) w.clGen[l] = B.clGen + 1;
  B.cl.n += __builtin_popcount(m);
  clCheck(B);
}

inline u32 Machine::clWait(Block& B, Warp& w, u32 m) {
  u32 stuck = 0;
  LANES(m) if (w.clGen[l] > B.clGen) {
    stuck |= 1u << l;
    w.mbAddr[l] = ~0u;
  }
  if (L.race && stuck != m) join(w.vc, B.cl.vc);
  return stuck;
}

// done at once: all earlier cp.async of the thread, then the arrival
inline void Machine::cpArrive(Block& B, Warp& w, const Ins& I, u32 pc, u32 m) {
  LANES(m) {
    for (auto& c : w.cp[l]) cpDo(B, w, c);
    w.cp[l].clear();
    w.cpPending &= ~(1u << l);
    u32 at;
    MBar& b = mbFind(B, w, l, I, pc, address(w, I.a, I.aw, I.imm, l), I.space, &at);
    if (!I.flag) b.pending++;
    mbArrive(B, w, l, I, at, b, 1, false);
  }
}
