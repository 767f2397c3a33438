// Instructions of memory, barriers, warps, copies, fences and control flow.
#pragma once

#include "operands.h"

// Addresses, loads, stores, atomics, barriers and what the lanes of a warp exchange.
inline bool Module::decodeMemory(Ins& I, vector<Opnd>& o, [[maybe_unused]] size_t tok, const string& op) {
  auto is = [&](const char* s) { return op == s; };
  if (is("cvta")) {
    T t = ty();
    bool to = take("to");
    I.space = takeSpace();
    nops(o, 2, 2);
    I.kind = CVTA;
    I.flag = to;
    I.dw = I.width = TS[t];
    I.d = dst(o[0], I.dw);
    if (o[1].k == 'L') {
      u64 v = symAddr(o[1]);
      (void)v;
    }
    I.a = src(o[1], I.dw, t);
    if (I.space == GENERIC || I.dw != 8) throw Err("cvta form");
    emit(I);
    return true;
  }
  if (is("isspacep")) {
    I.space = takeSpace();
    nops(o, 2, 2);
    I.kind = ISSPACE;
    I.dw = 1;
    I.d = dst(o[0], 1);
    I.a = src(o[1], 8);
    emit(I);
    return true;
  }
  if (is("ld") || is("ldu") || is("st")) {
    bool st = is("st"), hint;
    T t = ty();
    if (t == PRED) throw Err("type");
    takeCache(hint);
    I.flag = takeSem();
    I.space = takeSpace();
    take("nc");
    for (auto x : {"ca", "cg", "cs", "lu", "cv", "wb", "wt"}) take(x);
    int v = takeOne({"v2", "v4", "v8"});
    I.vec = v < 0 ? 1 : 2 << v;
    I.kind = st ? ST : LD;
    I.width = TS[t];
    I.type = t;
    nops(o, 2, hint ? 3 : 2);
    mem(o[st ? 0 : 1], I.space, I.a, I.aw, I.imm);
    regs(o[st ? 1 : 0], !st, I.width, true, I.v, &I.vw);
    if (I.v.size() != I.vec) throw Err("vector length");
    emit(I);
    return true;
  }
  if (is("atom") || is("red")) {
    bool at = is("atom"), hint;
    T t = ty();
    int v = takeOne({"v2", "v4", "v8"});
    takeCache(hint);
    takeSem();
    I.space = takeSpace();
    take("noftz");
    take("ftz") ? throw Err("ftz") : 0;
    int k = takeOne({"add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"});
    if (k < 0) throw Err("atomic operation");
    I.op = k;
    I.kind = ATOM;
    I.type = t;
    I.width = TS[t];
    I.vec = v < 0 ? 1 : 2 << v;
    if (t == PRED || I.width < 2) throw Err("type");
    if (isF(t) && k > A_MAX) throw Err("float atomic");
    nops(o, (at ? 3 : 2) + (k == A_CAS), (at ? 3 : 2) + (k == A_CAS) + hint);
    size_t p = 0;
    if (at) regs(o[p++], true, I.width, false, I.v, &I.vw);
    mem(o[p++], I.space, I.a, I.aw, I.imm);
    regs(o[p++], false, I.width, false, I.v2, nullptr);
    if (k == A_CAS) I.c = src(o[p], I.width);
    if (I.v2.size() != I.vec || (at && I.v.size() != I.vec)) throw Err("vector length");
    emit(I);
    return true;
  }
  if (is("bar") || is("barrier")) {
    if (take("warp")) {
      if (!take("sync")) throw Err("bar.warp form");
      nops(o, 1, 1);
      I.kind = WARPSYNC;
      I.b = src(o[0], 4);
      emit(I);
      return true;
    }
    if (is("barrier") && take("cluster")) {
      int k = takeOne({"arrive", "wait"});
      if (k < 0) throw Err("form");
      takeSem();
      I.flag = take("aligned");
      nops(o, 0, 0);
      I.kind = k ? CLWAIT : CLARRIVE;
      emit(I);
      return true;
    }
    take("cta");
    bool al = take("aligned") || is("bar");
    I.kind = BAR;
    I.flag = al;
    size_t p = 0;
    if (take("sync"))
      I.op = 0;
    else if (take("arrive"))
      I.op = 1;
    else if (take("red")) {
      I.op = 2;
      I.q = takeOne({"popc", "and", "or"});
      T t = ty();
      I.dw = TS[t];
      I.d = dst(o[p++], I.dw);
      I.c = predSrc(o.back(), &I.cneg);
      o.pop_back();
    } else
      throw Err("barrier form");
    nops(o, p + 1, p + 2);
    I.a = src(o[p], 4);
    I.v2.clear();
    if (o.size() > p + 1) I.v2.push_back(src(o[p + 1], 4));
    if (I.op == 1 && I.v2.empty()) throw Err("arrive without a count");
    emit(I);
    return true;
  }
  if (is("shfl")) {
    if (!take("sync") || !take("b32")) throw Err("shfl form");
    int k = takeOne({"up", "down", "bfly", "idx"});
    if (k < 0) throw Err("mode");
    nops(o, 5, 5);
    I.kind = SHFL;
    I.op = k;
    I.d2 = R_SINK * 128;
    if (o[0].second) {
      if (!o[0].second->pred) throw Err("predicate");
      I.d2 = o[0].second->off;
      I.q = 1;
    }
    Opnd d = o[0];
    d.second = nullptr;
    I.d = dst(d, 4);
    I.a = src(o[1], 4);
    I.c = src(o[2], 4);
    I.e = src(o[3], 4);
    I.b = src(o[4], 4);
    emit(I);
    return true;
  }
  if (is("vote")) {
    if (!take("sync")) throw Err("vote without .sync");
    T t = ty();
    int k = takeOne({"all", "any", "uni", "ballot"});
    if (k < 0 || (k == 3) != (t == B32)) throw Err("mode");
    nops(o, 3, 3);
    I.kind = VOTE;
    I.op = k;
    I.dw = TS[t];
    I.d = dst(o[0], I.dw);
    I.a = predSrc(o[1], &I.cneg);
    I.b = src(o[2], 4);
    emit(I);
    return true;
  }
  if (is("match")) {
    T t = ty();
    if (!take("sync")) throw Err("form");
    int k = takeOne({"any", "all"});
    nops(o, 3, 3);
    I.kind = MATCH;
    I.op = k;
    I.width = TS[t];
    I.d2 = R_SINK * 128;
    if (o[0].second) {
      I.d2 = o[0].second->off;
      I.q = 1;
    }
    Opnd d = o[0];
    d.second = nullptr;
    I.d = dst(d, 4);
    I.a = src(o[1], I.width);
    I.b = src(o[2], 4);
    emit(I);
    return true;
  }
  if (is("redux")) {
    T t = ty();
    if (!take("sync")) throw Err("form");
    int k = takeOne({"add", "min", "max", "and", "or", "xor"});
    static const u8 mp[] = {A_ADD, A_MIN, A_MAX, A_AND, A_OR, A_XOR};
    if (k < 0 || TS[t] != 4 || (isF(t) && (t != TF32_ || (k != 1 && k != 2)))) throw Err("form");
    if (isF(t)) {
      I.q = take("NaN");
      I.flag = take("abs");
    }
    nops(o, 3, 3);
    I.kind = REDUX;
    I.op = mp[k];
    I.type = t;
    I.d = dst(o[0], 4);
    I.a = src(o[1], 4);
    I.b = src(o[2], 4);
    emit(I);
    return true;
  }
  if (is("activemask")) {
    ty();
    nops(o, 1, 1);
    I.kind = ACTIVE;
    I.d = dst(o[0], 4);
    emit(I);
    return true;
  }
  if (is("elect")) {
    if (!take("sync")) throw Err("form");
    nops(o, 2, 2);
    I.kind = ELECT;
    if (!o[0].second) throw Err("form");
    I.d2 = o[0].second->off;
    Opnd d = o[0];
    d.second = nullptr;
    I.d = dst(d, 4);
    I.b = src(o[1], 4);
    emit(I);
    return true;
  }
  return false;
}

// Matrices, asynchronous copies, fences and control flow.
inline bool Module::decodeOther(Ins& I, vector<Opnd>& o, [[maybe_unused]] size_t tok, const string& op) {
  auto is = [&](const char* s) { return op == s; };
  if (is("mma")) {
    mma(I, o);
    return true;
  }
  if (is("ldmatrix") || is("stmatrix")) {
    bool st = is("stmatrix");
    if (!take("sync") || !take("aligned") || !take("m8n8") || !take("b16")) throw Err("form");
    int k = takeOne({"x1", "x2", "x4"});
    I.q = take("trans");
    I.space = takeSpace();
    if (k < 0 || (I.space != SHARED && I.space != GENERIC)) throw Err("form");
    I.vec = 1 << k;
    nops(o, 2, 2);
    I.kind = st ? STMAT : LDMAT;
    I.width = 16;
    mem(o[st ? 0 : 1], I.space, I.a, I.aw, I.imm);
    regs(o[st ? 1 : 0], !st, 4, false, I.v, nullptr);
    if (I.v.size() != I.vec) throw Err("vector length");
    I.b = konst(~0u, 4);
    emit(I);
    return true;
  }
  if (is("cp")) {
    if (take("reduce")) {
      if (!take("async") || !take("bulk")) throw Err("form");
      bulk(I, o, true);
      return true;
    }
    if (!take("async")) throw Err("form");
    if (take("bulk")) {
      bulk(I, o, false);
      return true;
    }
    if (take("mbarrier")) {
      async = true;
      if (!take("arrive") || !take("b64")) throw Err("form");
      I.flag = take("noinc");
      I.space = takeSpace();
      nops(o, 1, 1);
      mem(o[0], I.space, I.a, I.aw, I.imm);
      I.kind = CPMBAR;
      emit(I);
      return true;
    }
    if (take("commit_group")) {
      I.kind = CPCOMMIT;
      emit(I);
      return true;
    }
    if (take("wait_group")) {
      nops(o, 1, 1);
      I.kind = CPWAIT;
      I.imm = o[0].imm;
      emit(I);
      return true;
    }
    if (take("wait_all")) {
      I.kind = CPWAIT;
      I.imm = 0;
      I.flag = 1;
      emit(I);
      return true;
    }
    bool hint;
    takeCache(hint);
    if (!take("ca") && !take("cg")) throw Err("this form of cp.async is not supported");
    if (!(take("shared") || take("shared::cta")) || !take("global")) throw Err("form");
    nops(o, 3, hint ? 5 : 4);
    if (o[2].k != 'I') throw Err("size");
    I.kind = CPASYNC;
    I.width = o[2].imm;
    if (I.width != 4 && I.width != 8 && I.width != 16) throw Err("size");
    mem(o[0], SHARED, I.d, I.dw, I.imm2);
    mem(o[1], GLOBAL, I.a, I.aw, I.imm);
    if (o.size() > 3) {
      if (o[3].pred) {
        I.q = 2;
        I.c = predSrc(o[3], &I.cneg);
      } else {
        I.q = 1;
        I.c = src(o[3], 4);
      }
    }
    emit(I);
    return true;
  }
  if (is("wgmma")) {
    async = true;
    wgmma(I, o);
    return true;
  }
  if (is("tcgen05")) {
    async = true;
    tcgen05(I, o);
    return true;
  }
  if (is("mbarrier")) {
    async = true;
    mbarrier(I, o);
    return true;
  }
  if (is("tensormap")) {
    async = true;
    tensormap(I, o);
    return true;
  }
  if (is("setmaxnreg")) {
    if (takeOne({"inc", "dec"}) < 0 || !take("sync") || !take("aligned") || !take("u32")) throw Err("form");
    nops(o, 1, 1);
    I.kind = NOP_;
    emit(I);
    return true;
  }
  if (is("mapa")) {
    T t = ty();
    take("shared::cluster");
    nops(o, 3, 3);
    I.kind = MAPA;
    I.dw = TS[t];
    I.d = dst(o[0], I.dw);
    I.a = src(o[1], I.dw);
    I.c = src(o[2], 4);
    emit(I);
    return true;
  }
  if (is("getctarank")) {
    ty();
    take("shared::cluster");
    nops(o, 2, 2);
    I.fn = oMov<u32>::f;
    I.dw = 4;
    I.d = dst(o[0], 4);
    I.a = konst(0, 4);
    emit(I);
    return true;
  }
  if (is("membar") || is("fence")) {
    I.kind = NOP_;
    if (take("proxy")) {
      if (take("tensormap::generic")) {
        async = true;
        if (take("release")) {
          takeSem();
          nops(o, 0, 0);
          emit(I);
          return true;
        }
        if (!take("acquire")) throw Err("form");
        takeSem();
        nops(o, 2, 2);
        if (o[1].k != 'I' || o[1].imm != 128) throw Err("size");
        I.kind = TFENCE;
        mem(o[0], GENERIC, I.a, I.aw, I.imm);
        emit(I);
        return true;
      }
      bool a = take("async") || take("async::generic");
      if (!a && !take("alias")) throw Err("proxy fence");
      bool gl = take("global");
      take("sync_restrict::shared::cta");
      take("sync_restrict::shared::cluster");
      takeSpace();
      if (a && !gl) {
        async = true;
        I.kind = PFENCE;
      }
    }
    take("mbarrier_init");
    takeSem();
    take("gl");
    nops(o, 0, 0);
    emit(I);
    return true;
  }
  if (is("prefetch") || is("prefetchu") || is("nanosleep") || is("griddepcontrol") || is("applypriority") ||
      is("discard")) {
    if (is("discard")) throw Err("discard");
    m.clear();
    I.kind = NOP_;
    emit(I);
    return true;
  }
  if (is("createpolicy")) {
    m.clear();
    I.fn = oMov<u64>::f;
    I.dw = 8;
    I.d = dst(o[0], 8);
    I.a = konst(0, 8);
    emit(I);
    return true;
  }
  if (is("bra")) {
    I.flag = take("uni");
    nops(o, 1, 1);
    I.kind = BRA;
    fixes.push_back({(u32)code.size(), o[0].name, tok, curPath, false, 0});
    emit(I);
    return true;
  }
  if (is("brx")) {
    take("idx");
    take("uni");
    nops(o, 2, 2);
    I.kind = BRX;
    I.a = src(o[0], 4);
    if (!o[1].sym || o[1].sym->k != S_LABELS) throw Err("branch table");
    auto& l = o[1].sym->labels;
    I.table.resize(l.size());
    for (size_t i = 0; i < l.size(); i++) fixes.push_back({(u32)code.size(), l[i], tok, curPath, true, (int)i});
    emit(I);
    return true;
  }
  if (is("ret")) {
    take("uni");
    I.kind = F->entry ? EXIT_ : RET;
    emit(I);
    return true;
  }
  if (is("exit")) {
    I.kind = EXIT_;
    emit(I);
    return true;
  }
  if (is("trap")) {
    I.kind = TRAP_;
    emit(I);
    return true;
  }
  if (is("call")) {
    callDecode(I, o);
    return true;
  }
  return false;
}
