// Arithmetic instructions: the lane function and the operands of each.
#pragma once

#include "operands.h"

inline void Module::decode(Ins I, vector<Opnd>& o, size_t tok) {
  m.clear();
  {
    string cur;
    for (char ch : I.opname) {
      if (ch == '.') {
        m.push_back(cur);
        cur.clear();
      } else
        cur += ch;
    }
    m.push_back(cur);
  }
  string op = m[0];
  m.erase(m.begin());
  if (decodeFloat(I, o, tok, op) || decodeBits(I, o, tok, op) || decodeMemory(I, o, tok, op) ||
      decodeOther(I, o, tok, op))
    return;
  throw Err("this instruction is not implemented");
}

// Arithmetic that has both integer and floating types.
inline bool Module::decodeFloat(Ins& I, vector<Opnd>& o, [[maybe_unused]] size_t tok, const string& op) {
  auto is = [&](const char* s) { return op == s; };
  if ((is("add") || is("sub") || is("fma")) && m.size() > 1 && m[m.size() - 2] == "f32" &&
      (m.back() == "f16" || m.back() == "bf16")) {
    T h = ty();
    m.pop_back();
    take("rn");
    bool bf = h == TBF16;
    if (is("fma"))
      alu(I, bf ? oFmaMix<BF16> : oFmaMix<F16>, o, TF32_, {{2, h}, {2, h}, {4, TF32_}});
    else
      alu(I,
          is("add") ? (bf ? oAddMix<BF16, false> : oAddMix<F16, false>)
          : bf      ? oAddMix<BF16, true>
                    : oAddMix<F16, true>,
          o, TF32_, {{2, h}, {4, TF32_}});
    return true;
  }
  if (!m.empty() && m.back() == "f32x2") {
    m.pop_back();
    take("rn");
    bool z = take("ftz");
    Alu f = is("add")   ? (z ? fAdd<F32ZX2>::f : fAdd<F32X2>::f)
            : is("sub") ? (z ? fSub<F32ZX2>::f : fSub<F32X2>::f)
            : is("mul") ? (z ? fMul<F32ZX2>::f : fMul<F32X2>::f)
            : is("fma") ? (z ? fFma<F32ZX2>::f : fFma<F32X2>::f)
                        : nullptr;
    if (!f) throw Err("operation");
    if (is("fma"))
      alu(I, f, o, B64, {{8, B64}, {8, B64}, {8, B64}});
    else
      alu(I, f, o, B64, {{8, B64}, {8, B64}});
    return true;
  }
  if ((is("add") || is("min") || is("max")) && !m.empty() && (m.back() == "s16x2" || m.back() == "u16x2")) {
    bool sg = m.back() == "s16x2";
    m.pop_back();
    alu(I,
        is("add")   ? oPair<0, u16>
        : is("min") ? (sg ? oPair<1, s16> : oPair<1, u16>)
        : sg        ? oPair<2, s16>
                    : oPair<2, u16>,
        o, U32, {{4, U32}, {4, U32}});
    return true;
  }
  if (is("add") || is("sub") || is("addc") || is("subc") || is("madc") ||
      (is("mad") && std::count(m.begin(), m.end(), "cc"))) {
    T t = ty();
    bool cc = take("cc");
    if (cc || is("addc") || is("subc") || is("madc") || is("mad")) {  // carry chains
      int hl = takeOne({"lo", "hi"});
      if (TS[t] < 4 || isF(t)) throw Err("type");
      bool mad = op[0] == 'm';
      nops(o, mad ? 4 : 3, mad ? 4 : 3);
      I.kind = CARRY;
      I.width = TS[t];
      I.dw = I.width;
      I.flag = isSigned(t);
      I.op = (op[0] == 's' ? 1 : mad ? (hl == 1 ? 3 : 2) : 0) | (cc ? 8 : 0) | (op.back() == 'c' ? 16 : 0);
      I.d = dst(o[0], I.dw);
      I.a = src(o[1], I.dw);
      I.b = src(o[2], I.dw);
      if (mad) I.c = src(o[3], I.dw);
      emit(I);
      return true;
    }
    if (!isF(t)) {
      if (take("sat")) {
        if (t != S32) throw Err("sat");
        alu(I, is("add") ? oSatS32<true> : oSatS32<false>, o, t, {{4, t}, {4, t}});
        return true;
      }
      alu(I, is("add") ? pickUns<oAdd>(t) : pickUns<oSub>(t), o, t, {{TS[t], t}, {TS[t], t}});
      return true;
    }
    fltMods(I, t);
    bool z = take("ftz");
    chkFtz(t, z);
    alu(I, is("add") ? pickFlt<fAdd>(t, z) : pickFlt<fSub>(t, z), o, t, {{TS[t], t}, {TS[t], t}});
    return true;
  }
  if (is("mul")) {
    T t = ty();
    if (isF(t)) {
      fltMods(I, t);
      bool z = take("ftz");
      chkFtz(t, z);
      alu(I, pickFlt<fMul>(t, z), o, t, {{TS[t], t}, {TS[t], t}});
      return true;
    }
    int k = takeOne({"lo", "hi", "wide"});
    if (k < 0) throw Err("mul form");
    if (k == 2) {
      alu(I, wideFn<oMulWide>(t), o, wideT(t), {{TS[t], t}, {TS[t], t}});
      return true;
    }
    alu(I, k == 1 ? pickInt<oMulHi>(t) : pickUns<oMul>(t), o, t, {{TS[t], t}, {TS[t], t}});
    return true;
  }
  if (is("mad") || is("fma")) {
    T t = ty();
    if (isF(t)) {
      fltMods(I, t);
      bool z = take("ftz");
      chkFtz(t, z);
      alu(I, pickFlt<fFma>(t, z), o, t, {{TS[t], t}, {TS[t], t}, {TS[t], t}});
      return true;
    }
    int k = takeOne({"lo", "hi", "wide"});
    if (k < 0) throw Err("mad form");
    if (k == 2) {
      alu(I, wideFn<oMadWide>(t), o, wideT(t), {{TS[t], t}, {TS[t], t}, {TS[t] * 2, t}});
      return true;
    }
    alu(I, k == 1 ? pickInt<oMadHi>(t) : pickUns<oMad>(t), o, t, {{TS[t], t}, {TS[t], t}, {TS[t], t}});
    return true;
  }
  if (is("div")) {
    T t = ty();
    if (!isF(t)) {
      alu(I, pickInt<oDiv>(t), o, t, {{TS[t], t}, {TS[t], t}});
      return true;
    }
    take("approx") || take("full");
    fltMods(I, t);
    bool z = take("ftz");
    chkFtz(t, z);
    alu(I, pickFlt<fDiv>(t, z), o, t, {{TS[t], t}, {TS[t], t}});
    return true;
  }
  if (is("rem")) {
    T t = ty();
    alu(I, pickInt<oRem>(t), o, t, {{TS[t], t}, {TS[t], t}});
    return true;
  }
  if (is("sad")) {
    T t = ty();
    alu(I, pickInt<oSad>(t), o, t, {{TS[t], t}, {TS[t], t}, {TS[t], t}});
    return true;
  }
  if (is("min") || is("max")) {
    T t = ty();
    bool mn = is("min");
    if (!isF(t)) {
      if (take("relu")) {  // results below 0 become 0
        if (t != S32) throw Err("relu of another type than s32");
        alu(I, mn ? pickInt<oMinRelu>(t) : pickInt<oMaxRelu>(t), o, t, {{TS[t], t}, {TS[t], t}});
        return true;
      }
      alu(I, mn ? pickInt<oMin>(t) : pickInt<oMax>(t), o, t, {{TS[t], t}, {TS[t], t}});
      return true;
    }
    bool z = take("ftz"), nan = take("NaN");
    chkFtz(t, z);
    if (o.size() == 4) {
      if (t != TF32_) throw Err("three-input min/max");
      alu(I,
          nan ? (mn ? pickFlt<fMinN3>(t, z) : pickFlt<fMaxN3>(t, z))
              : (mn ? pickFlt<fMin3>(t, z) : pickFlt<fMax3>(t, z)),
          o, t, {{4, t}, {4, t}, {4, t}});
      return true;
    }
    alu(I, nan ? (mn ? pickFlt<fMinN>(t, z) : pickFlt<fMaxN>(t, z)) : (mn ? pickFlt<fMin>(t, z) : pickFlt<fMax>(t, z)),
        o, t, {{TS[t], t}, {TS[t], t}});
    return true;
  }
  if (is("abs") || is("neg")) {
    T t = ty();
    bool n = is("neg");
    bool z = take("ftz");
    if (isF(t)) chkFtz(t, z);
    alu(I, isF(t) ? (n ? pickFlt<fNeg>(t, z) : pickFlt<fAbs>(t, z)) : (n ? pickInt<oNeg>(t) : pickInt<oAbs>(t)), o, t,
        {{TS[t], t}});
    return true;
  }
  if (is("rcp") || is("sqrt") || is("rsqrt") || is("ex2") || is("lg2") || is("sin") || is("cos") || is("tanh")) {
    T t = ty();
    take("approx");
    bool z = take("ftz");
    fltMods(I, t);
    if (t != TF64) chkFtz(t, z);
    alu(I,
        is("rcp")     ? pickFlt<fRcp>(t, z)
        : is("sqrt")  ? pickFlt<fSqrt>(t, z)
        : is("rsqrt") ? pickFlt<fRsqrt>(t, z)
        : is("ex2")   ? pickFlt<fEx2>(t, z)
        : is("lg2")   ? pickFlt<fLg2>(t, z)
        : is("sin")   ? pickFlt<fSin>(t, z)
        : is("cos")   ? pickFlt<fCos>(t, z)
                      : pickFlt<fTanh>(t, z),
        o, t, {{TS[t], t}});
    return true;
  }
  if (is("copysign")) {
    T t = ty();
    alu(I, pickFlt<fCopysign>(t, false), o, t, {{TS[t], t}, {TS[t], t}});
    return true;
  }
  return false;
}

// Bits, selection, moves and conversions.
inline bool Module::decodeBits(Ins& I, vector<Opnd>& o, [[maybe_unused]] size_t tok, const string& op) {
  auto is = [&](const char* s) { return op == s; };
  if (is("and") || is("or") || is("xor")) {
    T t = ty();
    Alu f = is("and")  ? (t == PRED ? oAnd<u8>::f : pickInt<oAnd>(t))
            : is("or") ? (t == PRED ? oOr<u8>::f : pickInt<oOr>(t))
                       : (t == PRED ? oXor<u8>::f : pickInt<oXor>(t));
    alu(I, f, o, t, {{TS[t], t}, {TS[t], t}});
    return true;
  }
  if (is("not") || is("cnot")) {
    T t = ty();
    alu(I, t == PRED ? oPNot : is("not") ? pickInt<oNot>(t) : pickInt<oCnot>(t), o, t, {{TS[t], t}});
    return true;
  }
  if (is("shl") || is("shr")) {
    T t = ty();
    alu(I, is("shl") ? pickInt<oShl>(t) : pickInt<oShr>(t), o, t, {{TS[t], t}, {4, U32}});
    return true;
  }
  if (is("shf")) {
    ty();
    int lr = takeOne({"l", "r"}), wc = takeOne({"wrap", "clamp"});
    if (lr < 0 || wc < 0) throw Err("shf form");
    alu(I,
        lr == 0 ? (wc == 0 ? oShf<true, true> : oShf<true, false>) : (wc == 0 ? oShf<false, true> : oShf<false, false>),
        o, U32, {{4, U32}, {4, U32}, {4, U32}});
    return true;
  }
  if (is("prmt")) {
    if (!take("b32")) throw Err("type");
    int k = takeOne({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    static const Alu fs[] = {oPrmt<0>, oPrmt<1>, oPrmt<2>, oPrmt<3>, oPrmt<4>, oPrmt<5>, oPrmt<6>};
    alu(I, fs[k + 1], o, U32, {{4, U32}, {4, U32}, {4, U32}});
    return true;
  }
  if (is("bfe")) {
    T t = ty();
    alu(I, pickInt<oBfe>(t), o, t, {{TS[t], t}, {4, U32}, {4, U32}});
    return true;
  }
  if (is("bfi")) {
    T t = ty();
    alu(I, pickInt<oBfi>(t), o, t, {{TS[t], t}, {TS[t], t}, {4, U32}, {4, U32}});
    return true;
  }
  if (is("bfind")) {
    T t = ty();
    bool sh = take("shiftamt");
    if (t == B32 || t == B64 || TS[t] < 4) throw Err("type");
    alu(I, sh ? pickInt<oBfindS>(t) : pickInt<oBfind>(t), o, U32, {{TS[t], t}});
    return true;
  }
  if (is("brev")) {
    T t = ty();
    alu(I, pickUns<oBrev>(t), o, t, {{TS[t], t}});
    return true;
  }
  if (is("popc") || is("clz")) {
    T t = ty();
    alu(I, is("popc") ? pickUns<oPopc>(t) : pickUns<oClz>(t), o, U32, {{TS[t], t}});
    return true;
  }
  if (is("lop3")) {
    if (!take("b32")) throw Err("type");
    if (o.size() != 5 || o[4].k != 'I') throw Err("lop3 form");
    alu(I, oLop3, o, U32, {{4, U32}, {4, U32}, {4, U32}, {4, U32}});
    return true;
  }
  if (is("dp4a")) {
    T tb = ty(), ta = ty();
    alu(I,
        ta == S32 ? (tb == S32 ? oDp4a<true, true> : oDp4a<true, false>)
                  : (tb == S32 ? oDp4a<false, true> : oDp4a<false, false>),
        o, U32, {{4, U32}, {4, U32}, {4, U32}});
    return true;
  }
  if (is("selp")) {
    T t = ty();
    nops(o, 4, 4);
    I.fn = t == PRED ? nullptr : pickUns<oSel>(t);
    I.dw = TS[t];
    I.d = dst(o[0], I.dw);
    I.a = src(o[1], I.dw, t);
    I.b = src(o[2], I.dw, t);
    u8 ng = 0;
    I.c = predSrc(o[3], &ng);
    if (ng) std::swap(I.a, I.b);
    emit(I);
    return true;
  }
  if (is("slct")) {
    T ts = ty(), t = ty();
    take("ftz");
    alu(I,
        ts == TF32_ ? pickUns<oSlctF>(t)
        : ts == S32 ? pickUns<oSlctS>(t)
                    : nullptr,
        o, t, {{TS[t], t}, {TS[t], t}, {4, ts}});
    return true;
  }
  if (is("setp") || is("set")) {
    setp(I, o, is("set"));
    return true;
  }
  if (is("mov")) {
    mov(I, o);
    return true;
  }
  if (is("cvt")) {
    cvt(I, o);
    return true;
  }
  return false;
}
