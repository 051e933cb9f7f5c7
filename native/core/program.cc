#include "program.h"

#include <set>

namespace attune {

namespace {

constexpr int64_t kMaxBytes = int64_t(1) << 46;  // 64 TiB: sums of offsets and extents stay far from overflow

[[noreturn]] void refuse(const Program& program, const std::string& detail) { throw Error("ERR_PROGRAM", "program \"" + program.name + "\": " + detail); }

[[noreturn]] void refuse(const Program& program, size_t index, const std::string& detail) {
  const Instruction& in = program.instructions[index];
  throw Error("ERR_PROGRAM", "program \"" + program.name + "\", instruction " + std::to_string(index) + ", " + place_of(in) + ": " + detail, in.op, in.label);
}

std::string text(int64_t n) { return std::to_string(n); }

void check_arenas(const Program& program) {
  if (program.arenas.empty() || program.arenas[0].name != "scratch") refuse(program, "expected arena 0 to be \"scratch\"");
  std::set<std::string> names;
  for (const ArenaSpec& a : program.arenas) {
    if (!names.insert(a.name).second) refuse(program, "two arenas are named \"" + a.name + "\"");
    if (a.bytes < 0 || a.bytes > kMaxBytes) refuse(program, "arena \"" + a.name + "\": expected 0 to 2^46 bytes, received " + text(a.bytes));
  }
}

void check_tensor(const Program& program, size_t id) {
  const ProgramTensor& t = program.tensors[id];
  const auto fail = [&](const std::string& detail) { refuse(program, "tensor " + std::to_string(id) + ": " + detail); };
  if (t.arena < 0 || t.arena >= int64_t(program.arenas.size()))
    fail("expected an arena in [0, " + std::to_string(program.arenas.size()) + "), received " + text(t.arena));
  const ArenaSpec& arena = program.arenas[size_t(t.arena)];
  const int64_t width = int64_t(dtype_size(t.ref.dtype));
  int64_t bytes = width;
  for (int i = 0; i < t.ref.rank; i++) {
    const int64_t d = t.ref.dims[i];
    if (d < 1 || d > kMaxBytes / bytes) fail("its shape " + type_of(t.ref) + " has an impossible dimension " + text(d));
    bytes *= d;
  }
  if (t.offset < 0 || t.offset % width != 0)
    fail("expected an offset that is a multiple of " + text(width) + " bytes for " + type_of(t.ref) + ", received " + text(t.offset));
  if (t.offset > arena.bytes || bytes > arena.bytes - t.offset)
    fail(type_of(t.ref) + " at offset " + text(t.offset) + " does not fit in arena \"" + arena.name + "\" of " + text(arena.bytes) + " bytes");
}

/// Two tensors that share bytes: an output may lie exactly on an input (in place), never across it or across another output.
enum class Overlap { none, exact, partial };

Overlap overlap(const ProgramTensor& a, const ProgramTensor& b) {
  const int64_t a_end = a.offset + a.ref.bytes(), b_end = b.offset + b.ref.bytes();
  if (a.arena != b.arena || a_end <= b.offset || b_end <= a.offset) return Overlap::none;
  return a.offset == b.offset && a_end == b_end ? Overlap::exact : Overlap::partial;
}

void check_overlaps(const Program& program, size_t index) {
  const Instruction& in = program.instructions[index];
  for (size_t o = 0; o < in.outputs.size(); o++) {
    const ProgramTensor& out = program.tensors[size_t(in.outputs[o])];
    for (size_t p = 0; p < o; p++)
      if (overlap(out, program.tensors[size_t(in.outputs[p])]) != Overlap::none)
        refuse(program, index, "outputs " + std::to_string(p) + " and " + std::to_string(o) + " share memory");
    for (size_t i = 0; i < in.inputs.size(); i++)
      if (in.inputs[i] >= 0 && overlap(out, program.tensors[size_t(in.inputs[i])]) == Overlap::partial)
        refuse(program, index, "output " + std::to_string(o) + " lies across input " + std::to_string(i));
  }
}

void check_ids(const Program& program, size_t index) {
  const Instruction& in = program.instructions[index];
  const int64_t n = int64_t(program.tensors.size());
  for (int64_t id : in.inputs)
    if (id < -1 || id >= n) refuse(program, index, "expected input ids in [-1, " + text(n) + "), received " + text(id));
  for (int64_t id : in.outputs)
    if (id < 0 || id >= n) refuse(program, index, "expected output ids in [0, " + text(n) + "), received " + text(id));
  if (in.outputs.empty()) refuse(program, index, "it has no output");
}

void check_ports(const Program& program, const std::vector<Port>& ports, const char* kind) {
  std::set<std::string> names;
  for (const Port& p : ports) {
    if (!names.insert(p.name).second) refuse(program, std::string("two ") + kind + "s are named \"" + p.name + "\"");
    if (p.tensor < 0 || p.tensor >= int64_t(program.tensors.size()))
      refuse(program, std::string(kind) + " \"" + p.name + "\": expected a tensor id in [0, " + std::to_string(program.tensors.size()) + "), received " +
                          text(p.tensor));
  }
}

/// Attributes that are indices of per-step numbers: a kernel reads scalars[slot] without looking.
constexpr struct {
  const char* op;
  const char* attr;
} kSlots[] = {{"scalar", "slot"},
              {"random_normal", "seed"},
              {"random_normal", "step"},
              {"random_normal", "offset"},
              {"random_uniform", "seed"},
              {"random_uniform", "step"},
              {"random_uniform", "offset"},
              {"random_int", "seed"},
              {"random_int", "step"},
              {"random_int", "offset"},
              {"adamw", "lr"},
              {"adamw", "correction1"},
              {"adamw", "correction2"},
              {"adamw_mixed", "lr"},
              {"adamw_mixed", "correction1"},
              {"adamw_mixed", "correction2"},
              {"adamw8", "lr"},
              {"adamw8", "correction1"},
              {"adamw8", "correction2"},
              {"adamw8", "seed"},
              {"adamw8", "step"},
              {"ema", "decay"},
              {"preference_loss", "seed"},
              {"preference_loss", "step"},
              {"preference_loss", "offset"},
              {"q_sample_pair", "seed"},
              {"q_sample_pair", "step"},
              {"q_sample_pair", "offset"},
              {"scheduler_step", "sample"},
              {"scheduler_step", "output"},
              {"scheduler_step", "clip"},
              {"scheduler_step", "state"},
              {"scheduler_step", "denoised"},
              {"scheduler_step", "direct"},
              {"scheduler_step", "noise"}};

void check_slots(const Program& program, size_t index) {
  const Instruction& in = program.instructions[index];
  const double slots = double(program.scalars.size());
  for (const auto& [op, attr] : kSlots) {
    if (in.op != op || !in.attrs.has(attr)) continue;
    double slot = -1;
    try {
      slot = in.attrs.number(attr);
    } catch (const Error& e) { refuse(program, index, e.what()); }
    if (!(slot >= 0 && slot < slots) || slot != double(int64_t(slot)))
      refuse(program, index, std::string("expected ") + attr + " to be a scalar slot in [0, " + std::to_string(program.scalars.size()) + ")");
  }
}

void gather_operands(const Program& program, Instruction& in) {
  in.operands.clear();
  for (int64_t id : in.inputs) in.operands.push_back(id < 0 ? TensorRef{} : program.tensors[size_t(id)].ref);
  for (int64_t id : in.outputs) in.operands.push_back(program.tensors[size_t(id)].ref);
}

}  // namespace

void check_program(Program& program, const std::string& backend, const std::function<bool(Instruction&)>& resolve) {
  check_arenas(program);
  for (size_t id = 0; id < program.tensors.size(); id++) check_tensor(program, id);
  check_ports(program, program.inputs, "input");
  check_ports(program, program.outputs, "output");
  for (size_t index = 0; index < program.instructions.size(); index++) {
    Instruction& in = program.instructions[index];
    check_ids(program, index);
    check_overlaps(program, index);
    check_slots(program, index);
    gather_operands(program, in);
    if (!resolve(in)) refuse(program, index, "the " + backend + " backend has no kernel for this op");
  }
}

std::string place_of(const Instruction& instruction) { return instruction.label.empty() ? instruction.op : instruction.op + " at " + instruction.label; }

std::string type_of(const TensorRef& tensor) {
  std::string s = std::string(dtype_name(tensor.dtype)) + " [";
  for (int i = 0; i < tensor.rank; i++) s += (i ? ", " : "") + std::to_string(tensor.dims[i]);
  return s + "]";
}

}  // namespace attune
