// Two small kernels in PTX that are right, each in need of all its barriers, waits and fences: what the planted bugs of ptxi_test.cc are planted in.
#pragma once
#include "ptxi_harness.h"

namespace attune {
namespace ptxi_test {

// out [16, 16] f32 = A [16, 32] B [16, 32]^T, bf16, by two warps, 8 columns each: two stages of 16 columns through cp.async and ldmatrix; the sums go through
// shared memory, over the second stage, to be written in rows.
const char kTile[] = R"(.version 9.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 memory[];
.visible .entry k(.param .u64 k_out, .param .u64 k_a, .param .u64 k_b)
.maxntid 64, 1, 1
{
  .reg .pred %p<2>;
  .reg .b64 %out, %a, %b, %from, %offset;
  .reg .b32 %tid, %lane, %warp, %base, %second, %to, %t<9>, %row, %column;
  .reg .b32 %a<4>, %b<2>;
  .reg .f32 %c<4>, %d<4>;
  ld.param.u64 %out, [k_out];
  ld.param.u64 %a, [k_a];
  ld.param.u64 %b, [k_b];
  mov.u32 %tid, %tid.x;
  and.b32 %lane, %tid, 31;
  shr.u32 %warp, %tid, 5;
  mov.u32 %base, memory;
  add.u32 %second, %base, 1024;
  // Each thread copies 16 bytes of A (warp 0) or B (warp 1) per stage.
  setp.eq.u32 %p0, %warp, 0;
  selp.b64 %from, %a, %b, %p0;
  shr.u32 %t0, %lane, 1;
  shl.b32 %t0, %t0, 6;
  and.b32 %t1, %lane, 1;
  shl.b32 %t1, %t1, 4;
  add.u32 %t0, %t0, %t1;
  cvt.u64.u32 %offset, %t0;
  add.u64 %from, %from, %offset;
  shl.b32 %t2, %warp, 9;
  shl.b32 %t3, %lane, 4;
  add.u32 %t2, %t2, %t3;
  add.u32 %to, %base, %t2;
  cp.async.cg.shared.global [%to], [%from], 16;
  cp.async.commit_group;
  add.u32 %to, %second, %t2;
  cp.async.cg.shared.global [%to], [%from+32], 16, 16;
  cp.async.commit_group;
  // Rows of this lane for ldmatrix.
  and.b32 %t4, %lane, 15;
  shl.b32 %t4, %t4, 5;
  shr.u32 %t5, %lane, 4;
  shl.b32 %t5, %t5, 4;
  add.u32 %t4, %t4, %t5;
  shl.b32 %t6, %warp, 3;
  and.b32 %t7, %lane, 7;
  add.u32 %t6, %t6, %t7;
  shl.b32 %t6, %t6, 5;
  bfe.u32 %t8, %lane, 3, 1;
  shl.b32 %t8, %t8, 4;
  add.u32 %t6, %t6, %t8;
  mov.f32 %c0, 0f00000000;
  mov.f32 %c1, %c0;
  mov.f32 %c2, %c0;
  mov.f32 %c3, %c0;
  cp.async.wait_group 1;
  bar.sync 0;
  add.u32 %row, %base, %t4;
  add.u32 %column, %base, %t6;
  ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%a0, %a1, %a2, %a3}, [%row];
  ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%b0, %b1}, [%column+512];
  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%c0, %c1, %c2, %c3}, {%a0, %a1, %a2, %a3}, {%b0, %b1}, {%c0, %c1, %c2, %c3};
  cp.async.wait_group 0;
  bar.sync 1;
  add.u32 %row, %second, %t4;
  add.u32 %column, %second, %t6;
  ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%a0, %a1, %a2, %a3}, [%row];
  ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%b0, %b1}, [%column+512];
  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%c0, %c1, %c2, %c3}, {%a0, %a1, %a2, %a3}, {%b0, %b1}, {%c0, %c1, %c2, %c3};
  bar.sync 2;
  // Sum (g, 8 warp + 2 t) and its neighbours to shared memory.
  shr.u32 %t0, %lane, 2;
  shl.b32 %t0, %t0, 4;
  and.b32 %t1, %lane, 3;
  shl.b32 %t1, %t1, 1;
  add.u32 %t0, %t0, %t1;
  shl.b32 %t1, %warp, 3;
  add.u32 %t0, %t0, %t1;
  shl.b32 %t0, %t0, 2;
  add.u32 %t0, %t0, %second;
  st.shared.v2.f32 [%t0], {%c0, %c1};
  st.shared.v2.f32 [%t0+512], {%c2, %c3};
  bar.sync 3;
  shl.b32 %t1, %tid, 4;
  add.u32 %t2, %t1, %second;
  ld.shared.v4.f32 {%d0, %d1, %d2, %d3}, [%t2];
  cvt.u64.u32 %offset, %t1;
  add.u64 %out, %out, %offset;
  st.global.v4.f32 [%out], {%d0, %d1, %d2, %d3};
  ret;
}
)";

// out [64, 8] f32 = A [64, 64] B [8, 64]^T, bf16: the lone fifth warp asks for both as boxes with the 128-byte swizzle, a warpgroup multiplies.
const char kWarpgroup[] = R"(.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 memory[];
.visible .entry k(.param .u64 k_out, .param .align 64 .b8 k_a[128], .param .align 64 .b8 k_b[128])
.reqntid 160, 1, 1
{
  .reg .pred %p, %one;
  .reg .b64 %out, %map, %descriptor_a, %descriptor_b, %offset;
  .reg .b32 %tid, %base, %bar, %t, %u, %zero;
  .reg .f32 %d<4>;
  ld.param.u64 %out, [k_out];
  mov.u32 %tid, %tid.x;
  mov.u32 %base, memory;
  mov.u32 %zero, 0;
  add.u32 %bar, %base, 9216;
  setp.ne.u32 %p, %tid, 128;
  @%p bra STARTED;
  mbarrier.init.shared::cta.b64 [%bar], 1;
  fence.mbarrier_init.release.cluster;
STARTED:
  bar.sync 0;
  setp.lt.u32 %p, %tid, 128;
  @%p bra CONSUME;
  setp.ne.u32 %p, %tid, 128;
  @%p ret;
  mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 9216;
  mov.b64 %map, k_a;
  cvta.param.u64 %map, %map;
  cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%base], [%map, {%zero, %zero}], [%bar];
  mov.b64 %map, k_b;
  cvta.param.u64 %map, %map;
  add.u32 %t, %base, 8192;
  cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%t], [%map, {%zero, %zero}], [%bar];
  ret;
CONSUME:
WAIT:
  mbarrier.try_wait.parity.shared::cta.b64 %p, [%bar], 0; @!%p bra WAIT;
  mov.f32 %d0, 0f00000000;
  mov.f32 %d1, %d0;
  mov.f32 %d2, %d0;
  mov.f32 %d3, %d0;
  shr.u32 %t, %base, 4;
  cvt.u64.u32 %descriptor_a, %t;
  or.b64 %descriptor_a, %descriptor_a, 0x4000004000010000;
  add.u64 %descriptor_b, %descriptor_a, 512;
  setp.eq.u32 %one, %zero, 0;
  wgmma.fence.sync.aligned;
  wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0, %d1, %d2, %d3}, %descriptor_a, %descriptor_b, %one, 1, 1, 0, 0;
  add.u64 %descriptor_a, %descriptor_a, 2;
  add.u64 %descriptor_b, %descriptor_b, 2;
  wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0, %d1, %d2, %d3}, %descriptor_a, %descriptor_b, %one, 1, 1, 0, 0;
  add.u64 %descriptor_a, %descriptor_a, 2;
  add.u64 %descriptor_b, %descriptor_b, 2;
  wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0, %d1, %d2, %d3}, %descriptor_a, %descriptor_b, %one, 1, 1, 0, 0;
  add.u64 %descriptor_a, %descriptor_a, 2;
  add.u64 %descriptor_b, %descriptor_b, 2;
  wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0, %d1, %d2, %d3}, %descriptor_a, %descriptor_b, %one, 1, 1, 0, 0;
  wgmma.commit_group.sync.aligned;
  wgmma.wait_group.sync.aligned 0;
  // Row 16 (tid / 32) + lane / 4, columns 2 (lane % 4) and the next.
  shr.u32 %t, %tid, 5;
  shl.b32 %t, %t, 4;
  bfe.u32 %u, %tid, 2, 3;
  add.u32 %t, %t, %u;
  shl.b32 %t, %t, 5;
  and.b32 %u, %tid, 3;
  shl.b32 %u, %u, 3;
  add.u32 %t, %t, %u;
  cvt.u64.u32 %offset, %t;
  add.u64 %out, %out, %offset;
  st.global.v2.f32 [%out], {%d0, %d1};
  st.global.v2.f32 [%out+256], {%d2, %d3};
  ret;
}
)";

/// Small whole numbers as bf16: their products' sums are exact in f32, in any order.
struct Matrix {
  int rows, columns;
  Buffer memory;
  Matrix(int rows, int columns, int missing_rows = 0) : rows(rows), columns(columns), memory(size_t((rows - missing_rows) * columns * 2)) {
    for (int r = 0; r < rows - missing_rows; r++)
      for (int c = 0; c < columns; c++) {
        const uint16_t v = uint16_t(bits_of(at(r, c)) >> 16);
        std::memcpy(memory.data() + (r * columns + c) * 2, &v, 2);
      }
  }
  float at(int r, int c) const { return float((r * 7 + c * 5 + rows) % 13 - 6); }
};
inline uint64_t wrong_elements(const Matrix& a, const Matrix& b, Buffer& out) {
  uint64_t wrong = 0;
  for (int r = 0; r < a.rows; r++)
    for (int c = 0; c < b.rows; c++) {
      float want = 0, got;
      for (int k = 0; k < a.columns; k++) want += a.at(r, k) * b.at(c, k);
      std::memcpy(&got, out.data() + (r * b.rows + c) * 4, 4);
      wrong += got != want;
    }
  return wrong;
}

struct Product {
  std::string error;
  uint64_t wrong = 0;
};
inline Product run_tile(const std::string& ptx, int missing_rows = 0, Order order = Order::forward, Arrival copies = Arrival::late) {
  Matrix a(16, 32), b(16, 32, missing_rows);
  Buffer out(16 * 16 * 4);
  Product p;
  p.error = interpret(ptx, 64, 2048, pack({out.data(), a.memory.data(), b.memory.data()}), options(order, copies));
  p.wrong = wrong_elements(a, b, out);
  return p;
}
inline Product run_warpgroup(const std::string& ptx, Order order = Order::forward, Arrival copies = Arrival::late, uint64_t seed = 7) {
  Matrix a(64, 64), b(8, 64);
  Buffer out(64 * 8 * 4);
  std::vector<unsigned char> parameters(320);
  const void* to = out.data();
  std::memcpy(parameters.data(), &to, 8);
  int offset = 64;
  for (Matrix* m : {&a, &b}) {
    cuda::TensorMapFields map{};
    map.base = reinterpret_cast<uint64_t>(m->memory.data()), map.stride[0] = uint64_t(m->columns) * 2, map.rank = 2, map.element_bytes = 2;
    map.extent[0] = map.box[0] = 64, map.extent[1] = map.box[1] = uint32_t(m->rows), map.swizzle = 3, map.mark = cuda::kTensorMapMark;
    std::memcpy(parameters.data() + offset, &map, sizeof map);
    offset += 128;
  }
  Product p;
  p.error = interpret(ptx, 160, 9232, parameters, options(order, copies, seed));
  p.wrong = wrong_elements(a, b, out);
  return p;
}
inline void differs(const std::string& what, const Product& p) {
  checks++;
  if (!p.error.empty() || p.wrong == 0) fail(what, p.error.empty() ? "the result is right" : p.error);
}

}  // namespace ptxi_test
}  // namespace attune
