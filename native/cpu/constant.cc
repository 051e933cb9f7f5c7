// Tensors that are numbers: the step's scalars, inlined values, one value everywhere.
#include "parallel.h"

ATTUNE_CPU_BEGIN
namespace {

void scalar_kernel(const OpArgs& args) {
  const double value = args.scalars[args.attrs.integer("slot")];
  dispatch(args.out[0].dtype, [&](auto tag) { *args.out[0].as<decltype(tag)>() = decltype(tag)(value); });
}

template <typename Body>
void dispatch_with_int(DType t, Body&& body) {
  if (t == DType::i32) body(int32_t{});
  else dispatch(t, body);
}

void constant_kernel(const OpArgs& args) {
  const auto& values = args.attrs.list("values");
  const int64_t n = args.out[0].numel();
  if (int64_t(values.size()) != n) throw Error("ERR_PROGRAM", "constant: expected " + std::to_string(n) + " values, received " + std::to_string(values.size()));
  dispatch_with_int(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    T* y = args.out[0].as<T>();
    for (int64_t i = 0; i < n; i++) y[i] = T(values[size_t(i)]);
  });
}

void full_kernel(const OpArgs& args) {
  const double value = args.attrs.number("value");
  dispatch_with_int(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, args.out[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) y[i] = T(value);
    });
  });
}

}  // namespace

REGISTER_CPU(scalar, scalar_kernel)
REGISTER_CPU(constant, constant_kernel)
REGISTER_CPU(full, full_kernel)
ATTUNE_CPU_END
