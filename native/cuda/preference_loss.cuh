// The scalar stage of an objective as a tape (lib/graph/ops/preference-loss.ts): a register machine in f64 with a column of registers for each lane, a lane
// being a pair (or a single sample). Registers 0 .. 4 arms - 1 hold E, D, P, C of the winner, then of the loser; then come the extra inputs; the others are
// written. Beside the opcodes of lib/graph/tape-opcodes.ts there is `sum`, over all lanes, which every lane receives: it makes means of a batch, so that losses
// and metrics come out as they are reported. A block runs the whole tape by itself, one thread a lane, and all blocks get the same bits.
#pragma once
#include "preference.cuh"
#include "random.cuh"
#include "scalar_ops.cuh"
#include "vectorised.cuh"

namespace attune {
namespace cuda {

constexpr int kLossCode = 192, kLossConstants = 96, kLossOutputs = 24, kLossExtras = 8, kLossRegisters = 64, kLossLanes = 256, kLossSum = kOpcodes;
constexpr uint8_t kNoRegister = 255;

struct LossInstruction {
  uint8_t opcode, dst;
  uint8_t a, b, c;
};

struct LossTape {
  int length, lanes, arms, extras, outputs, registers;
  const double* extra[kLossExtras];
  double* output[kLossOutputs];
  uint8_t extra_per_lane[kLossExtras];    // [lanes], else [1]
  uint8_t output_per_lane[kLossOutputs];  // [lanes], else [1]
  uint8_t result[kLossOutputs];           // registers
  uint8_t coefficient[8];                 // registers of dE, dD, dP, dC of the winner, then of the loser; kNoRegister: 0
  LossInstruction code[kLossCode];
  double constants[kLossConstants];

  /// Of all lanes, and one more where what follows would not begin at 16 bytes.
  ATTUNE_BOTH int register_count() const { return (registers * lanes + 1) / 2 * 2; }
};
/// Doubles of shared memory behind the registers: block_sum's 32, and room for a counter.
constexpr int kLossScratch = 34;

/// Registers in shared memory: number r of a lane.
struct Registers {
  double* memory;
  int lanes;
  ATTUNE_DEVICE double get(int r, int lane) const { return load(memory + r * lanes + lane); }
  ATTUNE_DEVICE void set(int r, int lane, double v) const { store(memory + r * lanes + lane, v); }
};

/// Runs the tape in the threads that have a lane: all lanes, or (kAlone) only number `first`, which knows no sums: they are NaN.
template <bool kAlone>
ATTUNE_DEVICE void run_tape(const LossTape& tape, const Registers& regs, int first, double* partial) {
  const int lane = int(threadIdx.x);
  const bool active = lane < (kAlone ? 1 : tape.lanes);
  if (active)
    for (int i = 0; i < tape.extras; i++) regs.set(4 * tape.arms + i, lane, load(tape.extra[i] + (tape.extra_per_lane[i] ? first + lane : 0)));
  ATTUNE_ROLLED
  for (int i = 0; i < tape.length; i++) {
    const LossInstruction in = tape.code[i];
    if (in.opcode == kLossSum) {
      const double sum = kAlone ? double(NAN) : block_sum(active ? regs.get(in.a, lane) : 0.0, partial);
      if (active) regs.set(in.dst, lane, sum);
      continue;
    }
    if (!active) continue;
    const int operands = operands_of(in.opcode);
    const double a[1] = {operands > 0 ? regs.get(in.a, lane) : 0.0}, b[1] = {operands > 1 ? regs.get(in.b, lane) : 0.0},
                 c[1] = {operands > 2 ? regs.get(in.c, lane) : 0.0};
    double p = 0, q = 0, y[1] = {0};
    if (in.opcode == op_constant) p = tape.constants[in.a];
    if (in.opcode == op_affine || in.opcode == op_clamp) p = tape.constants[in.b], q = tape.constants[in.c];
    compute<double, 1>(in.opcode, a, b, c, p, q, y);
    regs.set(in.dst, lane, y[0]);
  }
}

/// Losses and metrics, by one block that has run the whole tape.
ATTUNE_DEVICE void write_outputs(const LossTape& tape, const Registers& regs) {
  const int lane = int(threadIdx.x);
  for (int k = 0; k < tape.outputs; k++)
    if (lane < (tape.output_per_lane[k] ? tape.lanes : 1)) store(tape.output[k] + lane, regs.get(tape.result[k], lane));
}

/// E, D, P, C of an arm of a lane.
ATTUNE_DEVICE void set_sums(const Registers& regs, int arm, int lane, PairSums s, double n) {
  regs.set(4 * arm, lane, s.dd / n), regs.set(4 * arm + 1, lane, (2 * s.dp - s.pp) / n), regs.set(4 * arm + 2, lane, s.pp / n),
      regs.set(4 * arm + 3, lane, s.dp / n);
}

/// dprediction = of_d d + of_p p of an arm of a lane.
template <typename C>
struct Slopes {
  C of_d, of_p;
  ATTUNE_DEVICE Slopes(const LossTape& tape, const Registers& regs, int arm, int lane, bool reference, double n) {
    const auto at = [&](int k) {
      const uint8_t r = tape.coefficient[4 * arm + k];
      return r == kNoRegister ? 0.0 : regs.get(r, lane);
    };
    of_d = C((reference ? 2 * at(0) + 2 * at(1) + at(3) : 2 * at(0)) / n), of_p = reference ? C((2 * at(2) + at(3)) / n) : C(0);
  }
};

/// A pack of one arm.
template <typename C>
struct LossPack {
  C x[kPack], target[kPack], reference[kPack];

  /// Elements beyond `count` add nothing.
  ATTUNE_DEVICE void add_to(PairSums& sums, int count) const {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++)
      if (i < count) sums.add(x[i], target[i], reference[i]);
  }
  /// x becomes the gradient.
  ATTUNE_DEVICE void differentiate(const Slopes<C>& slopes) {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) x[i] = fma_of(slopes.of_d, x[i] - target[i], slopes.of_p * (x[i] - reference[i]));
  }
};

/// What the kernels read: maps [arms * lanes, n], winners first. The target null: it is the noise of `draw`, one for both arms of a lane.
struct LossMaps {
  Map prediction, target, reference;
  DrawSlots draw;
  int64_t n;

  /// Eight normals from element `index` of the draw's first sample on, rounded to what is computed in.
  template <typename C>
  ATTUNE_DEVICE void noise(const Draw& drawn, int64_t index, C (&v)[kPack]) const {
    const int64_t first = drawn.first + index;
    const int skip = int(first % 4);
    C w[12];
    double z[4];
    drawn.normals(first / 4, z);
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) w[i] = C(z[i]);
    drawn.normals(first / 4 + 1, z);
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) w[4 + i] = C(z[i]);
    if (skip != 0) drawn.normals(first / 4 + 2, z);
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) w[8 + i] = C(z[i]);
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) v[i] = skip == 0 ? w[i] : skip == 1 ? w[i + 1] : skip == 2 ? w[i + 2] : w[i + 3];
  }

  /// The pack at `place` of the maps; the target is left alone where it is noise.
  template <typename C>
  ATTUNE_DEVICE void pack(int64_t place, int count, LossPack<C>& p) const {
    prediction.pack(place, count, p.x);
    if (target) target.pack(place, count, p.target);
    if (reference) {
      reference.pack(place, count, p.reference);
    } else {
      ATTUNE_UNROLL
      for (int i = 0; i < kPack; i++) p.reference[i] = p.x[i];
    }
  }
};

}  // namespace cuda
}  // namespace attune
