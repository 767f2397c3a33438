// Operands of an instruction: registers, constants, addresses, modifiers.
#pragma once

#include "statements.h"

inline Opnd Module::operand(size_t& p) {
  Opnd o;
  string s = at(p);
  if (s == "!") {
    p++;
    o = operand(p);
    o.neg = true;
    return o;
  }
  if (s == "{" || s == "(") {
    string cl = s == "{" ? "}" : ")";
    p++;
    o.k = s == "{" ? 'V' : 'P';
    while (at(p) != cl) {
      if (at(p) == ",") {
        p++;
        continue;
      }
      o.v.push_back(operand(p));
    }
    p++;
    return o;
  }
  if (s == "[") {
    p++;
    o.k = 'M';
    o.base = std::make_shared<Opnd>(operand(p));
    while (at(p) == "+" || at(p) == "-") {
      bool neg = at(p) == "-";
      p++;
      u64 v = numTok(p);
      o.imm += neg ? 0 - v : v;
    }
    if (at(p) == "," && at(p + 1) == "{") {
      p++;
      o.v = operand(p).v;
      o.second = std::make_shared<Opnd>();
    }
    if (at(p) != "]") throw Err("unsupported address form");
    p++;
    return o;
  }
  if (s == "-" || isNum(s)) {
    bool neg = s == "-";
    if (neg) p++;
    o.k = 'I';
    o.imm = parseNum(at(p), o.isf, o.dv);
    if (neg) {
      if (o.isf) throw Err("negative float literal");
      o.imm = 0 - o.imm;
    }
    p++;
    return o;
  }
  if (s == "_") {
    p++;
    o.k = 'R';
    o.off = R_SINK * 128;
    o.w = 8;
    o.special = true;
    return o;
  }
  Sym* y = find(s);
  p++;
  o.name = s;
  if (y && y->k == S_REG) {
    o.k = 'R';
    o.off = y->off;
    o.w = y->w;
    o.pred = y->pred;
    if (at(p) == "|") {
      p++;
      o.second = std::make_shared<Opnd>(operand(p));
    }
    return o;
  }
  if (s == "WARP_SZ") {
    o.k = 'I';
    o.imm = 32;
    return o;
  }
  if (s[0] == '%') {
    for (int i = 0; i < R_ZERO; i++)
      if (s == SRN[i]) {
        o.k = 'R';
        o.off = i * 128;
        o.w = 4;
        o.special = true;
        return o;
      }
    if (s == "%smid" || s == "%gridid") {
      o.k = 'I';
      return o;
    }
    if (s == "%nsmid") {
      o.k = 'I';
      o.imm = 1;
      return o;
    }
    if (s == "%clock" || s == "%clock64" || s == "%globaltimer" || s == "%clock_hi" || s == "%globaltimer_lo" ||
        s == "%globaltimer_hi") {
      o.k = 'C';
      return o;
    }
    for (int i = 0; i < 3; i++) {
      string x(1, "xyz"[i]);
      if (s == "%clusterid." + x) {
        o.k = 'R';
        o.off = (R_CTAX + i) * 128;
        o.w = 4;
        o.special = true;
        return o;
      }
      if (s == "%nclusterid." + x) {
        o.k = 'R';
        o.off = (R_NCTAX + i) * 128;
        o.w = 4;
        o.special = true;
        return o;
      }
      if (s == "%cluster_ctaid." + x) {
        o.k = 'I';
        return o;
      }
      if (s == "%cluster_nctaid." + x) {
        o.k = 'I';
        o.imm = 1;
        return o;
      }
    }
    if (s == "%cluster_ctarank") {
      o.k = 'I';
      return o;
    }
    if (s == "%cluster_nctarank") {
      o.k = 'I';
      o.imm = 1;
      return o;
    }
    throw Err("unknown register " + s);
  }
  o.k = 'L';
  o.sym = y;
  if (y && (at(p) == "+" || at(p) == "-")) {
    size_t q = p + 1;
    if (isNum(at(q))) {
      bool neg = at(p) == "-";
      p++;
      u64 v = numTok(p);
      o.imm += neg ? 0 - v : v;
    }
  }
  return o;
}

inline u64 Module::symAddr(const Opnd& o) {
  if (!o.sym) throw Err("unknown name " + o.name);
  switch (o.sym->k) {
    case S_SHARED:
      if (o.sym->off == ~0ull) return DYN_MARK + o.imm;
      return o.sym->off + o.imm;
    case S_LOCAL:
    case S_EPARAM:
    case S_FPARAM:
    case S_GLOBAL:
      return o.sym->off + o.imm;
    default:
      throw Err("cannot take the address of " + o.name);
  }
}

// register or constant of exactly w bytes a lane
inline u32 Module::src(const Opnd& o, int w, T ty) {
  if (o.neg) throw Err("unexpected '!'");
  if (o.k == 'R') {
    if (o.second) throw Err("unexpected '|'");
    if (o.w != w || o.off == R_SINK * 128)
      throw Err(fmt("operand %s has %d bytes, the instruction needs %d", o.name.c_str(), o.w, w));
    return o.off;
  }
  if (o.k == 'I') {
    u64 v = o.imm;
    if (ty == PRED) return konst(v ? 1 : 0, 1);
    if (isF(ty)) {
      if (!o.isf) {
        if (ty == TF32_ || ty == TF64) throw Err("integer literal for a float operand");
      } else if (ty == TF64)
        v = dbits(o.dv);
      else if (ty == TF32_)
        v = fbits((float)o.dv);
      else
        throw Err("float literal for a 16-bit operand");
    }
    return konst(v, w);
  }
  if (o.k == 'L' && o.sym && o.sym->k != S_REG) {
    if (o.sym->k == S_SHARED && o.sym->off == ~0ull) {
      u32 off = slot(w);
      F->consts.push_back({off, vector<u8>(32 * w, 0)});
      externConst.push_back({F, F->consts.size() - 1, w, o.imm});
      return off;
    }
    return konst(symAddr(o), w);
  }
  throw Err("bad operand " + o.name);
}

inline u32 Module::dst(const Opnd& o, int w) {
  if (o.k != 'R' || (o.special && o.off != R_SINK * 128)) throw Err("bad destination");
  if (o.w != w && !o.special)
    throw Err(fmt("destination %s has %d bytes, the instruction needs %d", o.name.c_str(), o.w, w));
  return o.off;
}

inline u32 Module::predSrc(const Opnd& o, u8* neg) {
  if (neg)
    *neg = o.neg;
  else if (o.neg)
    throw Err("unexpected '!'");
  if (o.k == 'I') return konst(o.imm ? 1 : 0, 1);
  if (o.k != 'R' || !o.pred) throw Err("predicate expected");
  return o.off;
}

inline bool Module::take(const char* s) {
  for (size_t i = 0; i < m.size(); i++)
    if (m[i] == s) {
      m.erase(m.begin() + i);
      return true;
    }
  return false;
}

inline T Module::ty() {
  if (m.empty()) throw Err("no type");
  T t = typeOf(m.back());
  if (t == NOTYPE) throw Err("unsupported type ." + m.back());
  m.pop_back();
  return t;
}

inline int Module::takeRound() {
  if (take("rn")) return RN;
  if (take("rz")) return RZ;
  if (take("rm")) return RM_;
  if (take("rp")) return RP;
  return -1;
}

inline int Module::takeOne(std::initializer_list<const char*> l) {
  int i = 0;
  for (auto s : l) {
    if (take(s)) return i;
    i++;
  }
  return -1;
}

inline void Module::takeCache(bool& hint) {
  hint = false;
  for (size_t i = 0; i < m.size();)
    if (m[i].compare(0, 4, "L1::") == 0 || m[i].compare(0, 4, "L2::") == 0) {
      if (m[i] == "L2::cache_hint") hint = true;
      m.erase(m.begin() + i);
    } else
      i++;
}

inline bool Module::takeSem() {
  bool s = false;
  for (auto x : {"volatile", "relaxed", "acquire", "release", "acq_rel", "sc", "weak", "mmio"})
    if (take(x) && strcmp(x, "weak")) s = true;
  for (auto x : {"cta", "gpu", "sys", "cluster"}) take(x);
  return s;
}

inline Space Module::takeSpace() {
  if (take("global")) return GLOBAL;
  if (take("shared") || take("shared::cta") || take("shared::cluster")) return SHARED;
  if (take("local")) return LOCAL;
  if (take("param") || take("param::entry") || take("param::func")) return PARAM;
  if (take("const")) return CONST_;
  return GENERIC;
}

inline void Module::mem(const Opnd& o, Space sp, u32& reg, u8& aw, s64& imm) {
  if (o.k != 'M' || o.second) throw Err("address expected");
  const Opnd& b = *o.base;
  imm = o.imm;
  if (b.k == 'R') {
    if (b.special || (b.w != 4 && b.w != 8)) throw Err("bad address register");
    reg = b.off;
    aw = b.w;
    return;
  }
  aw = 0;
  if (b.k == 'I') {
    imm += b.imm;
    return;
  }
  imm += symAddr(b);
  if (b.sym->k == S_FPARAM)
    imm += W_LOCAL;
  else if (b.sym->k == S_EPARAM)
    imm += W_PARAM;
  else if (b.sym->k == S_SHARED && sp == GENERIC)
    imm += W_SHARED;
  else if (b.sym->k == S_LOCAL && sp == GENERIC)
    imm += W_LOCAL;
}

inline void Module::emit(Ins& I) {
  if (!m.empty()) throw Err("unsupported modifier ." + m[0]);
  if (I.kind == ALU && !I.fn) throw Err("unsupported type");
  code.push_back(I);
}

inline void Module::alu(Ins& I, Alu f, const vector<Opnd>& o, T td, std::initializer_list<std::pair<int, T>> srcs) {
  nops(o, 1 + srcs.size(), 1 + srcs.size());
  if (!f) throw Err("unsupported type for this operation");
  I.fn = f;
  I.dw = TS[td];
  I.d = dst(o[0], I.dw);
  int k = 1;
  u32* s[] = {&I.a, &I.b, &I.c, &I.e};
  for (auto& x : srcs) {
    *s[k - 1] = src(o[k], x.first, x.second);
    k++;
  }
  if (I.post || I.rmode) I.kind = MULTI;
  emit(I);
}

// scalar or vector operand
inline void Module::regs(const Opnd& o, bool isDst, int w, bool wider, vector<u32>& v, vector<u8>* vw) {
  auto one = [&](const Opnd& x) {
    if (x.k == 'R' && x.off == R_SINK * 128) {
      v.push_back(x.off);
      if (vw) vw->push_back(8);
      return;
    }
    if (x.k == 'R' && wider && !x.pred && !x.special) {
      if (x.w < w) throw Err("register too narrow");
      v.push_back(x.off);
      if (vw) vw->push_back(x.w);
      return;
    }
    v.push_back(isDst ? dst(x, w) : src(x, w));
    if (vw) vw->push_back(w);
  };
  if (o.k == 'V')
    for (auto& x : o.v) one(x);
  else
    one(o);
}
