// A fused elementwise expression: a register machine that runs each instruction over a block of elements at a time, so that an instruction is decoded once
// per block and intermediate values never leave the first-level cache. Encoding (lib/graph/tape-opcodes.ts holds the same list of opcodes, in this order):
// attrs.code is a list of instructions of five numbers, [opcode, dst, a, b, c], unused fields 0:
//   constant                               dst = constants[a]
//   unary ops                              dst = op(a)
//   add .. greater                         dst = a op b
//   silu_vjp gelu_vjp .. quick_gelu_vjp    dst = a * f'(b): a is dy, b is x
//   select                                 dst = a != 0 ? b : c
//   affine                                 dst = constants[b] * a + constants[c]
//   clamp                                  dst = min(max(a, constants[b]), constants[c])
// Registers 0 .. n_in-1 are the inputs, broadcast to the output shape, and are never written. attrs.outputs names the register of each output.
#include <cstring>

#include "broadcast.h"
#include "scalar_ops.h"

ATTUNE_CPU_BEGIN
namespace {

#define ATTUNE_OPCODE(name, expression) op_##name,
enum Opcode : int32_t { op_constant, ATTUNE_BINARY_OPS(ATTUNE_OPCODE) ATTUNE_UNARY_OPS(ATTUNE_OPCODE) op_select, op_affine, op_clamp, kOpcodes };

constexpr int kRegisters = 32, kInstruction = 5;
constexpr int64_t kBlock = 256;

struct Instruction {
  int32_t opcode, dst, a, b, c;
};

[[noreturn]] void bad_tape(int64_t instruction, const char* what) {
  throw Error("ERR_PROGRAM", "tape: instruction " + std::to_string(instruction) + ": " + what);
}

/// How many of an instruction's operands a, b, c are registers; the rest index constants.
int register_operands(int32_t opcode) {
  if (opcode == op_constant) return 0;
  if (opcode <= op_quick_gelu_vjp) return 2;
  return opcode == op_select ? 3 : 1;
}

/// The program decoded from its attributes. Indices are checked here, once a run: a wrong one would read or write outside the block buffers.
struct Tape {
  const Instruction* code;
  int64_t length;
  const double* constants;
  const std::vector<double>& outputs;

  explicit Tape(const OpArgs& args) : outputs(args.attrs.list("outputs")) {
    const auto &numbers = args.attrs.list("code"), &values = args.attrs.list("constants");
    length = int64_t(numbers.size()) / kInstruction;
    constants = values.data();
    auto* to = static_cast<Instruction*>(args.workspace.get(size_t(length) * sizeof(Instruction)));
    code = to;
    if (args.n_in > kRegisters || int(outputs.size()) != args.n_out) bad_tape(0, "inputs or outputs do not match the tape");
    for (int64_t i = 0; i < length; i++) {
      const double* from = &numbers[size_t(i) * kInstruction];
      to[i] = {int32_t(from[0]), int32_t(from[1]), int32_t(from[2]), int32_t(from[3]), int32_t(from[4])};
      check(i, to[i], args.n_in, int32_t(values.size()));
    }
    for (const double r : outputs)
      if (r < args.n_in || r >= kRegisters) bad_tape(length, "an output is not a written register");
  }

  static void check(int64_t at, const Instruction& i, int inputs, int32_t constants) {
    if (i.opcode < 0 || i.opcode >= kOpcodes) bad_tape(at, "unknown opcode");
    if (i.dst < inputs || i.dst >= kRegisters) bad_tape(at, "the destination is an input or out of range");
    const int32_t operands[3] = {i.a, i.b, i.c};
    const int registers = register_operands(i.opcode);
    const int used = i.opcode == op_constant ? 1 : i.opcode >= op_affine ? 3 : registers;
    for (int k = 0; k < used; k++)
      if (operands[k] < 0 || operands[k] >= (k < registers ? kRegisters : constants)) bad_tape(at, "an operand is out of range");
  }
};

/// One instruction over n elements.
template <typename T>
void execute(const Instruction& i, const double* constants, const T* const* x, T* y, int64_t n) {
  switch (i.opcode) {
#define ATTUNE_BINARY_CASE(name, expression)                                                 \
  case op_##name: {                                                                          \
    const T *a = x[i.a], *b = x[i.b];                                                        \
    _Pragma("omp simd") for (int64_t k = 0; k < n; k++) y[k] = name##_op::apply(a[k], b[k]); \
    break;                                                                                   \
  }
    ATTUNE_BINARY_OPS(ATTUNE_BINARY_CASE)
#define ATTUNE_UNARY_CASE(name, expression)                                            \
  case op_##name: {                                                                    \
    const T* a = x[i.a];                                                               \
    _Pragma("omp simd") for (int64_t k = 0; k < n; k++) y[k] = name##_op::apply(a[k]); \
    break;                                                                             \
  }
    ATTUNE_UNARY_OPS(ATTUNE_UNARY_CASE)
    case op_constant: {
      const T value = T(constants[i.a]);
      for (int64_t k = 0; k < n; k++) y[k] = value;
      break;
    }
    case op_select: {
      const T *condition = x[i.a], *yes = x[i.b], *no = x[i.c];
#pragma omp simd
      for (int64_t k = 0; k < n; k++) {
        const T p = yes[k], q = no[k];
        y[k] = condition[k] != T(0) ? p : q;
      }
      break;
    }
    case op_affine: {
      const T scale = T(constants[i.b]), shift = T(constants[i.c]);
      const T* a = x[i.a];
#pragma omp simd
      for (int64_t k = 0; k < n; k++) y[k] = scale * a[k] + shift;
      break;
    }
    case op_clamp: {
      const T low = T(constants[i.b]), high = T(constants[i.c]);
      const T* a = x[i.a];
#pragma omp simd
      for (int64_t k = 0; k < n; k++) y[k] = clamp_value(a[k], low, high);
      break;
    }
  }
}

/// Elements [begin, end) of every output, block by block.
template <typename T>
void run_tape(const OpArgs& args, const Tape& tape, int64_t begin, int64_t end) {
  alignas(64) T buffers[kRegisters][kBlock];
  const T* values[kRegisters];
  Walk<1> walks[kRegisters];
  for (int r = 0; r < kRegisters; r++) values[r] = buffers[r];
  for (int r = 0; r < args.n_in; r++) walks[r] = collapse<1>(args.out[0], {&args.in[r]});
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t n = min_of(kBlock, end - at);
    for (int r = 0; r < args.n_in; r++) {
      const BlockReader<T> reader(args.in[r].as<const T>(), walks[r]);
      if (!reader.constant() || at == begin) values[r] = reader.block(at, n, buffers[r]);
    }
    for (int64_t i = 0; i < tape.length; i++) execute(tape.code[i], tape.constants, values, buffers[tape.code[i].dst], n);
    for (int k = 0; k < args.n_out; k++) std::memcpy(args.out[k].as<T>() + at, buffers[int(tape.outputs[size_t(k)])], size_t(n) * sizeof(T));
  }
}

void tape_kernel(const OpArgs& args) {
  const Tape tape(args);
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    parallel_ranges(args.pool, args.out[0].numel(), kMathGrain, [&](int64_t begin, int64_t end) { run_tape<T>(args, tape, begin, end); });
  });
}

}  // namespace

REGISTER_CPU(tape, tape_kernel)
ATTUNE_CPU_END
