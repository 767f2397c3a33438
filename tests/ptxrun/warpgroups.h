// wgmma: products of four warps from shared memory, asynchronous until waited for.
#pragma once

#include "bulk_copies.h"

// an instruction reads or writes registers that a wgmma uses
inline void Machine::touch(Block& B, Warp& w, const Ins& I, u32 m) {
  // compilers copy registers after the fence, which the assembler corrects (at a cost): noted, not refused
  bool mov = I.opname.compare(0, 3, "mov") == 0;
  for (u32 r : M.touched[I.touch]) {
    if (w.wgUse[r] && std::find(w.tcRegs.begin(), w.tcRegs.end(), r) != w.tcRegs.end()) {
      note(&I - code, "a register of a tcgen05.ld is used before tcgen05.wait::ld");
      continue;
    }  // compilers do; the assembler waits for it
    if (w.wgUse[r])
      fail(B, w, __builtin_ctz(m), I, "a register of a wgmma in flight is used before wgmma.wait_group has ended it");
    (mov ? w.wgMoved : w.wgDirty)[r] = w.wgEpoch;
  }
}

// 16-byte pieces of a matrix in shared memory.  K-major: piece 2 r + c of row r; MN-major: piece k (rows / T) + j of
// column k
inline void Machine::pieces(Block& B, Warp& w, const Ins& I, u64 d, int rows, bool mn, vector<u32>& out,
                            const char* name) {
  const int K = I.width, T = K / 2, sw = d >> 62 & 3;
  const u32 start = (d & 0x3fff) << 4, lbo = (d >> 16 & 0x3fff) << 4, sbo = (d >> 32 & 0x3fff) << 4,
            W = sw == 0   ? 16
                : sw == 1 ? 128
                : sw == 2 ? 64
                          : 32,
            msk = W / 16 - 1;
  if (d >> 49 & 7) fail(B, w, 0, I, fmt("wgmma descriptor of %s: a base offset is not supported", name));
  if (sw && start % (8 * W) >= W)
    fail(B, w, 0, I,
         fmt("wgmma descriptor of %s: start 0x%x is inside a swizzle pattern of %u bytes", name, start, 8 * W));
  auto add = [&](u32 a) {
    a = sw ? a ^ ((a >> 7 & msk) << 4) : a;
    if (a + 16 > L.shTotal || !L.valid[a] || !L.valid[a + 15])
      fail(B, w, 0, I,
           fmt("wgmma descriptor of %s (0x%llx) reaches outside shared memory: 0x%x, which ends at 0x%x", name,
               (unsigned long long)d, a, L.shTotal));
    if (B.mark[a >> 4] & FLYING)
      fail(B, w, 0, I,
           fmt("wgmma reads %s at 0x%x while a bulk copy into it is in flight: the phase of its mbarrier has not "
               "completed",
               name, a));
    if (B.mbBytes[a >> 3] | B.mbBytes[(a >> 3) + 1])
      fail(B, w, 0, I, fmt("wgmma descriptor of %s covers an mbarrier object", name));
    out.push_back(a);
  };
  if (!mn)
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < 2; c++) add(start + r % 8 * W + r / 8 * sbo + (sw ? c * 16 : c * lbo));
  else
    for (int k = 0; k < K; k++)
      for (int j = 0; j < rows / T; j++)
        add(start + k % 8 * W + (sw ? k / 8 * sbo + j % (W / 16) * 16 + j / (W / 16) * lbo : k / 8 * lbo + j * sbo));
}

inline void Machine::note(u32 pc, const char* s) {
  std::lock_guard<std::mutex> g(L.mu);
  auto& n = L.notes[pc];
  if (n.empty()) n = fmt("%s: line %d: %s", s, code[pc].line, code[pc].text.substr(0, 160).c_str());
}

inline void Machine::wgIssue(Block& B, Warp& w, const Ins& I, u32 pc, u32 s) {
  if (s != ~0u || nw < (w.id | 3) + 1) fail(B, w, __builtin_ctz(s), I, "wgmma without four whole warps");
  WgOp o;
  o.I = &I;
  o.pc = pc;
  o.group = w.wgGroup;
  o.done = false;
  o.da = o.db = 0;
  if (I.v2.empty()) memcpy(&o.da, w.R + I.a, 8);
  memcpy(&o.db, w.R + I.c, 8);
  u32 sd = pmask(w.R + I.e);
  if (I.cneg) sd = ~sd;
  o.sd = sd & 1;
  for (int l = 1; l < 32; l++)
    if ((I.v2.empty() && memcmp(w.R + I.a, w.R + I.a + 8 * l, 8)) || memcmp(w.R + I.c, w.R + I.c + 8 * l, 8) ||
        (sd >> l & 1) != o.sd)
      fail(B, w, l, I, "wgmma operands differ between lanes");
  auto& log = B.wgLog[w.id / 4];
  std::array<u64, 3> key{pc * 2ull + o.sd, o.da, o.db};
  if (w.wgSeq == log.size()) log.push_back(key);
  if (log[w.wgSeq++] != key)
    fail(B, w, 0, I, "the warps of a warpgroup execute different wgmma instructions or descriptors");
  for (auto* v : {&I.v, &I.v2})
    for (u32 r : *v)
      if (w.wgDirty[r / 32] == w.wgEpoch)
        fail(B, w, 0, I, "wgmma without a wgmma.fence after its registers were last used");
      else if (w.wgMoved[r / 32] == w.wgEpoch)
        note(pc, "registers of a wgmma are copied between wgmma.fence and the wgmma");
  for (u32 r : I.v2)
    for (auto& p : w.wg)
      for (u32 x : p.I->v)
        if (x == r) fail(B, w, 0, I, "wgmma reads A from the accumulator of a wgmma in flight");
  if (I.v2.empty()) pieces(B, w, I, o.da, 64, I.rmode & 2, o.ga, "A");
  pieces(B, w, I, o.db, I.imm, I.rmode & 4, o.gb, "B");
  for (auto* v : {&o.ga, &o.gb})
    for (u32 a : *v) {
      B.mark[a >> 4]++;
      if (L.race) asyncNote(B, w, a, 16, pc);
    }
  for (auto* v : {&I.v, &I.v2})
    for (u32 r : *v) w.wgUse[r / 32]++;
  if (L.seed && (rnd() & 1)) {
    bool first = true;
    for (auto& p : w.wg) first &= p.done;
    if (first) {
      wgDo(B, w, o);
      o.done = true;
    }
  }
  w.wg.push_back(std::move(o));  // in order
}

inline void Machine::wgWait(Block& B, Warp& w, const Ins& I) {
  size_t n = 0;
  for (; n < w.wg.size(); n++) {
    WgOp& o = w.wg[n];
    if (o.group >= w.wgGroup || w.wgGroup - o.group <= (u32)I.imm) break;
    if (!o.done) wgDo(B, w, o);
    for (auto* v : {&o.ga, &o.gb})
      for (u32 a : *v) {
        B.mark[a >> 4]--;
        if (L.race)
          for (u32 x = a; x < a + 16; x++) B.reads[(size_t)x * nw + w.id] = {w.vc[w.id], o.pc};
      }
    for (auto* v : {&o.I->v, &o.I->v2})
      for (u32 r : *v) w.wgUse[r / 32]--;
  }
  w.wg.erase(w.wg.begin(), w.wg.begin() + n);
}

inline float Machine::e4m3(u8 x) {
  int e = x >> 3 & 15, f = x & 7;
  float v = (x & 127) == 127 ? NAN : e ? std::ldexp(8.f + f, e - 10) : std::ldexp((float)f, -9);
  return x & 128 ? -v : v;
}

inline void Machine::wgDo(Block& B, Warp& w, const WgOp& o) {
  if (o.I->type == 2)
    wgRun<s32>(B, w, o);
  else
    wgRun<float>(B, w, o);
}
