// The sums every preference objective is made of. With d = prediction - target and p = prediction - reference over the N elements of a row (a segment of a
// sample):
//   E = sum d^2 / N, C = sum d p / N, P = sum p^2 / N, D = E - sum (reference - target)^2 / N = 2 C - P.
// Differences and sums are f64: D is of the order of p while E is not, so in f32 the digits that decide the objective would be lost. A row is cut into slabs of
// 4096 elements, one block each; a slab's sums go to memory and are added in slab order, so that nothing depends on which block was first.
#pragma once
#include "block.cuh"
#include "packs.cuh"

namespace attune {
namespace cuda {

constexpr int kSlab = 4096, kSlabThreads = 256;

struct PairSums {
  double dd, dp, pp;
  template <typename C>
  ATTUNE_DEVICE void add(C prediction, C target, C reference) {
    const double d = double(prediction) - double(target), p = double(prediction) - double(reference);
    dd = fma(d, d, dd), dp = fma(d, p, dp), pp = fma(p, p, pp);
  }
};

/// Over the block, in a fixed order; `partial`: 32 doubles of shared memory.
ATTUNE_DEVICE PairSums block_sums(PairSums s, double* partial) { return {block_sum(s.dd, partial), block_sum(s.dp, partial), block_sum(s.pp, partial)}; }

/// The slabs [row * slabs, (row + 1) * slabs) of a row added up by a warp, all of whose lanes take part.
ATTUNE_DEVICE PairSums row_sums(const double* partials, int64_t row, int slabs) {
  PairSums s = {0, 0, 0};
  for (int i = int(threadIdx.x % 32); i < slabs; i += 32) {
    const double* at = partials + (row * slabs + i) * 3;
    s.dd += load(at), s.dp += load(at + 1), s.pp += load(at + 2);
  }
  return {warp_sum(s.dd), warp_sum(s.dp), warp_sum(s.pp)};
}

}  // namespace cuda
}  // namespace attune
