// noise_schedule: betas, alphasCumprod, sigmas = sqrt((1 - a) / a) and snr = a / (1 - a) of T steps, with the roundings of lib/diffusion/noise-schedule.ts:
// entries are f32, products run in f64 in the order of the steps and are rounded at every entry. One block; the product is one thread's, because a tree of
// products would round otherwise. Products that an addition follows go through f64, where they are exact and no compiler can fuse them.
#include "scalar_ops.cuh"

namespace attune {
namespace cuda {

enum class Betas : int { linear, scaled_linear, cosine };

/// Ends and step of the linear ramp, made on the host.
struct BetaRamp {
  Betas kind;
  float start, end, step;
};

/// cos((x + 0.008) / 1.008 pi / 2)^2, Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17
ATTUNE_DEVICE double cosine_bar(double x) {
  const double c = sine<true>((x + 0.008) / 1.008 * 1.57079632679489661923);
  return c * c;
}

ATTUNE_DEVICE float beta_at(const BetaRamp& r, int i, int steps) {
  if (r.kind == Betas::cosine) {
    const double beta = 1.0 - cosine_bar(double(i + 1) / steps) / cosine_bar(double(i) / steps);
    return float(beta < 0.999 ? beta : 0.999);
  }
  // torch.linspace: from both ends towards the middle; the product is exact in f64
  const float b = float(2 * i < steps ? double(r.start) + double(r.step) * i : double(r.end) - double(r.step) * (steps - 1 - i));
  return r.kind == Betas::linear ? b : b * b;
}

ATTUNE_DEVICE void cumulative_alphas(const float* betas, float* alphas, int steps) {
  if (threadIdx.x == 0) {
    double product = 1;
    for (int i = 0; i < steps; i++) {
      product *= double(1.f - load(betas + i));
      store(alphas + i, float(product));
    }
  }
  __syncthreads();
}

/// Lin et al. 2023, arXiv:2305.08891, algorithm 1: sqrt(alphasCumprod) shifted so that its last entry is 0, scaled so that its first stays.
ATTUNE_DEVICE float rescaled_bar(const float* alphas, int i, int steps) {
  const float first = sqrtf(load(alphas)), last = sqrtf(load(alphas + steps - 1)), shrink = first / (first - last);
  const float shifted = float(double(sqrtf(load(alphas + i)) - last) * double(shrink));
  return float(double(shifted) * double(shifted));
}

__global__ void __launch_bounds__(256)
    noise_schedule_kernel(float* betas, float* alphas, float* __restrict__ sigmas, float* __restrict__ snr, BetaRamp ramp, bool zero_terminal_snr, int steps) {
  for (int i = threadIdx.x; i < steps; i += blockDim.x) store(betas + i, beta_at(ramp, i, steps));
  __syncthreads();
  cumulative_alphas(betas, alphas, steps);
  if (zero_terminal_snr) {
    for (int i = threadIdx.x; i < steps; i += blockDim.x) {
      const float bar = rescaled_bar(alphas, i, steps);
      store(betas + i, 1.f - (i == 0 ? bar : bar / rescaled_bar(alphas, i - 1, steps)));
    }
    __syncthreads();
    cumulative_alphas(betas, alphas, steps);
  }
  for (int i = threadIdx.x; i < steps; i += blockDim.x) {
    const double a = double(load(alphas + i));
    store(sigmas + i, float(sqrt((1.0 - a) / a))), store(snr + i, float(a / (1.0 - a)));
  }
}

void noise_schedule_op(const OpArgs& args) {
  const std::string& name = args.attrs.text("schedule");
  const double first = args.attrs.number("betaStart"), last = args.attrs.number("betaEnd");
  const int steps = int(args.out[0].numel());
  const Betas kind = name == "linear" ? Betas::linear : name == "scaled_linear" ? Betas::scaled_linear : Betas::cosine;
  const bool scaled = kind == Betas::scaled_linear;
  const float start = float(scaled ? std::sqrt(first) : first), end = float(scaled ? std::sqrt(last) : last);
  const BetaRamp ramp{kind, start, end, (end - start) / float(steps - 1)};
  launch(args, noise_schedule_kernel, dim3(1), dim3(256), 0, args.out[0].as<float>(), args.out[1].as<float>(), args.out[2].as<float>(), args.out[3].as<float>(),
         ramp, args.attrs.flag("zeroTerminalSnr"), steps);
}

REGISTER_CUDA(noise_schedule, noise_schedule_op)

}  // namespace cuda
}  // namespace attune
