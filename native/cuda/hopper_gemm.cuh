// Matrix products on sm_90a: one warpgroup's first thread fetches boxes of A and B with the copy engine into a ring of slots in shared memory, two warpgroups
// multiply them with wgmma, each for half of the tile's rows, and finish the sums in registers. Blocks are persistent: block i takes tiles i, i + gridDim.x,
// ..., and the next tile's boxes arrive while the last one is being finished.
//
// A convolution is the same product: a box of A is a rectangle of 128 pixels times 64 channels of the map, moved by a tap; where it leaves the map the copy
// engine fills in zeros, which is the padding. Strides and nearest-neighbour upsampling are cut into phases (pixels of one parity), each with plain boxes.
//
// What could go wrong: a slot may be filled again only when all eight consumer warps have said that wgmma has read it (`empty`, one arrival a warp), and read
// only when all its bytes have landed (`full`). Both are waited for by parity, which starts over with the ring, not with the tile.
#pragma once
#include "hopper_finish.cuh"

namespace attune {
namespace cuda {

constexpr int kHopperShared = 227 * 1024;  // what a block may ask for

template <HopperMode kMode, int kUnits, int kColumns>
struct HopperTile {
  static constexpr int kRows = 128 * kUnits, kDepth = 64;
  static constexpr int kAcross = kColumns > 256 ? 2 : 1, kN = kColumns / kAcross;  // multiplies side by side, and columns of one
  // An n-major B is stored as boxes of one swizzle span: the widest that divides a multiply, as the canonical layouts know whole spans only.
  static constexpr Swizzle kSwizzleB = kMode == HopperMode::forward || kN % 64 == 0 ? Swizzle::span128 : Swizzle::span64;
  static constexpr int kSpanB = swizzle_span(kSwizzleB), kBoxesB = kMode == HopperMode::forward ? 1 : kColumns * 2 / kSpanB;
  static constexpr int kBytesA = kRows * kDepth * 2, kBytesB = kColumns * kDepth * 2, kBytes = kBytesA + kBytesB, kBoxB = kBytesB / kBoxesB;
  // Behind the slots: stages, moments of columns, barriers.
  static constexpr int kTail = 8 * kStage * int(sizeof(float)) + (kMode == HopperMode::forward ? 8 * kColumns * int(sizeof(Moments)) : 0);
  static constexpr int kFit = (kHopperShared - kTail - 128) / kBytes, kSlots = kFit < 6 ? kFit : 6;
  static constexpr int kShared = kSlots * kBytes + kTail + kSlots * 2 * int(sizeof(uint64_t));
  static_assert(kBytesA % 1024 == 0 && kBytesB % 1024 == 0 && kBoxB % (8 * kSpanB) == 0, "boxes keep the swizzle's alignment");
  static_assert(kColumns % 32 == 0 && (kMode != HopperMode::forward || kColumns <= 256), "sums are finished 32 columns at a time; a box has at most 256 rows");
};

template <HopperMode kMode, int kUnits, int kColumns>
ATTUNE_DEVICE HopperPlace hopper_place(const HopperProblem& p, int tile) {
  HopperPlace at;
  at.split = tile / p.tiles, tile %= p.tiles;
  at.group = 0;
  while (at.group + 1 < p.groups && tile >= p.group[at.group + 1].tile) at.group++;
  const HopperGroup& g = p.group[at.group];
  tile -= g.tile;
  // Bands of 8 tiles side by side, downwards: the tiles that run at one time share rows and columns in the L2 cache.
  const int band = tile / (8 * p.down), width = g.across - band * 8 < 8 ? g.across - band * 8 : 8, inside = tile - band * 8 * p.down;
  at.row = inside / width * kUnits * (kMode == HopperMode::weight ? 128 : 1);
  at.column = (band * 8 + inside % width) * kColumns;
  at.first = int(int64_t(g.blocks) * at.split / p.splits);
  at.last = int(int64_t(g.blocks) * (at.split + 1) / p.splits);
  return at;
}

// ---- the two roles -----------------------------------------------------------------------------------------------------------------------------------------

/// One thread: asks for the boxes of every block of k of every tile of this thread block.
template <HopperMode kMode, int kUnits, int kColumns>
ATTUNE_DEVICE void hopper_produce(const HopperMaps& maps, const HopperProblem& p, unsigned char* slots, uint64_t* full, uint64_t* empty) {
  using Tile = HopperTile<kMode, kUnits, kColumns>;
  HopperRing<Tile::kSlots> ring;
  prefetch_map(maps.a), prefetch_map(maps.b);
  for (int tile = int(blockIdx.x); tile < p.tiles * p.splits; tile += int(gridDim.x)) {
    const HopperPlace at = hopper_place<kMode, kUnits, kColumns>(p, tile);
    const HopperGroup& group = p.group[at.group];
    int segment = group.segment, block = at.first;
    const auto blocks = [&] { return kMode == HopperMode::weight ? p.boxes : int(p.segment[segment].blocks); };
    while (at.first < at.last && block >= blocks()) block -= blocks(), segment++;
    for (int k = at.first; k < at.last; k++, block++, ring.next()) {
      if (block == blocks()) block = 0, segment++;
      const HopperSegment& s = p.segment[segment];
      unsigned char *a = slots + ring.slot * Tile::kBytes, *b = a + Tile::kBytesA;
      uint64_t* landed = full + ring.slot;
      barrier_wait(empty + ring.slot, ring.parity ^ 1);
      barrier_expect(landed, Tile::kBytes);
      if constexpr (kMode == HopperMode::weight) {
        const HopperPixel pixel = hopper_box(p, block);
        ATTUNE_UNROLL
        for (int i = 0; i < 2 * kUnits; i++) load_box(a + i * 8192, &maps.a[s.a], landed, at.row + i * 64, pixel.x, pixel.y, pixel.image);
        ATTUNE_UNROLL
        for (int i = 0; i < Tile::kBoxesB; i++)
          load_box(b + i * Tile::kBoxB, &maps.b[s.b], landed, at.column + i * (Tile::kSpanB / 2), pixel.x + s.dx, pixel.y + s.dy, pixel.image);
      } else {
        ATTUNE_UNROLL
        for (int i = 0; i < kUnits; i++) {
          const HopperPixel pixel = hopper_box(p, at.row + i);
          load_box(a + i * 16384, &maps.a[s.a], landed, block * 64, pixel.x + s.dx, pixel.y + s.dy, pixel.image);
        }
        if constexpr (kMode == HopperMode::forward) {
          load_box(b, &maps.b[s.b], landed, s.channel + block * 64, int(s.tap), p.epilogue.activation == Activation::geglu ? at.column / 2 : at.column);
        } else {
          ATTUNE_UNROLL
          for (int i = 0; i < Tile::kBoxesB; i++)
            load_box(b + i * Tile::kBoxB, &maps.b[s.b], landed, at.column + i * (Tile::kSpanB / 2), int(s.tap), s.channel + block * 64);
        }
      }
    }
  }
}

/// One of two warpgroups: multiplies its kUnits * 64 rows of every tile and finishes them.
template <HopperMode kMode, int kUnits, int kColumns>
ATTUNE_DEVICE void hopper_consume(const HopperProblem& p, unsigned char* slots, uint64_t* full, uint64_t* empty, float* stage, Moments* moments) {
  using Tile = HopperTile<kMode, kUnits, kColumns>;
  constexpr bool kRowsM = kMode == HopperMode::weight, kColumnsN = kMode != HopperMode::forward;  // m- and n-major
  const int warpgroup = int(threadIdx.x) / 128 - 1, lane = int(threadIdx.x) % 32;
  HopperRing<Tile::kSlots> ring;
  for (int tile = int(blockIdx.x); tile < p.tiles * p.splits; tile += int(gridDim.x)) {
    const HopperPlace at = hopper_place<kMode, kUnits, kColumns>(p, tile);
    float acc[kUnits][kColumns / 2];
    ATTUNE_UNROLL
    for (int i = 0; i < kUnits; i++) {
      ATTUNE_UNROLL
      for (int e = 0; e < kColumns / 2; e++) acc[i][e] = 0.f;
    }
    int last_slot = -1;
    for (int k = at.first; k < at.last; k++, ring.next()) {
      const unsigned char *a = slots + ring.slot * Tile::kBytes + warpgroup * kUnits * 8192, *b = slots + ring.slot * Tile::kBytes + Tile::kBytesA;
      const uint64_t b0 = kColumnsN ? mn_major<Tile::kSwizzleB>(b, Tile::kBoxB) : k_major(b);
      barrier_wait(full + ring.slot, ring.parity);
      ATTUNE_UNROLL
      for (int i = 0; i < kUnits; i++) pin_registers(acc[i]);
      wgmma_fence();
      ATTUNE_UNROLL
      for (int step = 0; step < 4; step++) {
        ATTUNE_UNROLL
        for (int i = 0; i < kUnits; i++) {
          const uint64_t a0 = kRowsM ? mn_major(a + i * 8192, 8192) : k_major(a + i * 8192);
          ATTUNE_UNROLL
          for (int j = 0; j < Tile::kAcross; j++)
            Wgmma<Tile::kN>::template shared<kRowsM, kColumnsN>(
                reinterpret_cast<float (&)[Tile::kN / 2]>(acc[i][j * (Tile::kN / 2)]), descriptor_step(a0, step * (kRowsM ? 2048 : 32)),
                descriptor_step(b0, step * (kColumnsN ? 16 * Tile::kSpanB : 32) + j * (Tile::kBytesB / Tile::kAcross)), 1);
        }
      }
      wgmma_commit();
      wgmma_wait<1>();  // the block before this one has been read
      if (lane == 0 && last_slot >= 0) barrier_arrive(empty + last_slot);
      last_slot = ring.slot;
      ATTUNE_UNROLL
      for (int i = 0; i < kUnits; i++) pin_registers(acc[i]);
    }
    wgmma_wait<0>();
    if (lane == 0 && last_slot >= 0) barrier_arrive(empty + last_slot);

    const int warp = int(threadIdx.x) / 32 - 4;
    hopper_finish<kMode, kUnits, kColumns>(p, at, acc, stage + warp * kStage, moments + warp * kColumns);
    if (kMode == HopperMode::forward && p.epilogue.groups) {  // a slab of 128 rows is both warpgroups' tile, or each one's own
      constexpr int kWarps = 8 / kUnits;
      const int slab = at.row + (kUnits == 1 ? 0 : warpgroup), barrier = kUnits == 1 ? 1 : 1 + warpgroup;
      sync_named(barrier, kWarps * 32);
      if (slab < p.boxes)
        hopper_statistics<kWarps, kColumns>(p.epilogue, moments + warp / kWarps * kWarps * kColumns, warp % kWarps, slab, at.column, p.columns,
                                            p.columns / p.epilogue.groups);
      sync_named(barrier, kWarps * 32);
    }
  }
}

template <HopperMode kMode, int kUnits, int kColumns>
__global__ void __launch_bounds__(384, 1) hopper_gemm_kernel(const __grid_constant__ HopperMaps maps, const __grid_constant__ HopperProblem p) {
  if constexpr (kHopper) {
    using Tile = HopperTile<kMode, kUnits, kColumns>;
    ATTUNE_SHARED(memory);
    float* stage = reinterpret_cast<float*>(memory + Tile::kSlots * Tile::kBytes);
    Moments* moments = reinterpret_cast<Moments*>(stage + 8 * kStage);
    uint64_t *full = reinterpret_cast<uint64_t*>(memory + Tile::kSlots * Tile::kBytes + Tile::kTail), *empty = full + Tile::kSlots;
    if (threadIdx.x == 0) {
      for (int i = 0; i < Tile::kSlots; i++) barrier_init(full + i, 1), barrier_init(empty + i, 8);
      barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
      shrink_registers<40>();
      if (threadIdx.x == 0) hopper_produce<kMode, kUnits, kColumns>(maps, p, memory, full, empty);
    } else {
      grow_registers<232>();
      hopper_consume<kMode, kUnits, kColumns>(p, memory, full, empty, stage, moments);
    }
  }
}

}  // namespace cuda
}  // namespace attune
