// A fused elementwise expression (encoding: lib/graph/tape-opcodes.ts): a register machine that runs each instruction over 16 bytes of elements a thread, so
// that an instruction is decoded once for all of them. Registers lie in shared memory, a column for each thread, as elements of T: every result is rounded to T
// like that of an op of its own, and has its bits. Bytes moved: each input and output once, the least; what repeats comes from cache. Code and constants are
// kernel parameters where they fit; longer ones go to scratch first, from the attributes, which live as long as the program. Output 0 may lie on an input: a
// thread reads all of its elements before it writes one.
#include "broadcast.cuh"
#include "scalar_ops.cuh"

namespace attune {
namespace cuda {

constexpr int kTapeThreads = 128, kTapeRegisters = 32, kTapeCode = 128, kTapeConstants = 64, kTapeFields = 5;

struct TapeInstruction {
  uint8_t opcode, dst;
  uint16_t a, b, c;
};

struct Tape {
  int inputs, outputs, length, rank;
  bool in_rows;
  Divider dims[kMaxRank];
  int64_t strides[kTapeRegisters][kMaxRank];
  const void* in[kTapeRegisters];
  void* out[kTapeRegisters];
  uint8_t results[kTapeRegisters];
  const TapeInstruction* long_code;  // in scratch, or null: code, constants
  const double* long_constants;
  TapeInstruction code[kTapeCode];
  double constants[kTapeConstants];

  ATTUNE_DEVICE TapeInstruction at(int i) const { return long_code ? load(long_code + i) : code[i]; }
  ATTUNE_DEVICE double constant(int i) const { return long_constants ? load(long_constants + i) : constants[i]; }
  /// Whether input r is one number along the innermost axis.
  ATTUNE_DEVICE bool repeats(int r) const { return rank == 0 || strides[r][rank - 1] == 0; }
  /// Indices of output element i, and where they are in input r.
  ATTUNE_DEVICE void indices(int64_t i, int64_t (&index)[kMaxRank]) const {
    ATTUNE_UNROLL
    for (int axis = kMaxRank - 1; axis >= 0; axis--) {
      index[axis] = 0;
      if (axis >= rank) continue;
      const int64_t rest = axis > 0 ? dims[axis].quotient(i) : 0;
      index[axis] = i - rest * dims[axis].divisor, i = rest;
    }
  }
  ATTUNE_DEVICE int64_t position(int r, const int64_t (&index)[kMaxRank]) const {
    int64_t p = 0;
    ATTUNE_UNROLL
    for (int axis = 0; axis < kMaxRank; axis++) p += index[axis] * strides[r][axis];
    return p;
  }
};
static_assert(sizeof(Tape) <= 4096 - 16, "kernel parameters are 4 KB at most");

/// Elements base .. base + kTapeThreads * N of all outputs. Shared memory: a column of registers, 16 bytes each, for each thread.
template <typename T>
__global__ void __launch_bounds__(kTapeThreads) tape_kernel(const __grid_constant__ Tape tape, int64_t n) {
  using C = compute_t<T>;
  constexpr int N = lanes_of<T>;
  ATTUNE_SHARED(memory);
  uint4* registers = reinterpret_cast<uint4*>(memory) + threadIdx.x;  // register r: registers + r * kTapeThreads
  bool vectors = tape.in_rows;
  for (int r = 0; r < tape.inputs; r++) vectors = vectors && (tape.repeats(r) || aligned(tape.in[r]));
  for (int k = 0; k < tape.outputs; k++) vectors = vectors && aligned(tape.out[k]);
  const int64_t block = int64_t(kTapeThreads) * N;
  ATTUNE_ROLLED
  for (int64_t base = blockIdx.x * block; base < n; base += gridDim.x * block) {
    const bool whole = vectors && base + block <= n;  // else single elements, consecutive threads on consecutive ones
    int64_t index[kMaxRank];
    if (whole) {
      tape.indices(base + int64_t(threadIdx.x) * N, index);
      ATTUNE_ROLLED
      for (int r = 0; r < tape.inputs; r++) {
        C v[N];
        operand_lanes<N>(static_cast<const T*>(tape.in[r]) + tape.position(r, index), tape.repeats(r), v);
        store(registers + r * kTapeThreads, pack(T{}, v));
      }
    } else {
      ATTUNE_ROLLED
      for (int r = 0; r < tape.inputs; r++) store(registers + r * kTapeThreads, uint4{0, 0, 0, 0});  // lanes past the end are computed too
      ATTUNE_ROLLED
      for (int lane = 0; lane < N; lane++) {
        const int64_t i = base + lane * kTapeThreads + threadIdx.x;
        if (i >= n) break;
        tape.indices(i, index);
        ATTUNE_ROLLED
        for (int r = 0; r < tape.inputs; r++)
          store(reinterpret_cast<T*>(registers + r * kTapeThreads) + lane, load(static_cast<const T*>(tape.in[r]) + tape.position(r, index)));
      }
    }
    ATTUNE_ROLLED
    for (int i = 0; i < tape.length; i++) {
      const TapeInstruction in = tape.at(i);
      const int operands = operands_of(in.opcode);
      C a[N] = {}, b[N] = {}, c[N] = {}, y[N] = {}, p = 0, q = 0;
      if (operands > 0) unpack(T{}, load(registers + in.a * kTapeThreads), a);
      if (operands > 1) unpack(T{}, load(registers + in.b * kTapeThreads), b);
      if (operands > 2) unpack(T{}, load(registers + in.c * kTapeThreads), c);
      if (in.opcode == op_constant) p = C(tape.constant(in.a));
      if (in.opcode >= op_affine) p = C(tape.constant(in.b)), q = C(tape.constant(in.c));
      compute<T>(in.opcode, a, b, c, p, q, y);
      store(registers + in.dst * kTapeThreads, pack(T{}, y));
    }
    ATTUNE_ROLLED
    for (int k = 0; k < tape.outputs; k++) {
      const uint4* result = registers + tape.results[k] * kTapeThreads;
      T* y = static_cast<T*>(tape.out[k]) + base;
      if (whole) {
        store(reinterpret_cast<uint4*>(y + int64_t(threadIdx.x) * N), load(result));
      } else {
        ATTUNE_ROLLED
        for (int lane = 0; lane < N; lane++)
          if (base + lane * kTapeThreads + threadIdx.x < n) store(y + lane * kTapeThreads + threadIdx.x, load(reinterpret_cast<const T*>(result) + lane));
      }
    }
  }
}

/// Instructions from the numbers of attrs.code.
__global__ void __launch_bounds__(256) decode_tape_kernel(const double* __restrict__ numbers, TapeInstruction* __restrict__ code, int length) {
  const int i = int(blockIdx.x) * 256 + int(threadIdx.x);
  if (i >= length) return;
  const double* from = numbers + int64_t(i) * kTapeFields;
  store(code + i, TapeInstruction{uint8_t(load(from)), uint8_t(load(from + 1)), uint16_t(load(from + 2)), uint16_t(load(from + 3)), uint16_t(load(from + 4))});
}

/// Registers that the tape uses. Checks every index: a wrong one would be read or written outside of the thread's column.
static int check_tape(const OpArgs& args, const std::vector<double>& code, size_t constants, const std::vector<double>& outputs) {
  const auto check = [](bool fits, size_t at, const char* what) {
    if (!fits) throw Error("ERR_PROGRAM", "tape: instruction " + std::to_string(at) + ": " + what);
  };
  check(args.n_in <= kTapeRegisters && int(outputs.size()) == args.n_out && code.size() % kTapeFields == 0, 0, "inputs or outputs do not match the tape");
  int used = args.n_in;
  for (size_t i = 0; i < code.size() / kTapeFields; i++) {
    const double* from = &code[i * kTapeFields];
    check(from[0] >= 0 && from[0] < kOpcodes, i, "unknown opcode");
    const int opcode = int(from[0]), registers = operands_of(opcode), fields = opcode == op_constant ? 1 : opcode >= op_affine ? 3 : registers;
    check(from[1] >= args.n_in && from[1] < kTapeRegisters, i, "the destination is an input or out of range");
    for (int k = 0; k < fields; k++)
      check(from[2 + k] >= 0 && from[2 + k] < (k < registers ? double(kTapeRegisters) : double(constants)), i, "an operand is out of range");
    used = std::max(used, int(from[1]) + 1);
    for (int k = 0; k < registers; k++) used = std::max(used, int(from[2 + k]) + 1);
  }
  for (const double r : outputs) check(r >= args.n_in && r < used, code.size() / kTapeFields, "an output is not a written register");
  return used;
}

void tape_op(const OpArgs& args) {
  const auto &code = args.attrs.list("code"), &constants = args.attrs.list("constants"), &outputs = args.attrs.list("outputs");
  const int registers = check_tape(args, code, constants.size(), outputs), length = int(code.size() / kTapeFields);
  Tape tape{};
  tape.inputs = args.n_in, tape.outputs = args.n_out, tape.length = length;
  const Walk<kTapeRegisters> walk = [&] {
    const TensorRef* in[kTapeRegisters];
    for (int r = 0; r < kTapeRegisters; r++) in[r] = &args.in[r < args.n_in ? r : 0];
    if (args.n_in == 0)
      for (const TensorRef*& x : in) x = &args.out[0];
    return walk_of<kTapeRegisters>(args.out[0], reinterpret_cast<const TensorRef* const(&)[kTapeRegisters]>(in));
  }();
  tape.rank = walk.rank;
  for (int axis = 0; axis < kMaxRank; axis++) {
    tape.dims[axis] = walk.dims[axis];
    for (int r = 0; r < args.n_in; r++) tape.strides[r][axis] = axis < walk.rank ? walk.strides[r][axis] : 0;
  }
  for (int r = 0; r < args.n_in; r++) tape.in[r] = args.in[r].data;
  for (int k = 0; k < args.n_out; k++) tape.out[k] = args.out[k].data, tape.results[k] = uint8_t(outputs[size_t(k)]);
  if (length <= kTapeCode) {
    for (int i = 0; i < length; i++) {
      const double* from = &code[size_t(i) * kTapeFields];
      tape.code[i] = {uint8_t(from[0]), uint8_t(from[1]), uint16_t(from[2]), uint16_t(from[3]), uint16_t(from[4])};
    }
  } else {
    double* numbers = args.scratch<double>(int64_t(code.size()));
    TapeInstruction* decoded = args.scratch<TapeInstruction>(length);
    if (!args.dry) args.launcher.upload(numbers, code.data(), int64_t(code.size() * sizeof(double)));
    launch(args, decode_tape_kernel, dim3(unsigned(ceil_div(length, 256))), dim3(256), 0, numbers, decoded, length);
    tape.long_code = decoded;
  }
  if (constants.size() <= kTapeConstants) {
    std::copy(constants.begin(), constants.end(), tape.constants);
  } else {
    double* numbers = args.scratch<double>(int64_t(constants.size()));
    if (!args.dry) args.launcher.upload(numbers, constants.data(), int64_t(constants.size() * sizeof(double)));
    tape.long_constants = numbers;
  }
  const int64_t n = args.out[0].numel();
  dispatch<true>(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    tape.in_rows = walk.in_rows(lanes_of<T>);
    launch(args, tape_kernel<T>, grid_of(args, ceil_div(n, kTapeThreads * lanes_of<T>), 12), dim3(kTapeThreads), registers * kTapeThreads * 16, tape, n);
  });
}

REGISTER_CUDA(tape, tape_op)

}  // namespace cuda
}  // namespace attune
