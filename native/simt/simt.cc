// simt_rt.cpp - scheduler, shadow memory, async copies. x86-64 switch (ucontext elsewhere).
#include "simt.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <cstdio>
#include <cstdarg>
#include <vector>
#include <map>
#include <thread>
#include <mutex>
#include <atomic>
#include <algorithm>
#include <sys/mman.h>
#if SIMT_ASAN
extern "C" { void __sanitizer_start_switch_fiber(void**, const void*, size_t); void __sanitizer_finish_switch_fiber(void*, const void**, size_t*); }
#endif
#if SIMT_TSAN
extern "C" { void* __tsan_get_current_fiber(); void* __tsan_create_fiber(unsigned); void __tsan_destroy_fiber(void*); void __tsan_switch_to_fiber(void*, unsigned); void __tsan_acquire(void*); void __tsan_release(void*);
 void __tsan_read_range(void*, unsigned long); void __tsan_write_range(void*, unsigned long);}
#endif
extern "C" void simt_switch(void** save, void* to);
asm(R"(
.text
.globl simt_switch
.type simt_switch,@function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch,.-simt_switch
)");

namespace simt {
thread_local Thread* cur __attribute__((tls_model("initial-exec"))) = nullptr;
Options opt; Stats stats;
static std::mutex rep_mu;

struct Pending { uint8_t* dst; const uint8_t* src; uint16_t bytes, valid; const char* f; int l; };
struct ThreadAsync { static constexpr uint32_t CAP = 256; Pending q[CAP]; uint32_t h = 0, t = 0, gend[16], gh = 0, gt = 0; };  // ring of copies, ring of committed group ends
struct Warp { uint32_t runnable, arrived, mask, site, alive; uint32_t sync_count; void* args[32]; LeaderFn fn; char tok; };
// one shadow cell per 2 bytes of shared memory
struct Cell { uint32_t wep, rep; uint16_t wtid, rtid; uint16_t wsync, rsync; uint16_t rtid2; uint16_t rsync2; uint16_t wline, rline; uint32_t inflight; };
struct Block {
  BlockView v;
  std::vector<Thread> th; std::vector<Warp> warps; std::vector<ThreadAsync> as;
  uint32_t nthreads = 0, alive = 0, bar_arrived = 0, bar_site = 0; uint32_t epoch = 1;
  std::vector<Cell> shadow; void* main_sp = nullptr; void* main_tsan = nullptr; void* main_fake = nullptr; const void* main_stack = nullptr; size_t main_size = 0;
  uint64_t rng = 1; const std::function<void()>* body = nullptr; const char* name = ""; char bartok[2]; uint64_t errors = 0;
  uint64_t nsw = 0, ncol = 0, nbar = 0;
  struct Bulk { void (*op)(const BulkArg&); BulkArg arg; uint64_t* bar; uint32_t bytes; }; std::vector<Bulk> bulk; std::vector<uint32_t> sleep;
  struct WG { uint32_t n = 0, site = 0; void* args[128]; }; std::vector<WG> wg;
};
static thread_local Block* blk __attribute__((tls_model("initial-exec"))) = nullptr;
BlockView& bv() { return blk->v; }

static inline uint64_t rnd(uint64_t& s) { s ^= s << 13; s ^= s >> 7; s ^= s << 17; return s; }
void report(const char* kind, const char* fmt, ...) {
  std::lock_guard<std::mutex> g(rep_mu);
  uint64_t n = stats.errors++;
  if (n < (uint64_t)opt.max_reports) {
    fprintf(stderr, "  [simt:%s] kernel %s block(%u,%u,%u) thread %d: ", kind, blk ? blk->name : "?", blk ? blk->v.bid.x : 0, blk ? blk->v.bid.y : 0, blk ? blk->v.bid.z : 0, cur ? cur->lin : -1);
    va_list a; va_start(a, fmt); vfprintf(stderr, fmt, a); va_end(a); fputc('\n', stderr);
  }
  if (opt.abort_on_error) abort();
}

#ifndef SIMT_STACK
#define SIMT_STACK (64 * 1024)
#endif
static thread_local std::vector<void*> stack_pool;
static void* fresh(size_t n) { void* p = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); if (p == MAP_FAILED) { perror("mmap"); abort(); } return p; }
static char grid_tok;
static void* get_stack() {
  if (!stack_pool.empty()) { void* s = stack_pool.back(); stack_pool.pop_back(); return s; }
  void* p = mmap(nullptr, SIMT_STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  mprotect(p, 4096, PROT_NONE);  // guard page: stack overflow faults instead of corrupting a neighbour
  return (char*)p + 4096;
}

static inline void jump(void** save, Thread* to) {
  blk->nsw++;
#if SIMT_ASAN
  Thread* me = cur;
  __sanitizer_start_switch_fiber(me ? (me->done ? nullptr : &me->fake) : &blk->main_fake, to ? to->stack : blk->main_stack, to ? SIMT_STACK : blk->main_size);
#endif
#if SIMT_TSAN
  __tsan_switch_to_fiber(to ? to->tsan : blk->main_tsan, 1 /* no sync */);
#endif
  cur = to;
  simt_switch(save, to ? to->sp : blk->main_sp);
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(cur ? cur->fake : blk->main_fake, cur ? nullptr : &blk->main_stack, cur ? nullptr : &blk->main_size);
#endif
}
#if SIMT_TSAN
extern "C" { void AnnotateIgnoreReadsBegin(const char*, int); void AnnotateIgnoreReadsEnd(const char*, int); void AnnotateIgnoreWritesBegin(const char*, int); void AnnotateIgnoreWritesEnd(const char*, int); }
struct Quiet { Quiet() { AnnotateIgnoreReadsBegin("", 0); AnnotateIgnoreWritesBegin("", 0); } ~Quiet() { AnnotateIgnoreWritesEnd("", 0); AnnotateIgnoreReadsEnd("", 0); } };   // libc interceptors fire even in un-instrumented code
#else
struct Quiet { ~Quiet() {} };
#endif
// ---- mbarrier packed in its own 8 bytes: [phase:1][expected:15][pending:15][tx:32 signed]
struct MB { int32_t tx; uint32_t pending : 15, expected : 15, phase : 1, init : 1; };
static_assert(sizeof(MB) == 8, "");
static void wake_all() { Block& b = *blk; for (size_t i = 0; i < b.warps.size(); i++) { b.warps[i].runnable |= b.sleep[i]; b.sleep[i] = 0; } }
static void mb_check(MB& m) { if (m.pending == 0 && m.tx == 0) { m.phase ^= 1; m.pending = m.expected; wake_all(); } }
static bool run_bulk(size_t i) { Quiet q_; Block& b = *blk; if (b.bulk.empty()) return false; auto x = b.bulk[i]; b.bulk.erase(b.bulk.begin() + i); x.op(x.arg); MB& m = *(MB*)x.bar; m.tx -= x.bytes; mb_check(m); return true; }
static Thread* pick_(Thread* me);
static Thread* pick(Thread* me) {
  Block& b = *blk;
  if (!b.bulk.empty() && opt.async_copy == Async::Random && (rnd(b.rng) & 3) == 0) run_bulk(rnd(b.rng) % b.bulk.size());
  for (;;) { Thread* t = pick_(me); if (t || b.bulk.empty()) return t; run_bulk(opt.async_copy == Async::Random ? rnd(b.rng) % b.bulk.size() : 0); }
}
static Thread* pick_(Thread* me) {
  Block& b = *blk; unsigned nw = b.warps.size();
  if (opt.order == Order::Random) {
    unsigned w0 = rnd(b.rng) % nw;
    // keep 3 of 4 picks inside the current warp: mixes deep and shallow interleavings
    if (me && (rnd(b.rng) & 3) && b.warps[me->warp].runnable) w0 = me->warp;
    for (unsigned i = 0; i < nw; i++) { Warp& w = b.warps[(w0 + i) % nw]; if (w.runnable) {
      unsigned n = __builtin_popcount(w.runnable), k = rnd(b.rng) % n; uint32_t m = w.runnable; while (k--) m &= m - 1;
      return &b.th[((w0 + i) % nw) * 32 + __builtin_ctz(m)]; } }
    return nullptr;
  }
  bool rev = opt.order == Order::Reverse;
  unsigned w0 = me ? me->warp : 0;
  for (unsigned i = 0; i < nw; i++) {
    unsigned wi = rev ? (w0 + nw - i) % nw : (w0 + i) % nw; Warp& w = b.warps[wi];
    if (w.runnable) return &b.th[wi * 32 + (rev ? 31 - __builtin_clz(w.runnable) : __builtin_ctz(w.runnable))];
  }
  return nullptr;
}
static void deadlock() {
  Block& b = *blk; fprintf(stderr, "  [simt:deadlock] kernel %s block(%u,%u,%u): bar arrived %u of %u alive", b.name, b.v.bid.x, b.v.bid.y, b.v.bid.z, b.bar_arrived, b.alive);
  for (size_t i = 0; i < b.warps.size(); i++) if (b.warps[i].arrived) fprintf(stderr, "; warp %zu waits in collective line %u mask %08x arrived %08x", i, b.warps[i].site, b.warps[i].mask, b.warps[i].arrived);
  fprintf(stderr, "; lines:"); for (unsigned i = 0; i < b.nthreads; i += 32) fprintf(stderr, " w%u@%u", i / 32, b.th[i].site);
  fputc('\n', stderr); exit(3);
}
static void yield_() { Thread* me = cur; Thread* n = pick(me); if (!n) deadlock(); jump(&me->sp, n); }
static void release_barrier() {
  Block& b = *blk; b.bar_arrived = 0; b.epoch++; b.nbar++;
  for (auto& w : b.warps) w.runnable = w.alive;
}
void syncthreads(uint32_t site) {
  Block& b = *blk; Thread* me = cur; Warp& w = *me->w;
  if (b.bar_arrived == 0) b.bar_site = site;
  else if (b.bar_site != site) report("synccheck", "__syncthreads at line %u while others wait at line %u", site, b.bar_site);
  me->site = site;
#if SIMT_TSAN
  char* tok = &b.bartok[b.epoch & 1]; __tsan_release(tok);
#endif
  if (++b.bar_arrived == b.alive) { release_barrier(); }
  else { w.runnable &= ~(1u << me->lane); yield_(); }
#if SIMT_TSAN
  __tsan_acquire(tok);
#endif
}
void collective(uint32_t mask, uint32_t site, void* arg, LeaderFn fn) {
  Thread* me = cur; Warp& w = *me->w; uint32_t bit = 1u << me->lane;
  if (!(mask & bit)) report("collective", "lane %d not in its own mask %08x (line %u)", me->lane, mask, site);
  if (w.arrived == 0) { w.mask = mask; w.site = site; w.fn = fn; }
  else if (w.site != site || w.mask != mask || w.fn != fn) report("collective", "divergent warp collective: line %u mask %08x vs line %u mask %08x", site, mask, w.site, w.mask);
  w.args[me->lane] = arg; w.arrived |= bit; me->site = site;
  if (w.mask & ~w.alive) report("collective", "mask %08x names exited lanes (alive %08x), line %u", mask, w.alive, site);
  if ((w.arrived & w.mask) == (w.mask & w.alive)) {
    uint32_t m = w.mask; w.arrived = 0; blk->ncol++;
    if (fn) fn(w.args, m & w.alive);
    w.runnable |= m & w.alive;
  } else { w.runnable &= ~bit; yield_(); }
}
void syncwarp(uint32_t mask, uint32_t site) {
#if SIMT_TSAN
  Warp& w = *cur->w; __tsan_release(&w.tok);
#endif
  collective(mask, site, nullptr, [](void**, uint32_t) { cur->w->sync_count++; });
#if SIMT_TSAN
  __tsan_acquire(&w.tok);
#endif
}
void mbar_init(uint64_t* b, uint32_t count) { MB m{}; m.pending = m.expected = count; m.init = 1; memcpy(b, &m, 8); }
void mbar_arrive(uint64_t* b, uint32_t tx) {
#if SIMT_TSAN
  __tsan_release(b);
#endif
  MB& m = *(MB*)b; if (!m.init || m.expected == 0 || m.expected == 0x7fff) report("mbarrier", "arrive on an uninitialised barrier"); if (!m.pending) report("mbarrier", "more arrivals than the barrier expects"); m.tx += tx; m.pending--; mb_check(m); }
void mbar_wait(uint64_t* b, uint32_t parity, int line) { MB& m = *(MB*)b; Thread* me = cur; me->site = line; while ((uint32_t)m.phase == (parity & 1)) { blk->warps[me->warp].runnable &= ~(1u << me->lane); blk->sleep[me->warp] |= 1u << me->lane; yield_(); }
#if SIMT_TSAN
  __tsan_acquire(b);
#endif
}
void bulk_issue(void (*op)(const BulkArg&), const BulkArg& arg, uint64_t* bar, uint32_t bytes) {
#if SIMT_TSAN
  __tsan_release(bar);
#endif
  Quiet q_; Block& b = *blk; b.bulk.reserve(64); b.bulk.push_back({op, arg, bar, bytes}); if (opt.async_copy == Async::Early) run_bulk(b.bulk.size() - 1); }
void collective_wg(uint32_t site, void* arg, LeaderFn fn) {
  Block& b = *blk; Thread* me = cur; auto& g = b.wg[me->lin / 128]; if (g.n == 0) g.site = site; else if (g.site != site) report("warpgroup", "divergent warpgroup op: line %u vs %u", site, g.site);
#if SIMT_TSAN
  __tsan_release(&g);
#endif
  g.args[me->lin % 128] = arg; me->site = site; unsigned w0 = me->lin / 128 * 4;
  if (++g.n == 128) { g.n = 0; b.ncol++; fn(g.args, 0xffffffffu); for (unsigned i = 0; i < 4; i++) b.warps[w0 + i].runnable |= b.warps[w0 + i].alive & ~b.sleep[w0 + i]; }
  else { me->w->runnable &= ~(1u << me->lane); yield_(); }
#if SIMT_TSAN
  __tsan_acquire(&g);
#endif
}
static void exit_thread() {
  Block& b = *blk; Thread* me = cur; Warp& w = *me->w; uint32_t bit = 1u << me->lane;
  if (b.as[me->lin].h != b.as[me->lin].t) { report("cp.async", "thread exits with un-waited copies"); b.as[me->lin].h = b.as[me->lin].t; }
  b.as[me->lin].gh = b.as[me->lin].gt;
#if SIMT_TSAN
  __tsan_release(&grid_tok);
#endif
  me->done = true; w.runnable &= ~bit; w.alive &= ~bit; b.alive--;
  if (b.alive && b.bar_arrived == b.alive) { report("synccheck", "thread exits while others wait in __syncthreads at line %u", b.bar_site); release_barrier(); }
  Thread* n = b.alive ? pick(me) : nullptr; if (b.alive && !n) deadlock();
  jump(&me->sp, n); abort();
}
static void entry() {
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, blk->main_stack ? nullptr : &blk->main_stack, blk->main_stack ? nullptr : &blk->main_size);
#endif
  (*blk->body)(); exit_thread();
}

// ---------------------------------------------------------------- global memory registry
struct Alloc { size_t n; const char* name; };
static std::map<uintptr_t, Alloc> allocs;
void* dev_alloc(size_t bytes, const char* name) { void* p = aligned_alloc(256, (bytes + 255) / 256 * 256);
#if SIMT_ASAN
  free(p); if (posix_memalign(&p, 256, bytes)) abort();
#endif
  memset(p, 0xFF, bytes); allocs[(uintptr_t)p] = {bytes, name}; return p; }
void dev_free_all() { for (auto& a : allocs) free((void*)a.first); allocs.clear(); }
static thread_local uintptr_t hit_lo = 1, hit_hi = 0;
void check_global(const void* p, size_t n, bool write, const char* f, int l) {
  uintptr_t a = (uintptr_t)p;
  if (a % (n > 16 ? 16 : n)) { report("align", "%zu-byte global access at %p misaligned (%s:%d)", n, p, f, l); return; }
  if (a >= hit_lo && a + n <= hit_hi) return;
  auto it = allocs.upper_bound(a);
  if (it != allocs.begin()) { --it; if (a >= it->first && a + n <= it->first + it->second.n) { hit_lo = it->first; hit_hi = hit_lo + it->second.n; return; }
    report("oob", "%s of %zu bytes %ld past the end of '%s' (%zu bytes) (%s:%d)", write ? "write" : "read", n, (long)(a + n - it->first - it->second.n), it->second.name, it->second.n, f, l); return; }
  report("oob", "%s of %zu bytes at unknown address %p (%s:%d)", write ? "write" : "read", n, p, f, l);
}
// ---------------------------------------------------------------- shared memory shadow
static inline bool ordered(Block& b, uint16_t tid, uint16_t sync, const Thread* me) { // same warp and a __syncwarp in between
  return (tid >> 5) == me->warp && sync != (uint16_t)b.warps[me->warp].sync_count;
}
void check_shared(const void* p, size_t n, bool write, const char* f, int l, int as_lane) {
  Block& b = *blk; long off = (const uint8_t*)p - b.v.smem; Thread* me = as_lane < 0 ? cur : &b.th[cur->warp * 32 + as_lane];
  if (off < 0 || off + (long)n > (long)b.v.smem_bytes) { report("oob", "shared %s of %zu bytes at offset %ld of %zu (%s:%d)", write ? "write" : "read", n, off, b.v.smem_bytes, f, l); return; }
  if ((uintptr_t)p % n) { report("align", "%zu-byte shared access at offset %ld misaligned (%s:%d)", n, off, f, l); return; }
  uint16_t t = me->lin, sc = me->w->sync_count;
  for (size_t i = off / 2; i <= (off + n - 1) / 2; i++) {
    Cell& c = b.shadow[i];
    if (c.inflight) { report("cp.async", "shared offset %ld used by thread %d while a cp.async into it is in flight (%s:%d)", off, t, f, l); c.inflight = 0; }
    if (c.wep == b.epoch && c.wtid != t && !ordered(b, c.wtid, c.wsync, me)) { report("race", "shared offset %ld: %s by thread %d (line %d) vs WRITE by thread %d (line %d), no barrier between", (long)i * 2, write ? "write" : "read", t, l, c.wtid, c.wline); c.wep = 0; }
    if (write) {
      if (c.rep == b.epoch) for (int k = 0; k < 2; k++) { uint16_t rt = k ? c.rtid2 : c.rtid, rs = k ? c.rsync2 : c.rsync;
        if (rt != 0xffff && rt != t && !ordered(b, rt, rs, me)) { report("race", "shared offset %ld: write by thread %d (line %d) vs READ by thread %d (line %d), no barrier between", (long)i * 2, t, l, rt, c.rline); c.rep = 0; break; } }
      c.wep = b.epoch; c.wtid = t; c.wsync = sc; c.wline = l;
    } else {
      if (c.rep != b.epoch) { c.rep = b.epoch; c.rtid = t; c.rsync = sc; c.rtid2 = 0xffff; c.rline = l; }
      else if ((c.rtid >> 5) != (t >> 5)) { c.rtid2 = t; c.rsync2 = sc; } else { c.rtid = t; c.rsync = sc; }
    }
  }
}
// ---------------------------------------------------------------- cp.async
static void do_copy(Pending& q) {
#if SIMT_TSAN
  if (q.valid) __tsan_read_range((void*)q.src, q.valid); __tsan_write_range(q.dst, q.bytes);
#endif
#if SIMT_CHECK
  long off = q.dst - blk->v.smem; for (long i = off / 2; i < (off + q.bytes) / 2; i++) blk->shadow[i].inflight = 0;
  check_shared(q.dst, q.bytes, true, q.f, q.l);
#endif
  memcpy(q.dst, q.src, q.valid); memset(q.dst + q.valid, 0, q.bytes - q.valid);
}
void cp_async(void* dst, const void* src, uint32_t bytes, uint32_t valid, const char* f, int l) {
  Pending q{(uint8_t*)dst, (const uint8_t*)src, (uint16_t)bytes, (uint16_t)valid, f, l}; Block& b = *blk;
#if SIMT_CHECK
  if (valid) check_global(src, valid == bytes ? bytes : 1, false, f, l);
  check_shared(dst, bytes, true, f, l);
#endif
#if SIMT_TSAN
  __tsan_write_range(dst, bytes);  // the copy may land any time between issue and wait: it is a write at both ends
#endif
  bool late = opt.async_copy == Async::Late || (opt.async_copy == Async::Random && (rnd(b.rng) & 1));
  if (late) {
#if SIMT_CHECK
    memset(dst, 0xFF, bytes); // NaN until it lands
    long off = (uint8_t*)dst - b.v.smem; for (long i = off / 2; i < (off + (long)bytes) / 2; i++) b.shadow[i].inflight = 1;
#endif
    auto& a = b.as[cur->lin]; if (a.t - a.h == ThreadAsync::CAP) { fprintf(stderr, "simt: cp.async queue overflow\n"); abort(); }
    a.q[a.t++ % ThreadAsync::CAP] = q;
  } else do_copy(q);
}
void cp_commit() { auto& a = blk->as[cur->lin]; if (a.gt - a.gh == 16) { fprintf(stderr, "simt: too many open cp.async groups\n"); abort(); } a.gend[a.gt++ % 16] = a.t; }
void cp_wait(int n) {
  auto& a = blk->as[cur->lin];
  while ((int)(a.gt - a.gh) > n) { uint32_t e = a.gend[a.gh++ % 16]; for (; a.h != e; a.h++) do_copy(a.q[a.h % ThreadAsync::CAP]); }
}
// ---------------------------------------------------------------- launch
static void run_block(Block& b, dim3 grid, dim3 bd, size_t smem, unsigned bi, const std::function<void()>& body, const char* name) {
  blk = &b; b.body = &body; b.name = name;
  b.v.bid = {bi % grid.x, bi / grid.x % grid.y, bi / grid.x / grid.y}; b.v.bdim = bd; b.v.gdim = grid; b.v.smem_bytes = smem;
  void* sm = nullptr;
#if SIMT_TSAN
  sm = fresh(smem + 4096);     // fresh mappings: TSan shadow of an earlier block must not alias
#else
  if (posix_memalign(&sm, 1024, smem ? smem : 1)) abort();
#endif
  b.v.smem = (uint8_t*)sm;
  memset(sm, 0xFF, smem); // garbage = NaN
  unsigned n = bd.x * bd.y * bd.z, nw = (n + 31) / 32; b.nthreads = b.alive = n; b.bar_arrived = 0; b.epoch++;
  b.th.resize(nw * 32); b.warps.assign(nw, Warp{}); b.as.resize(nw * 32); b.sleep.assign(nw, 0); b.wg.assign(nw / 4 + 1, {}); if (!b.bulk.empty()) { report("tma", "bulk copies still in flight at block exit"); b.bulk.clear(); }
#if SIMT_CHECK
  if (b.shadow.size() < smem / 2 + 1) b.shadow.assign(smem / 2 + 1, Cell{});
  for (auto& c : b.shadow) c.inflight = 0;
#endif
#if SIMT_TSAN
  b.main_tsan = __tsan_get_current_fiber();
#endif
  for (unsigned i = 0; i < n; i++) {
    Thread& t = b.th[i]; if (!t.stack) t.stack = get_stack();
#if SIMT_TSAN
    t.stack = fresh(SIMT_STACK);
#endif
    t.tid = {i % bd.x, i / bd.x % bd.y, i / bd.x / bd.y}; t.lin = i; t.lane = i & 31; t.warp = i / 32; t.w = &b.warps[i / 32]; t.blk = &b; t.done = false; t.fake = nullptr;
    void** s = (void**)((char*)t.stack + SIMT_STACK - 64); s[0] = (void*)entry; s[1] = nullptr; // ret target, fake return address
    t.sp = (void*)(s - 6); memset(t.sp, 0, 48);
#if SIMT_TSAN
    t.tsan = __tsan_create_fiber(0);
    // launch order: host writes happen before the kernel (host released 'bartok' below)
#endif
    b.warps[i / 32].runnable |= 1u << (i & 31); b.warps[i / 32].alive |= 1u << (i & 31);
  }
  cur = nullptr; Thread* first = pick(nullptr);
  jump(&b.main_sp, first);
  cur = nullptr;
#if SIMT_TSAN
  for (unsigned i = 0; i < n; i++) { __tsan_destroy_fiber(b.th[i].tsan); munmap(b.th[i].stack, SIMT_STACK); }
  munmap(sm, smem + 4096);
#else
  free(sm);
#endif
}
void run(dim3 grid, dim3 bd, size_t smem, const std::function<void()>& body, const char* name) {
  unsigned nb = grid.x * grid.y * grid.z; std::vector<unsigned> order(nb); for (unsigned i = 0; i < nb; i++) order[i] = i;
  uint64_t s = opt.seed * 0x9E3779B97F4A7C15ull + 1;
  if (opt.shuffle_blocks) for (unsigned i = nb; i > 1; i--) std::swap(order[i - 1], order[rnd(s) % i]);
  std::atomic<unsigned> next{0};
  auto work = [&](int) {
    static thread_local Block* b = nullptr; if (!b) b = new Block; b->nsw = b->ncol = b->nbar = 0;
    for (unsigned k; (k = next++) < nb;) { b->rng = (opt.seed + order[k]) * 0x9E3779B97F4A7C15ull | 1; run_block(*b, grid, bd, smem, order[k], body, name); }
    std::lock_guard<std::mutex> g(rep_mu); stats.switches += b->nsw; stats.collectives += b->ncol; stats.barriers += b->nbar;
  };
  if (opt.os_threads <= 1) work(0); else { std::vector<std::thread> ts; for (int i = 0; i < opt.os_threads; i++) ts.emplace_back(work, i); for (auto& t : ts) t.join(); }
#if SIMT_TSAN
  __tsan_acquire(&grid_tok);
#endif
  stats.blocks += nb; stats.threads += (uint64_t)nb * bd.x * bd.y * bd.z;
}

unsigned char* shared_memory() { return blk->v.smem; }
void check(const void* p, size_t n, bool write, const char* f, int l) {
  const uint8_t* a = (const uint8_t*)p; Block& b = *blk;
  if (a >= b.v.smem && a < b.v.smem + b.v.smem_bytes + 64) { if (!(n==0)) check_shared(p, n > 16 ? 16 : n, write, f, l); }
  else check_global(p, n, write, f, l);
}
void dev_free(void* p) { allocs.erase((uintptr_t)p); free(p); }
} // namespace simt
