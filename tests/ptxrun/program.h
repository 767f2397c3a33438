// A PTX module: its instructions, functions and variables, and the class that reads them from text.
#pragma once

#include "types.h"

enum Kind : u8 {
  ALU,
  MULTI,
  SETP,
  BRA,
  RET,
  EXIT_,
  TRAP_,
  LD,
  ST,
  ATOM,
  BAR,
  WARPSYNC,
  SHFL,
  VOTE,
  MATCH,
  REDUX,
  ACTIVE,
  MMA,
  LDMAT,
  STMAT,
  CPASYNC,
  CPCOMMIT,
  CPWAIT,
  PACK,
  UNPACK,
  CALL,
  BRX,
  CARRY,
  CLOCK,
  CVTA,
  ISSPACE,
  NOP_,
  ELECT,
  UNSUP,
  WGMMA,
  WGFENCE,
  WGCOMMIT,
  WGWAIT,
  MBAR,
  MBWAIT,
  TMALOAD,
  TMASTORE,
  BULKCOMMIT,
  BULKWAIT,
  CPMBAR,
  TMREPL,
  TMCOPY,
  PFENCE,
  TFENCE,
  CLARRIVE,
  CLWAIT,
  MAPA,
  TCALLOC,
  TCDEALLOC,
  TCMMA,
  TCCOMMIT,
  TCLD,
  TCST,
  TCWAIT
};
enum Space : u8 { GENERIC, GLOBAL, SHARED, LOCAL, PARAM, CONST_ };
static const u64 W_SHARED = 1ull << 60, W_LOCAL = 1ull << 61, W_PARAM = 1ull << 59;  // generic windows
static const u64 DYN_MARK =
    (1ull << 62) + (1ull << 50);  // stands for the start of dynamic shared memory until load() ends
static const int SLOT = 36;       // one registered buffer per 64 GiB slot: no two buffers are neighbours
struct Adr {
  u32 reg = 0;
  u8 aw = 0;
  s64 imm = 0;
};
struct AsyncInfo {
  Adr dst, src, bar;
  vector<u32> coord;
  bool tensor = false;
  int red = -1;
  T redType = NOTYPE;
};  // operands of the bulk copies
enum MbOp : u8 { MB_INIT, MB_INVAL, MB_EXPECT, MB_COMPLETE, MB_ARRIVE, MB_DROP, MB_PENDING };
struct CallInfo {
  int fn = -1;
  vector<std::array<u32, 3>> in, out;
};  // {caller offset, callee offset, size}
struct Ins {
  Kind kind = ALU;
  Space space = GENERIC;
  u8 gneg = 0, dw = 4, rmode = 0, width = 0, vec = 1, op = 0, type = 0, flag = 0, aw = 8, cneg = 0, q = 0, addrw = 8;
  int guard = -1;
  Alu fn = nullptr, pre = nullptr, post = nullptr, ext = nullptr;
  u32 d = 0, a = 0, b = 0, c = 0, e = 0, d2 = 0, tgt = 0;
  s64 imm = 0, imm2 = 0;
  vector<u32> v, v2, v3;
  vector<u8> vw;
  std::shared_ptr<CallInfo> call;
  std::shared_ptr<AsyncInfo> as;
  vector<u32> table;
  u32 touch = 0;
  int line = 0;
  string text, opname, why;
};
enum AOp : u8 { A_ADD, A_MIN, A_MAX, A_INC, A_DEC, A_AND, A_OR, A_XOR, A_EXCH, A_CAS };
enum SK { S_REG, S_SHARED, S_LOCAL, S_EPARAM, S_FPARAM, S_GLOBAL, S_LABELS, S_PROTO };
struct Sym {
  SK k;
  u64 off = 0;
  u8 w = 0;
  bool pred = false;
  u64 size = 0;
  vector<string> labels;
};
struct Param {
  string name;
  u32 off, size, align;
  string type;
  bool ptr;
};
struct GVar {
  string name;
  vector<u8> data;
  bool konst;
  u64 fake;
  u64 align;
};
struct Tok {
  string s;
  int line;
  size_t pos, end;
};
struct Func {
  string name;
  bool entry;
  vector<Param> params, rets;
  size_t body0 = 0, body1 = 0;
  bool hasBody = false;
  u32 pc = 0, pcEnd = 0, regEnd = 0, locEnd = 0, shEnd = 0, paramBytes = 0;
  vector<std::pair<u32, vector<u8>>> consts;
  vector<std::pair<u32, u32>> shvars;
  vector<u32> preds;
  string unsup;
  std::map<string, Sym> psyms;
  string target;
};
enum SR {
  R_TIDX,
  R_TIDY,
  R_TIDZ,
  R_NTIDX,
  R_NTIDY,
  R_NTIDZ,
  R_CTAX,
  R_CTAY,
  R_CTAZ,
  R_NCTAX,
  R_NCTAY,
  R_NCTAZ,
  R_LANE,
  R_WARP,
  R_NWARP,
  R_MEQ,
  R_MLE,
  R_MLT,
  R_MGE,
  R_MGT,
  R_DYN,
  R_TOT,
  R_ZERO,
  R_SINK,
  R_SINK2,
  R_CC,
  R_COUNT
};
static const char* SRN[] = {"%tid.x",          "%tid.y",       "%tid.z",
                            "%ntid.x",         "%ntid.y",      "%ntid.z",
                            "%ctaid.x",        "%ctaid.y",     "%ctaid.z",
                            "%nctaid.x",       "%nctaid.y",    "%nctaid.z",
                            "%laneid",         "%warpid",      "%nwarpid",
                            "%lanemask_eq",    "%lanemask_le", "%lanemask_lt",
                            "%lanemask_ge",    "%lanemask_gt", "%dynamic_smem_size",
                            "%total_smem_size"};
static const u32 SPEC_END = R_COUNT * 128 + 128;
struct Opnd {
  char k = 0; /*R I S V M L*/
  u32 off = 0;
  u8 w = 0;
  bool pred = false, neg = false, isf = false, special = false, symaddr = false;
  u64 imm = 0;
  double dv = 0;
  string name;
  vector<Opnd> v;
  std::shared_ptr<Opnd> base, second;
  Sym* sym = nullptr;
};

struct Module {
  string text;
  vector<Tok> t;
  vector<Func> fns;
  std::map<string, int> fnIdx;
  vector<GVar> gvars;
  vector<Ins> code;
  std::map<string, Sym> gsyms;
  bool async = false;
  vector<vector<u32>> touched{
      {}};  // Ins::touch -> the wgmma operand registers it reads or writes, in units of 32 bytes
  u32 fnRegEnd = SPEC_END, fnLocEnd = 0, modSharedEnd = 0;
  vector<std::pair<u32, u32>> modShared;
  std::set<string> externShared;
  u32 externAlign = 16, dynBase = 0;
  void lex(const string& src);
  [[noreturn]] void bad(size_t p, const string& m);
  const string& at(size_t p);
  void need(size_t& p, const char* s);
  static bool isNum(const string& s) { return !s.empty() && isdigit((u8)s[0]); }
  static u64 parseNum(const string& s, bool& isf, double& dv);
  u64 numTok(size_t& p);
  void load(const string& src);
  void markTouched(const Func& f);
  void topLevel(size_t& p);
  // [.align N] [.ptr ...] .type name [dims]  -> name, element type, count, align
  struct Decl {
    string name, type;
    u64 elems = 1, align = 0;
    bool arr = false, ptr = false, open = false;
    int vec = 1;
    u64 bytes() { return elems * TS[typeOf(type)] * vec; }
  };
  Decl decl(size_t& p);
  void globalVar(size_t& p, bool ext);
  vector<Param> paramList(size_t& p);
  void funcHeader(size_t& p);
  // ---- function bodies
  Func* F = nullptr;
  vector<std::map<string, Sym>> scopes;
  u32 regTop = 0, locTop = 0, shTop = 0;
  std::map<std::pair<u64, int>, u32> constIdx;
  struct Fix {
    u32 pc;
    string label;
    size_t tok;
    vector<int> path;
    bool table;
    int idx;
  };
  vector<Fix> fixes;
  std::map<string, vector<std::pair<int, u32>>> labelAt;
  vector<int> curPath;
  int scopeId = 0;
  u32 slot(u32 bytes);
  u32 konst(u64 v, int w);
  Sym* find(const string& n);
  void body(Func& f);
  void stmt(size_t& p, size_t end);
  Opnd operand(size_t& p);
  u64 symAddr(const Opnd& o);
  u32 src(const Opnd& o, int w, T ty = NOTYPE);
  struct EC {
    Func* f;
    size_t idx;
    int w;
    u64 add;
  };
  vector<EC> externConst;  // dynamic shared memory starts after all static variables; patched in load()
  u32 dst(const Opnd& o, int w);
  u32 predSrc(const Opnd& o, u8* neg);
  // ------------------------------------------------------------------ 3. decoder
  vector<string> m;  // modifiers not yet consumed: anything left over is an error
  bool take(const char* s);
  T ty();
  int takeRound();
  int takeOne(std::initializer_list<const char*> l);
  void takeCache(bool& hint);
  bool takeSem();
  Space takeSpace();
  void mem(const Opnd& o, Space sp, u32& reg, u8& aw, s64& imm);
  void nops(const vector<Opnd>& o, size_t lo, size_t hi) {
    if (o.size() < lo || o.size() > hi) throw Err(fmt("%zu operands", o.size()));
  }
  void emit(Ins& I);
  void alu(Ins& I, Alu f, const vector<Opnd>& o, T td, std::initializer_list<std::pair<int, T>> srcs);
  void regs(const Opnd& o, bool isDst, int w, bool wider, vector<u32>& v, vector<u8>* vw);
  void decode(Ins I, vector<Opnd>& o, size_t tok);
  bool decodeFloat(Ins& I, vector<Opnd>& o, size_t tok, const string& op);
  bool decodeBits(Ins& I, vector<Opnd>& o, size_t tok, const string& op);
  bool decodeMemory(Ins& I, vector<Opnd>& o, size_t tok, const string& op);
  bool decodeOther(Ins& I, vector<Opnd>& o, size_t tok, const string& op);
  void chkFtz(T t, bool z) {
    if (z && t != TF32_ && t != TF16 && t != TF16X2 && t != TBF16 && t != TBF16X2) throw Err("ftz");
  }  // ftz on half types: subnormals are kept (documented gap)
  void fltMods(Ins& I, T t);
  template <template <class> class G>
  static Alu wideFn(T t) {
    switch (t) {
      case U16:
        return G<u16>::f;
      case S16:
        return G<s16>::f;
      case U32:
        return G<u32>::f;
      case S32:
        return G<s32>::f;
      default:
        return nullptr;
    }
  }
  static T wideT(T t) { return t == U16 ? U32 : t == S16 ? S32 : t == U32 ? U64 : S64; }
  void setp(Ins& I, vector<Opnd>& o, bool set);
  void mov(Ins& I, vector<Opnd>& o);
  static T unsT(int w) { return w == 1 ? U8 : w == 2 ? U16 : w == 4 ? U32 : U64; }
  void cvt(Ins& I, vector<Opnd>& o);
  void mma(Ins& I, vector<Opnd>& o);
  // ---- sm_90: warpgroup products, mbarriers, bulk copies
  void adr(const Opnd& o, Space sp, Adr& a) { mem(o, sp, a.reg, a.aw, a.imm); }
  void wgmma(Ins& I, vector<Opnd>& o);
  void mbarrier(Ins& I, vector<Opnd>& o);
  void bulk(Ins& I, vector<Opnd>& o, bool red);
  void tensormap(Ins& I, vector<Opnd>& o);
  void tcgen05(Ins& I, vector<Opnd>& o);
  void callDecode(Ins& I, vector<Opnd>& o);
  vector<std::pair<u32, int>> calls;
};
