// Runs PTX kernels on the CPU, warp by warp, every memory access checked: the interface that ptxrun.py calls.
#include "decode_arithmetic.h"
#include "decode_async.h"
#include "decode_memory.h"
#include "decode_moves.h"
#include "parse.h"
#include "schedule.h"

static string jstr(const string& s) {
  string r = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') {
      r += '\\';
      r += c;
    } else if (c == '\n')
      r += "\\n";
    else if ((u8)c < 32)
      r += ' ';
    else
      r += c;
  }
  return r + "\"";
}
static char* dup(const string& s) {
  char* p = (char*)malloc(s.size() + 1);
  memcpy(p, s.c_str(), s.size() + 1);
  return p;
}
struct CBuf {
  u8* host;
  u64 size;
  u32 misalign, writable;
};
extern "C" {
void ptx_free(char* p) {
  free(p);
}
Module* ptx_load(const char* text, char** err) {
  auto* m = new Module;
  try {
    m->load(text);
    return m;
  } catch (std::exception& e) {
    *err = dup(e.what());
    delete m;
    return nullptr;
  }
}
void ptx_unload(Module* m) {
  delete m;
}
char* ptx_info(Module* m) {
  string s = "{\"entries\":{";
  bool first = true;
  for (auto& f : m->fns)
    if (f.entry && f.hasBody) {
      s += (first ? "" : ",") + jstr(f.name) + ":{\"params\":[";
      first = false;
      for (size_t i = 0; i < f.params.size(); i++) {
        auto& p = f.params[i];
        s += fmt("%s[%u,%u,%u,\"%s\",%d]", i ? "," : "", p.off, p.size, p.align, p.type.c_str(), (int)p.ptr);
      }
      s += fmt("],\"bytes\":%u,\"static_shared\":%u,\"unsupported\":", f.paramBytes, f.shEnd) + jstr(f.unsup) + "}";
    }
  s += "},\"globals\":{";
  for (size_t i = 0; i < m->gvars.size(); i++)
    s += (i ? "," : "") + jstr(m->gvars[i].name) + fmt(":%zu", m->gvars[i].data.size());
  return dup(s + fmt("},\"nglobals\":%zu,\"slot\":%d}", m->gvars.size(), SLOT));
}
u8* ptx_global(Module* m, const char* name) {
  for (auto& g : m->gvars)
    if (g.name == name) return g.data.data();
  return nullptr;
}
// buffer k gets the address ((nglobals + k + 1) << SLOT) + half a slot + misalign
char* ptx_launch(Module* m, const char* name, const u32* grid, const u32* block, int nbuf, const CBuf* bufs,
                 const u8* params, u32 nparams, u32 dynShared, u64 seed, int race, int threads, int resident,
                 u64 maxSteps, char** err) {
  try {
    auto it = m->fnIdx.find(name);
    if (it == m->fnIdx.end() || !m->fns[it->second].entry || !m->fns[it->second].hasBody)
      throw Err(string("no kernel named ") + name);
    Launch L;
    L.M = m;
    L.K = &m->fns[it->second];
    if (!L.K->unsup.empty()) throw Err("kernel " + L.K->name + ": " + L.K->unsup);
    u64 nb = 1;
    for (int i = 0; i < 3; i++) {
      L.grid[i] = grid[i];
      L.block[i] = block[i];
      nb *= grid[i];
    }
    u64 nt = (u64)block[0] * block[1] * block[2];
    if (!nt || nt > 1024) throw Err("block size must be 1..1024");
    if (nb > 1u << 30) throw Err("grid too large");
    for (auto& g : m->gvars)
      L.bufs.push_back({g.data.data(), g.fake, g.data.size(), !g.konst, "module variable " + g.name});
    for (int i = 0; i < nbuf; i++)
      L.bufs.push_back({bufs[i].host, ((u64)(L.bufs.size() + 1) << SLOT) + (1ull << (SLOT - 1)) + bufs[i].misalign,
                        bufs[i].size, bufs[i].writable != 0, fmt("buffer argument #%d", i)});
    L.params.assign(params, params + nparams);
    L.dynBytes = dynShared;
    L.shTotal = m->dynBase + dynShared;
    L.valid.assign(L.shTotal + 64, 0);
    for (auto* v : {&m->modShared, &L.K->shvars})
      for (auto& x : *v)
        for (u32 i = 0; i < x.second && x.first + i < L.shTotal; i++) L.valid[x.first + i] = 1;
    for (u32 i = m->dynBase; i < L.shTotal; i++) L.valid[i] = 1;
    L.regBytes = std::max(L.K->regEnd, m->fnRegEnd) + 256;
    L.locBytes = std::max(L.K->locEnd, m->fnLocEnd);
    L.image.assign(L.regBytes, 0xFF);  // registers start as poison
    memset(L.image.data(), 0, SPEC_END);
    for (auto& f : m->fns)
      if (f.hasBody && (!f.entry || &f == L.K)) {
        for (u32 x : f.preds) memset(&L.image[x], seed & 1, 32);
        for (auto& c : f.consts) memcpy(&L.image[c.first], c.second.data(), c.second.size());
      }
    L.seed = seed;
    L.race = race;
    L.maxSteps = maxSteps;
    L.nthreads = std::max(1, threads);
    L.resident = std::max(1, resident);
    L.order.resize(nb);
    for (u64 i = 0; i < nb; i++) L.order[i] = i;
    if (seed) {
      u64 r = seed * 6364136223846793005ull + 1442695040888963407ull;
      for (u64 i = nb; i > 1; i--) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(L.order[i - 1], L.order[(r >> 33) % i]);
      }
    }
    vector<std::unique_ptr<Machine>> ms;
    for (int i = 0; i < L.nthreads; i++) ms.emplace_back(new Machine(L, seed * 977 + i + 1));
    auto job = [&](int i) {
      int old = fegetround();
      fesetround(FE_TONEAREST);
      try {
        ms[i]->work();
      } catch (std::exception& e) {
        std::lock_guard<std::mutex> g(L.mu);
        if (L.error.empty()) L.error = e.what();
        L.stop = true;
      }
      fesetround(old);
    };
    if (L.nthreads == 1)
      job(0);
    else {
      vector<std::thread> th;
      for (int i = 0; i < L.nthreads; i++) th.emplace_back(job, i);
      for (auto& x : th) x.join();
    }
    if (!L.error.empty()) {
      for (auto& x : L.races) L.error += "\nbefore that: " + x.second;
      throw Err(L.error);
    }
    size_t n = m->code.size();
    std::map<string, std::pair<u64, u64>> ops;
    std::map<string, u64> by[6];
    u64 tw = 0, tl = 0, sec[2] = {0, 0};
    for (size_t p = 0; p < n; p++) {
      u64 w = 0, l = 0, g = 0, s = 0, se = 0;
      for (auto& q : ms) {
        w += q->wc[p];
        l += q->lc[p];
        g += q->gb[p];
        s += q->sl[p];
        se += q->sec[p];
      }
      if (!w) continue;
      const Ins& I = m->code[p];
      ops[I.opname].first += w;
      ops[I.opname].second += l;
      tw += w;
      tl += l;
      int k = I.kind == ATOM ? 2 : I.kind == ST || I.kind == STMAT || I.kind == TMASTORE ? 1 : 0;
      string wd = std::to_string((int)I.width * (I.kind == LDMAT || I.kind == STMAT ? 1 : I.vec));
      if (g) {
        by[k][wd] += g;
        sec[k == 0 ? 0 : 1] += se;
      }
      if (I.kind == CPASYNC)
        by[4][wd] += s * I.width;
      else if (s)
        by[3 + k][wd] += s * I.width * (I.kind == LDMAT || I.kind == STMAT ? 1 : I.vec);
    }
    string r =
        fmt("{\"warp_instructions\":%llu,\"lane_instructions\":%llu,\"global_load_sectors\":%llu,\"global_store_"
            "sectors\":%llu",
            (unsigned long long)tw, (unsigned long long)tl, (unsigned long long)sec[0], (unsigned long long)sec[1]);
    r += ",\"opcodes\":{";
    bool f = true;
    for (auto& x : ops) {
      r += (f ? "" : ",") + jstr(x.first) +
           fmt(":[%llu,%llu]", (unsigned long long)x.second.first, (unsigned long long)x.second.second);
      f = false;
    }
    r += "}";
    static const char* nm[] = {"global_load_bytes", "global_store_bytes", "global_atomic_bytes",
                               "shared_load_bytes", "shared_store_bytes", "shared_atomic_bytes"};
    for (int k = 0; k < 6; k++) {
      r += string(",\"") + nm[k] + "\":{";
      f = true;
      for (auto& x : by[k]) {
        r += (f ? "\"" : ",\"") + x.first + fmt("\":%llu", (unsigned long long)x.second);
        f = false;
      }
      r += "}";
    }
    r += ",\"races\":[";
    f = true;
    for (auto& x : L.races) {
      r += (f ? "" : ",") + jstr(x.second);
      f = false;
    }
    r += "],\"notes\":[";
    f = true;
    for (auto& x : L.notes) {
      r += (f ? "" : ",") + jstr(x.second);
      f = false;
    }
    return dup(r + "]}");
  } catch (std::exception& e) {
    *err = dup(e.what());
    return nullptr;
  }
}
}
