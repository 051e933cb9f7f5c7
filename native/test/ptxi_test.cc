// The PTX interpreter: every family of instructions against known answers, and kernels with planted bugs, each of which it must find. Prints what fails,
// exits 1.
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

#include "ptxi_harness.h"
#include "ptxi_kernels.h"

using namespace attune;
using namespace attune::ptxi_test;

namespace {

constexpr uint64_t kInf = 0x7f800000, kNan = 0x7fffffff;
uint64_t f(float v) { return bits_of(v); }
uint64_t d(double v) { return bits_of(v); }

void integers() {
  same32("add.s32 %d, %a, %b;", {0x7fffffff, 1}, 0x80000000);
  same32("add.sat.s32 %d, %a, %b;", {0x7fffffff, 1}, 0x7fffffff);
  same32("sub.u32 %d, %a, %b;", {3, 5}, 0xfffffffe);
  same32("mul.lo.s32 %d, %a, %b;", {0x10001, 0x10001}, 0x20001);
  same32("mul.hi.s32 %d, %a, %b;", {uint32_t(-7), 0x40000000}, 0xfffffffe);
  same32("mul.hi.u32 %d, %a, %b;", {0xffffffff, 0xffffffff}, 0xfffffffe);
  same32("mad.lo.s32 %d, %a, %b, %c;", {uint32_t(-3), 5, 7}, uint32_t(-8));
  same32("mad.hi.u32 %d, %a, %b, %c;", {0x80000000, 4, 1}, 3);
  same32("div.s32 %d, %a, %b;", {uint32_t(-7), 2}, uint32_t(-3));
  same32("div.s32 %d, %a, %b;", {0x80000000, 0xffffffff}, 0x80000000);
  same32("div.u32 %d, %a, %b;", {0xfffffff9, 2}, 0x7ffffffc);
  same32("rem.s32 %d, %a, %b;", {uint32_t(-7), 2}, uint32_t(-1));
  same32("min.s32 %d, %a, %b;", {uint32_t(-7), 2}, uint32_t(-7));
  same32("max.u32 %d, %a, %b;", {uint32_t(-7), 2}, uint32_t(-7));
  same32("abs.s32 %d, %a;", {uint32_t(-7)}, 7);
  same32("neg.s32 %d, %a;", {0x80000000}, 0x80000000);
  same32("sad.u32 %d, %a, %b, %c;", {3, 10, 100}, 107);
  same32("{ .reg .b32 t; add.cc.u32 t, %a, %b; addc.u32 %d, %c, 0; }", {0xffffffff, 1, 5}, 6);
  same32("{ .reg .b32 t; sub.cc.u32 t, %a, %b; subc.u32 %d, %c, 0; }", {0, 1, 5}, 4);
  same32("{ .reg .b32 t; mad.lo.cc.u32 t, %a, %b, %c; madc.hi.u32 %d, %a, %b, 0; }", {0xffffffff, 2, 2}, 2);
  same64("mul.wide.s32 %d, %a, %b;", {uint32_t(-3), 5}, uint64_t(-15), 4);
  same64("mad.wide.u32 %d, %a, %b, %c;", {0xffffffff, 0xffffffff, 1}, 0xfffffffe00000002, 4);
  same64("mul.hi.u64 %d, %a, %b;", {~0ull, ~0ull}, ~0ull - 1);
  same64("mul.lo.s64 %d, %a, %b;", {uint64_t(-3), 5}, uint64_t(-15));
  same64("rem.s64 %d, %a, %b;", {uint64_t(-15), 4}, uint64_t(-3));
  same16("mul.lo.s16 %d, %a, %b;", {0xffff, 0xffff}, 1);
  same16("min.u16 %d, %a, %b;", {0xffff, 2}, 2);
}

void bits() {
  same32("and.b32 %d, %a, %b;", {0xf0f0, 0xff00}, 0xf000);
  same32("xor.b32 %d, %a, %b;", {0xf0f0, 0xff00}, 0x0ff0);
  same32("not.b32 %d, %a;", {0xf0f0}, 0xffff0f0f);
  same32("cnot.b32 %d, %a;", {0}, 1);
  same32("lop3.b32 %d, %a, %b, %c, 0xea;", {1, 3, 4}, 5);  // (a & b) | c
  same32("shl.b32 %d, %a, %b;", {1, 32}, 0);               // clamped, not modulo 32
  same32("shr.s32 %d, %a, %b;", {0x80000000, 40}, 0xffffffff);
  same32("shr.u32 %d, %a, %b;", {0x80000000, 31}, 1);
  same64("shl.b64 %d, %a, 63;", {1}, 1ull << 63);
  same32("shf.l.wrap.b32 %d, %a, %b, %c;", {0x80000000, 1, 33}, 3);
  same32("shf.r.clamp.b32 %d, %a, %b, %c;", {0x80000000, 1, 33}, 1);
  same32("prmt.b32 %d, %a, %b, 0x7531;", {0x33221100, 0x77665544}, 0x77553311);
  same32("prmt.b32 %d, %a, %b, 0x9;", {0x00008000, 0}, 0x000000ff);  // a sign
  same32("prmt.b32.b4e %d, %a, %b, %c;", {0x33221100, 0x77665544, 1}, 0x66770011);
  same32("bfe.s32 %d, %a, 4, 4;", {0x80}, 0xfffffff8);
  same32("bfe.u32 %d, %a, 28, 8;", {0xf0000000}, 15);
  same32("bfi.b32 %d, %a, %b, 8, 8;", {0xff, 0x12345678}, 0x1234ff78);
  same64("bfi.b64 %d, %a, %b, 32, 32;", {7, 9}, 7ull << 32 | 9);
  same32("bfind.s32 %d, %a;", {uint32_t(-8)}, 2);
  same32("bfind.u32 %d, %a;", {0}, 0xffffffff);
  same32("popc.b32 %d, %a;", {0xf00f}, 8);
  same32("clz.b32 %d, %a;", {0}, 32);
  same32("brev.b32 %d, %a;", {1}, 0x80000000);
  same32("bmsk.clamp.b32 %d, %a, %b;", {4, 8}, 0xff0);
  same32("szext.clamp.s32 %d, %a, %b;", {0x8, 4}, 0xfffffff8);
  same32("{ .reg .pred p, q; setp.ne.b32 p, %a, 0; setp.ne.b32 q, %b, 0; xor.pred p, p, q; not.pred p, p; selp.b32 %d, 1, 2, p; }", {1, 0}, 2);
}

void floats() {
  same32("add.f32 %d, %a, %b;", {f(1), f(0x1p-24f)}, f(1));
  same32("add.rp.f32 %d, %a, %b;", {f(1), f(0x1p-30f)}, f(1 + 0x1p-23f));
  same32("sub.rm.f32 %d, %a, %b;", {f(1), f(0x1p-30f)}, f(1 - 0x1p-24f));
  same32("fma.rn.f32 %d, %a, %b, %c;", {f(1 + 0x1p-23f), f(1 - 0x1p-23f), f(-1)}, f(-0x1p-46f));
  same32("fma.rm.f32 %d, %a, %b, %c;", {f(1 + 0x1p-23f), f(1 + 0x1p-23f), f(0)}, f(1 + 0x1p-22f));
  same32("mul.ftz.f32 %d, %a, %b;", {f(0x1p-100f), f(0x1p-40f)}, f(0));
  same32("mul.f32 %d, %a, %b;", {f(0x1p-100f), f(0x1p-40f)}, f(0x1p-140f));
  same32("add.sat.f32 %d, %a, %b;", {f(0.75f), f(0.75f)}, f(1));
  same32("sub.f32 %d, %a, %b;", {kInf, kInf}, kNan);
  same32("div.rn.f32 %d, %a, %b;", {f(1), f(3)}, f(1.f / 3));
  same32("rcp.rn.f32 %d, %a;", {f(3)}, f(1.f / 3));
  same32("sqrt.rn.f32 %d, %a;", {f(2)}, f(std::sqrt(2.f)));
  same32("min.f32 %d, %a, %b;", {kNan, f(2)}, f(2));
  same32("max.NaN.f32 %d, %a, %b;", {kNan, f(2)}, kNan);
  same32("min.f32 %d, %a, %b;", {f(0), f(-0.f)}, f(-0.f));
  same32("neg.f32 %d, %a;", {f(0)}, f(-0.f));
  same32("copysign.f32 %d, %a, %b;", {f(-1), f(3)}, f(-3));
  same32("{ .reg .pred p; testp.subnormal.f32 p, %a; selp.b32 %d, 1, 0, p; }", {1}, 1);
  same64("fma.rn.f64 %d, %a, %b, %c;", {d(1 + 0x1p-52), d(1 - 0x1p-52), d(-1)}, d(-0x1p-104));
  same64("div.rz.f64 %d, %a, %b;", {d(2), d(3)}, 0x3fe5555555555555);
  same64("rcp.approx.ftz.f64 %d, %a;", {d(4)}, d(0.25));
  near32("ex2.approx.ftz.f32 %d, %a;", f(1.5f), std::exp2(1.5), 0x1p-21);
  near32("lg2.approx.f32 %d, %a;", f(3), std::log2(3.0), 0x1p-21);
  near32("sin.approx.f32 %d, %a;", f(1), std::sin(1.0), 0x1p-20);
  near32("cos.approx.f32 %d, %a;", f(1), std::cos(1.0), 0x1p-20);
  near32("tanh.approx.f32 %d, %a;", f(0.5f), std::tanh(0.5), 0x1p-10);
  near32("rsqrt.approx.f32 %d, %a;", f(2), std::sqrt(0.5), 0x1p-22);
  same32("fma.rn.bf16x2 %d, %a, %b, %c;", {0x3f803f81, 0x3f803f81, 0x00003f80}, 0x3f804001);  // 1 * 1 + 0; 1.0078^2 + 1, a tie but for 2^-14
  same32("add.f16x2 %d, %a, %b;", {0x3c003c01, 0x3c001000}, 0x40003c02);                      // 1 + 1; a tie, to even
  same16("mul.bf16 %d, %a, %b;", {0x4000, 0x4040}, 0x40c0);
}

void comparisons() {
  const auto p = [](const char* compare, const char* type) {
    return std::string("{ .reg .pred p; setp.") + compare + "." + type + " p, %a, %b; selp.b32 %d, 1, 0, p; }";
  };
  same32(p("lt", "s32"), {uint32_t(-1), 1}, 1);
  same32(p("lt", "u32"), {uint32_t(-1), 1}, 0);
  same32(p("hi", "u32"), {uint32_t(-1), 1}, 1);
  same32(p("ne", "f32"), {kNan, f(1)}, 0);
  same32(p("neu", "f32"), {kNan, f(1)}, 1);
  same32(p("ltu", "f32"), {f(2), f(1)}, 0);
  same32(p("nan", "f32"), {kNan, f(1)}, 1);
  same32("{ .reg .pred p, q; setp.lt.s32 q, %a, %b; setp.lt.and.s32 p, %a, %c, !q; selp.b32 %d, 1, 0, p; }", {3, 2, 4}, 1);
  same32("{ .reg .pred p, q; setp.lt.s32 p|q, %a, %b; selp.b32 %d, 1, 0, q; }", {3, 2}, 1);
  same32("set.gt.f32.s32 %d, %a, %b;", {3, 2}, f(1));
  same32("slct.b32.s32 %d, %a, %b, %c;", {3, 2, uint32_t(-1)}, 2);
}

void conversions() {
  same32("cvt.rn.bf16x2.f32 %d, %a, %b;", {f(1 + 0x1p-8f), f(1 + 3 * 0x1p-8f)}, 0x3f803f82);  // a to the upper half, ties to even
  same32("cvt.rn.f16x2.f32 %d, %a, %b;", {f(65520), f(0x1p-25f)}, 0x7c000000);
  same32("cvt.rni.s32.f32 %d, %a;", {f(2.5f)}, 2);
  same32("cvt.rzi.s32.f32 %d, %a;", {f(-2.7f)}, uint32_t(-2));
  same32("cvt.rmi.f32.f32 %d, %a;", {f(-2.5f)}, f(-3));
  same32("cvt.rzi.u32.f32 %d, %a;", {f(-1)}, 0);
  same32("cvt.rzi.s32.f32 %d, %a;", {f(3e9f)}, 0x7fffffff);
  same32("cvt.rzi.s32.f32 %d, %a;", {kNan}, 0);
  same32("cvt.rn.f32.s32 %d, %a;", {16777217}, f(16777216));
  same32("cvt.rp.f32.u32 %d, %a;", {16777217}, f(16777218));
  same32("cvt.sat.f32.f32 %d, %a;", {f(1.5f)}, f(1));
  same32("cvt.s32.s8 %d, %a;", {0x180}, 0xffffff80);
  same32("cvt.u32.u8 %d, %a;", {0x180}, 0x80);
  same32("cvt.sat.u8.s32 %d, %a;", {300}, 255);
  same32("cvt.rna.tf32.f32 %d, %a;", {f(1 + 0x1p-11f)}, f(1 + 0x1p-10f));
  same64("cvt.s64.s32 %d, %a;", {uint32_t(-5)}, uint64_t(-5), 4);
  same64("cvt.u64.u32 %d, %a;", {uint32_t(-5)}, 0xfffffffb, 4);
  same64("cvt.f64.f32 %d, %a;", {f(1.5f)}, d(1.5), 4);
  same64("cvt.rzi.s64.f64 %d, %a;", {d(-1e19)}, 1ull << 63);
  same64("{ .reg .b32 t; cvt.rn.f32.f64 t, %a; cvt.f64.f32 %d, t; }", {d(1 + 0x1p-30)}, d(1));
  same64("{ .reg .b32 t; cvt.rz.f32.f64 t, %a; cvt.f64.f32 %d, t; }", {d(1 - 0x1p-40)}, d(1 - 0x1p-24));
  same16("{ .reg .b32 t; cvt.f32.bf16 t, %a; mul.f32 t, t, 0f40000000; cvt.rn.bf16.f32 %d, t; }", {0x3fc0}, 0x4040);
  same16("{ .reg .b32 t; cvt.f32.f16 t, %a; cvt.rn.f16.f32 %d, t; }", {0x0001}, 0x0001);
}

void moves_and_control() {
  same32("{ .reg .b16 l, h; mov.b32 {l, h}, %a; mov.b32 %d, {h, l}; }", {0x12345678}, 0x56781234);
  same64("{ .reg .b32 l, h; mov.b64 {l, h}, %a; mov.b64 %d, {h, l}; }", {0x1122334455667788}, 0x5566778811223344);
  same32("mov.f32 %d, 0f3F800000;", {}, f(1));
  same32("{ .reg .b32 i; mov.u32 i, 0; mov.u32 %d, 0;\nL: add.u32 i, i, 1; add.u32 %d, %d, %a; .reg .pred p; setp.lt.u32 p, i, %b; @p bra L; }", {3, 5}, 15);
  same32("T: .branchtargets A, B, C; brx.idx %a, T; A: mov.u32 %d, 10; bra E; B: mov.u32 %d, 11; bra E; C: mov.u32 %d, 12;\nE:", {1}, 11);
  same32("{ .param .b32 p0; .param .b32 r0; st.param.b32 [p0], %a; call.uni (r0), twice, (p0); ld.param.b32 %d, [r0]; }", {21}, 42);
  same32("ld.const.u32 %d, [table+4];", {}, 22);
  same32("{ .reg .b64 q; mov.u64 q, table; cvta.const.u64 q, q; ld.u32 %d, [q+8]; }", {}, 33);
  same32("{ .local .align 4 .b8 box[16]; .reg .b64 q; st.local.u32 [box+8], %a; mov.u64 q, box; cvta.local.u64 q, q; ld.u32 %d, [q+8]; }", {77}, 77);
  same32("{ .reg .b64 q; mov.u64 q, area; cvta.shared.u64 q, q; st.shared.u32 [area], 5; cvta.to.shared.u64 q, q; ld.shared.u32 %d, [q]; }", {}, 5, 1);
  same32("{ .reg .pred p; .reg .b64 q; mov.u64 q, area; cvta.shared.u64 q, q; isspacep.shared p, q; selp.b32 %d, 1, 0, p; }", {}, 1);
}

void warps() {
  lanes("shfl.sync.bfly.b32 %d, %lane, 5, 31, -1;", [](uint32_t l) { return l ^ 5; });
  lanes("shfl.sync.up.b32 %d, %lane, 3, 0, -1;", [](uint32_t l) { return l < 3 ? l : l - 3; });
  lanes("shfl.sync.down.b32 %d, %lane, 3, 0x1807, -1;", [](uint32_t l) { return l % 8 + 3 < 8 ? l + 3 : l; });  // segments of 8
  lanes("shfl.sync.idx.b32 %d|%p, %lane, 2, 0x181f, -1;", [](uint32_t l) { return l / 8 * 8 + 2; });
  lanes("{ .reg .pred p; setp.gt.u32 p, %lane, 29; vote.sync.ballot.b32 %d, p, -1; }", [](uint32_t) { return 0xc0000000u; });
  lanes("{ .reg .pred p; setp.gt.u32 p, %lane, 29; vote.sync.any.pred p, p, -1; selp.b32 %d, 1, 0, p; }", [](uint32_t) { return 1u; });
  lanes("redux.sync.add.u32 %d, %lane, -1;", [](uint32_t) { return 496u; });
  lanes("{ .reg .b32 t; and.b32 t, %lane, 3; match.any.sync.b32 %d, t, -1; }", [](uint32_t l) { return 0x11111111u << l % 4; });
  lanes("{ .reg .b32 t; elect.sync t|%p, -1; selp.b32 %d, 1, 0, %p; }", [](uint32_t l) { return l == 0 ? 1u : 0u; });
  lanes("{ .reg .pred q; setp.lt.u32 q, %lane, 7; mov.u32 %d, 0; @!q bra E; activemask.b32 %d;\nE: }", [](uint32_t l) { return l < 7 ? 0x7fu : 0u; });
  lanes("{ .reg .pred q; setp.lt.u32 q, %lane, 7; @q bra X; mov.u32 %d, 1; bra E;\nX: mov.u32 %d, 2;\nE: shfl.sync.idx.b32 %d, %d, 31, 31, -1; }",
        [](uint32_t) { return 1u; });  // lanes that ran apart meet again
  lanes("mov.u32 %d, %lanemask_lt;", [](uint32_t l) { return (1u << l) - 1; });
  lanes(
      "{ .reg .b32 t, u; shl.b32 t, %lane, 2; mov.u32 u, area; add.u32 t, t, u; st.shared.u32 [t], %lane; bar.warp.sync -1; xor.b32 t, t, 4; ld.shared.u32 %d, "
      "[t]; }",
      [](uint32_t l) { return l ^ 1; });
  lanes("{ .reg .pred q; setp.eq.u32 q, %lane, 0; @q st.shared.u32 [area], 0; bar.sync 0; atom.shared.add.u32 %d, [area], 1; }", [](uint32_t l) { return l; });
  lanes("{ .reg .pred q; setp.eq.u32 q, %lane, 5; bar.red.popc.u32 %d, 0, q; }", [](uint32_t) { return 1u; });
}

void bugs() {
  const auto snippet = [](const std::string& text) { return run_lanes(text).error; };
  finds("unset register", snippet("{ .reg .b32 t; add.u32 %d, t, 1; }"), "has not been written");
  finds("unset shared memory", snippet("ld.shared.u32 %d, [area];"), "nobody has written");
  finds("two lanes write one place", snippet("st.shared.u32 [area], %lane; mov.u32 %d, 0;"), "race");
  finds("no bar.warp.sync", snippet("{ .reg .b32 t; shl.b32 t, %lane, 2; st.shared.u32 [t], %lane; xor.b32 t, t, 4; ld.shared.u32 %d, [t]; }"), "race");
  finds("misaligned ld.v4", snippet("{ .reg .b32 a, b, c; ld.global.v4.u32 {%d, a, b, c}, [%in+4]; }"), "misaligned");
  finds("past the end", snippet("ld.global.u32 %d, [%in+128];"), "128");
  finds("past shared memory", snippet("st.shared.u32 [area+1024], 1; mov.u32 %d, 0;"), "shared memory, which has 1024");
  finds("write to parameters", snippet("{ .reg .b64 q; mov.b64 q, out; cvta.param.u64 q, q; st.u32 [q], 1; mov.u32 %d, 0; }"), "write to the parameters");
  finds("divergent shfl", snippet("{ .reg .pred q; setp.lt.u32 q, %lane, 7; mov.u32 %d, 0; @q shfl.sync.bfly.b32 %d, %lane, 1, 31, -1; }"), "divergent");
  finds("lane out of its mask", snippet("shfl.sync.bfly.b32 %d, %lane, 1, 31, 0xffff;"), "not in the mask");
  finds("divergent barrier", snippet("{ .reg .pred q; setp.lt.u32 q, %lane, 7; mov.u32 %d, 0; @q bra E; bar.sync 0;\nE: }"), "divergent");
  finds("too few at a barrier", snippet("mov.u32 %d, 0; bar.sync 1, 64;"), "deadlock");
  finds("division by zero", snippet("div.u32 %d, %lane, %lane;"), "division by zero");
  finds("trap", snippet("mov.u32 %d, 0; trap;"), "traps");
  finds("unknown opcode", snippet("frobnicate.u32 %d, %lane;"), "does not know the opcode frobnicate");
  finds("unknown modifier", snippet("add.odd.u32 %d, %lane, 1;"), ".odd");
  finds("wrong width", snippet("add.u64 %d, %lane, 1;"), "4 bytes");
  finds("undeclared register", snippet("add.u32 %d, %lane, %missing;"), "not declared");
  finds("what follows from an unset register", snippet("{ .reg .b32 t, u; mov.u32 u, t; add.u32 %d, u, 1; }"),
        "depends on a register that has not been written, through line");
  finds("an unset register that selp throws away", snippet("{ .reg .b32 t; .reg .pred q; setp.lt.u32 q, %lane, 32; add.u32 t, t, 1; selp.b32 %d, 5, t, q; }"),
        "");
  finds("an unset predicate that and.pred throws away", snippet("{ .reg .pred p, q; setp.gt.u32 q, %lane, 32; and.pred p, p, q; selp.b32 %d, 5, 6, p; }"), "");

  finds("the tile is right", run_tile(kTile).error, "");
  same("the tile's product", run_tile(kTile).wrong, 0);
  for (const Order o : {Order::forward, Order::reverse, Order::random})
    for (const Arrival a : {Arrival::late, Arrival::early, Arrival::random}) same("the tile on every schedule", run_tile(kTile, 0, o, a).wrong, 0);
  differs("operands of an mma swapped", run_tile(replaced(kTile, "{%b0, %b1}", "{%b1, %b0}")));
  differs("fragments of A swapped", run_tile(replaced(kTile, "{%a0, %a1, %a2, %a3}, {%b0", "{%a0, %a2, %a1, %a3}, {%b0")));
  finds("a wait one group short", run_tile(replaced(kTile, "wait_group 1", "wait_group 2")).error, "in flight");
  finds("no barrier before the first stage", run_tile(replaced(kTile, "bar.sync 0;", "")).error, "race: reads");
  finds("no barrier before the second stage", run_tile(replaced(kTile, "bar.sync 1;", "")).error, "in flight");
  for (const Order o : {Order::forward, Order::reverse, Order::random}) {
    finds("written over while others read", run_tile(replaced(kTile, "bar.sync 2;", ""), 0, o).error, "race: writes");
    finds("read before others have written", run_tile(replaced(kTile, "bar.sync 3;", ""), 0, o).error, "race: ");
  }
  finds("one row past the end", run_tile(kTile, 1).error, "read of 16 bytes at byte 960 of 960");
  finds("stages that overlap", run_tile(replaced(kTile, "%second, %base, 1024", "%second, %base, 512")).error, "in flight");

  finds("the wgmma tile is right", run_warpgroup(kWarpgroup).error, "");
  same("the wgmma tile's product", run_warpgroup(kWarpgroup).wrong, 0);
  for (const Order o : {Order::reverse, Order::random})
    for (const Arrival a : {Arrival::early, Arrival::random}) same("the wgmma tile on every schedule", run_warpgroup(kWarpgroup, o, a).wrong, 0);
  for (uint64_t seed = 1; seed <= 30; seed++) finds("the wgmma tile at random", run_warpgroup(kWarpgroup, Order::random, Arrival::random, seed).error, "");
  differs("another swizzle", run_warpgroup(replaced(kWarpgroup, "0x4000004000010000", "0x8000004000010000")));
  const std::string no_wait = replaced(kWarpgroup, "mbarrier.try_wait.parity.shared::cta.b64 %p, [%bar], 0; @!%p bra WAIT;", "");
  finds("no wait for the boxes", run_warpgroup(no_wait).error, "in flight");
  finds("no wait for the boxes, which come early", run_warpgroup(no_wait, Order::forward, Arrival::early).error, "race");
  finds("no wgmma.fence", run_warpgroup(replaced(kWarpgroup, "wgmma.fence.sync.aligned;", "")).error, "wgmma.fence");
  finds("no wgmma wait", run_warpgroup(replaced(kWarpgroup, "wgmma.wait_group.sync.aligned 0;", "")).error, "not been waited for");
  finds("an accumulator written in flight",
        run_warpgroup(replaced(kWarpgroup, "wgmma.wait_group.sync.aligned 0;", "mov.f32 %d2, 0f00000000; wgmma.wait_group.sync.aligned 0;")).error,
        "writes an accumulator of the wgmma");
  const std::string in_registers =
      replaced(kWarpgroup, "%descriptor_a, %descriptor_b, %one, 1, 1, 0, 0;", "{%zero, %zero, %zero, %zero}, %descriptor_b, %one, 1, 1, 0; mov.b32 %zero, 0;");
  finds("A written in flight", run_warpgroup(in_registers).error, "writes A of the wgmma");
  finds("bytes expected that never come", run_warpgroup(replaced(kWarpgroup, "%bar], 9216", "%bar], 9232")).error, "deadlock");
  finds("an arrival that never comes", run_warpgroup(replaced(kWarpgroup, "init.shared::cta.b64 [%bar], 1", "init.shared::cta.b64 [%bar], 2")).error,
        "deadlock");
  finds("an mbarrier that is none", run_warpgroup(replaced(kWarpgroup, "mbarrier.init.shared::cta.b64 [%bar], 1;", "")).error, "is no mbarrier");
}

/// A kernel by its symbol: the parameters of the launch against those of the PTX.
void launches() {
  char folder[] = "/tmp/ptxi_test_XXXXXX";
  if (!mkdtemp(folder)) return fail("mkdtemp", "");
  const std::string path = std::string(folder) + "/80";
  mkdir(path.c_str(), 0700);
  std::ofstream(path + "/kernel.ptx")
      << ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry ptxi_test_kernel(.param .u64 p, .param .align 4 .b8 q[12])\n"
         ".maxntid 64, 1, 1\n{ .reg .b64 %rd<3>; .reg .b32 %r<3>; ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [q+8]; st.global.u32 [%rd1], %r1; ret; }\n";
  struct Three {
    int32_t v[3];
  };
  const auto launch = [&](int count, int second_size, int second_alignment, unsigned threads) {
    Buffer out(64);
    void* p = out.data();
    Three q{{1, 2, 3}};
    void* const params[] = {&p, &q};
    const int sizes[] = {8, second_size}, alignments[] = {8, second_alignment};
    DeviceCaps caps;
    caps.arch = 80, caps.shared_bytes = 1024;
    try {
      ptxi::launch({reinterpret_cast<const void*>(&ptxi_test_kernel), dim3(1), dim3(threads), 0, params, sizes, alignments, count}, caps, folder, options());
    } catch (const Error& e) { return std::string(e.what()); }
    return *static_cast<int32_t*>(p) == 3 ? std::string() : std::string("wrong result");
  };
  finds("a launch", launch(2, 12, 4, 1), "");
  finds("another number of parameters", launch(1, 12, 4, 1), "1 parameters, where the PTX has 2");
  finds("another size of a parameter", launch(2, 16, 4, 1), "parameter 1 has 16 bytes");
  finds("another alignment of a parameter", launch(2, 12, 8, 1), "aligned to 8");
  finds("more threads than the kernel is bound to", launch(2, 12, 4, 65), "bound to 64");
  unlink((path + "/kernel.ptx").c_str()), rmdir(path.c_str()), rmdir(folder);
}

}  // namespace

int main() {
  integers(), bits(), floats(), comparisons(), conversions(), moves_and_control(), warps(), bugs(), launches();
  std::printf("ptxi: %d checks, %d failures\n", checks, failures);
  return failures ? 1 : 0;
}
