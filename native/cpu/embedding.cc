// Table lookups and diffusers' sinusoidal timestep embedding.
#include <cstring>

#include "parallel.h"

ATTUNE_CPU_BEGIN
namespace {

void check_ids(const int32_t* ids, int64_t count, int64_t rows) {
  for (int64_t i = 0; i < count; i++)
    if (ids[i] < 0 || ids[i] >= rows)
      throw Error("ERR_DATA",
                  "embedding: expected ids in [0, " + std::to_string(rows) + "), received " + std::to_string(ids[i]) + " at position " + std::to_string(i));
}

void embedding_kernel(const OpArgs& args) {
  const TensorRef &table = args.in[0], &out = args.out[0];
  const int32_t* ids = args.in[1].as<const int32_t>();
  const int64_t count = args.in[1].numel(), bytes = table.bytes() / table.dims[0];
  check_ids(ids, count, table.dims[0]);
  parallel_ranges(args.pool, count, max_of(1, kGrain * 4 / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) std::memcpy(out.as<char>() + i * bytes, table.as<const char>() + ids[i] * bytes, size_t(bytes));
  });
}

/// dtable = 0, then row ids[i] += dy[i] in order of i. Threads split the columns: every element is summed by one of them.
void embedding_vjp_kernel(const OpArgs& args) {
  const TensorRef& out = args.out[0];
  const int32_t* ids = args.in[1].as<const int32_t>();
  const int64_t count = args.in[1].numel(), columns = out.numel() / out.dims[0];
  check_ids(ids, count, out.dims[0]);
  dispatch(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* dy = args.in[0].as<const T>();
    T* dtable = out.as<T>();
    parallel_ranges(args.pool, out.numel(), kGrain, [&](int64_t begin, int64_t end) { std::memset(dtable + begin, 0, size_t(end - begin) * sizeof(T)); });
    parallel_ranges(args.pool, columns, max_of(64, kGrain / max_of(1, count)), [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < count; i++) {
        T* to = dtable + ids[i] * columns;
        const T* from = dy + i * columns;
#pragma omp simd
        for (int64_t c = begin; c < end; c++) to[c] += from[c];
      }
    });
  });
}

/// diffusers get_timestep_embedding: frequencies exp(-ln(maxPeriod) i / (half - shift)) and angles t * frequency are float32 there whatever the
/// model's dtype, so they are here, for f64 too; sine and cosine of that float32 angle are then taken in double. An odd dim ends in a zero.
template <typename Y, typename Time>
void embed_times(const OpArgs& args) {
  const int64_t dim = args.attrs.integer("dim"), half = dim / 2;
  const bool flip = args.attrs.flag("flipSinToCos");
  const float divisor = float(double(half) - args.attrs.number("shift"));
  const float rate = float(-std::log(args.attrs.number("maxPeriod", 10000)));
  const Time* times = args.in[0].as<const Time>();
  Y* y = args.out[0].as<Y>();
  parallel_ranges(args.pool, args.in[0].numel(), max_of(1, kMathGrain / (8 * max_of(1, dim))), [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < half; i++) {
      const float exponent = rate * float(i) / divisor;
      const float frequency = float(std::exp(double(exponent)));
      for (int64_t b = begin; b < end; b++) {
        const double angle = double(float(times[b]) * frequency);
        y[b * dim + (flip ? half + i : i)] = Y(std::sin(angle));
        y[b * dim + (flip ? i : half + i)] = Y(std::cos(angle));
      }
    }
    if (dim % 2 == 1)
      for (int64_t b = begin; b < end; b++) y[b * dim + dim - 1] = Y(0);
  });
}

void timestep_embedding_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using Y = decltype(tag);
    if (args.in[0].dtype == DType::i32) embed_times<Y, int32_t>(args);
    else if (args.in[0].dtype == DType::f32) embed_times<Y, float>(args);
    else embed_times<Y, double>(args);
  });
}

}  // namespace

REGISTER_CPU(embedding, embedding_kernel)
REGISTER_CPU(embedding_vjp, embedding_vjp_kernel)
REGISTER_CPU(timestep_embedding, timestep_embedding_kernel)
ATTUNE_CPU_END
