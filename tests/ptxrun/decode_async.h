// Instructions of sm_90 and sm_100: wgmma, mbarriers, bulk copies, tensor maps, tcgen05.
#pragma once

#include "operands.h"

inline void Module::wgmma(Ins& I, vector<Opnd>& o) {
  I.b = konst(~0u, 4);
  if (take("fence")) {
    I.kind = WGFENCE;
    if (!take("sync") || !take("aligned")) throw Err("form");
    nops(o, 0, 0);
    emit(I);
    return;
  }
  if (take("commit_group")) {
    I.kind = WGCOMMIT;
    if (!take("sync") || !take("aligned")) throw Err("form");
    nops(o, 0, 0);
    emit(I);
    return;
  }
  if (take("wait_group")) {
    I.kind = WGWAIT;
    if (!take("sync") || !take("aligned")) throw Err("form");
    nops(o, 1, 1);
    if (o[0].k != 'I') throw Err("count");
    I.imm = o[0].imm;
    emit(I);
    return;
  }
  if (!take("mma_async") || !take("sync") || !take("aligned")) throw Err("this form of wgmma is not supported");
  bool sat = take("satfinite");
  if (m.size() != 4) throw Err("unsupported wgmma form");
  string sh = m[0], dt = m[1], at = m[2], bt = m[3];
  m.clear();
  I.kind = WGMMA;
  int N = 0, K = 0;
  if (sscanf(sh.c_str(), "m64n%dk%d", &N, &K) != 2 || N < 8 || N > 256 || N % 8) throw Err("shape");
  static const char* tn[] = {"f16", "bf16", "tf32", "e4m3", "e5m2", "s8", "u8"};
  int ta = -1, tb = -1;
  for (int i = 0; i < 7; i++) {
    if (at == tn[i]) ta = i;
    if (bt == tn[i]) tb = i;
  }
  bool f8 = ta == 3 || ta == 4, in = ta >= 5;
  if (ta < 0 || tb < 0 || (ta != tb && !(f8 && (tb == 3 || tb == 4)) && !(in && tb >= 5))) throw Err("operand types");
  if (K != (ta < 2 ? 16 : ta == 2 ? 8 : 32)) throw Err("shape");
  I.type = dt == "f32" ? 0 : dt == "f16" ? 1 : dt == "s32" ? 2 : 9;
  if (I.type == 9 || (I.type == 2) != in || (I.type == 1 && ta != 0 && !f8)) throw Err("accumulator type");
  if (sat) throw Err("satfinite");
  nops(o, in ? 4 : 6, ta < 2 ? 8 : in ? 4 : 6);
  bool regA = o[1].k == 'V';
  if (ta < 2 && o.size() != (regA ? 7u : 8u)) throw Err("operands");
  I.op = ta;
  I.q = tb;
  I.imm = N;
  I.width = K;
  I.flag = sat;
  regs(o[0], true, 4, false, I.v, nullptr);
  if (I.v.size() != (size_t)(I.type == 1 ? N / 4 : N / 2)) throw Err("accumulator registers");
  if (regA) {
    regs(o[1], false, 4, false, I.v2, nullptr);
    if (I.v2.size() != 4) throw Err("registers of A");
  } else
    I.a = src(o[1], 8);
  I.c = src(o[2], 8);
  I.e = predSrc(o[3], &I.cneg);
  I.rmode = 0;  // rmode: 1 negate the product, 2 A is M-major, 4 B is N-major
  if (!in) {
    for (int k = 4; k < 6; k++) {
      if (o[k].k != 'I' || ((s64)o[k].imm != 1 && (s64)o[k].imm != -1)) throw Err("imm-scale");
      if ((s64)o[k].imm < 0) I.rmode ^= 1;
    }
    size_t k = 6;
    if (ta < 2) {
      if (!regA && o[k++].imm) I.rmode |= 2;
      if (o[k].imm) I.rmode |= 4;
    }
  }
  emit(I);
}

inline void Module::mbarrier(Ins& I, vector<Opnd>& o) {
  I.kind = MBAR;
  if (!take("b64")) throw Err("type");
  static const char* ops[] = {"init",        "inval",         "expect_tx", "complete_tx", "arrive",
                              "arrive_drop", "pending_count", "test_wait", "try_wait"};
  int k = -1;
  for (int i = 0; i < 9; i++)
    if (m[0] == ops[i]) k = i;
  if (k < 0) throw Err("form");
  m.erase(m.begin());
  bool relaxed = std::count(m.begin(), m.end(), "relaxed");
  takeSem();
  I.width = 8;
  if (k == MB_PENDING) {
    nops(o, 2, 2);
    I.op = k;
    I.d = dst(o[0], 4);
    I.c = src(o[1], 8);
    emit(I);
    return;
  }
  if (k > MB_PENDING) {
    I.kind = MBWAIT;
    I.q = take("parity");
    I.space = takeSpace();
    nops(o, 3, 4);
    I.dw = 1;
    I.d = dst(o[0], 1);
    mem(o[1], I.space, I.a, I.aw, I.imm);
    I.c = src(o[2], I.q ? 4 : 8);
    I.flag = relaxed;
    emit(I);
    return;
  }
  I.op = k;
  size_t p = 0;
  bool expect = false;
  if (k == MB_ARRIVE || k == MB_DROP) {
    expect = take("expect_tx");
    I.cneg = take("noComplete");
  }
  I.space = takeSpace();
  I.d = R_SINK * 128;
  if (k == MB_ARRIVE || k == MB_DROP) {
    if (o.size() && o[0].k == 'R') I.d = dst(o[p++], 8);
  }
  nops(o, p + 1, p + 2);
  mem(o[p], I.space, I.a, I.aw, I.imm);
  bool count = o.size() > p + 1;
  if (count)
    I.c = src(o[p + 1], 4);
  else
    I.c = konst(1, 4);
  if (count != (k != MB_INVAL) && k < MB_ARRIVE) throw Err("operands");
  if (expect && !count) throw Err("operands");
  I.q = expect;
  I.flag = relaxed;
  emit(I);
}

inline void Module::bulk(Ins& I, vector<Opnd>& o, bool red) {
  async = true;
  auto a = std::make_shared<AsyncInfo>();
  I.as = a;
  I.width = 16;
  if (take("commit_group")) {
    nops(o, 0, 0);
    I.kind = BULKCOMMIT;
    emit(I);
    return;
  }
  if (take("wait_group")) {
    I.flag = take("read");
    nops(o, 1, 1);
    if (o[0].k != 'I') throw Err("count");
    I.kind = BULKWAIT;
    I.imm = o[0].imm;
    emit(I);
    return;
  }
  if (take("prefetch")) {
    m.clear();
    I.kind = NOP_;
    emit(I);
    return;
  }
  bool hint;
  takeCache(hint);
  a->tensor = take("tensor");
  int dim = a->tensor ? takeOne({"1d", "2d", "3d", "4d", "5d"}) + 1 : 0;
  if (a->tensor && !dim) throw Err("dimension");
  take("tile");
  bool load = take("mbarrier::complete_tx::bytes");
  if (!load && !take("bulk_group")) throw Err("completion mechanism");
  bool multi = take("multicast::cluster");
  take("cta_group::1");
  if (!take("global")) throw Err("copies inside a cluster are not supported");
  if (!take("shared::cluster") && !take("shared::cta") && !take("shared")) throw Err("form");
  if (red) {
    if (load) throw Err("form");
    if (!a->tensor) {
      a->redType = ty();
      take("noftz");
    }
    a->red = takeOne({"add", "min", "max", "inc", "dec", "and", "or", "xor"});
    if (a->red < 0) throw Err("form");
  }
  I.kind = load ? TMALOAD : TMASTORE;
  size_t n = (a->tensor ? 2 : 3) + load;
  nops(o, n, n + hint + multi);
  if (multi) I.c = src(o[n], 2), I.q = 1;
  const Opnd &g = load ? o[1] : o[0], &s = load ? o[0] : o[1];
  Adr &ga = load ? a->src : a->dst, &sa = load ? a->dst : a->src;
  if (a->tensor) {
    if (g.k != 'M' || !g.second || (int)g.v.size() != dim) throw Err("coordinates");
    Opnd t = g;
    t.second = nullptr;
    adr(t, GENERIC, ga);
    for (auto& x : g.v) a->coord.push_back(src(x, 4));
  } else {
    adr(g, GLOBAL, ga);
    I.e = src(o[2], 4);
  }
  adr(s, SHARED, sa);
  if (load) adr(o[a->tensor ? 2 : 3], SHARED, a->bar);
  emit(I);
}

inline void Module::tensormap(Ins& I, vector<Opnd>& o) {
  if (take("cp_fenceproxy")) {
    for (auto x : {"global", "shared::cta", "tensormap::generic", "release", "sync", "aligned"})
      if (!take(x)) throw Err("form");
    takeSem();
    nops(o, 3, 3);
    if (o[2].k != 'I' || o[2].imm != 128) throw Err("size");
    I.as = std::make_shared<AsyncInfo>();
    adr(o[0], GLOBAL, I.as->dst);
    adr(o[1], SHARED, I.as->src);
    I.kind = TMCOPY;
    I.width = 128;
    I.b = konst(~0u, 4);
    emit(I);
    return;
  }
  if (!take("replace") || !take("tile") || !take("b1024")) throw Err("form");
  T t = ty();
  int k = takeOne({"global_address", "rank", "elemtype", "interleave_layout", "swizzle_mode", "fill_mode",
                   "swizzle_atomicity", "box_dim", "global_dim", "global_stride", "element_stride"});
  if (k < 0) throw Err("field");
  bool ord = k >= 7;
  I.space = takeSpace();
  nops(o, ord ? 3 : 2, ord ? 3 : 2);
  I.kind = TMREPL;
  I.op = k;
  I.width = TS[t];
  if (ord) {
    if (o[1].k != 'I' || o[1].imm > 4) throw Err("ordinal");
    I.q = o[1].imm;
  }
  mem(o[0], I.space, I.a, I.aw, I.imm);
  I.c = src(o.back(), I.width);
  emit(I);
}

// ---- sm_100: tensor memory
inline void Module::tcgen05(Ins& I, vector<Opnd>& o) {
  if (m.size() && m[0].compare(0, 5, "fence") == 0) {
    m.clear();
    nops(o, 0, 0);
    I.kind = NOP_;
    emit(I);
    return;
  }
  if (take("wait::ld") || take("wait::st")) {
    I.flag = I.opname.find("wait::st") != string::npos;
    if (!take("sync") || !take("aligned")) throw Err("form");
    nops(o, 0, 0);
    I.kind = TCWAIT;
    I.b = konst(~0u, 4);
    emit(I);
    return;
  }
  bool ld = take("ld"), st = !ld && take("st");
  if (ld || st) {
    if (!take("sync") || !take("aligned") || !take("b32")) throw Err("form");
    int k = takeOne({"32x32b", "16x32bx2"}), x = takeOne({"x1", "x2", "x4", "x8", "x16", "x32", "x64", "x128"});
    if (k < 0 || x < 0) throw Err("this shape is not supported");
    I.q = k;
    nops(o, 2 + k, 2 + k);
    size_t r = ld ? 0 : 1 + k, a = ld ? 1 : 0;
    I.kind = ld ? TCLD : TCST;
    mem(o[a], GENERIC, I.a, I.aw, I.imm);
    if (k) {
      if (o[a + 1].k != 'I') throw Err("split");
      I.imm2 = o[a + 1].imm;
    }
    regs(o[r], ld, 4, false, I.v, nullptr);
    if (I.v.size() != 1u << x) throw Err("registers");
    I.b = konst(~0u, 4);
    I.width = 4;
    emit(I);
    return;
  }
  if (!take("cta_group::1")) throw Err("this form of tcgen05 is not supported");
  if (take("relinquish_alloc_permit")) {
    take("sync");
    take("aligned");
    nops(o, 0, 0);
    I.kind = NOP_;
    emit(I);
    return;
  }
  if (take("alloc")) {
    if (!take("sync") || !take("aligned") || !take("b32")) throw Err("form");
    I.space = takeSpace();
    nops(o, 2, 2);
    I.kind = TCALLOC;
    mem(o[0], I.space, I.a, I.aw, I.imm);
    I.c = src(o[1], 4);
    I.b = konst(~0u, 4);
    emit(I);
    return;
  }
  if (take("dealloc")) {
    if (!take("sync") || !take("aligned") || !take("b32")) throw Err("form");
    nops(o, 2, 2);
    I.kind = TCDEALLOC;
    I.a = src(o[0], 4);
    I.c = src(o[1], 4);
    I.b = konst(~0u, 4);
    emit(I);
    return;
  }
  if (take("commit")) {
    if (!take("mbarrier::arrive::one") || !take("b64")) throw Err("form");
    I.space = takeSpace();
    nops(o, 1, 1);
    I.kind = TCCOMMIT;
    mem(o[0], I.space, I.a, I.aw, I.imm);
    emit(I);
    return;
  }
  if (!take("mma")) throw Err("this form of tcgen05 is not supported");
  I.op = takeOne({"kind::f16", "kind::tf32", "kind::f8f6f4"});
  if (I.op == 255) throw Err("kind");
  nops(o, 5, 5);
  I.kind = TCMMA;
  I.as = std::make_shared<AsyncInfo>();
  adr(o[0], GENERIC, I.as->dst);
  I.flag = o[1].k == 'M';
  if (I.flag)
    adr(o[1], GENERIC, I.as->src);
  else
    I.a = src(o[1], 8);
  I.c = src(o[2], 8);
  I.b = src(o[3], 4);
  I.e = predSrc(o[4], &I.cneg);
  I.width = I.op == 0 ? 16 : I.op == 1 ? 8 : 32;
  emit(I);
}
