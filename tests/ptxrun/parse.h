// From text to declarations: tokens, variables, parameters, functions.
#pragma once

#include "program.h"

// ---- lexer
inline void Module::lex(const string& src) {
  text = src;
  size_t i = 0, n = text.size();
  int line = 1;
  bool bol = true;
  while (i < n) {
    char ch = text[i];
    if (ch == '\n') {
      line++;
      i++;
      bol = true;
      continue;
    }
    if (isspace((u8)ch)) {
      i++;
      continue;
    }
    if (ch == '/' && i + 1 < n && text[i + 1] == '/') {
      while (i < n && text[i] != '\n') i++;
      continue;
    }
    if (ch == '/' && i + 1 < n && text[i + 1] == '*') {
      while (i + 1 < n && !(text[i] == '*' && text[i + 1] == '/')) {
        if (text[i] == '\n') line++;
        i++;
      }
      i += 2;
      continue;
    }
    if (bol && ch == '.') {  // line directives without a semicolon
      size_t j = i;
      while (j < n && (isalnum((u8)text[j]) || text[j] == '.' || text[j] == '_')) j++;
      string w = text.substr(i, j - i);
      if (w == ".version" || w == ".target" || w == ".address_size" || w == ".loc" || w == ".file") {
        while (i < n && text[i] != '\n') i++;
        continue;
      }
      if (w == ".section") {
        while (i < n && text[i] != '{') {
          if (text[i] == '\n') line++;
          i++;
        }
        int dep = 0;
        while (i < n) {
          if (text[i] == '\n') line++;
          if (text[i] == '{') dep++;
          if (text[i] == '}' && --dep == 0) {
            i++;
            break;
          }
          i++;
        }
        continue;
      }
    }
    bol = false;
    size_t j = i;
    if (ch == '"') {
      j++;
      while (j < n && text[j] != '"') j++;
      j++;
    } else if (isalnum((u8)ch) || ch == '_' || ch == '$' || ch == '%' || ch == '.') {
      while (j < n && (isalnum((u8)text[j]) || text[j] == '_' || text[j] == '$' || text[j] == '%' || text[j] == '.' ||
                       (text[j] == ':' && j + 1 < n && text[j + 1] == ':'))) {
        if (text[j] == ':') j++;
        j++;
      }
    } else
      j++;
    t.push_back({text.substr(i, j - i), line, i, j});
    i = j;
  }
}

inline void Module::bad(size_t p, const string& m) {
  throw Err("PTX parse error, line " + std::to_string(p < t.size() ? t[p].line : -1) + ": " + m +
            (p < t.size() ? " near '" + t[p].s + "'" : ""));
}

inline const string& Module::at(size_t p) {
  static const string e;
  return p < t.size() ? t[p].s : e;
}

inline void Module::need(size_t& p, const char* s) {
  if (at(p) != s) bad(p, string("expected ") + s);
  p++;
}

inline u64 Module::parseNum(const string& s, bool& isf, double& dv) {
  isf = false;
  if (s.size() > 2 && s[0] == '0' && (s[1] == 'f' || s[1] == 'F')) {
    isf = true;
    dv = bitsf((u32)strtoul(s.c_str() + 2, 0, 16));
    return strtoull(s.c_str() + 2, 0, 16);
  }
  if (s.size() > 2 && s[0] == '0' && (s[1] == 'd' || s[1] == 'D')) {
    isf = true;
    u64 b = strtoull(s.c_str() + 2, 0, 16);
    dv = bitsd(b);
    return dbits(dv);
  }
  if (s.size() > 1 && s[0] == '0' && (s[1] == 'b' || s[1] == 'B')) return strtoull(s.c_str() + 2, 0, 2);
  if (s.find('.') != string::npos && s[1] != 'x') {
    isf = true;
    dv = atof(s.c_str());
    return dbits(dv);
  }
  return strtoull(s.c_str(), 0, 0);
}

inline u64 Module::numTok(size_t& p) {
  bool neg = false;
  if (at(p) == "-") {
    neg = true;
    p++;
  }
  bool f;
  double d;
  if (!isNum(at(p))) bad(p, "expected number");
  u64 v = parseNum(at(p), f, d);
  p++;
  return neg ? 0 - v : v;
}

inline void Module::load(const string& src) {
  lex(src);
  size_t p = 0;
  while (p < t.size()) topLevel(p);
  for (int pass = 0; pass < 2; pass++)
    for (auto& f : fns)
      if (f.hasBody && f.entry == (pass == 1)) body(f);
  for (auto& f : fns)
    if (f.entry) dynBase = std::max(dynBase, f.shEnd);
  dynBase = (dynBase + externAlign - 1) / externAlign * externAlign;
  for (auto& x : externConst) {
    u64 v = dynBase + x.add;
    for (int i = 0; i < 32; i++) memcpy(&x.f->consts[x.idx].second[i * x.w], &v, x.w);
  }
  auto fix = [&](s64& q) {
    if (q > (1ll << 62)) q = q - (s64)DYN_MARK + dynBase;
  };
  for (auto& I : code) {
    fix(I.imm);
    fix(I.imm2);
    if (I.as)
      for (auto* a : {&I.as->dst, &I.as->src, &I.as->bar}) fix(a->imm);
  }
  if (async)
    for (auto& f : fns)
      if (f.hasBody) markTouched(f);
}

// the instructions that touch a register which some wgmma of the function uses
inline void Module::markTouched(const Func& f) {
  std::set<u32> wg;
  for (u32 p = f.pc; p < f.pcEnd; p++)
    if (code[p].kind == WGMMA || code[p].kind == TCLD)
      for (auto* v : {&code[p].v, &code[p].v2})
        for (u32 x : *v) wg.insert(x);
  if (wg.empty()) return;
  for (u32 p = f.pc; p < f.pcEnd; p++) {
    Ins& I = code[p];
    if (I.kind == WGMMA) continue;
    std::set<u32> t;
    for (u32 x : {I.d, I.a, I.b, I.c, I.e, I.d2})
      if (wg.count(x)) t.insert(x / 32);
    for (auto* v : {&I.v, &I.v2, &I.v3})
      for (u32 x : *v)
        if (wg.count(x)) t.insert(x / 32);
    if (I.as)
      for (auto* a : {&I.as->dst, &I.as->src, &I.as->bar})
        if (wg.count(a->reg)) t.insert(a->reg / 32);
    if (!t.empty()) {
      I.touch = touched.size();
      touched.emplace_back(t.begin(), t.end());
    }
  }
}

inline void Module::topLevel(size_t& p) {
  bool ext = false;
  string s;
  for (;; p++) {
    s = at(p);
    if (s == ".extern")
      ext = true;
    else if (s != ".visible" && s != ".weak" && s != ".common")
      break;
  }
  if (s == ";") {
    p++;
    return;
  }
  if (s == ".entry" || s == ".func") {
    funcHeader(p);
    return;
  }
  if (s == ".global" || s == ".const" || s == ".shared") {
    globalVar(p, ext);
    return;
  }
  if (s == ".pragma" || s == ".alias") {
    while (at(p) != ";") p++;
    p++;
    return;
  }
  bad(p, "unsupported top-level construct");
}

inline Module::Decl Module::decl(size_t& p) {
  Decl d;
  for (;;) {
    string s = at(p);
    if (s == ".align") {
      p++;
      u64 a = numTok(p);
      if (!d.ptr) d.align = a;
      continue;
    }
    if (s == ".ptr") {
      d.ptr = true;
      p++;
      continue;
    }
    if (d.ptr && (s == ".global" || s == ".shared" || s == ".const" || s == ".local")) {
      p++;
      continue;
    }
    if (s == ".v2" || s == ".v4") {
      d.vec = s[2] - '0';
      p++;
      continue;
    }
    if (s == ".attribute") bad(p, "unsupported attribute");
    if (s.size() > 1 && s[0] == '.') {
      if (typeOf(s.substr(1)) == NOTYPE) bad(p, "unsupported type " + s);
      d.type = s.substr(1);
      p++;
      continue;
    }
    break;
  }
  if (d.type.empty()) bad(p, "declaration without a type");
  d.name = at(p++);
  while (at(p) == "[") {
    p++;
    d.arr = true;
    if (at(p) == "]") {
      d.open = true;
      d.elems = 0;
    } else
      d.elems *= numTok(p);
    need(p, "]");
  }
  if (!d.align) d.align = TS[typeOf(d.type)] * d.vec;
  return d;
}

inline void Module::globalVar(size_t& p, bool ext) {
  string sp = at(p++);
  Decl d = decl(p);
  if (sp == ".shared") {
    Sym s;
    s.k = S_SHARED;
    s.size = d.bytes();
    if (ext || d.open) {
      externShared.insert(d.name);
      externAlign = std::max<u32>(externAlign, d.align);
      s.off = ~0ull;
    } else {
      modSharedEnd = (modSharedEnd + d.align - 1) / d.align * d.align;
      s.off = modSharedEnd;
      modShared.push_back({modSharedEnd, (u32)s.size});
      modSharedEnd += s.size + 64;
    }
    gsyms[d.name] = s;
    need(p, ";");
    return;
  }
  GVar g;
  g.name = d.name;
  g.konst = sp == ".const";
  g.align = d.align;
  T ty = typeOf(d.type);
  int es = TS[ty];
  vector<u64> vals;
  if (at(p) == "=") {
    p++;
    int dep = 0;
    do {
      const string& s = at(p);
      if (s == "{") {
        dep++;
        p++;
      } else if (s == "}") {
        dep--;
        p++;
      } else if (s == ",")
        p++;
      else if (s == "-" || isNum(s)) {
        bool neg = s == "-";
        if (neg) p++;
        bool f;
        double dv = 0;
        u64 v = parseNum(at(p), f, dv);
        if (f && at(p).find('.') != string::npos && ty == TF32_) v = fbits((float)dv);
        p++;
        vals.push_back(neg ? 0 - v : v);
      } else
        bad(p, "unsupported initialiser");
    } while (dep > 0);
  }
  if (d.open) d.elems = vals.size();
  g.data.assign(std::max<u64>(d.bytes(), 1), 0);
  for (size_t i = 0; i < vals.size() && (i + 1) * es <= g.data.size(); i++) memcpy(&g.data[i * es], &vals[i], es);
  g.fake = ((u64)(gvars.size() + 1) << SLOT) + (1ull << (SLOT - 1));
  Sym s;
  s.k = S_GLOBAL;
  s.off = g.fake;
  s.size = g.data.size();
  gsyms[d.name] = s;
  gvars.push_back(std::move(g));
  need(p, ";");
}

inline vector<Param> Module::paramList(size_t& p) {
  vector<Param> r;
  need(p, "(");
  u32 off = 0;
  while (at(p) != ")") {
    if (at(p) == ",") {
      p++;
      continue;
    }
    if (at(p) != ".param") bad(p, "only .param parameters are supported");
    p++;
    Decl d = decl(p);
    u32 sz = (u32)d.bytes();
    off = (off + d.align - 1) / d.align * d.align;
    r.push_back({d.name, off, sz, (u32)d.align, d.arr ? "bytes" : d.type, d.ptr});
    off += sz;
  }
  p++;
  return r;
}

inline void Module::funcHeader(size_t& p) {
  Func f;
  f.entry = at(p) == ".entry";
  p++;
  if (!f.entry && at(p) == "(") f.rets = paramList(p);
  f.name = at(p++);
  if (at(p) == "(") f.params = paramList(p);
  while (at(p) != "{" && at(p) != ";") {  // .reqntid, .maxntid, .minnctapersm, .noreturn
    if (at(p) == ".reqnctapercluster") {
      u64 n = 1;
      p++;
      for (;;) {
        n *= numTok(p);
        if (at(p) != ",") break;
        p++;
      }
      if (n != 1) f.unsup = "clusters of more than one block are not supported";
      continue;
    }
    p++;
  }
  if (at(p) == "{") {
    f.hasBody = true;
    f.body0 = ++p;
    int dep = 1;
    while (dep) {
      if (p >= t.size()) bad(p, "unterminated body");
      if (at(p) == "{") dep++;
      if (at(p) == "}") dep--;
      p++;
    }
    f.body1 = p - 1;
  } else
    p++;
  auto it = fnIdx.find(f.name);
  if (it != fnIdx.end()) {
    if (f.hasBody) fns[it->second] = f;
  } else {
    fnIdx[f.name] = fns.size();
    fns.push_back(f);
  }
}
