// The loop that executes one warp.
#pragma once

#include "tensor_memory.h"
#include "warp_operations.h"
#include "warpgroups.h"

// ---- control
// lanes at the smallest PC run first
inline bool Machine::select(Warp& w, u32& pc, u32& mask, u32& next) {
  u32 run = w.runnable();
  if (!run) return false;
  pc = ~0u;
  if (w.fair) {
    u32 k = rnd() & 31;
    while (!(run >> k & 1)) k = (k + 1) & 31;
    pc = w.pc[k];
    w.fair = false;
  } else
    LANES(run) if (w.pc[l] < pc) pc = w.pc[l];
  mask = 0;
  next = ~0u;
  LANES(w.alive & ~w.inbar & ~w.inws & ~w.inmb) {
    if (w.pc[l] == pc)
      mask |= 1u << l;
    else if (w.pc[l] > pc && w.pc[l] < next)
      next = w.pc[l];
  }
  w.blocked &= ~mask;
  return true;
}

inline void Machine::wsCheck(Warp& w) {
  LANES(w.inws) {
    u32 need = w.wsm[l] & w.alive, have = 0;
    for (u32 k = 0; k < 32; k++)
      if ((w.inws >> k & 1) && w.wsm[k] == w.wsm[l]) have |= 1u << k;
    if ((need & ~have) == 0) {
      for (u32 k = 0; k < 32; k++)
        if (have >> k & 1) w.pc[k]++;
      w.inws &= ~have;
      wsCheck(w);
      return;
    }
  }
}

inline void Machine::barCheck(Block& B, int id) {
  Barrier& b = B.bars[id];
  if (!b.n || (b.counted ? b.arrived < b.expected : b.arrived < B.live)) return;
  for (auto& w : B.w) {
    bool any = false;
    LANES(w.inbar) if (w.barid[l] == id) {
      const Ins& I = code[w.pc[l]];
      any = true;
      if (I.op == 2) {
        if (I.q == 0)
          ((u32*)(w.R + I.d))[l] = b.pop;
        else
          w.R[I.d + l] = I.q == 1 ? b.pop == b.n : b.pop != 0;
      }
      w.pc[l]++;
      w.inbar &= ~(1u << l);
    }
    if (any && L.race) join(w.vc, b.vc);
  }
  b = Barrier();
  B.stall = 0;
}

inline void Machine::barArrive(Block& B, Warp& w, const Ins& I, u32 m, u32 mask, u32 pc) {
  u32 l0 = __builtin_ctz(m);
  u32 id;
  memcpy(&id, w.R + I.a + 4 * l0, 4);
  if (id > 15) fail(B, w, l0, I, "barrier number above 15");
  Barrier& b = B.bars[id];
  if (!I.v2.empty()) {
    u32 c;
    memcpy(&c, w.R + I.v2[0] + 4 * l0, 4);
    if (!c || c % 32) fail(B, w, l0, I, "barrier count is not a multiple of 32");
    if (b.n && b.expected != c) fail(B, w, l0, I, "barrier count differs between warps");
    b.expected = c;
    b.counted = true;
  }
  u32 p = I.op == 2 ? pmask(w.R + I.c) : 0;
  if (I.cneg) p = ~p;
  b.pop += __builtin_popcount(p & m);
  b.n += __builtin_popcount(m);
  b.arrived += b.counted && I.flag ? 32 : __builtin_popcount(m);
  if (b.counted && b.arrived > b.expected) fail(B, w, l0, I, "more threads at the barrier than its count");
  if (L.race) {
    join(b.vc, w.vc);
    w.vc[w.id]++;
  }
  save(w, mask & ~m, pc + 1);
  if (I.op == 1)
    save(w, m, pc + 1);
  else {
    save(w, m, pc);
    w.inbar |= m;
    LANES(m) w.barid[l] = id;
  }
  barCheck(B, id);
}

inline void Machine::run(Block& B, Warp& w, u64 quantum) {
  u32 pc, mask, next;
  u8* R = w.R;
  if (!select(w, pc, mask, next)) return;
#define RESEL                               \
  {                                         \
    if (!select(w, pc, mask, next)) return; \
    continue;                               \
  }
  for (;;) {
    if (pc >= next) {
      save(w, mask, pc);
      RESEL
    }
    if (quantum-- == 0) {
      save(w, mask, pc);
      w.fair = mask != w.alive;
      return;
    }
    const Ins& I = code[pc];
    u32 m = mask;
    if (I.guard >= 0) {
      u32 g = pmask(R + I.guard);
      m &= I.gneg ? ~g : g;
    }
    localSteps++;
    wc[pc]++;
    if (!m) {
      pc++;
      continue;
    }
    lc[pc] += __builtin_popcount(m);
    if (I.touch) touch(B, w, I, m);
    switch (I.kind) {
      case ALU:
        if (m == ~0u)
          I.fn(R + I.d, R + I.a, R + I.b, R + I.c, R + I.e);
        else {
          I.fn(t1, R + I.a, R + I.b, R + I.c, R + I.e);
          blend(R + I.d, t1, m, I.dw);
        }
        pc++;
        break;
      case MULTI: {
        const u8* a = R + I.a;
        if (I.pre) {
          I.pre(t0, a, a, a, a);
          a = t0;
        }
        if (I.rmode) fesetround(I.rmode == RZ ? FE_TOWARDZERO : I.rmode == RM_ ? FE_DOWNWARD : FE_UPWARD);
        I.fn(t1, a, R + I.b, R + I.c, R + I.e);
        if (I.rmode) fesetround(FE_TONEAREST);
        u8* r = t1;
        if (I.post) {
          I.post(t2, r, r, r, r);
          r = t2;
        }
        if (I.ext) {
          I.ext(t3, r, r, r, r);
          r = t3;
        }
        blend(R + I.d, r, m, I.dw);
        pc++;
        break;
      }
      case SETP: {
        I.fn(t1, R + I.a, R + I.b, R, R);
        for (int l = 0; l < 32; l++) {
          u8 p = t1[l], q = !p;
          if (I.op) {
            u8 c = (R[I.c + l] != 0) != (I.cneg != 0);
            if (I.op == 1) {
              p &= c;
              q &= c;
            } else if (I.op == 2) {
              p |= c;
              q |= c;
            } else {
              p ^= c;
              q ^= c;
            }
          }
          if (!(m >> l & 1)) continue;
          if (I.q == 2) {
            u32 v = p ? (I.flag ? 0x3f800000u : ~0u) : 0;
            memcpy(R + I.d + 4 * l, &v, 4);
          } else {
            if (I.d != R_SINK * 128) R[I.d + l] = p;
            if (I.q && I.d2 != R_SINK * 128) R[I.d2 + l] = q;
          }
        }
        pc++;
        break;
      }
      case LD:
      case ST:
        ldst(B, w, I, pc, m);
        pc++;
        break;
      case ATOM:
        atom(B, w, I, pc, m);
        pc++;
        break;
      case CPASYNC:
        cpIssue(B, w, I, pc, m);
        pc++;
        break;
      case CPCOMMIT:
        LANES(m) w.cpg[l]++;
        pc++;
        break;
      case CPWAIT:
        cpWait(B, w, I, m);
        pc++;
        break;
      case NOP_:
        pc++;
        break;
      case MBAR:
        mbar(B, w, I, pc, m);
        pc++;
        break;
      case TMALOAD:
      case TMASTORE:
        bulkIssue(B, w, I, pc, m);
        pc++;
        break;
      case TCMMA:
      case TCCOMMIT:
        LANES(m) tcIssue(B, w, I, pc, l);
        pc++;
        break;
      case BULKCOMMIT:
        LANES(m) w.bgrp[l]++;
        pc++;
        break;
      case BULKWAIT:
        bulkWait(B, w, I, m);
        pc++;
        break;
      case CPMBAR:
        cpArrive(B, w, I, pc, m);
        pc++;
        break;
      case TMREPL:
        tmReplace(B, w, I, pc, m);
        pc++;
        break;
      case PFENCE:
        if (L.race) {
          for (int k = 0; k < nw; k++) w.vc[nv + k] = std::max(w.vc[nv + k], w.vc[k]);
          w.vc[w.id]++;
        }
        pc++;
        break;
      case TFENCE:
        LANES(m) {
          u64 a = address(w, I.a, I.aw, I.imm, l);
          std::lock_guard<std::mutex> g(L.mu);
          auto it = L.tmaps.find(a);
          if (it != L.tmaps.end()) B.tmSeen[a] = it->second;
        }
        pc++;
        break;
      case MAPA:
        LANES(m) {
          u32 r;
          memcpy(&r, R + I.c + 4 * l, 4);
          if (r) fail(B, w, l, I, "mapa: the cluster has one block only");
          memmove(R + I.d + l * I.dw, R + I.a + l * I.dw, I.dw);
        }
        pc++;
        break;
      case CLARRIVE:
        clArrive(B, w, m);
        pc++;
        break;
      case MBWAIT:
      case CLWAIT: {
        u32 stuck = I.kind == MBWAIT ? mbWait(B, w, I, pc, m) : clWait(B, w, m);
        if (!stuck) {
          pc++;
          break;
        }
        lc[pc] -= __builtin_popcount(stuck);
        save(w, mask & ~stuck, pc + 1);
        save(w, stuck, pc);
        w.inmb |= stuck;
        RESEL
      }
      case BRA:
        if (m == mask) {
          if (mask == w.alive) {
            pc = I.tgt;
            break;
          }
          save(w, mask, I.tgt);
        } else {
          save(w, mask & ~m, pc + 1);
          save(w, m, I.tgt);
        }
        RESEL
      case BRX: {
        save(w, mask & ~m, pc + 1);
        LANES(m) {
          u32 x;
          memcpy(&x, R + I.a + 4 * l, 4);
          if (x >= I.table.size()) fail(B, w, l, I, "branch table index out of range");
          w.pc[l] = I.table[x];
        }
        RESEL
      }
      case CALL: {
        for (auto& c : I.call->in)
          LANES(m) memmove(w.loc + (size_t)l * L.locBytes + c[1], w.loc + (size_t)l * L.locBytes + c[0], c[2]);
        LANES(m) {
          if (w.depth[l] >= 8) fail(B, w, l, I, "call depth above 8 (recursion is not supported)");
          w.ret[l][w.depth[l]++] = pc + 1;
        }
        save(w, mask & ~m, pc + 1);
        save(w, m, I.tgt);
        RESEL
      }
      case RET: {
        save(w, mask & ~m, pc + 1);
        LANES(m) {
          u32 r = w.ret[l][--w.depth[l]];
          for (auto& c : code[r - 1].call->out)
            memmove(w.loc + (size_t)l * L.locBytes + c[0], w.loc + (size_t)l * L.locBytes + c[1], c[2]);
          w.pc[l] = r;
        }
        RESEL
      }
      case EXIT_: {
        for (auto& k : w.bulk)
          if (m >> k.lane & 1)
            fail(B, w, k.lane, *k.I,
                 "a thread ends although its bulk copy out of shared memory has not been waited for");
        save(w, mask & ~m, pc + 1);
        w.alive &= ~m;
        B.live -= __builtin_popcount(m);
        w.blocked = 0;
        wsCheck(w);
        for (int i = 0; i < 16; i++)
          if (B.bars[i].n) barCheck(B, i);
        if (B.cl.n) clCheck(B);
        RESEL
      }
      case TRAP_:
        fail(B, w, __builtin_ctz(m), I, "trap executed (a device assertion?)");
      case UNSUP:
        fail(B, w, __builtin_ctz(m), I, I.why);
      case ACTIVE: {
        u32* d = (u32*)(R + I.d);
        LANES(m) d[l] = m;
        pc++;
        break;
      }
      case CLOCK:
        LANES(m) {
          u64 v = localSteps;
          memcpy(R + I.d + l * I.dw, &v, I.dw);
        }
        pc++;
        break;
      case CVTA: {
        u64 base = I.space == SHARED ? W_SHARED : I.space == LOCAL ? W_LOCAL : I.space == PARAM ? W_PARAM : 0;
        LANES(m) {
          u64 v;
          memcpy(&v, R + I.a + 8 * l, 8);
          v = I.flag ? v - base : v + base;
          memcpy(R + I.d + 8 * l, &v, 8);
        }
        pc++;
        break;
      }
      case ISSPACE:
        LANES(m) {
          u64 v;
          memcpy(&v, R + I.a + 8 * l, 8);
          Space s = v >= W_LOCAL ? LOCAL : v >= W_SHARED ? SHARED : v >= W_PARAM ? PARAM : GLOBAL;
          R[I.d + l] = s == I.space;
        }
        pc++;
        break;
      case PACK:
        LANES(m) {
          u64 v = 0;
          for (size_t k = 0; k < I.v.size(); k++) memcpy((u8*)&v + k * I.width, R + I.v[k] + l * I.width, I.width);
          memcpy(R + I.d + l * I.dw, &v, I.dw);
        }
        pc++;
        break;
      case UNPACK:
        LANES(m) {
          u64 v;
          memcpy(&v, R + I.a + l * I.dw, I.dw);
          for (size_t k = 0; k < I.v.size(); k++) memcpy(R + I.v[k] + l * I.vw[k], (u8*)&v + k * I.width, I.width);
        }
        pc++;
        break;
      case CARRY: {
        u8* cc = R + R_CC * 128;
        int k = I.op & 7;
        LANES(m) {
          u64 x = 0, y = 0, z = 0;
          memcpy(&x, R + I.a + l * I.width, I.width);
          memcpy(&y, R + I.b + l * I.width, I.width);
          if (k >= 2) memcpy(&z, R + I.c + l * I.width, I.width);
          int nb = 8 * I.width;
          bool ci = (I.op & 16) && cc[l];
          u128 r;
          if (k >= 2) {
            u128 pr;
            if (I.flag) {
              s64 sx = (s64)(x << (64 - nb)) >> (64 - nb), sy = (s64)(y << (64 - nb)) >> (64 - nb);
              pr = (u128)((s128)sx * sy);
            } else
              pr = (u128)x * y;
            u64 t = (u64)(k == 3 ? pr >> nb : pr);
            if (nb == 32) t &= 0xffffffffu;
            r = (u128)t + z + ci;
          } else
            r = k == 0 ? (u128)x + y + ci : (u128)x - y - ci;
          bool co = (r >> nb) & 1;
          u64 o = (u64)r;
          memcpy(R + I.d + l * I.width, &o, I.width);
          if (I.op & 8) cc[l] = co;
        }
        pc++;
        break;
      }
      case WARPSYNC: {
        const u32* mm = (const u32*)(R + I.b);
        u32 l0 = __builtin_ctz(m), memb = mm[l0];
        if (m == mask && (memb & w.alive) == m) {
          bool same = true;
          LANES(m) same &= mm[l] == memb;
          if (same) {
            pc++;
            break;
          }
        }
        LANES(m) if (!(mm[l] >> l & 1)) fail(B, w, l, I, "thread is not in its own member mask");
        save(w, mask & ~m, pc + 1);
        save(w, m, pc);
        LANES(m) w.wsm[l] = mm[l];
        w.inws |= m;
        wsCheck(w);
        RESEL
      }
      case BAR:
        if (I.flag && (w.alive & ~m)) {
          lc[pc] -= __builtin_popcount(m);
          save(w, mask & ~m, pc + 1);
          save(w, m, pc);
          w.blocked |= m;
          if (!w.runnable()) return;
          RESEL
        }
        barArrive(B, w, I, m, mask, pc);
        RESEL
      default: {  // .sync operations: wait until every lane named by the member mask arrives
        const u32* mm = (const u32*)(R + I.b);
        u32 stuck = 0, todo = m;
        while (todo) {
          u32 memb = mm[__builtin_ctz(todo)], sub = 0;
          LANES(todo) if (mm[l] == memb) sub |= 1u << l;
          todo &= ~sub;
          if (sub & ~memb)
            fail(B, w, __builtin_ctz(sub & ~memb), I, fmt("thread is not in its own member mask 0x%08x", memb));
          if ((memb & w.alive) != sub) {
            stuck |= sub;
            continue;
          }
          warpOp(B, w, I, pc, sub);
        }
        if (!stuck) {
          pc++;
          break;
        }
        lc[pc] -= __builtin_popcount(stuck);
        save(w, mask & ~stuck, pc + 1);
        save(w, stuck, pc);
        w.blocked |= stuck;
        RESEL
      }
    }
  }
}
