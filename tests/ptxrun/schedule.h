// Which warp runs next, and what a deadlock reports.
#pragma once

#include "execute.h"

inline void Machine::work() {
  vector<std::pair<int, int>> cand;
  u64 reported = 0, rr = 0;
  bool more = true;
  for (;;) {
    if (L.stop) return;
    bool any = false;
    cand.clear();
    for (size_t i = 0; i < blocks.size(); i++) {
      Block& B = blocks[i];
      if (!B.used && more) {
        u32 k = L.next++;
        if (k < L.order.size())
          startBlock(B, L.order[k]);
        else
          more = false;
      }
      if (!B.used) continue;
      any = true;
      bool live = false, canRun = false;
      for (int k = 0; k < nw; k++) {
        Warp& w = B.w[k];
        if (!w.alive) continue;
        live = true;
        if (w.runnable()) {
          cand.push_back({(int)i, k});
          canRun = true;
        }
      }
      if (!live) {
        if (M.async) waitedFor(B), tcEnd(B);
        if (!B.fly.empty()) {
          auto& k = B.fly[0];
          fail(B, B.w[k.warp], k.lane, *k.I,
               "the block ends although a bulk copy into its shared memory has not been waited for");
        }
        B.used = false;
        i--;
        continue;
      }
      if (!canRun && !unstick(B)) deadlock(B);
    }
    if (!any) return;
    if (cand.empty()) continue;
    if (L.seed && M.async)
      for (auto& B : blocks)
        if (B.used && !B.tq.empty() && rnd() % 4 == 0) tcStep(B);
    if (L.seed && M.async)
      for (auto& B : blocks)
        if (B.used && !B.fly.empty() && rnd() % 4 == 0) {
          u32 k = rnd() % B.fly.size();
          if (!B.fly[k].late) complete(B, k);
        }
    auto c = cand[L.seed ? rnd() % cand.size() : rr % cand.size()];
    u64 q = L.seed ? 1 + ((1 + rnd() % 31) << (rnd() % 10)) : 1000000;
    Warp& w = blocks[c.first].w[c.second];
    u64 before = localSteps;
    run(blocks[c.first], w, q);
    rr = localSteps - before >= 1000000 ? rr + 1 : 0;
    u64 tot = L.steps += localSteps - reported;
    reported = localSteps;
    if (L.maxSteps && tot > L.maxSteps)
      throw Err(fmt("kernel %s: more than max_steps=%llu warp instructions (livelock?)", L.K->name.c_str(),
                    (unsigned long long)L.maxSteps));
  }
}

inline void Machine::deadlock(Block& B) {
  string s = fmt("deadlock in kernel %s, block (%u,%u,%u): no warp can go on", L.K->name.c_str(), B.cta[0], B.cta[1],
                 B.cta[2]);
  int n = 0;
  for (auto& w : B.w) {
    if (!w.alive || n++ > 6) continue;
    std::map<std::pair<u32, int>, u32> g;
    LANES(w.alive)
    g[{w.pc[l], (w.inbar >> l & 1) ? 1 : (w.inws >> l & 1) ? 2 : (w.inmb >> l & 1) ? 3 : 0}] |= 1u << l;
    for (auto& x : g)
      s += fmt("\n  warp %d lanes %08x %s line %d: %s", w.id, x.second,
               x.first.second == 1   ? "in a block barrier"
               : x.first.second == 2 ? "in a warp barrier"
               : x.first.second == 3 ? mbText(B, w.mbAddr[__builtin_ctz(x.second)]).c_str()
                                     : "waiting for other lanes of the warp (divergent .sync/.aligned instruction)",
               code[x.first.first].line, code[x.first.first].text.substr(0, 160).c_str());
  }
  throw Err(s);
}
