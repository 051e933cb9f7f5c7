// pair_sums and pair_sums_vjp: pair_sums.h over the operands of an instruction.
#include "pair_sums.h"

ATTUNE_CPU_BEGIN
namespace {

void pair_sums_kernel(const OpArgs& args) {
  dispatch_maps(args.in[0].dtype, [&](auto tag) {
    const PairMaps<decltype(tag)> maps(args.in[0], args.in[1], args.has(2) ? &args.in[2] : nullptr, args.out[0].numel());
    Sums* partials = static_cast<Sums*>(args.workspace.get(size_t(maps.rows * maps.chunks()) * sizeof(Sums)));
    pair_sums_of(args.pool, maps, partials, {args.out[0].as<double>(), args.out[1].as<double>(), args.out[2].as<double>(), args.out[3].as<double>()});
  });
}

void pair_sums_vjp_kernel(const OpArgs& args) {
  dispatch_maps(args.out[0].dtype, [&](auto tag) {
    const PairMaps<decltype(tag)> maps(args.in[4], args.in[5], args.has(6) ? &args.in[6] : nullptr, args.in[0].numel());
    pair_gradient(args.pool, maps, {args.in[0].as<const double>(), args.in[1].as<const double>(), args.in[2].as<const double>(), args.in[3].as<const double>()},
                  args.out[0]);
  });
}

}  // namespace

REGISTER_CPU(pair_sums, pair_sums_kernel)
REGISTER_CPU(pair_sums_vjp, pair_sums_vjp_kernel)
ATTUNE_CPU_END
