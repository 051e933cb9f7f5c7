// What becomes of a tile's sums on sm_90a: through shared memory, so that lanes have neighbours of a row, then bias, activation and residual into the output;
// and the statistics of the output that a group norm wants.
#pragma once
#include "block.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_statistics.cuh"
#include "hopper.cuh"
#include "hopper_gemm.h"

namespace attune {
namespace cuda {

constexpr int kStage = 8 * 32;  // floats: each consumer warp stages 8 rows of 32 sums

/// Where a tile lies: its group, the first row (in boxes of 128 pixels; weight: in rows), the first column within the group, and its blocks of k.
struct HopperPlace {
  int group, row, column, first, last, split;
};

struct HopperPixel {
  int x, y, image;
};
/// The first pixel of a box.
ATTUNE_DEVICE HopperPixel hopper_box(const HopperProblem& p, int box) {
  return {box % p.boxes_x << p.log_width, box / p.boxes_x % p.boxes_y << p.log_height, box / (p.boxes_x * p.boxes_y) << p.log_images};
}

/// v += four neighbours at p + offset, as far as they exist.
ATTUNE_DEVICE void hopper_add4(float (&v)[4], const void* p, bool narrow, int64_t offset, int count, bool vector) {
  if (narrow && vector) {
    const uint2 pairs = load(reinterpret_cast<const uint2*>(static_cast<const bf16*>(p) + offset));
    v[0] += bits_to_float(pairs.x << 16), v[1] += bits_to_float(pairs.x & 0xffff0000u), v[2] += bits_to_float(pairs.y << 16),
        v[3] += bits_to_float(pairs.y & 0xffff0000u);
  } else if (vector) {
    const float4 four = load(reinterpret_cast<const float4*>(static_cast<const float*>(p) + offset));
    v[0] += four.x, v[1] += four.y, v[2] += four.z, v[3] += four.w;
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++)
      if (i < count) v[i] += narrow ? to_float(load(static_cast<const bf16*>(p) + offset + i)) : load(static_cast<const float*>(p) + offset + i);
  }
}
/// Rounds v to what it stores.
ATTUNE_DEVICE void hopper_store4(float (&v)[4], void* p, bool narrow, int64_t offset, int count, bool vector) {
  if (narrow) {
    const uint32_t low = pack_bf16(v[0], v[1]), high = pack_bf16(v[2], v[3]);
    v[0] = bits_to_float(low << 16), v[1] = bits_to_float(low & 0xffff0000u), v[2] = bits_to_float(high << 16), v[3] = bits_to_float(high & 0xffff0000u);
    if (vector) return store(reinterpret_cast<uint2*>(static_cast<bf16*>(p) + offset), make_uint2(low, high));
  } else if (vector) return store(reinterpret_cast<float4*>(static_cast<float*>(p) + offset), float4{v[0], v[1], v[2], v[3]});
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++)
    if (i < count) narrow ? store(static_cast<bf16*>(p) + offset + i, from_float<bf16>(v[i])) : store(static_cast<float*>(p) + offset + i, v[i]);
}

/// Four sums of one row, columns column .. column + 3 of the output, those below `end` (and their gates), through the epilogue into memory.
ATTUNE_DEVICE void hopper_finish4(const HopperProblem& p, int64_t row, int column, int end, float (&v)[4], float (&gate)[4]) {
  const Epilogue& e = p.epilogue;
  const bool geglu = e.activation == Activation::geglu;
  const int count = end - column;
  if (e.bias) {
    hopper_add4(v, e.bias.data, e.bias.narrow, column, count, p.vector);
    if (geglu) hopper_add4(gate, e.bias.data, e.bias.narrow, p.columns + column, count, p.vector);
  }
  if (e.per_sample) hopper_add4(v, e.per_sample, true, row / e.rows_per_sample * p.columns + column, count, p.vector);
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) v[i] = geglu ? v[i] * exact_gelu(gate[i]) : activate(v[i], e.activation);
  if (e.residual) hopper_add4(v, e.residual, e.residual_narrow, row * e.ld + column, count, p.vector);
  hopper_store4(v, e.out, e.out_narrow, row * e.ld + column, count, p.vector);
}

/// Where columns 2 c, 2 c + 1 of row r lie in a warp's stage of 8 rows by 32 sums: crossed with the row so that fragments and rows are both spread over the
/// banks.
ATTUNE_DEVICE float* hopper_stage(float* stage, int r, int c) { return stage + r * 32 + ((c ^ (r % 4 * 4)) * 2); }

/// Finishes a warp's rows of a tile, 32 columns of 8 rows at a time, by way of shared memory: each lane then has four neighbours in a row, a warp writes whole
/// sectors, and the code of the epilogue stands here once, not once for every register. `moments`: a warp's [kColumns], filled where statistics are asked for.
template <HopperMode kMode, int kUnits, int kColumns>
ATTUNE_DEVICE void hopper_finish(const HopperProblem& p, const HopperPlace& at, const float (&acc)[kUnits][kColumns / 2], float* stage, Moments* moments) {
  constexpr int kRows8 = kUnits * 2;  // rows of 8 that a thread's warp has of its 64-row blocks
  const int warpgroup = int(threadIdx.x) / 128 - 1, warp = int(threadIdx.x) / 32 % 4, lane = int(threadIdx.x) % 32;
  const HopperGroup& group = p.group[at.group];
  const bool geglu = p.epilogue.activation == Activation::geglu;  // sums of an even column are values, of the odd one after it their gates
  const int phase_y = at.group / p.step, phase_x = at.group % p.step, width = geglu ? 16 : 32;
  const HopperPixel first = hopper_box(p, at.row + (kUnits == 1 ? 0 : warpgroup));
  float shift[4] = {}, sum[4] = {}, squares[4] = {};
  ATTUNE_LOOP
  for (int part = 0; part < kColumns / 32 * kRows8; part++) {
    const int chunk = part / kRows8;
    __syncwarp();
    ATTUNE_UNROLL
    for (int s = 0; s < kColumns / 32 * kRows8; s++)
      if (s == part) {
        ATTUNE_UNROLL
        for (int j = 0; j < 4; j++) {
          const float* d = acc[s % kRows8 / 2] + (s / kRows8 * 4 + j) * 4 + s % 2 * 2;
          store(reinterpret_cast<float2*>(hopper_stage(stage, lane / 4, j * 4 + lane % 4)), make_float2(d[0], d[1]));
        }
      }
    __syncwarp();
    ATTUNE_LOOP
    for (int quad = lane; quad < 2 * width; quad += 32) {  // of 8 rows, width / 4 in a row
      const int r = quad / (width / 4), c = quad % (width / 4) * 4;
      const int local = (warpgroup * kUnits + part % kRows8 / 2) * 64 + warp * 16 + part % 2 * 8 + r;  // row of the tile
      const int column = (geglu ? at.column / 2 : at.column) + chunk * width + c;
      int64_t row = at.row + local;
      bool exists = row < p.rows;
      if (kMode != HopperMode::weight) {
        const int pixel = local % 128, image = first.image + (pixel >> (p.log_width + p.log_height));
        const int x = (first.x + (pixel & ((1 << p.log_width) - 1))) * p.step + phase_x,
                  y = (first.y + (pixel >> p.log_width & ((1 << p.log_height) - 1))) * p.step + phase_y;
        exists = x < p.width && y < p.height && image < p.images;
        row = (int64_t(image) * p.height + y) * p.width + x;
      }
      if (!exists || column >= group.columns) continue;
      float v[4], gate[4] = {};
      if (geglu) {
        const float4 low = load(reinterpret_cast<const float4*>(hopper_stage(stage, r, c))),
                     high = load(reinterpret_cast<const float4*>(hopper_stage(stage, r, c + 2)));
        v[0] = low.x, gate[0] = low.y, v[1] = low.z, gate[1] = low.w, v[2] = high.x, gate[2] = high.y, v[3] = high.z, gate[3] = high.w;
      } else {
        const float4 four = load(reinterpret_cast<const float4*>(hopper_stage(stage, r, c / 2)));
        v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
      }
      if (p.partial)
        hopper_store4(v, p.partial, false, (int64_t(at.split) * p.rows + row) * p.columns + group.column + column, group.columns - column, p.vector);
      else hopper_finish4(p, row, group.column + column, group.column + group.columns, v, gate);
      if (kMode == HopperMode::forward && p.epilogue.groups) {
        ATTUNE_UNROLL
        for (int i = 0; i < 4; i++) {
          if (part % kRows8 == 0 && quad < 32) shift[i] = v[i], sum[i] = squares[i] = 0.f;
          sum[i] += v[i] - shift[i], squares[i] += (v[i] - shift[i]) * (v[i] - shift[i]);
        }
      }
    }
    if (kMode == HopperMode::forward && p.epilogue.groups && part % kRows8 == kRows8 - 1) {  // lanes 8 apart have the same columns
      const int column = chunk * 32 + lane % 8 * 4;
      ATTUNE_UNROLL
      for (int i = 0; i < 4; i++) {
        Moments m = moments_of(shift[i], sum[i], squares[i], 4.f * kUnits);
        ATTUNE_UNROLL
        for (int step = 8; step <= 16; step *= 2) {
          const float count = step / 8 * 4.f * kUnits, mean = __shfl_xor_sync(0xffffffffu, m.mean, step), m2 = __shfl_xor_sync(0xffffffffu, m.m2, step);
          const float half = (mean - m.mean) * 0.5f;  // squared in both lanes: they end with the same bits
          m = {(m.mean + mean) * 0.5f, m.m2 + m2 + 2.f * count * half * half};
        }
        if (lane < 8) store(moments + column + i, m);
      }
    }
  }
}

/// Merges what the warps of a slab of 128 rows found in each column into the moments of groups of `channels` columns. Everyone has stored, everyone waits
/// after.
template <int kWarps, int kColumns>
ATTUNE_DEVICE void hopper_statistics(const Epilogue& e, const Moments* table, int warp, int64_t slab, int column, int columns, int channels) {
  const int lane = int(threadIdx.x) % 32;
  for (int g = warp; g * channels < kColumns && column + g * channels < columns; g += kWarps) {
    const auto part = [&](int i) { return load(table + i % kWarps * kColumns + g * channels + i / kWarps); };
    const float parts = float(channels * kWarps);
    float mean = 0, m2 = 0;
    for (int i = lane; i < channels * kWarps; i += 32) mean += part(i).mean;
    mean = warp_sum(mean) / parts;
    for (int i = lane; i < channels * kWarps; i += 32) {
      const Moments m = part(i);
      m2 += m.m2 + 128.f / kWarps * (m.mean - mean) * (m.mean - mean);
    }
    m2 = warp_sum(m2);
    if (lane == 0) store(reinterpret_cast<Moments*>(e.statistics) + slab * e.groups + column / channels + g, Moments{mean, m2});
  }
}

}  // namespace cuda
}  // namespace attune
