// The forward process on maps: q_sample_pair noises winners and losers with one noise that is made where it is used, add_noise and velocity take a given one,
// scheduler_step is one step of a sampler. Signal and noise are sqrt(a) and sqrt(1 - a) of a = alphasCumprod[t[b]], formed in f64 and rounded once to what the
// kernel computes in. A timestep outside the table is reported, and stands for 0.
#include "packs.cuh"
#include "random.cuh"
#include "scalar_ops.cuh"

namespace attune {
namespace cuda {

/// alphasCumprod f32 [steps] and where a sample that asks for another step is reported.
struct Alphas {
  const float* table;
  const int32_t* timestep;
  int64_t batch;
  int32_t steps, instruction;
  int32_t* fault;

  ATTUNE_DEVICE double of(int64_t sample) const {
    const int32_t t = load(timestep + sample);
    return double(load(table + (t >= 0 && t < steps ? t : 0)));
  }
  /// By one thread of the grid: the first bad timestep, unless an earlier instruction has reported.
  ATTUNE_DEVICE void check() const {
    if (blockIdx.x != 0 || threadIdx.x != 0 || load(fault) != 0) return;
    for (int64_t b = 0; b < batch; b++) {
      const int32_t t = load(timestep + b);
      if (t >= 0 && t < steps) continue;
      store(fault, int32_t(1)), store(fault + 1, instruction), store(fault + 2, t), store(fault + 3, steps);
      return;
    }
  }
};

/// Signal and noise of a sample.
template <typename C>
ATTUNE_DEVICE void mixture(const Alphas& alphas, int64_t sample, C* signal, C* noise) {
  const double a = alphas.of(sample);
  *signal = C(sqrt(a)), *noise = C(sqrt(1.0 - a));
}

/// noisy = signal x + noise n. One thread makes the noise of a Philox block, four elements, and uses it for the winner's and the loser's; losers null: none.
/// target, where asked for: n, x, or signal n - noise x.
enum class Target : int { none, epsilon, sample, velocity };

template <typename X, typename Y>
__global__ void __launch_bounds__(256) q_sample_kernel(const X* __restrict__ winners, const X* __restrict__ losers, Alphas alphas, Y* __restrict__ noisy,
                                                       Y* __restrict__ target, Target kind, const double* __restrict__ scalars, DrawSlots slots, int64_t n) {
  using C = compute_t<Y>;
  alphas.check();
  const Draw draw(slots, scalars);
  const DrawPlace here(draw);
  if (here.at >= n) return;
  double normals[4];
  draw.normals(here.block, normals);
  C signal[4], noise[4];
  int64_t sample = here.at < 0 ? 0 : here.at / slots.sample, rest = here.at < 0 ? here.at : here.at % slots.sample;
  mixture(alphas, sample, &signal[0], &noise[0]);
  ATTUNE_UNROLL
  for (int i = 1; i < 4; i++) {
    signal[i] = signal[i - 1], noise[i] = noise[i - 1];
    if (++rest == slots.sample && sample + 1 < alphas.batch)
      rest = 0, mixture(alphas, ++sample, &signal[i], &noise[i]);  // the block goes on in the next sample
  }
  for (int arm = 0; arm < (losers ? 2 : 1); arm++) {
    compute_t<X> clean[4];
    load_four(arm == 0 ? winners : losers, here.at, n, clean);
    Y x[4], goal[4];
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) {
      const C x0 = C(clean[i]), z = C(normals[i]);
      x[i] = from_float<Y>(fma_of(signal[i], x0, noise[i] * z));
      goal[i] = from_float<Y>(kind == Target::epsilon ? z : kind == Target::sample ? x0 : fma_of(signal[i], z, -(noise[i] * x0)));
    }
    store_four(noisy + arm * n, here.at, n, x);
    if (kind != Target::none) store_four(target + arm * n, here.at, n, goal);
  }
}

constexpr int kSampleSlab = 256 * kPack;

/// y = signal x + noise n; velocity: signal n - noise x. One block a slab of 2048 elements of a sample.
template <typename T>
__global__ void __launch_bounds__(256)
    mix_noise_kernel(const T* __restrict__ x, Map n, Alphas alphas, T* __restrict__ y, bool velocity, int64_t size, int slabs) {
  using C = compute_t<T>;
  alphas.check();
  const int64_t sample = blockIdx.x / slabs, first = int64_t(blockIdx.x % slabs) * kSampleSlab + threadIdx.x * kPack, at = sample * size + first;
  if (first >= size) return;
  const int count = int(size - first < kPack ? size - first : kPack);
  C signal, noise;
  mixture(alphas, sample, &signal, &noise);
  C clean[kPack], drawn[kPack];
  load_pack(x + at, count, clean);
  n.pack(at, count, drawn);
  ATTUNE_UNROLL
  for (int i = 0; i < kPack; i++) clean[i] = velocity ? fma_of(signal, drawn[i], -(noise * clean[i])) : fma_of(signal, clean[i], noise * drawn[i]);
  store_pack(y + at, count, clean);
}

/// Slots of a sampler's step (lib/schedulers/scheduler.ts).
struct StepSlots {
  int sample, output, clip, state, denoised, direct, noise;
};

/// D = sample x + output model, clamped to [-clip, clip]; y = state x + denoised D + direct model + noise n.
template <typename T>
__global__ void __launch_bounds__(kPackThreads)
    scheduler_step_kernel(const T* __restrict__ x, Map model, Map n, T* __restrict__ y, const double* __restrict__ scalars, StepSlots slots, int64_t size) {
  using C = compute_t<T>;
  const PackPlace here(size);
  if (here.count <= 0) return;
  const C sample = C(load(scalars + slots.sample)), output = C(load(scalars + slots.output)), clip = C(load(scalars + slots.clip)),
          state = C(load(scalars + slots.state)), denoised = C(load(scalars + slots.denoised)), direct = C(load(scalars + slots.direct));
  C v[kPack], m[kPack], drawn[kPack];
  load_pack(x + here.at, here.count, v);
  model.pack(here.at, here.count, m);
  if (n) n.pack(here.at, here.count, drawn);
  const C noise = n ? C(load(scalars + slots.noise)) : C(0);
  ATTUNE_UNROLL
  for (int i = 0; i < kPack; i++) {
    const C clean = clamp_of(fma_of(sample, v[i], output * m[i]), -clip, clip);
    v[i] = fma_of(direct, m[i], fma_of(denoised, clean, state * v[i]));
    if (n) v[i] = fma_of(noise, drawn[i], v[i]);
  }
  store_pack(y + here.at, here.count, v);
}

static Alphas alphas_of(const OpArgs& args, const TensorRef& timestep, const TensorRef& table) {
  return {table.as<const float>(), timestep.as<const int32_t>(), timestep.numel(), int32_t(table.numel()), args.instruction, args.fault};
}

void q_sample_pair_op(const OpArgs& args) {
  const TensorRef &winners = args.in[0], &noisy = args.out[0];
  const std::string& prediction = args.attrs.text("prediction");
  const Target kind = args.n_out < 2                 ? Target::none
                      : prediction == "epsilon"      ? Target::epsilon
                      : prediction == "v_prediction" ? Target::velocity
                                                     : Target::sample;
  const int64_t n = winners.numel();
  dispatch<true>(winners.dtype, [&](auto from) {
    using X = decltype(from);
    dispatch<true>(noisy.dtype, [&](auto to) {
      using Y = decltype(to);
      constexpr bool fits = std::is_same_v<X, Y> || (sizeof(X) + sizeof(Y) == 6);
      if constexpr (fits)
        launch(args, q_sample_kernel<X, Y>, draw_grid(n), dim3(256), 0, winners.as<const X>(), args.has(1) ? args.in[1].as<const X>() : nullptr,
               alphas_of(args, args.in[2], args.in[3]), noisy.as<Y>(), kind == Target::none ? nullptr : args.out[1].as<Y>(), kind, args.scalars,
               DrawSlots(args.attrs, n / winners.dims[0]), n);
      else
        throw Error("ERR_PROGRAM",
                    std::string("q_sample_pair: expected f32, bf16 or f64, received ") + dtype_name(winners.dtype) + " to " + dtype_name(noisy.dtype));
    });
  });
}

static void start_mix(const OpArgs& args, bool velocity) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  const int64_t size = x.numel() / x.dims[0];
  const int slabs = int(ceil_div(size, kSampleSlab));
  dispatch<true>(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, mix_noise_kernel<T>, dim3(unsigned(x.dims[0] * slabs)), dim3(256), 0, x.as<const T>(), Map(args.in[1]),
           alphas_of(args, args.in[2], args.in[3]), y.as<T>(), velocity, size, slabs);
  });
}
void add_noise_op(const OpArgs& args) { start_mix(args, false); }
void velocity_op(const OpArgs& args) { start_mix(args, true); }

void scheduler_step_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  const auto slot = [&](const char* name) { return int(args.attrs.integer(name)); };
  const StepSlots slots{slot("sample"), slot("output"), slot("clip"), slot("state"), slot("denoised"), slot("direct"), slot("noise")};
  dispatch<true>(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_packs(args, scheduler_step_kernel<T>, y.numel(), x.as<const T>(), Map(args.in[1]), args.has(2) ? Map(args.in[2]) : Map(), y.as<T>(), args.scalars,
                 slots, y.numel());
  });
}

REGISTER_CUDA(q_sample_pair, q_sample_pair_op)
REGISTER_CUDA(add_noise, add_noise_op)
REGISTER_CUDA(velocity, velocity_op)
REGISTER_CUDA(scheduler_step, scheduler_step_op)

}  // namespace cuda
}  // namespace attune
