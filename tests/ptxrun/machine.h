// The machine that runs a module: blocks, warps, barriers, vector clocks.
#pragma once

#include "program.h"

struct Buf {
  u8* host;
  u64 fake, size;
  bool writable;
  string name;
};
struct Launch {
  Module* M;
  Func* K;
  u32 grid[3], block[3];
  vector<Buf> bufs;
  vector<u8> params, image;
  u32 shTotal, dynBytes;
  vector<u8> valid;
  u64 seed, maxSteps;
  bool race;
  int resident, nthreads;
  vector<u32> order;
  std::atomic<u32> next{0};
  std::atomic<bool> stop{false};
  std::atomic<u64> steps{0};
  std::mutex mu, atomMu;
  string error;
  std::map<std::array<u32, 3>, string> races;
  u32 locBytes, regBytes;
  std::map<u32, string> notes;
  std::map<u64, u64> tmaps;  // tensor maps changed on the device -> how often
};
struct CpOp {
  u32 dst;
  u8 n, fill;
  const u8* src;
  u32 group, pc;
};
// A tensor map as ptxrun encodes it in its 128 bytes (fields numbered as for tensormap.replace; rank is one less)
struct TMap {
  u64 addr;
  u8 rank, etype, inter, swz, fill, atom, mark[2];
  u32 dim[5];
  u16 box[5], est[5];
  u64 stride[4];
  u8 rest[40];
};
static_assert(sizeof(TMap) == 128, "TMap");
static const u8 TMSIZE[] = {1, 2, 4, 4, 8, 8, 2, 4, 4, 8, 2, 4, 4};
struct WgOp {
  const Ins* I;
  u32 pc, group;
  u64 da, db;
  bool sd, done;
  vector<u32> ga, gb;
};  // a wgmma in flight; ga, gb: the 16-byte pieces of A and B
struct Bulk {
  const Ins* I;
  u32 pc, warp, lane, group, smem, bytes, bar, clk;
  int agent;
  bool late, done;
  TMap t;
  s32 c[5];
  u64 g;
};
struct TcOp {
  const Ins* I;
  u32 pc, warp, lane, bar, dcol, acol, dlane, alane, idesc;
  bool mma, sd, done;
  vector<u32> ga, gb;
};  // a tcgen05.mma in flight, or the commit after some
struct MBar {
  u32 count, pending, phase = 0;
  s64 tx = 0;
  bool seen = true;
  int agent;
  vector<u32> cur, done;
};
struct Warp {
  u32 inmb = 0, mbFalse = 0, mbGave = 0, mbAddr[32], bgrp[32], clGen[32], wgGroup = 0, wgEpoch = 0, wgSeq = 0;
  vector<WgOp> wg;
  vector<Bulk> bulk;
  vector<u16> wgUse;
  vector<u32> wgDirty, wgMoved, tcRegs;
  u32 runnable() const { return alive & ~blocked & ~inbar & ~inws & ~inmb; }
  u8 *R = nullptr, *loc = nullptr;
  u32 pc[32], alive = 0, blocked = 0, inbar = 0, inws = 0, wsm[32], ret[32][8], cpg[32];
  u8 barid[32], depth[32];
  int id = 0;
  bool fair = false;
  vector<u32> vc;
  vector<CpOp> cp[32];
  u32 cpPending = 0;
};
struct Barrier {
  u32 expected = 0, arrived = 0, pop = 0, n = 0;
  bool counted = false;
  vector<u32> vc;
};
struct Shadow {
  u32 wclk = 0, wpc = 0, aclk = 0, apc = 0;
  s16 ww = -1, aw = -1;
  bool viaCp = false;
};
struct Block {
  bool used = false;
  u32 cta[3], lin;
  vector<Warp> w;
  vector<u8> sh, regs, loc;
  Barrier bars[16];
  u32 live = 0;
  vector<Shadow> shadow;
  vector<std::pair<u32, u32>> reads;
  u32 tick = 1;
  std::map<u32, MBar> mb;
  std::map<u32, int> agents;
  vector<u32> agentClk;
  vector<u8> mbBytes;
  vector<u16> mark;
  vector<Bulk> fly;
  vector<vector<std::array<u64, 3>>> wgLog;
  u32 stall = 0, clGen = 0;
  Barrier cl;
  std::map<u64, u64> tmSeen;
  vector<u32> tmem;
  u16 tmOwner[16] = {0}, tmBusy[1024], tmRead[1024];
  u32 tmStored[1024];
  vector<TcOp> tq, tdone;
  vector<u32> tcVc;
};
enum {
  FLYING = 0x8000,
  AGENTS = 64
};  // Block::mark, for each 16 bytes of shared memory: a bulk copy is writing it | how many unfinished wgmma and bulk
    // copies read it
static inline u32 pmask(const u8* p) {
  u32 r = 0;
  for (int i = 0; i < 4; i++) {
    u64 x;
    memcpy(&x, p + 8 * i, 8);
    x &= 0x0101010101010101ull;
    r |= (u32)((x * 0x0102040810204080ull) >> 56) << (8 * i);
  }
  return r;
}
template <class V>
static inline void blendT(void* d, const void* s, u32 m) {
  V* D = (V*)d;
  const V* S = (const V*)s;
  while (m) {
    int l = __builtin_ctz(m);
    m &= m - 1;
    D[l] = S[l];
  }
}
static inline void blend(void* d, const void* s, u32 m, int w) {
  if (m == ~0u) {
    memcpy(d, s, 32 * w);
    return;
  }
  switch (w) {
    case 1:
      blendT<u8>(d, s, m);
      break;
    case 2:
      blendT<u16>(d, s, m);
      break;
    case 4:
      blendT<u32>(d, s, m);
      break;
    default:
      blendT<u64>(d, s, m);
  }
}
#define LANES(m) for (u32 _m = (m), l; _m && (l = __builtin_ctz(_m), true); _m &= _m - 1)
struct Machine {
  Launch& L;
  Module& M;
  const Ins* code;
  vector<u64> wc, lc, gl, sl, gb, sec;
  vector<Block> blocks;
  u64 rng, localSteps = 0;
  alignas(64) u8 t0[512], t1[512], t2[512], t3[512];
  int nw, nv;
  u32 bt;
  // vector clocks: [0, nw) the warps, [nw, nv) one agent for each mbarrier (the bulk copies that it tracks), [nv, 2 nv)
  // what of these has been fenced for the async proxy
  Machine(Launch& l, u64 s) : L(l), M(*l.M), code(l.M->code.data()), rng(s * 0x9E3779B97F4A7C15ull + 0x1234567) {
    size_t n = M.code.size();
    for (auto* v : {&wc, &lc, &gl, &sl, &gb, &sec}) v->assign(n, 0);
    bt = L.block[0] * L.block[1] * L.block[2];
    nw = (bt + 31) / 32;
    nv = nw + (M.async ? AGENTS : 0);
    blocks.resize(L.resident);
  }
  u64 rnd();
  string where(const Block& B, const Warp& w, int lane, const Ins& I);
  [[noreturn]] void fail(const Block& B, const Warp& w, int lane, const Ins& I, const string& m) {
    throw Err(m + "\n  at " + where(B, w, lane, I));
  }
  void startBlock(Block& B, u32 lin);
  void raceHit(Block& B, const char* what, u32 addr, int wa, u32 pca, int wb, u32 pcb);
  void raceNote(Block& B, Warp& w, u32 a, u32 n, int kind, u32 pc, const u8* old = nullptr);
  void asyncNote(Block& B, Warp& w, u32 a, u32 n, u32 pc, int agent = -1, u32 clk = 0);
  static u64 address(const Warp& w, u32 reg, u8 aw, s64 imm, u32 l);
  string near(u64 a);
  u8* locate(Block& B, Warp& w, int l, const Ins& I, u64 a, Space sp, u32 n, bool write, Space* got, u64* norm);
  u8* global(Block& B, Warp& w, int l, const Ins& I, u64 a, u32 n, bool write);
  void countGlobal(u32 pc, u64* ga, int ng, int ns, u32 bytes);
  void ldst(Block& B, Warp& w, const Ins& I, u32 pc, u32 m);
  template <class U>
  static U atomInt(int op, U o, U b) {
    switch (op) {
      case A_ADD:
        return o + b;
      case A_MIN:
        return std::min(o, b);
      case A_MAX:
        return std::max(o, b);
      case A_INC:
        return o >= b ? 0 : o + 1;
      case A_DEC:
        return o == 0 || o > b ? b : o - 1;
      case A_AND:
        return o & b;
      case A_OR:
        return o | b;
      case A_XOR:
        return o ^ b;
      default:
        return b;
    }
  }
  static u64 atomOp(int op, int t, u64 o, u64 b);
  void atom(Block& B, Warp& w, const Ins& I, u32 pc, u32 m);
  void cpDo(Block& B, Warp& w, const CpOp& c);
  void cpIssue(Block& B, Warp& w, const Ins& I, u32 pc, u32 m);
  void cpWait(Block& B, Warp& w, const Ins& I, u32 m);
  void warpOp(Block& B, Warp& w, const Ins& I, u32 pc, u32 s);
  void mma(Block& B, Warp& w, const Ins& I, u32 s);
  static void join(vector<u32>& a, const vector<u32>& b);
  void asyncCheck(Block& B, Warp& w, int l, const Ins& I, u32 a, u32 n, bool write);
  string mbText(Block& B, u32 a);
  MBar& mbFind(Block& B, Warp& w, int l, const Ins& I, u32 pc, u64 a, Space sp, u32* at);
  void mbCheck(Block& B, u32 a, MBar& b);
  void wake(Block& B, u32 a) {
    for (auto& w : B.w) LANES(w.inmb) if (w.mbAddr[l] == a) w.inmb &= ~(1u << l);
  }
  void mbTx(Block& B, Warp& w, int l, const Ins& I, u32 a, MBar& b, s64 n);
  void mbArrive(Block& B, Warp& w, int l, const Ins& I, u32 a, MBar& b, u32 n, bool relaxed);
  void mbar(Block& B, Warp& w, const Ins& I, u32 pc, u32 m);
  u32 mbWait(Block& B, Warp& w, const Ins& I, u32 pc, u32 m);
  bool unstick(Block& B);
  void clCheck(Block& B);
  void clArrive(Block& B, Warp& w, u32 m);
  u32 clWait(Block& B, Warp& w, u32 m);
  void cpArrive(Block& B, Warp& w, const Ins& I, u32 pc, u32 m);
  void tmReplace(Block& B, Warp& w, const Ins& I, u32 pc, u32 m);
  TMap tmap(Block& B, Warp& w, int l, const Ins& I, u64 a);
  void move(Block& B, const Bulk& k);
  void reduce(const Ins& I, u8* d, const u8* s, u32 n, T t);
  void bulkIssue(Block& B, Warp& w, const Ins& I, u32 pc, u32 m);
  void complete(Block& B, u32 i);
  void waitedFor(Block& B);
  // ---- sm_100: tensor memory (128 lanes x 512 columns of 32 bits) and tcgen05.mma, which one thread issues and a
  // commit ends hazards are kept for each column and half (lanes 0-15 or 16-31 of a warp's 32): products of M = 64 use
  // one half
  template <class G>
  static void cells(u32 col, u32 n, u32 halves, G f) {
    for (u32 h = 0; h < 2; h++)
      if (halves >> h & 1)
        for (u32 c = col; c < col + n; c++) f(512 * h + c, c);
  }
  static u32 tcHalves(const TcOp& o) { return (o.idesc >> 24 & 31) == 8 ? 3 : o.dlane ? 2 : 1; }
  u32 tcAddr(Warp& w, const Adr& a, int l) { return (u32)address(w, a.reg, a.aw, a.imm, l); }
  void tcColumns(Block& B, Warp& w, int l, const Ins& I, u32 col, u32 n);
  void tcAlloc(Block& B, Warp& w, const Ins& I, u32 pc, u32 s);
  void tcFree(Block& B, Warp& w, const Ins& I, u32 s);
  void tcMove(Block& B, Warp& w, const Ins& I, u32 s);
  void tcIssue(Block& B, Warp& w, const Ins& I, u32 pc, int l);
  void tcStep(Block& B);
  void tcEnd(Block& B);
  void tcRun(Block& B, const TcOp& o);
  void bulkWait(Block& B, Warp& w, const Ins& I, u32 m);
  void touch(Block& B, Warp& w, const Ins& I, u32 m);
  void pieces(Block& B, Warp& w, const Ins& I, u64 d, int rows, bool mn, vector<u32>& out, const char* name);
  void note(u32 pc, const char* s);
  void wgIssue(Block& B, Warp& w, const Ins& I, u32 pc, u32 s);
  void wgWait(Block& B, Warp& w, const Ins& I);
  static float e4m3(u8 x);
  template <class C>
  static void unpackAs(int t, const u8* p, int n, C* out) {  // n elements of wgmma type t
    for (int i = 0; i < n; i++) {
      u16 h;
      u32 f;
      switch (t) {
        case 0:
          memcpy(&h, p + 2 * i, 2);
          out[i] = h2f(h);
          break;
        case 1:
          memcpy(&h, p + 2 * i, 2);
          out[i] = b2f(h);
          break;
        case 2:
          memcpy(&f, p + 4 * i, 4);
          out[i] = bitsf(f & 0xffffe000);
          break;
        case 3:
          out[i] = e4m3(p[i]);
          break;
        case 4:
          out[i] = h2f((u16)(p[i] << 8));
          break;
        case 5:
          out[i] = (s8)p[i];
          break;
        default:
          out[i] = p[i];
      }
    }
  }
  static float fmadd(float a, float b, float c) { return std::fma(a, b, c); }
  static s32 fmadd(s32 a, s32 b, s32 c) { return (s32)((u32)c + (u32)(a * b)); }
  void wgDo(Block& B, Warp& w, const WgOp& o);
  template <class C>
  void wgRun(Block& B, Warp& w, const WgOp& o) {  // the 16 rows of this warp
    static thread_local C a[16][32], b[32][256], c[16][256];
    C t[16];
    const Ins& I = *o.I;
    const int N = I.imm, K = I.width, T = K / 2, wi = w.id & 3, per = K / 8;
    u8* R = w.R;
    const u8* S = B.sh.data();
    if (!I.v2.empty()) {
      for (int k = 0; k < 4; k++)
        for (int l = 0; l < 32; l++)
          unpackAs(I.op, R + I.v2[k] + 4 * l, per, &a[(l >> 2) + 8 * (k & 1)][(l & 3) * per + K / 2 * (k >> 1)]);
    } else if (I.rmode & 2) {
      for (int k = 0; k < K; k++)
        for (int j = 0; j < 16 / T; j++) {
          unpackAs(I.op, S + o.ga[k * (64 / T) + wi * (16 / T) + j], T, t);
          for (int x = 0; x < T; x++) a[j * T + x][k] = t[x];
        }
    } else
      for (int r = 0; r < 16; r++)
        for (int h = 0; h < 2; h++) unpackAs(I.op, S + o.ga[2 * (16 * wi + r) + h], T, &a[r][h * T]);
    if (I.rmode & 4) {
      for (int k = 0; k < K; k++)
        for (int j = 0; j < N / T; j++) unpackAs(I.q, S + o.gb[k * (N / T) + j], T, &b[k][j * T]);
    } else
      for (int r = 0; r < N; r++)
        for (int h = 0; h < 2; h++) {
          unpackAs(I.q, S + o.gb[2 * r + h], T, t);
          for (int x = 0; x < T; x++) b[h * T + x][r] = t[x];
        }
    if (I.rmode & 1)
      for (auto& r : a)
        for (auto& x : r) x = -x;
    for (int i = 0; i < (int)I.v.size(); i++)
      for (int l = 0; l < 32; l++) {
        int g = l >> 2, q = 2 * (l & 3);
        if (I.type == 1) {
          u32 x;
          memcpy(&x, R + I.v[i] + 4 * l, 4);
          C* p = &c[g + 8 * (i & 1)][8 * (i >> 1) + q];
          p[0] = o.sd ? (C)h2f(x) : 0;
          p[1] = o.sd ? (C)h2f(x >> 16) : 0;
        } else {
          C x = 0;
          if (o.sd) memcpy(&x, R + I.v[i] + 4 * l, 4);
          c[g + 8 * (i >> 1 & 1)][8 * (i >> 2) + q + (i & 1)] = x;
        }
      }
    for (int i = 0; i < 16; i++)
      for (int n = 0; n < N; n += 8) {
        C acc[8];
        for (int j = 0; j < 8; j++) acc[j] = c[i][n + j];
        for (int k = 0; k < K; k++) {
          C x = a[i][k];
          for (int j = 0; j < 8; j++) acc[j] = fmadd(x, b[k][n + j], acc[j]);
        }
        for (int j = 0; j < 8; j++) c[i][n + j] = acc[j];
      }
    for (int i = 0; i < (int)I.v.size(); i++)
      for (int l = 0; l < 32; l++) {
        int g = l >> 2, q = 2 * (l & 3);
        if (I.type == 1) {
          C* p = &c[g + 8 * (i & 1)][8 * (i >> 1) + q];
          u32 x = f2h(p[0]) | (u32)f2h(p[1]) << 16;
          memcpy(R + I.v[i] + 4 * l, &x, 4);
        } else
          memcpy(R + I.v[i] + 4 * l, &c[g + 8 * (i >> 1 & 1)][8 * (i >> 2) + q + (i & 1)], 4);
      }
  }
  bool select(Warp& w, u32& pc, u32& mask, u32& next);
  static void save(Warp& w, u32 mask, u32 pc) { LANES(mask) w.pc[l] = pc; }
  void wsCheck(Warp& w);
  void barCheck(Block& B, int id);
  void barArrive(Block& B, Warp& w, const Ins& I, u32 m, u32 mask, u32 pc);
  void run(Block& B, Warp& w, u64 quantum);
  void work();
  [[noreturn]] void deadlock(Block& B);
};
