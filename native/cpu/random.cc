// Random tensors: element i of the draw (seed, step, stream) is lane i % 4 of Philox block i / 4, so a value depends on nothing but its index.
// `offset` samples are skipped: micro-batches draw the noise of the batch that they are parts of.
#include "../core/philox.h"
#include "parallel.h"
#include "simd.h"

ATTUNE_CPU_BEGIN
namespace {

/// Philox blocks made at a time; four elements each.
constexpr int64_t kBlocks = 64;

struct Draw {
  philox::Key key;
  uint32_t stream, step;
  uint64_t first;  // index of the output's first element

  explicit Draw(const OpArgs& args) {
    const auto slot = [&](const char* name) { return uint64_t(args.scalars[args.attrs.integer(name)]); };
    const uint64_t seed = slot("seed");
    key = {uint32_t(seed), uint32_t(seed >> 32)};
    step = uint32_t(slot("step")), stream = uint32_t(args.attrs.integer("stream"));
    const TensorRef& out = args.out[0];
    first = slot("offset") * uint64_t(out.rank > 0 ? out.numel() / out.dims[0] : 1);
  }

  /// Lanes of blocks [block, block + kBlocks), lane by lane.
  void lanes(uint64_t block, uint32_t (*to)[kBlocks]) const {
    const Draw d = *this;
#pragma omp simd
    for (int64_t i = 0; i < kBlocks; i++) {
      const uint64_t index = block + uint64_t(i);
      const philox::Lanes x = philox::block(uint32_t(index), uint32_t(index >> 32), d.stream, d.step, d.key);
      to[0][i] = x.x[0], to[1][i] = x.x[1], to[2][i] = x.x[2], to[3][i] = x.x[3];
    }
  }
};

/// y[i] for all i, from make(lanes, values): 4 kBlocks values in element order out of kBlocks blocks.
template <typename T, typename Make>
void draw(const OpArgs& args, Make&& make) {
  const Draw d(args);
  T* y = args.out[0].as<T>();
  const int64_t n = args.out[0].numel(), skip = int64_t(d.first % 4);
  parallel_ranges(args.pool, ceil_div(skip + n, 4 * kBlocks), kMathGrain / (4 * kBlocks), [&](int64_t begin, int64_t end) {
    uint32_t lanes[4][kBlocks];
    T values[4 * kBlocks];
    for (int64_t part = begin; part < end; part++) {
      d.lanes(d.first / 4 + uint64_t(part * kBlocks), lanes);
      make(lanes, values);
      const int64_t at = part * 4 * kBlocks - skip, from = max_of(0, -at), to = min_of(4 * kBlocks, n - at);
      for (int64_t i = from; i < to; i++) y[at + i] = values[i];
    }
  });
}

void random_normal_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    draw<T>(args, [](const uint32_t (*x)[kBlocks], T* values) {
#pragma omp simd
      for (int64_t i = 0; i < kBlocks; i++) {
        double z[4];
        philox::box_muller(x[0][i], x[1][i], &z[0], &z[1]);
        philox::box_muller(x[2][i], x[3][i], &z[2], &z[3]);
        values[4 * i] = T(z[0]), values[4 * i + 1] = T(z[1]), values[4 * i + 2] = T(z[2]), values[4 * i + 3] = T(z[3]);
      }
    });
  });
}

/// In [0, 1): 24 bits, so that float holds every value.
void random_uniform_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    draw<T>(args, [](const uint32_t (*x)[kBlocks], T* values) {
      for (int64_t i = 0; i < kBlocks; i++)
        for (int64_t lane = 0; lane < 4; lane++) values[4 * i + lane] = T(int32_t(x[lane][i] >> 8)) * T(5.9604644775390625e-8);
    });
  });
}

/// In [low, high), by multiplication: the bias is below (high - low) 2^-32.
void random_int_kernel(const OpArgs& args) {
  const int64_t low = args.attrs.integer("low");
  const uint64_t span = uint64_t(args.attrs.integer("high") - low);
  draw<int32_t>(args, [=](const uint32_t (*x)[kBlocks], int32_t* values) {
    for (int64_t i = 0; i < kBlocks; i++)
      for (int64_t lane = 0; lane < 4; lane++) values[4 * i + lane] = int32_t(low + int64_t(x[lane][i] * span >> 32));
  });
}

}  // namespace

REGISTER_CPU(random_normal, random_normal_kernel)
REGISTER_CPU(random_uniform, random_uniform_kernel)
REGISTER_CPU(random_int, random_int_kernel)
ATTUNE_CPU_END
