// Instructions that move, compare, convert or multiply matrices, and calls.

// Lists of operations are tables; clang-format would break their layout.
// clang-format off
#pragma once

#include "operands.h"

inline void Module::fltMods(Ins& I, T t) {
  int r = takeRound();
  if (r > 0) {
    if (t != TF32_ && t != TF64) throw Err("rounding mode for a 16-bit type");
    I.rmode = r;
  }
  bool sat = take("sat"), relu = take("relu");
  if (sat) I.post = pickFlt<fSat>(t, false);
  if (relu) I.post = pickFlt<fRelu>(t, false);
}

inline void Module::setp(Ins& I, vector<Opnd>& o, bool set) {
  T t = ty(), dt = set ? ty() : PRED;
  bool z = take("ftz");
  if (isF(t)) chkFtz(t, z);
  int bo = takeOne({"and", "or", "xor"});
  int k = takeOne({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu",
                   "num", "nan"});
  if (k < 0) throw Err("comparison");
  if (k >= 6 && k <= 9) {
    k -= 4;
    if (k == 2) k = 2;
  }
  Alu f = nullptr;
  if (t == TF16X2 || t == TBF16X2 || t == PRED) throw Err("type");
  switch (k) {
#define K(N, C)                 \
  case N:                       \
    f = pickCmp<C, C##F>(t, z); \
    break;
    K(0, cEq)
    K(1, cNe)
    K(2, cLt)
    K(3, cLe) K(4, cGt) K(5, cGe) K(10, cEqu) K(11, cNeu) K(12, cLtu) K(13, cLeu) K(14, cGtu) K(15, cGeu) K(16, cNum)
        K(17, cNan)
#undef K
  }
  if (!f) throw Err("type");
  nops(o, bo < 0 ? 3 : 4, bo < 0 ? 3 : 4);
  I.fn = f;
  I.a = src(o[1], TS[t], t);
  I.b = src(o[2], TS[t], t);
  I.op = bo + 1;
  if (bo >= 0) I.c = predSrc(o[3], &I.cneg);
  if (set) {
    if (dt != U32 && dt != S32 && dt != TF32_) throw Err("set type");
    I.kind = SETP;
    I.q = 2;
    I.flag = dt == TF32_;
    I.dw = 4;
    I.d = dst(o[0], 4);
    emit(I);
    return;
  }
  Opnd d = o[0];
  if (d.k != 'R' || (!d.pred && !d.special)) throw Err("destination");
  I.dw = 1;
  I.kind = bo < 0 && !d.second ? ALU : SETP;
  if (d.second) {
    I.q = 1;
    I.d2 = d.second->off;
  }
  I.d = d.off;
  emit(I);
}

inline void Module::mov(Ins& I, vector<Opnd>& o) {
  T t = ty();
  nops(o, 2, 2);
  int w = TS[t];
  if (o[0].k == 'V') {
    I.kind = UNPACK;
    int n = o[0].v.size();
    if (w % n) throw Err("unpack");
    I.width = w / n;
    regs(o[0], true, w / n, false, I.v, &I.vw);
    I.a = src(o[1], w);
    I.dw = w;
    emit(I);
    return;
  }
  if (o[1].k == 'V') {
    I.kind = PACK;
    int n = o[1].v.size();
    if (w % n) throw Err("pack");
    I.width = w / n;
    for (auto& x : o[1].v) I.v.push_back(src(x, w / n));
    I.d = dst(o[0], w);
    I.dw = w;
    emit(I);
    return;
  }
  if (o[1].k == 'C') {
    I.kind = CLOCK;
    I.dw = w;
    I.d = dst(o[0], w);
    emit(I);
    return;
  }
  if (o[1].special && w == 2) {
    I.fn = cvII<u16, u32>;
    I.dw = 2;
    I.d = dst(o[0], 2);
    I.a = o[1].off;
    emit(I);
    return;
  }
  if (o[1].k == 'L' && o[1].sym && o[1].sym->k == S_FPARAM) {
    Opnd c;
    c.k = 'I';
    c.imm = W_LOCAL + o[1].sym->off + o[1].imm;
    o[1] = c;
    t = B64;
  }
  alu(I, t == PRED ? oMov<u8>::f : pickUns<oMov>(t), o, t, {{w, t}});
}

inline void Module::cvt(Ins& I, vector<Opnd>& o) {
  T s = ty(), d = ty();
  bool rna = take("rna");
  int ir = takeOne({"rni", "rzi", "rmi", "rpi"}), r = takeRound();
  bool z = take("ftz"), sat = take("sat"), relu = take("relu");
  if (rna) r = RNA;
  I.kind = MULTI;
  if (d == TF16X2 || d == TBF16X2) {
    if (s != TF32_ || r < 0 || sat) throw Err("cvt form");
    nops(o, 3, 3);
    bool bf = d == TBF16X2;
    I.fn = r == RN ? (bf ? cvX2<true, true> : cvX2<false, true>) : (bf ? cvX2<true, false> : cvX2<false, false>);
    I.dw = 4;
    I.d = dst(o[0], 4);
    I.a = src(o[1], 4, s);
    I.b = src(o[2], 4, s);
    I.e = konst(r, 4);
    if (relu) I.post = pickFlt<fRelu>(d, false);
    emit(I);
    return;
  }
  nops(o, 2, 2);
  if (d == TTF32) {
    if (s != TF32_ || r < 0 || relu) throw Err("cvt form");
    I.fn = cvTf32;
    I.dw = 4;
    I.d = dst(o[0], 4);
    I.a = src(o[1], 4, s);
    I.e = konst(r, 4);
    emit(I);
    return;
  }
  if (s == PRED || d == PRED || s == TF16X2 || s == TBF16X2) throw Err("cvt type");
  bool fd = isF(d), fs = isF(s);
  I.e = konst(r < 0 ? RN : r, 4);
  if (!fd && !fs)
    I.fn = pickII(d, s, sat);
  else if (fd && !fs) {
    if (r < 0) throw Err("cvt without rounding");
    I.fn = pickIF(d, s);
    if (r != RN && TS[d] > 2) I.rmode = r;
    if (sat) I.post = pickFlt<fSat>(d, false);
  } else if (!fd && fs) {
    if (ir < 0) throw Err("cvt without rounding");
    I.fn = pickFI(d, s, z, ir);
  } else {
    if (ir >= 0) {
      if (d != s) throw Err("cvt form");
      I.fn = ir == 0   ? pickFlt<fRni>(d, z)
             : ir == 1 ? pickFlt<fRzi>(d, z)
             : ir == 2 ? pickFlt<fRmi>(d, z)
                       : pickFlt<fRpi>(d, z);
    } else if (d == s)
      I.fn = pickFlt<fId>(d, z);
    else {
      I.fn = pickFF(d, s, z, r < 0 ? RN : r);
      if (r > 0 && TS[d] > 2) I.rmode = r;
    }
    if (sat) I.post = pickFlt<fSat>(d, false);
    if (relu) I.post = pickFlt<fRelu>(d, false);
  }
  if (!I.fn) throw Err("cvt types");
  if (r == RNA) throw Err("rna");
  int sw = TS[s], dw = TS[d];
  if (o[1].k == 'R' && !o[1].special && o[1].w != sw) {
    if (o[1].w < sw || o[1].pred) throw Err("source too narrow");
    I.pre = pickII(unsT(sw), unsT(o[1].w), false);
    I.a = o[1].off;
  } else if (o[1].special && sw != 4) {
    if (sw > 4) throw Err("special register");
    I.pre = pickII(unsT(sw), U32, false);
    I.a = o[1].off;
  } else
    I.a = src(o[1], sw, s);
  if (o[0].k != 'R' || o[0].pred || o[0].special) throw Err("destination");
  I.d = o[0].off;
  I.dw = o[0].w;
  if (I.dw < dw) throw Err("destination too narrow");
  if (I.dw != dw)
    I.ext = pickII(isSigned(d) ? (I.dw == 2   ? S16
                                  : I.dw == 4 ? S32
                                              : S64)
                               : unsT(I.dw),
                   isSigned(d) ? d : unsT(dw), false);
  if (!I.pre && !I.post && !I.ext && !I.rmode) I.kind = ALU;
  emit(I);
}

inline void Module::mma(Ins& I, vector<Opnd>& o) {
  if (!take("sync") || !take("aligned")) throw Err("form");
  bool sat = take("satfinite");
  if (m.size() != 7 || m[1] != "row" || m[2] != "col") throw Err("unsupported mma form");
  nops(o, 4, 4);
  string sh = m[0], dt = m[3], at = m[4], bt = m[5], ct = m[6];
  m.clear();
  I.kind = MMA;
  int na = 0, nb = 0;
  if (at != bt && !(at.size() == 2 && bt.size() == 2)) throw Err("mixed types");
  if (dt != ct) throw Err("mixed accumulators");
  bool h = (at == "f16" || at == "bf16"), f32 = dt == "f32", f16 = dt == "f16";
  if (h && sh == "m16n8k16" && (f32 || (f16 && at == "f16"))) {
    na = 4;
    nb = 2;
    I.op = at == "bf16";
    I.width = 16;
  } else if (h && sh == "m16n8k8" && (f32 || (f16 && at == "f16"))) {
    na = 2;
    nb = 1;
    I.op = at == "bf16";
    I.width = 8;
  } else if (at == "tf32" && sh == "m16n8k8" && f32) {
    na = 4;
    nb = 2;
    I.op = 2;
    I.width = 8;
  } else if (at == "tf32" && sh == "m16n8k4" && f32) {
    na = 2;
    nb = 1;
    I.op = 2;
    I.width = 4;
  } else if ((at == "s8" || at == "u8") && (bt == "s8" || bt == "u8") && dt == "s32" &&
             (sh == "m16n8k32" || sh == "m16n8k16")) {
    I.op = 3;
    I.q = (at == "s8") | (bt == "s8") * 2;
    I.width = sh == "m16n8k32" ? 32 : 16;
    na = I.width / 8;
    nb = na / 2;
  } else
    throw Err("unsupported mma shape or type");
  if (sat) {
    if (I.op != 3) throw Err("satfinite");
    I.q |= 4;
  }
  I.flag = f16;
  size_t nc = f16 ? 2 : 4;
  regs(o[0], true, 4, false, I.v, nullptr);
  regs(o[1], false, 4, false, I.v2, nullptr);
  regs(o[2], false, 4, false, I.v2, nullptr);
  regs(o[3], false, 4, false, I.v3, nullptr);
  if (I.v.size() != nc || (int)I.v2.size() != na + nb || I.v3.size() != nc) throw Err("fragment sizes");
  I.b = konst(~0u, 4);
  emit(I);
}

inline void Module::callDecode(Ins& I, vector<Opnd>& o) {
  take("uni");
  I.kind = CALL;
  auto c = std::make_shared<CallInfo>();
  size_t p = 0;
  vector<Opnd> outs, ins;
  if (o.size() && o[0].k == 'P') outs = o[p++].v;
  if (p >= o.size() || o[p].k != 'L') throw Err("indirect calls are not supported");
  string n = o[p++].name;
  if (p < o.size() && o[p].k == 'P') ins = o[p++].v;
  if (p != o.size()) throw Err("call form");
  auto it = fnIdx.find(n);
  if (it == fnIdx.end() || !fns[it->second].hasBody) throw Err("call of the external function " + n);
  Func& g = fns[it->second];
  c->fn = it->second;
  calls.push_back({(u32)code.size(), c->fn});
  if (outs.size() != g.rets.size() || ins.size() != g.params.size()) throw Err("call arguments");
  auto chk = [&](const Opnd& x, const Param& q, vector<std::array<u32, 3>>& v, const char*) {
    if (x.k != 'L' || !x.sym || x.sym->k != S_FPARAM) throw Err("call argument " + x.name);
    if (g.psyms.empty()) throw Err("call of a function defined later");
    v.push_back({(u32)x.sym->off, (u32)g.psyms[q.name].off, q.size});
  };
  for (size_t i = 0; i < outs.size(); i++) chk(outs[i], g.rets[i], c->out, "out");
  for (size_t i = 0; i < ins.size(); i++) chk(ins[i], g.params[i], c->in, "in");
  I.call = c;
  I.tgt = g.pc;
  emit(I);
}
