#include "cpu_executor.h"

#include <chrono>
#include <cstring>
#include <new>

#include "finite.h"

namespace attune {

namespace {

void* address(Arenas& arenas, const Program& program, int64_t tensor) {
  const ProgramTensor& t = program.tensors[size_t(tensor)];
  return arenas[program.arenas[size_t(t.arena)].name].data() + t.offset;
}

double nanoseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

CpuExecutor::CpuExecutor(int threads, std::string isa_limit) : isa_limit_(std::move(isa_limit)), pool_(threads) { find_kernel("cpu", "", isa_limit_); }

void CpuExecutor::run(Program& program, const RunRequest& request, const Cancelled& cancelled, std::vector<double>* nanoseconds) {
  const auto stop_if_cancelled = [&] {
    if (cancelled()) throw Error("ERR_ABORTED", "program \"" + program.name + "\" was cancelled");
  };
  stop_if_cancelled();
  bind(program);
  copy_inputs(program, request);
  const bool timed = request.mode == TraceMode::time;
  if (timed) nanoseconds->assign(program.instructions.size(), 0);
  for (size_t i = 0; i < program.instructions.size(); i++) {
    stop_if_cancelled();
    Instruction& instruction = program.instructions[i];
    const auto start = timed ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
    execute(instruction, request);
    if (timed) (*nanoseconds)[i] = nanoseconds_since(start);
    if (request.mode == TraceMode::check) require_finite(instruction);
  }
  copy_outputs(program, request);
}

bool CpuExecutor::resolve(Instruction& instruction) const {
  instruction.kernel = find_kernel("cpu", instruction.op, isa_limit_);
  return instruction.kernel != nullptr;
}

void CpuExecutor::write(const std::string& arena, int64_t offset, const void* data, int64_t bytes) {
  std::memcpy(arenas_[arena].data() + offset, data, size_t(bytes));
}

void CpuExecutor::read(const std::string& arena, int64_t offset, void* out, int64_t bytes) { std::memcpy(out, arenas_[arena].data() + offset, size_t(bytes)); }

void CpuExecutor::load(const TensorForm& form, FileRange& file, const std::string& arena, int64_t offset, const Cancelled& cancelled) {
  transfer(form).load(file, arenas_[arena].data() + offset, cancelled);
}

void CpuExecutor::store(const TensorForm& form, const std::string& arena, int64_t offset, char* out, const Cancelled& cancelled) {
  transfer(form).store(arenas_[arena].data() + offset, out, cancelled);
}

Transfer CpuExecutor::transfer(const TensorForm& form) {
  Transfer transfer(form, isa_limit_, pool_, workspace_);
  workspace_.get(size_t(transfer.stage_bytes()));
  workspace_bytes_.store(int64_t(workspace_.size()), std::memory_order_relaxed);
  return transfer;
}

/// Gives every operand its address: arenas move when another program makes them grow.
void CpuExecutor::bind(Program& program) {
  std::vector<char*> bases;
  for (const ArenaSpec& spec : program.arenas) {
    reserve(spec.name, spec.bytes);
    bases.push_back(arenas_[spec.name].data());
  }
  const auto at = [&](int64_t id) -> void* {
    if (id < 0) return nullptr;
    const ProgramTensor& t = program.tensors[size_t(id)];
    return bases[size_t(t.arena)] + t.offset;
  };
  for (Instruction& in : program.instructions) {
    TensorRef* operand = in.operands.data();
    for (int64_t id : in.inputs) (operand++)->data = at(id);
    for (int64_t id : in.outputs) (operand++)->data = at(id);
  }
}

void CpuExecutor::copy_inputs(Program& program, const RunRequest& request) {
  for (size_t i = 0; i < program.inputs.size(); i++) {
    const int64_t id = program.inputs[i].tensor;
    std::memcpy(address(arenas_, program, id), request.inputs[i], size_t(program.tensors[size_t(id)].ref.bytes()));
  }
}

void CpuExecutor::copy_outputs(Program& program, const RunRequest& request) {
  for (size_t i = 0; i < program.outputs.size(); i++) {
    const int64_t id = program.outputs[i].tensor;
    std::memcpy(request.outputs[i], address(arenas_, program, id), size_t(program.tensors[size_t(id)].ref.bytes()));
  }
}

void CpuExecutor::execute(Instruction& in, const RunRequest& request) {
  const TensorRef* operands = in.operands.data();
  const int n_in = int(in.inputs.size()), n_out = int(in.outputs.size());
  const OpArgs args{in.attrs, operands, n_in, operands + n_in, n_out, request.scalars.data(), pool_, workspace_};
  try {
    in.kernel(args);
  } catch (const Error& e) { throw Error(e.code, place_of(in) + ": " + e.what(), in.op, in.label); } catch (const std::bad_alloc&) {
    throw Error("ERR_MEMORY", place_of(in) + ": the system refused memory for the kernel's workspace", in.op, in.label);
  } catch (const std::exception& e) { throw Error("ERR_DEVICE", place_of(in) + ": " + e.what(), in.op, in.label); }
  workspace_bytes_.store(int64_t(workspace_.size()), std::memory_order_relaxed);
}

}  // namespace attune
