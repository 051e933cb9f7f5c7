// AdamW with moments in 8 bits (native/core/dynamic_code.h): blocks of 256 elements share one largest magnitude per moment. One warp has a block, a lane eight
// consecutive elements: moments are widened, updated as by adamw, and stored again in units of the block's new maximum. Bytes a parameter: 10.06 in bf16
// (parameter 4, gradient 2, codes 4, maxima 0.06), 16.06 in f32, 14.06 with a bf16 gradient. Parameters in bf16 are rounded stochastically, by bits that are
// a function of (seed, step, element): without them an update below half a bf16 step would be lost, and there is no f32 copy to remember it.
#include "../core/dynamic_code.h"
#include "block.cuh"
#include "optimizer.cuh"
#include "random.cuh"

namespace attune {
namespace cuda {

constexpr int kStateBlock = dynamic_code::kBlock, kBlocksPerWarp = 4, kStateWarps = 8;
/// Values of both code books, read by code: signed first.
constexpr int kBookBytes = 2 * 256 * int(sizeof(float));

struct Moments {
  uint8_t *m, *v;
  float *m_max, *v_max;
};

ATTUNE_DEVICE void load_codes(const uint8_t* p, int count, int (&codes)[kPack]) {
  if (count == kPack && reinterpret_cast<uintptr_t>(p) % 8 == 0) {
    const uint2 w = load(reinterpret_cast<const uint2*>(p));
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) codes[i] = int(w.x >> (8 * i) & 0xffu), codes[4 + i] = int(w.y >> (8 * i) & 0xffu);
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) codes[i] = i < count ? int(load(p + i)) : 0;
  }
}
ATTUNE_DEVICE void store_codes(uint8_t* p, int count, const uint32_t (&codes)[kPack]) {
  if (count == kPack && reinterpret_cast<uintptr_t>(p) % 8 == 0) {
    uint2 w = make_uint2(0, 0);
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) w.x |= codes[i] << (8 * i), w.y |= codes[4 + i] << (8 * i);
    store(reinterpret_cast<uint2*>(p), w);
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++)
      if (i < count) store(p + i, uint8_t(codes[i]));
  }
}

/// 1 / max, or 0 for a block that has nothing a f32 reciprocal could scale: its codes are then those of 0.
ATTUNE_DEVICE float reciprocal_of(float max) { return max >= 1.17549435e-38f ? 1.f / max : 0.f; }

template <typename P, typename G>
__global__ void __launch_bounds__(32 * kStateWarps)
    adamw8_kernel(P* __restrict__ param, const G* __restrict__ grad, Moments to, const double* __restrict__ grad_scale, const double* __restrict__ scalars,
                  AdamwAttrs attrs, bool stochastic, DrawSlots slots, int64_t n) {
  ATTUNE_SHARED(memory);
  float* book = reinterpret_cast<float*>(memory);
  for (int code = int(threadIdx.x); code < 256; code += int(blockDim.x))
    store(book + code, dynamic_code::decode_signed(uint8_t(code))), store(book + 256 + code, dynamic_code::decode_unsigned(uint8_t(code)));
  __syncthreads();
  const AdamwStep<float> step(attrs, scalars, grad_scale);
  if (!step.finite) return;
  const int lane = int(threadIdx.x % 32);
  const int64_t first = (int64_t(blockIdx.x) * kStateWarps + threadIdx.x / 32) * kBlocksPerWarp;
  for (int64_t block = first; block < first + kBlocksPerWarp && block * kStateBlock < n; block++) {
    const int64_t at = block * kStateBlock + lane * kPack;
    const int count = int(n - at >= kPack ? kPack : n - at > 0 ? n - at : 0);
    float p[kPack], m[kPack], v[kPack];
    compute_t<G> g[kPack];
    int codes[kPack];
    load_pack(param + at, count, p);
    load_pack(grad + at, count, g);
    load_codes(to.m + at, count, codes);
    const float m_before = load(to.m_max + block), v_before = load(to.v_max + block);
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) m[i] = load(book + codes[i]) * m_before;
    load_codes(to.v + at, count, codes);
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) v[i] = load(book + 256 + codes[i]) * v_before;
    float m_max = 0, v_max = 0;
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) {
      if (i >= count) continue;
      step.update(p[i], float(g[i]), m[i], v[i]);
      m_max = max_of(m_max, fabsf(m[i])), v_max = max_of(v_max, v[i]);
    }
    m_max = warp_max(m_max), v_max = warp_max(v_max);
    const float m_unit = reciprocal_of(m_max), v_unit = reciprocal_of(v_max);
    uint32_t narrow[kPack];
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) narrow[i] = dynamic_code::encode_signed(m[i] * m_unit);
    store_codes(to.m + at, count, narrow);
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) narrow[i] = dynamic_code::encode_unsigned(v[i] * v_unit);
    store_codes(to.v + at, count, narrow);
    __syncwarp();  // every lane has read the maxima of before
    if (lane == 0) store(to.m_max + block, m_unit > 0 ? m_max : 0.f), store(to.v_max + block, v_unit > 0 ? v_max : 0.f);
    if (stochastic) {
      const Draw draw(slots, scalars);
      const philox::Lanes words = draw.words(at / kPack);
      ATTUNE_UNROLL
      for (int i = 0; i < kPack; i++)
        p[i] = bits_to_float(uint32_t(dynamic_code::round_stochastic(float_to_bits(p[i]), dynamic_code::half_word(words, i))) << 16);
    }
    store_pack(param + at, count, p);
  }
}

void adamw8_op(const OpArgs& args) {
  const TensorRef &param = args.in[0], &grad = args.in[1];
  const int64_t n = param.numel(), blocks = ceil_div(n, kStateBlock);
  const Moments to{args.out[1].as<uint8_t>(), args.out[2].as<uint8_t>(), args.out[3].as<float>(), args.out[4].as<float>()};
  const double* scale = args.has(6) ? args.in[6].as<const double>() : nullptr;
  DrawSlots slots{};
  slots.seed = int(args.attrs.integer("seed")), slots.step = int(args.attrs.integer("step")), slots.stream = uint32_t(args.attrs.integer("stream"));
  slots.offset = slots.step, slots.sample = 0;  // elements count from the arena's first
  dispatch(param.dtype, [&](auto p) {
    using P = decltype(p);
    dispatch(grad.dtype, [&](auto g) {
      using G = decltype(g);
      launch(args, adamw8_kernel<P, G>, dim3(unsigned(ceil_div(blocks, kStateWarps * kBlocksPerWarp))), dim3(32 * kStateWarps), kBookBytes, args.out[0].as<P>(),
             grad.as<const G>(), to, scale, args.scalars, AdamwAttrs(args.attrs), args.attrs.flag("stochastic"), slots, n);
    });
  });
}

REGISTER_CUDA(adamw8, adamw8_op)

}  // namespace cuda
}  // namespace attune
