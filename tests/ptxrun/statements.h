// Bodies of functions: labels, registers, statements.
#pragma once

#include "parse.h"

inline u32 Module::slot(u32 bytes) {
  u32 o = regTop;
  regTop += 32 * bytes;
  regTop = (regTop + 31) & ~31u;
  return o;
}

// w bytes a lane
inline u32 Module::konst(u64 v, int w) {
  if (w < 8) v &= (1ull << (8 * w)) - 1;
  auto key = std::make_pair(v, w);
  auto it = constIdx.find(key);
  if (it != constIdx.end()) return it->second;
  u32 o = slot(w);
  vector<u8> d(32 * w);
  for (int i = 0; i < 32; i++) memcpy(&d[i * w], &v, w);
  F->consts.push_back({o, d});
  return constIdx[key] = o;
}

inline Sym* Module::find(const string& n) {
  for (int i = (int)scopes.size() - 1; i >= 0; i--) {
    auto it = scopes[i].find(n);
    if (it != scopes[i].end()) return &it->second;
  }
  auto it = gsyms.find(n);
  return it == gsyms.end() ? nullptr : &it->second;
}

inline void Module::body(Func& f) {
  F = &f;
  scopes.assign(1, {});
  labelAt.clear();
  fixes.clear();
  constIdx.clear();
  scopeId = 0;
  curPath = {0};
  regTop = f.entry ? fnRegEnd : fnRegEnd;
  locTop = fnLocEnd;
  shTop = modSharedEnd;
  f.pc = code.size();
  for (auto* l : {&f.params, &f.rets})
    for (auto& q : *l) {
      Sym s;
      s.size = q.size;
      if (f.entry) {
        s.k = S_EPARAM;
        s.off = q.off;
        f.paramBytes = std::max(f.paramBytes, q.off + q.size);
      } else {
        s.k = S_FPARAM;
        locTop = (locTop + 15) & ~15u;
        s.off = locTop;
        locTop += q.size;
      }
      scopes[0][q.name] = s;
      f.psyms[q.name] = s;
    }
  for (size_t p = f.body0; p < f.body1;) stmt(p, f.body1);
  Ins r;
  r.kind = f.entry ? EXIT_ : RET;
  r.text = "(end of function)";
  r.opname = "exit";
  code.push_back(r);
  for (auto& x : fixes) {  // innermost scope first
    auto& c = labelAt[x.label];
    int best = -1;
    u32 pc = 0;
    for (auto& l : c)
      for (int k = 0; k < (int)x.path.size(); k++)
        if (x.path[k] == l.first && k > best) {
          best = k;
          pc = l.second;
        }
    if (best < 0) bad(x.tok, "unknown label " + x.label);
    if (x.table)
      code[x.pc].table[x.idx] = pc;
    else
      code[x.pc].tgt = pc;
  }
  f.pcEnd = code.size();
  f.regEnd = regTop;
  f.locEnd = (locTop + 15) & ~15u;
  f.shEnd = shTop;
  if (!f.entry) {
    fnRegEnd = regTop;
    fnLocEnd = f.locEnd;
    modSharedEnd = shTop;
    for (auto& v : f.shvars) modShared.push_back(v);
  }
}

inline void Module::stmt(size_t& p, size_t end) {
  const string& s = at(p);
  if (s == "{") {
    scopes.push_back({});
    curPath.push_back(++scopeId);
    p++;
    return;
  }
  if (s == "}") {
    scopes.pop_back();
    curPath.pop_back();
    p++;
    return;
  }
  if (s == ";") {
    p++;
    return;
  }
  if (s == ".reg") {
    p++;
    if (at(p) == ".v2" || at(p) == ".v4") bad(p, "vector registers are not supported");
    string ty = at(p++).substr(1);
    T k = typeOf(ty);
    if (k == NOTYPE) bad(p - 1, "unsupported register type " + ty);
    for (;;) {
      string n = at(p++);
      u64 cnt = 0;
      bool par = false;
      if (at(p) == "<") {
        p++;
        cnt = numTok(p);
        need(p, ">");
        par = true;
      }
      for (u64 i = 0; i < (par ? cnt : 1); i++) {
        Sym r;
        r.k = S_REG;
        r.pred = k == PRED;
        r.w = k == PRED ? 1 : std::max(TS[k], 1);
        r.off = slot(r.w);
        if (r.pred) F->preds.push_back(r.off);
        scopes.back()[par ? n + std::to_string(i) : n] = r;
      }
      if (at(p) == ",") {
        p++;
        continue;
      }
      break;
    }
    need(p, ";");
    return;
  }
  if (s == ".shared" || s == ".local" || s == ".param" || s == ".global" || s == ".const") {
    if (s == ".global" || s == ".const") {
      globalVar(p, false);
      return;
    }
    string sp = s;
    p++;
    Decl d = decl(p);
    Sym y;
    y.size = d.bytes();
    if (sp == ".shared") {
      shTop = (shTop + d.align - 1) / d.align * d.align;
      y.k = S_SHARED;
      y.off = shTop;
      F->shvars.push_back({shTop, (u32)y.size});
      shTop += y.size + 64;
      if (F->entry) {
      }
    } else {
      locTop = (locTop + d.align - 1) / d.align * d.align;
      y.k = sp == ".local" ? S_LOCAL : S_FPARAM;
      y.off = locTop;
      locTop += y.size;
    }
    scopes.back()[d.name] = y;
    need(p, ";");
    return;
  }
  if (s == ".pragma") {
    while (at(p) != ";") p++;
    p++;
    return;
  }
  if (at(p + 1) == ":") {
    if (at(p + 2) == ".branchtargets") {
      Sym y;
      y.k = S_LABELS;
      string n = s;
      p += 3;
      while (at(p) != ";") {
        if (at(p) != ",") y.labels.push_back(at(p));
        p++;
      }
      p++;
      scopes.back()[n] = y;
      return;
    }
    if (at(p + 2) == ".callprototype") {
      Sym y;
      y.k = S_PROTO;
      scopes.back()[s] = y;
      while (at(p) != ";") p++;
      p++;
      return;
    }
    labelAt[s].push_back({curPath.back(), (u32)code.size()});
    p += 2;
    return;
  }
  // an instruction
  Ins I;
  size_t p0 = p, q = p;
  while (q < end && at(q) != ";") q++;
  I.line = t[p0].line;
  I.text = text.substr(t[p0].pos, t[std::min(q, t.size() - 1)].pos - t[p0].pos);
  for (auto& ch : I.text)
    if (isspace((u8)ch)) ch = ' ';
  if (at(p) == "@") {
    p++;
    if (at(p) == "!") {
      I.gneg = 1;
      p++;
    }
    Sym* g = find(at(p));
    if (!g || g->k != S_REG || !g->pred) bad(p, "bad guard");
    I.guard = g->off;
    p++;
  }
  I.opname = at(p);
  size_t opTok = p++;
  vector<Opnd> o;
  try {
    while (p < q) {
      if (at(p) == ",") {
        p++;
        continue;
      }
      o.push_back(operand(p));
    }
    decode(I, o, opTok);
  } catch (Err& e) {
    string m = fmt("unsupported instruction '%s' (line %d): %s", I.text.c_str(), I.line, e.what());
    if (F->unsup.empty()) F->unsup = m;
    Ins U;
    U.kind = UNSUP;
    U.guard = I.guard;
    U.gneg = I.gneg;
    U.line = I.line;
    U.text = I.text;
    U.opname = I.opname;
    U.why = m;
    code.push_back(U);
  }
  p = q + 1;
}
