// Tensor-core instructions of sm_80 and later, each once as PTX and once as its twin for the host machines: ldmatrix, and mma.sync as a warp tile.
#pragma once
#include "async_copy.cuh"

namespace attune {
namespace cuda {

// ---------------- ldmatrix
#ifndef __CUDACC__
struct LdsmArg { const uint8_t* row; uint32_t* out; };
template <int NM, bool TR> __attribute__((no_sanitize("thread"))) void ldsm_leader(void** a, uint32_t mask) {
  if (mask != 0xffffffffu) { simt::report("ldmatrix", "not all lanes active: %08x", mask); return; }
  for (int m = 0; m < NM; m++) {
    const uint16_t* rows[8]; unsigned banks = 0, extra = 0;
    for (int r = 0; r < 8; r++) { const uint8_t* p = ((LdsmArg*)a[m * 8 + r])->row; rows[r] = (const uint16_t*)p; unsigned b = 1u << (((uintptr_t)p >> 4) & 7); if (banks & b) extra++; banks |= b; }
    simt::stats.ldsm++; simt::stats.ldsm_extra += extra;   // extra>0 = bank conflict
    for (int l = 0; l < 32; l++) {
      int r = l >> 2, c = (l & 3) * 2; uint32_t lo, hi;
      if (!TR) { lo = rows[r][c]; hi = rows[r][c + 1]; } else { lo = rows[c][r]; hi = rows[c + 1][r]; }
      ((LdsmArg*)a[l])->out[m] = lo | hi << 16;
    }
  }
}
template <int NM, bool TR> inline void ldsm(uint32_t* r, const void* p, const char* file_, int line_) {
  bool mine = simt::cur->lane < NM * 8; (void)mine;
#if SIMT_CHECK
  if (mine) simt::check_shared(p, 16, false, file_, line_);
#endif
  (void)file_;
  LdsmArg a{(const uint8_t*)p, r}; simt::collective(0xffffffffu, line_, &a, &ldsm_leader<NM, TR>);
}
#endif
ATTUNE_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* p ATTUNE_HERE) {
#ifndef __CUDACC__
  ldsm<4, false>(r, p, file_, line_);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)) : "memory");
#endif
}
ATTUNE_DEVICE void ldmatrix_x2_trans(uint32_t (&r)[2], const void* p ATTUNE_HERE) {
#ifndef __CUDACC__
  ldsm<2, true>(r, p, file_, line_);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(p)) : "memory");
#endif
}
ATTUNE_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* p ATTUNE_HERE) {
#ifndef __CUDACC__
  ldsm<4, true>(r, p, file_, line_);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)) : "memory");
#endif
}
// ---------------- mma.m16n8k16 bf16 -> f32, issued as a warp tile of MT x NT instructions
#ifdef __CUDACC__
ATTUNE_DEVICE void mma16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif
#ifndef __CUDACC__
struct MmaArg { float* acc; const uint32_t* a; const uint32_t* b; };
inline float bfl(uint32_t v) { uint32_t u = v << 16; float f; memcpy(&f, &u, 4); return f; }
inline float bfh(uint32_t v) { uint32_t u = v & 0xffff0000u; float f; memcpy(&f, &u, 4); return f; }
template <int MT, int NT> __attribute__((no_sanitize("thread"))) void mma_leader(void** args, uint32_t mask) {
  if (mask != 0xffffffffu) { simt::report("mma", "not all lanes active: %08x", mask); return; }
  alignas(64) float A[MT * 16][16], B[16][NT * 8], C[MT * 16][NT * 8];
  for (int l = 0; l < 32; l++) {            // gather by the PTX fragment layout
    const MmaArg& q = *(MmaArg*)args[l]; int g = l >> 2, t = (l & 3) * 2;
    for (int m = 0; m < MT; m++) { const uint32_t* a = q.a + m * 4;
      A[m*16+g][t] = bfl(a[0]); A[m*16+g][t+1] = bfh(a[0]); A[m*16+g+8][t] = bfl(a[1]); A[m*16+g+8][t+1] = bfh(a[1]);
      A[m*16+g][t+8] = bfl(a[2]); A[m*16+g][t+9] = bfh(a[2]); A[m*16+g+8][t+8] = bfl(a[3]); A[m*16+g+8][t+9] = bfh(a[3]); }
    for (int n = 0; n < NT; n++) { const uint32_t* b = q.b + n * 2;
      B[t][n*8+g] = bfl(b[0]); B[t+1][n*8+g] = bfh(b[0]); B[t+8][n*8+g] = bfl(b[1]); B[t+9][n*8+g] = bfh(b[1]); }
    for (int m = 0; m < MT; m++) for (int n = 0; n < NT; n++) { const float* c = q.acc + (m * NT + n) * 4;
      C[m*16+g][n*8+t] = c[0]; C[m*16+g][n*8+t+1] = c[1]; C[m*16+g+8][n*8+t] = c[2]; C[m*16+g+8][n*8+t+1] = c[3]; }
  }
  for (int i = 0; i < MT * 16; i++) for (int k = 0; k < 16; k++) { float x = A[i][k]; for (int j = 0; j < NT * 8; j++) C[i][j] += x * B[k][j]; }
  for (int l = 0; l < 32; l++) { MmaArg& q = *(MmaArg*)args[l]; int g = l >> 2, t = (l & 3) * 2;
    for (int m = 0; m < MT; m++) for (int n = 0; n < NT; n++) { float* c = q.acc + (m * NT + n) * 4;
      c[0] = C[m*16+g][n*8+t]; c[1] = C[m*16+g][n*8+t+1]; c[2] = C[m*16+g+8][n*8+t]; c[3] = C[m*16+g+8][n*8+t+1]; } }
}
#endif
template <int MT, int NT>
ATTUNE_DEVICE void mma_tile(float (&acc)[MT][NT][4], const uint32_t (&a)[MT][4], const uint32_t (&b)[NT][2] ATTUNE_HERE) {
#ifndef __CUDACC__
  (void)file_;
 MmaArg q{&acc[0][0][0], &a[0][0], &b[0][0]}; simt::collective(0xffffffffu, line_, &q, &mma_leader<MT, NT>);
#else
  ATTUNE_UNROLL
  for (int m = 0; m < MT; m++) {
    ATTUNE_UNROLL
    for (int n = 0; n < NT; n++) mma16816(acc[m][n], a[m], b[n][0], b[n][1]);
  }
#endif
}

// ---------------- runs of column tiles: what attention multiplies, with a depth of 16 or of 8 (the last channels of a head of 40)

/// Two 8x8 matrices; lanes 0..15 name their rows.
ATTUNE_DEVICE void ldmatrix_x2(uint32_t (&r)[2], const void* p ATTUNE_HERE) {
#ifndef __CUDACC__
  ldsm<2, false>(r, p, file_, line_);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(p)) : "memory");
#endif
}

#ifndef __CUDACC__
struct MmaRun {
  float* acc;  // [n][m][4]
  const uint32_t *a, *b;
};
/// Fragments of the PTX manual: lane = 4 * g + t holds rows g and g + 8 of A, column g of B, and columns 2t, 2t + 1 of the result.
template <int kDepth, int kM, int kN>
__attribute__((no_sanitize("thread"))) void mma_run_leader(void** lanes, uint32_t mask) {
  if (mask != 0xffffffffu) return simt::report("mma", "not all lanes active: %08x", mask);
  float a[kM * 16][kDepth], b[kDepth][kN * 8];
  for (int lane = 0; lane < 32; lane++) {
    const MmaRun& run = *static_cast<MmaRun*>(lanes[lane]);
    const int g = lane >> 2, t = (lane & 3) * 2;
    for (int half = 0; half < kDepth / 8; half++) {  // of the depth
      for (int r = 0; r < kM * 2; r++) {             // 8 rows each
        const uint32_t v = run.a[r / 2 * (kDepth / 4) + half * 2 + r % 2];
        a[r * 8 + g][half * 8 + t] = bfl(v), a[r * 8 + g][half * 8 + t + 1] = bfh(v);
      }
      for (int n = 0; n < kN; n++) {
        const uint32_t v = run.b[n * (kDepth / 8) + half];
        b[half * 8 + t][n * 8 + g] = bfl(v), b[half * 8 + t + 1][n * 8 + g] = bfh(v);
      }
    }
  }
  for (int m = 0; m < kM; m++)
    for (int r = 0; r < 16; r++) {
      float c[kN * 8];
      const auto at = [&](int column) -> float& {
        return static_cast<MmaRun*>(lanes[r % 8 * 4 + column % 8 / 2])->acc[(column / 8 * kM + m) * 4 + r / 8 * 2 + column % 2];
      };
      for (int j = 0; j < kN * 8; j++) c[j] = at(j);
      for (int k = 0; k < kDepth; k++)
        for (int j = 0; j < kN * 8; j++) c[j] += a[m * 16 + r][k] * b[k][j];
      for (int j = 0; j < kN * 8; j++) at(j) = c[j];
    }
}
#endif

/// acc[n][m] += a[m] b[n]: kM tiles of 16 rows by kN tiles of 8 columns over a depth of 16 or 8. `acc` may be the middle of a longer run, so that few fragments
/// of B live at a time.
template <int kDepth, int kM, int kN>
ATTUNE_DEVICE void mma_run(float (*acc)[kM][4], const uint32_t (&a)[kM][kDepth / 4], const uint32_t (&b)[kN][kDepth / 8] ATTUNE_HERE) {
#ifndef __CUDACC__
  (void)file_;
  MmaRun run{&acc[0][0][0], &a[0][0], &b[0][0]};
  simt::collective(0xffffffffu, line_, &run, &mma_run_leader<kDepth, kM, kN>);
#else
  ATTUNE_UNROLL
  for (int n = 0; n < kN; n++) {
    ATTUNE_UNROLL
    for (int m = 0; m < kM; m++) {
      float(&d)[4] = acc[n][m];
      if constexpr (kDepth == 16) mma16816(d, a[m], b[n][0], b[n][1]);
      else
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[m][0]), "r"(a[m][1]), "r"(b[n][0]));
    }
  }
#endif
}

/// 2^x by the special function unit: 2 ulp, results below 2^-126 are zero, 2^-inf = 0.
ATTUNE_DEVICE float exp2_approx(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

}  // namespace cuda
}  // namespace attune
