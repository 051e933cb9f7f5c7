// preference_loss: sums of a pair, any objective's scalars, and the gradient of the prediction, in place of some thirty instructions. Two ways:
//   two launches  sums of slabs, then the gradient; every block of the second runs the tape for itself. Reads each map twice.
//   one launch    a block has a pair, keeps its maps in shared memory and reads them once: chosen where they fit (2 arms x 3 maps x 64 x 64 x 4 in bf16 are
//                 196 KB) and the gradient does not hang on a sum over the batch. The block that finishes last runs the tape of the whole batch for what is
//                 reported; sums lie in memory by lane, so it does not matter which one that is.
// Bytes: 2 x 2N numbers of each map (once in one launch) and 2N of the gradient; where the target is the noise of the draw it is made, not read.
#include <algorithm>

#include "preference_loss.cuh"

namespace attune {
namespace cuda {

constexpr int kChipThreads = 512;

/// partials[arm * lanes + lane][slab]: dd, dp, pp of a slab.
template <typename C>
__global__ void __launch_bounds__(kSlabThreads)
    loss_sums_kernel(LossMaps maps, const double* __restrict__ scalars, double* __restrict__ partials, int arms, int lanes, int slabs) {
  ATTUNE_SHARED(memory);
  const int64_t n = maps.n, lane = blockIdx.x / slabs, first = int64_t(blockIdx.x % slabs) * kSlab, last = first + kSlab < n ? first + kSlab : n;
  PairSums sums[2] = {{0, 0, 0}, {0, 0, 0}};
  for (int64_t at = first + threadIdx.x * kPack; at < last; at += kSlabThreads * kPack) {
    const int count = int(last - at < kPack ? last - at : kPack);
    LossPack<C> pack;
    if (!maps.target) maps.noise(Draw(maps.draw, scalars), lane * n + at, pack.target);
    ATTUNE_UNROLL
    for (int arm = 0; arm < 2; arm++) {
      if (arm >= arms) break;
      maps.pack((int64_t(arm) * lanes + lane) * n + at, count, pack);
      pack.add_to(sums[arm], count);
    }
  }
  ATTUNE_UNROLL
  for (int arm = 0; arm < 2; arm++) {
    if (arm >= arms) break;
    const PairSums s = block_sums(sums[arm], reinterpret_cast<double*>(memory));
    double* to = partials + ((int64_t(arm) * lanes + lane) * slabs + blockIdx.x % slabs) * 3;
    if (threadIdx.x == 0) store(to, s.dd), store(to + 1, s.dp), store(to + 2, s.pp);
  }
}

/// Every block: the sums of all lanes, the tape, then the gradient of its slabs. Shared memory: registers, then the numbers of block_sum.
template <typename T>
__global__ void __launch_bounds__(kSlabThreads) loss_gradient_kernel(LossMaps maps, const double* __restrict__ scalars, const double* __restrict__ partials,
                                                                     T* __restrict__ dx, int slabs, const __grid_constant__ LossTape tape) {
  using C = compute_t<T>;
  ATTUNE_SHARED(memory);
  const Registers regs{reinterpret_cast<double*>(memory), tape.lanes};
  double* partial = regs.memory + tape.register_count();
  const int64_t n = maps.n;
  for (int row = int(threadIdx.x / 32); row < tape.arms * tape.lanes; row += kSlabThreads / 32) {
    const PairSums s = row_sums(partials, row, slabs);
    if (threadIdx.x % 32 == 0) set_sums(regs, row / tape.lanes, row % tape.lanes, s, double(n));
  }
  __syncthreads();
  run_tape<false>(tape, regs, 0, partial);
  __syncthreads();
  if (blockIdx.x == 0) write_outputs(tape, regs);
  ATTUNE_ROLLED
  for (int slab = int(blockIdx.x); slab < tape.lanes * slabs; slab += int(gridDim.x)) {
    const int lane = slab / slabs;
    const int64_t first = int64_t(slab % slabs) * kSlab, last = first + kSlab < n ? first + kSlab : n;
    for (int64_t at = first + threadIdx.x * kPack; at < last; at += kSlabThreads * kPack) {
      const int count = int(last - at < kPack ? last - at : kPack);
      LossPack<C> pack;
      if (!maps.target) maps.noise(Draw(maps.draw, scalars), int64_t(lane) * n + at, pack.target);
      ATTUNE_ROLLED
      for (int arm = 0; arm < tape.arms; arm++) {
        const int64_t place = (int64_t(arm) * tape.lanes + lane) * n + at;
        maps.pack(place, count, pack);
        pack.differentiate(Slopes<C>(tape, regs, arm, lane, bool(maps.reference), double(n)));
        store_pack(dx + place, count, pack.x);
      }
    }
  }
}

/// The maps of a lane in shared memory, each map of each arm from a multiple of 16 bytes on: a thread reads back what it wrote, and no other.
struct ChipMaps {
  unsigned char* memory;
  int64_t n;
  int arms;

  static ATTUNE_BOTH int64_t bytes(const Map& m, int64_t n) { return m.data ? (n * (m.narrow ? 2 : 4) + 15) / 16 * 16 : 0; }
  ATTUNE_DEVICE Map map(const Map& of, int64_t before, int arm) const {
    Map m;
    if (of.data) m.data = memory + before + arm * bytes(of, n), m.narrow = of.narrow;
    return m;
  }
  /// The maps of an arm, to be read from element 0 on.
  ATTUNE_DEVICE LossMaps arm(const LossMaps& maps, int arm) const {
    LossMaps here = maps;
    here.prediction = map(maps.prediction, 0, arm);
    here.target = map(maps.target, arms * bytes(maps.prediction, n), arm);
    here.reference = map(maps.reference, arms * (bytes(maps.prediction, n) + bytes(maps.target, n)), arm);
    return here;
  }
};

template <typename C>
ATTUNE_DEVICE void keep_pack(const Map& to, int64_t at, int count, const C (&v)[kPack]) {
  if (to.narrow) store_pack(static_cast<bf16*>(const_cast<void*>(to.data)) + at, count, v);
  else store_pack(static_cast<float*>(const_cast<void*>(to.data)) + at, count, v);
}

/// One block a lane. sums: [4 arms, lanes], E, D, P, C by arm; done: 0 before the launch, blocks that have finished after.
template <typename T>
__global__ void __launch_bounds__(kChipThreads) loss_on_chip_kernel(LossMaps maps, const double* __restrict__ scalars, double* sums, unsigned* done,
                                                                    T* __restrict__ dx, const __grid_constant__ LossTape tape) {
  ATTUNE_SHARED(memory);
  const Registers regs{reinterpret_cast<double*>(memory), tape.lanes}, own{regs.memory, 1};
  double* partial = regs.memory + tape.register_count();
  unsigned* finished = reinterpret_cast<unsigned*>(partial + 32);
  const ChipMaps chip{reinterpret_cast<unsigned char*>(partial + kLossScratch), maps.n, tape.arms};
  const int lane = int(blockIdx.x);
  const int64_t n = maps.n;

  PairSums of_arm[2] = {{0, 0, 0}, {0, 0, 0}};
  for (int64_t at = threadIdx.x * kPack; at < n; at += kChipThreads * kPack) {
    const int count = int(n - at < kPack ? n - at : kPack);
    LossPack<float> pack;
    if (!maps.target) maps.noise(Draw(maps.draw, scalars), lane * n + at, pack.target);
    ATTUNE_UNROLL
    for (int arm = 0; arm < 2; arm++) {
      if (arm >= tape.arms) break;
      maps.pack((int64_t(arm) * tape.lanes + lane) * n + at, count, pack);
      pack.add_to(of_arm[arm], count);
      const LossMaps here = chip.arm(maps, arm);
      keep_pack(here.prediction, at, count, pack.x);
      if (here.target) keep_pack(here.target, at, count, pack.target);
      if (here.reference) keep_pack(here.reference, at, count, pack.reference);
    }
  }
  ATTUNE_UNROLL
  for (int arm = 0; arm < 2; arm++) {
    if (arm >= tape.arms) break;
    const PairSums s = block_sums(of_arm[arm], partial);
    if (threadIdx.x == 0) set_sums(own, arm, 0, s, double(n));
  }
  __syncthreads();
  if (int(threadIdx.x) < 4 * tape.arms) store(sums + threadIdx.x * tape.lanes + lane, own.get(int(threadIdx.x), 0)), __threadfence();
  run_tape<true>(tape, own, lane, partial);
  __syncthreads();
  if (threadIdx.x == 0) store(finished, atomicAdd(done, 1u));
  ATTUNE_ROLLED
  for (int arm = 0; arm < tape.arms; arm++) {
    const Slopes<float> slopes(tape, own, arm, 0, bool(maps.reference), double(n));
    const LossMaps here = chip.arm(maps, arm);
    for (int64_t at = threadIdx.x * kPack; at < n; at += kChipThreads * kPack) {
      const int count = int(n - at < kPack ? n - at : kPack);
      LossPack<float> pack;
      if (!here.target) here.noise(Draw(maps.draw, scalars), lane * n + at, pack.target);
      here.pack(at, count, pack);
      pack.differentiate(slopes);
      store_pack(dx + (int64_t(arm) * tape.lanes + lane) * n + at, count, pack.x);
    }
  }
  __syncthreads();
  if (load(finished) + 1 != gridDim.x) return;
  __threadfence();
  for (int i = int(threadIdx.x); i < 4 * tape.arms * tape.lanes; i += kChipThreads) store(regs.memory + i, load(sums + i));
  __syncthreads();
  run_tape<false>(tape, regs, 0, partial);
  __syncthreads();
  write_outputs(tape, regs);
}

/// The tape and its operands, checked: a wrong index would be read or written outside of a lane's registers.
static LossTape loss_tape(const OpArgs& args) {
  const auto check = [](bool fits, const std::string& what) {
    if (!fits) throw Error("ERR_PROGRAM", "preference_loss: " + what);
  };
  const auto &code = args.attrs.list("code"), &constants = args.attrs.list("constants"), &results = args.attrs.list("outputs"),
             &coefficients = args.attrs.list("coefficients");
  LossTape tape{};
  tape.arms = int(args.attrs.integer("arms")), tape.lanes = int(args.in[0].dims[0] / tape.arms);
  tape.length = int(code.size() / 5), tape.extras = args.n_in > 3 ? args.n_in - 3 : 0, tape.outputs = args.n_out - 1;
  check(
      tape.length <= kLossCode && constants.size() <= kLossConstants && tape.extras <= kLossExtras && tape.outputs <= kLossOutputs && tape.lanes <= kLossLanes,
      "a tape of more instructions, constants, inputs, outputs or pairs than there is room for");
  check(int(results.size()) == tape.outputs && int(coefficients.size()) == 4 * tape.arms, "outputs or coefficients do not match the tape");
  tape.registers = 4 * tape.arms + tape.extras;
  const int inputs = tape.registers;
  const auto reg = [&](double r) {
    check(r >= 0 && r < kLossRegisters, "a register is out of range");
    tape.registers = std::max(tape.registers, int(r) + 1);
    return uint8_t(r);
  };
  for (int i = 0; i < tape.length; i++) {
    const double* from = &code[size_t(i) * 5];
    check(from[0] >= 0 && from[0] <= kLossSum, "unknown opcode");
    const int opcode = int(from[0]), operands = opcode == kLossSum ? 1 : operands_of(opcode);
    const int fields = opcode == op_constant ? 1 : opcode == op_affine || opcode == op_clamp ? 3 : operands;
    uint8_t operand[3] = {0, 0, 0};
    for (int k = 0; k < fields; k++) {
      check(k < operands || (from[2 + k] >= 0 && from[2 + k] < double(constants.size())), "a constant is out of range");
      operand[k] = k < operands ? reg(from[2 + k]) : uint8_t(from[2 + k]);
    }
    check(from[1] >= inputs, "the destination is an input");
    tape.code[i] = {uint8_t(opcode), reg(from[1]), operand[0], operand[1], operand[2]};
  }
  std::copy(constants.begin(), constants.end(), tape.constants);
  for (int i = 0; i < tape.extras; i++) tape.extra[i] = args.in[3 + i].as<const double>(), tape.extra_per_lane[i] = args.in[3 + i].numel() == tape.lanes;
  for (int k = 0; k < tape.outputs; k++)
    tape.output[k] = args.out[1 + k].as<double>(), tape.output_per_lane[k] = args.out[1 + k].numel() == tape.lanes, tape.result[k] = reg(results[size_t(k)]);
  for (int k = 0; k < 8; k++) tape.coefficient[k] = k < 4 * tape.arms && coefficients[size_t(k)] >= 0 ? reg(coefficients[size_t(k)]) : kNoRegister;
  check((tape.register_count() + kLossScratch) * int(sizeof(double)) <= args.caps().shared_bytes,
        "more registers and pairs than a block has shared memory for");
  return tape;
}

/// Whether a coefficient of the gradient follows from a sum over lanes: then no block knows it before all have finished.
static bool gradient_of_batch(const LossTape& tape) {
  bool follows[kLossRegisters] = {};
  for (int i = 0; i < tape.length; i++) {
    const LossInstruction& in = tape.code[i];
    const int operands = in.opcode == kLossSum ? 0 : operands_of(in.opcode);
    follows[in.dst] = in.opcode == kLossSum || (operands > 0 && follows[in.a]) || (operands > 1 && follows[in.b]) || (operands > 2 && follows[in.c]);
  }
  for (const uint8_t r : tape.coefficient)
    if (r != kNoRegister && follows[r]) return true;
  return false;
}

void preference_loss_op(const OpArgs& args) {
  const TensorRef &prediction = args.in[0], &dx = args.out[0];
  const LossTape tape = loss_tape(args);
  LossMaps maps;
  maps.prediction = Map(prediction), maps.n = prediction.numel() / prediction.dims[0];
  if (args.has(1)) maps.target = Map(args.in[1]);
  else maps.draw = DrawSlots(args.attrs, maps.n);
  if (args.has(2)) maps.reference = Map(args.in[2]);

  const int registers = (tape.register_count() + kLossScratch) * int(sizeof(double));
  const auto chip = [&](int i) { return args.has(i) ? (maps.n * (args.in[i].dtype == DType::bf16 ? 2 : 4) + 15) / 16 * 16 : 0; };
  const int64_t on_chip = registers + tape.arms * (chip(0) + chip(1) + chip(2));
  if (dx.dtype != DType::f64 && on_chip <= args.caps().shared_bytes && !gradient_of_batch(tape)) {
    double* sums = args.scratch<double>(4 * tape.arms * tape.lanes);
    unsigned* done = args.scratch<unsigned>(1);
    args.clear(done, sizeof(unsigned));
    dispatch(dx.dtype, [&](auto tag) {
      using T = decltype(tag);
      launch(args, loss_on_chip_kernel<T>, dim3(unsigned(tape.lanes)), dim3(kChipThreads), int(on_chip), maps, args.scalars, sums, done, dx.as<T>(), tape);
    });
    return;
  }
  const int slabs = int(ceil_div(maps.n, kSlab));
  double* partials = args.scratch<double>(int64_t(tape.arms) * tape.lanes * slabs * 3);
  const dim3 slab_grid(unsigned(tape.lanes * slabs));
  if (dx.dtype == DType::f64)
    launch(args, loss_sums_kernel<double>, slab_grid, dim3(kSlabThreads), block_bytes<double>(), maps, args.scalars, partials, tape.arms, tape.lanes, slabs);
  else launch(args, loss_sums_kernel<float>, slab_grid, dim3(kSlabThreads), block_bytes<double>(), maps, args.scalars, partials, tape.arms, tape.lanes, slabs);
  dispatch<true>(dx.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, loss_gradient_kernel<T>, grid_of(args, int64_t(tape.lanes) * slabs, 2), dim3(kSlabThreads), registers, maps, args.scalars, partials,
           dx.as<T>(), slabs, tape);
  });
}

REGISTER_CUDA(preference_loss, preference_loss_op)

}  // namespace cuda
}  // namespace attune
