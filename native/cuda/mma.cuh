// Tensor-core instructions of sm_80 and later, each once as PTX and once as its twin for the host machines: ldmatrix, and mma.sync for a whole warp tile.
//
// Fragments, with lane = 4 g + t (PTX ISA, "Matrix Fragments for mma.m16n8k16"): of A, registers 0..3 hold rows g, g + 8, g, g + 8 and columns 2t, 2t + 1 (+ 8
// in registers 2 and 3); of B, registers 0, 1 hold column g and rows 2t, 2t + 1 (+ 8); of the result, floats 0, 1 are row g, columns 2t, 2t + 1, floats 2, 3
// row g + 8. Depth 8 has the first half of A's and B's registers. ldmatrix loads just these from A stored [m][k] and B stored [n][k], and with .trans from
// [k][m], [k][n].
#pragma once
#include "async_copy.cuh"

namespace attune {
namespace cuda {

// ---- ldmatrix: 8x8 matrices of 16-bit elements, each row 16 aligned bytes of shared memory; lanes 8 i .. 8 i + 7 name the rows of matrix i

ATTUNE_DEVICE void ldmatrix_x1(uint32_t (&r)[1], const void* p ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(shared_address(p)) : "memory");
#else
  simt::load_matrices(r, p, 1, false ATTUNE_HERE_ARGS);
#endif
}
ATTUNE_DEVICE void ldmatrix_x1_trans(uint32_t (&r)[1], const void* p ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(shared_address(p)) : "memory");
#else
  simt::load_matrices(r, p, 1, true ATTUNE_HERE_ARGS);
#endif
}
ATTUNE_DEVICE void ldmatrix_x2(uint32_t (&r)[2], const void* p ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(p)) : "memory");
#else
  simt::load_matrices(r, p, 2, false ATTUNE_HERE_ARGS);
#endif
}
ATTUNE_DEVICE void ldmatrix_x2_trans(uint32_t (&r)[2], const void* p ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(p)) : "memory");
#else
  simt::load_matrices(r, p, 2, true ATTUNE_HERE_ARGS);
#endif
}
ATTUNE_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* p ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
#else
  simt::load_matrices(r, p, 4, false ATTUNE_HERE_ARGS);
#endif
}
ATTUNE_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* p ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
#else
  simt::load_matrices(r, p, 4, true ATTUNE_HERE_ARGS);
#endif
}

// ---- mma.sync, bf16 -> f32

#ifdef __CUDACC__
ATTUNE_DEVICE void mma16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
ATTUNE_DEVICE void mma1688(float (&d)[4], const uint32_t (&a)[2], uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b));
}
#endif

/// acc[m][n] += a[m] b[n]: kM x kN instructions of depth 16. The host machine runs them as one: the larger the tile, the faster.
template <int kM, int kN>
ATTUNE_DEVICE void mma_tile(float (&acc)[kM][kN][4], const uint32_t (&a)[kM][4], const uint32_t (&b)[kN][2] ATTUNE_HERE) {
#ifdef __CUDACC__
  ATTUNE_UNROLL
  for (int m = 0; m < kM; m++) {
    ATTUNE_UNROLL
    for (int n = 0; n < kN; n++) mma16816(acc[m][n], a[m], b[n][0], b[n][1]);
  }
#else
  simt::multiply({&acc[0][0][0], &a[0][0], &b[0][0], kM, kN, 16, kN * 4, 4} ATTUNE_HERE_ARGS);
#endif
}

/// acc[n][m] += a[m] b[n] over a depth of 16 or 8. `acc` may be the middle of a longer run of columns, so that few fragments of B live at a time.
template <int kDepth, int kM, int kN>
ATTUNE_DEVICE void mma_run(float (*acc)[kM][4], const uint32_t (&a)[kM][kDepth / 4], const uint32_t (&b)[kN][kDepth / 8] ATTUNE_HERE) {
  static_assert(kDepth == 16 || kDepth == 8, "mma.sync multiplies bf16 to a depth of 16 or 8");
#ifdef __CUDACC__
  ATTUNE_UNROLL
  for (int n = 0; n < kN; n++) {
    ATTUNE_UNROLL
    for (int m = 0; m < kM; m++) {
      if constexpr (kDepth == 16) mma16816(acc[n][m], a[m], b[n][0], b[n][1]);
      else mma1688(acc[n][m], a[m], b[n][0]);
    }
  }
#else
  simt::multiply({&acc[0][0][0], &a[0][0], &b[0][0], kM, kN, kDepth, 4, kM * 4} ATTUNE_HERE_ARGS);
#endif
}

/// 2^x by the special function unit: 2 ulp, results below 2^-126 are zero, 2^-inf = 0.
ATTUNE_DEVICE float exp2_approx(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.f : y;
#endif
}

}  // namespace cuda
}  // namespace attune
