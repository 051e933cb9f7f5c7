// The forward process: its tables with the roundings of lib/diffusion/noise-schedule.ts, noising of pairs and single samples, and one step of a sampler.
// Signal and noise are sqrt(a) and sqrt(1 - a) of a = alphasCumprod[t[b]], formed in double and rounded once to T.
#include "random.h"

ATTUNE_CPU_BEGIN
namespace {

/// cos((x + 0.008) / 1.008 pi / 2)^2, Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17
double cosine_bar(double x) {
  const double c = std::cos((x + 0.008) / 1.008 * 1.57079632679489661923);
  return c * c;
}

/// Tables of float values. A product that an addition follows is rounded first, by a cast.
struct Schedule {
  float *betas, *alphas;
  int64_t steps;

  void ramp(bool scaled, double first, double last) {
    const float start = float(scaled ? std::sqrt(first) : first), end = float(scaled ? std::sqrt(last) : last), step = (end - start) / float(steps - 1);
    for (int64_t i = 0; i < steps; i++) {  // torch.linspace: from both ends towards the middle; the product is exact in double
      const float b = float(2 * i < steps ? double(start) + double(step) * double(i) : double(end) - double(step) * double(steps - 1 - i));
      betas[i] = scaled ? b * b : b;
    }
  }
  void cosine() {
    for (int64_t i = 0; i < steps; i++) {
      const double beta = 1.0 - cosine_bar(double(i + 1) / double(steps)) / cosine_bar(double(i) / double(steps));
      betas[i] = float(beta < 0.999 ? beta : 0.999);
    }
  }
  void accumulate() {
    double product = 1;
    for (int64_t i = 0; i < steps; i++) {
      product *= double(1.f - betas[i]);
      alphas[i] = float(product);
    }
  }
  /// Lin et al. 2023, arXiv:2305.08891, algorithm 1: sqrt(alphasCumprod) shifted so that its last entry is 0, scaled so that its first stays.
  void rescale() {
    const float first = std::sqrt(alphas[0]), last = std::sqrt(alphas[steps - 1]), shrink = first / (first - last);
    float before = 1;
    for (int64_t i = 0; i < steps; i++) {
      const float shifted = (std::sqrt(alphas[i]) - last) * shrink, bar = float(double(shifted) * double(shifted));
      betas[i] = 1.f - (i == 0 ? bar : bar / before);
      before = bar;
    }
  }
};

void noise_schedule_kernel(const OpArgs& args) {
  const std::string& name = args.attrs.text("schedule");
  const int64_t steps = args.out[0].numel();
  float* memory = static_cast<float*>(args.workspace.get(size_t(2 * steps) * sizeof(float)));
  Schedule table{memory, memory + steps, steps};
  if (name == "squaredcos_cap_v2") table.cosine();
  else table.ramp(name == "scaled_linear", args.attrs.number("betaStart"), args.attrs.number("betaEnd"));
  table.accumulate();
  if (args.attrs.flag("zeroTerminalSnr")) table.rescale(), table.accumulate();
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    for (int64_t i = 0; i < steps; i++) {
      const double a = double(table.alphas[i]);
      args.out[0].as<T>()[i] = T(table.betas[i]), args.out[1].as<T>()[i] = T(table.alphas[i]);
      args.out[2].as<T>()[i] = T(std::sqrt((1.0 - a) / a)), args.out[3].as<T>()[i] = T(a / (1.0 - a));
    }
  });
}

/// alphasCumprod by sample. Any dtype of floats: the table is f32, and f64 beside f64 references.
struct Alphas {
  const TensorRef &timestep, &table;

  Alphas(const char* op, const TensorRef& timestep, const TensorRef& table) : timestep(timestep), table(table) {
    for (int64_t b = 0; b < timestep.numel(); b++)
      if (const int32_t t = timestep.as<const int32_t>()[b]; t < 0 || t >= table.numel())
        throw Error("ERR_DATA", std::string(op) + ": expected timesteps in [0, " + std::to_string(table.numel()) + "), received " + std::to_string(t) +
                                    " at position " + std::to_string(b));
  }
  double of(int64_t sample) const {
    const int32_t t = timestep.as<const int32_t>()[sample];
    return table.dtype == DType::f64 ? table.as<const double>()[t] : double(table.as<const float>()[t]);
  }
};

template <typename T>
struct Mixture {
  T signal, noise;
  explicit Mixture(double a) : signal(T(std::sqrt(a))), noise(T(std::sqrt(1.0 - a))) {}
  T noised(T x, T n) const { return signal * x + noise * n; }
  T velocity(T x, T n) const { return signal * n - noise * x; }
};

void q_sample_pair_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const TensorRef& winners = args.in[0];
    const bool epsilon = args.attrs.text("prediction") == "epsilon", velocity = args.attrs.text("prediction") == "v_prediction";
    const int64_t n = winners.numel(), sample = n / winners.dims[0];
    const Alphas alphas("q_sample_pair", args.in[2], args.in[3]);
    Draw(args, sample).template normals<T>(args.pool, n, [&](int64_t at, int64_t count, const T* z) {
      for (int64_t i = 0; i < count; i++) {
        const Mixture<T> m(alphas.of((at + i) / sample));
        for (int arm = 0; arm < (args.has(1) ? 2 : 1); arm++) {
          const T x = args.in[arm].as<const T>()[at + i];
          args.out[0].as<T>()[arm * n + at + i] = m.noised(x, z[i]);
          if (args.n_out < 2) continue;
          args.out[1].as<T>()[arm * n + at + i] = epsilon ? z[i] : velocity ? m.velocity(x, z[i]) : x;
        }
      }
    });
  });
}

template <bool kVelocity>
void mix_noise_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t sample = args.in[0].numel() / args.in[0].dims[0];
    const Alphas alphas(kVelocity ? "velocity" : "add_noise", args.in[2], args.in[3]);
    const T *x = args.in[0].as<const T>(), *z = args.in[1].as<const T>();
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, args.in[0].dims[0], kGrain / sample, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; b++) {
        const Mixture<T> m(alphas.of(b));
#pragma omp simd
        for (int64_t i = b * sample; i < (b + 1) * sample; i++) y[i] = kVelocity ? m.velocity(x[i], z[i]) : m.noised(x[i], z[i]);
      }
    });
  });
}

/// D = sample x + output model, clamped to [-clip, clip]; y = state x + denoised D + direct model + noise n.
void scheduler_step_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto slot = [&](const char* name) { return T(args.scalars[args.attrs.integer(name)]); };
    const T sample = slot("sample"), output = slot("output"), clip = slot("clip"), state = slot("state"), denoised = slot("denoised"), direct = slot("direct"),
            noise = slot("noise");
    const T *x = args.in[0].as<const T>(), *m = args.in[1].as<const T>(), *n = args.has(2) ? args.in[2].as<const T>() : nullptr;
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, args.out[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; i++) {
        T clean = sample * x[i] + output * m[i];
        clean = clean < -clip ? -clip : clean;
        clean = clean > clip ? clip : clean;
        const T mix = state * x[i] + denoised * clean + direct * m[i];
        y[i] = n ? mix + noise * n[i] : mix;
      }
    });
  });
}

}  // namespace

REGISTER_CPU(noise_schedule, noise_schedule_kernel)
REGISTER_CPU(q_sample_pair, q_sample_pair_kernel)
REGISTER_CPU(add_noise, mix_noise_kernel<false>)
REGISTER_CPU(velocity, mix_noise_kernel<true>)
REGISTER_CPU(scheduler_step, scheduler_step_kernel)
ATTUNE_CPU_END
