// Random tensors: random.h over the output of an instruction.
#include "random.h"

ATTUNE_CPU_BEGIN
namespace {

Draw draw_of(const OpArgs& args) {
  const TensorRef& out = args.out[0];
  return Draw(args, out.rank > 0 ? out.numel() / out.dims[0] : 1);
}

/// Writes what is drawn to the output.
template <typename T>
auto into(const OpArgs& args) {
  T* y = args.out[0].as<T>();
  return [y](int64_t at, int64_t count, const T* values) {
    for (int64_t i = 0; i < count; i++) y[at + i] = values[i];
  };
}

void random_normal_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    draw_of(args).normals<T>(args.pool, args.out[0].numel(), into<T>(args));
  });
}

/// In [0, 1): 24 bits, so that float holds every value.
void random_uniform_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto make = [](const uint32_t (*x)[kBlocks], T* values) {
      for (int64_t i = 0; i < kBlocks; i++)
        for (int64_t lane = 0; lane < 4; lane++) values[4 * i + lane] = T(int32_t(x[lane][i] >> 8)) * T(5.9604644775390625e-8);
    };
    draw_of(args).elements<T>(args.pool, args.out[0].numel(), make, into<T>(args));
  });
}

/// In [low, high), by multiplication: the bias is below (high - low) 2^-32.
void random_int_kernel(const OpArgs& args) {
  const int64_t low = args.attrs.integer("low");
  const uint64_t span = uint64_t(args.attrs.integer("high") - low);
  const auto make = [=](const uint32_t (*x)[kBlocks], int32_t* values) {
    for (int64_t i = 0; i < kBlocks; i++)
      for (int64_t lane = 0; lane < 4; lane++) values[4 * i + lane] = int32_t(low + int64_t(x[lane][i] * span >> 32));
  };
  draw_of(args).elements<int32_t>(args.pool, args.out[0].numel(), make, into<int32_t>(args));
}

}  // namespace

REGISTER_CPU(random_normal, random_normal_kernel)
REGISTER_CPU(random_uniform, random_uniform_kernel)
REGISTER_CPU(random_int, random_int_kernel)
ATTUNE_CPU_END
