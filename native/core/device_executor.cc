#include "device_executor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "finite.h"

namespace attune {

namespace {

constexpr int64_t kAlignment = 256;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// ATTUNE_CUDA_SYNC=1: no graphs, and every instruction is waited for, so that a failure names the one that caused it.
bool step_by_step() {
  const char* text = std::getenv("ATTUNE_CUDA_SYNC");
  return text && std::string(text) == "1";
}

std::string shapes_of(const Instruction& instruction) {
  std::string text;
  for (const TensorRef& t : instruction.operands) text += (text.empty() ? "" : ", ") + (t.rank || t.data ? type_of(t) : std::string("absent"));
  return text;
}

}  // namespace

struct DeviceExecutor::Prepared {
  Device& device;
  // [inputs | scalars | fault] and [outputs | fault], each port at an aligned offset; pinned on the host.
  std::vector<int64_t> input_at, output_at;
  int64_t scalars_at = 0, fault_at = 0;
  char *in = nullptr, *out = nullptr;
  char* resident = nullptr;  // on the device: scalars, then the fault record
  int64_t resident_fault = 0;
  int64_t runs = 0, moves = -1;
  std::unique_ptr<DeviceGraph> graph;

  Prepared(Device& device, const Program& program) : device(device) {
    int64_t at = 0;
    for (const Port& port : program.inputs) input_at.push_back(at), at += aligned(program.tensors[size_t(port.tensor)].ref.bytes());
    scalars_at = at, at += aligned(int64_t(program.scalars.size()) * 8 + 8);
    in = static_cast<char*>(device.pin(at));
    int64_t to = 0;
    for (const Port& port : program.outputs) output_at.push_back(to), to += aligned(program.tensors[size_t(port.tensor)].ref.bytes());
    fault_at = to, to += aligned(sizeof(Fault));
    out = static_cast<char*>(device.pin(to));
    resident_fault = aligned(int64_t(program.scalars.size()) * 8 + 8);
    resident = static_cast<char*>(device.allocate(resident_fault + int64_t(sizeof(Fault))));
  }
  ~Prepared() {
    graph.reset();
    device.unpin(in);
    device.unpin(out);
    device.release(resident);
  }
};

DeviceExecutor::DeviceExecutor(std::unique_ptr<Device> device) : device_(std::move(device)) {}

DeviceExecutor::~DeviceExecutor() {
  try {
    device_->synchronize();
  } catch (const Error&) {
    // What failed was said to whoever ran it.
  }
  prepared_.clear();
  for (auto& [name, region] : arenas_) device_->release(region.data);
  device_->release(workspace_.data);
}

void DeviceExecutor::grow(Region& region, int64_t bytes, bool keep) {
  if (bytes <= region.bytes) return;
  device_->synchronize();
  moves_++;
  if (!keep) {  // before the new one is asked for: a scratch arena must not exist twice
    device_->release(region.data);
    region = {};
  }
  char* data = static_cast<char*>(device_->allocate(bytes));
  if (region.data) {
    device_->copy(data, region.data, region.bytes);
    device_->synchronize();
    device_->release(region.data);
  }
  region = {data, bytes};
}

void DeviceExecutor::reserve(const std::string& arena, int64_t bytes) { grow(arenas_[arena], bytes, arena != "scratch"); }

void DeviceExecutor::write(const std::string& arena, int64_t offset, const void* data, int64_t bytes) {
  device_->upload(arenas_[arena].data + offset, data, bytes);
  device_->synchronize();
}

void DeviceExecutor::read(const std::string& arena, int64_t offset, void* out, int64_t bytes) {
  device_->download(out, arenas_[arena].data + offset, bytes);
  device_->synchronize();
}

namespace {

/// Host memory that the device copies from and to without a detour.
struct Pinned {
  Device& device;
  char* data;
  Pinned(Device& device, int64_t bytes) : device(device), data(static_cast<char*>(device.pin(bytes))) {}
  ~Pinned() { device.unpin(data); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
};

}  // namespace

void DeviceExecutor::load(const TensorForm& form, FileRange& file, const std::string& arena, int64_t offset, const Cancelled& cancelled) {
  const Pinned stage(*device_, form.inside_bytes());
  Transfer(form, "", pool_, host_workspace_).load(file, stage.data, cancelled);
  write(arena, offset, stage.data, form.inside_bytes());
}

void DeviceExecutor::store(const TensorForm& form, const std::string& arena, int64_t offset, char* out, const Cancelled& cancelled) {
  const Pinned stage(*device_, form.inside_bytes());
  read(arena, offset, stage.data, form.inside_bytes());
  Transfer(form, "", pool_, host_workspace_).store(stage.data, out, cancelled);
}

int64_t DeviceExecutor::workspace_of(const Program& program) {
  int64_t most = 0;
  for (const Instruction& in : program.instructions) {
    const TensorRef* operands = in.operands.data();
    DeviceCall call{in.attrs, operands, int(in.inputs.size()), operands + in.inputs.size(), int(in.outputs.size())};
    call.dry = true;
    try {
      most = std::max(most, device_->run(in.op, call));
    } catch (const Error& e) { throw Error(e.code, place_of(in) + ": " + e.what() + " (" + shapes_of(in) + ")", in.op, in.label); }
  }
  return most;
}

/// A program's staging is made when it first runs; its workspace grows to what its instructions ask for.
DeviceExecutor::Prepared& DeviceExecutor::prepare(Program& program) {
  std::unique_ptr<Prepared>& prepared = prepared_[&program];
  if (!prepared) {
    prepared = std::make_unique<Prepared>(*device_, program);
    grow(workspace_, workspace_of(program), false);
    workspace_bytes_.store(workspace_.bytes, std::memory_order_relaxed);
  }
  for (const ArenaSpec& spec : program.arenas) reserve(spec.name, spec.bytes);
  if (prepared->moves != moves_) {
    prepared->graph.reset();
    bind(program, *prepared);
  }
  return *prepared;
}

void DeviceExecutor::bind(Program& program, Prepared& prepared) {
  const auto at = [&](int64_t id) -> void* {
    if (id < 0) return nullptr;
    const ProgramTensor& t = program.tensors[size_t(id)];
    return arenas_[program.arenas[size_t(t.arena)].name].data + t.offset;
  };
  for (Instruction& in : program.instructions) {
    TensorRef* operand = in.operands.data();
    for (const int64_t id : in.inputs) (operand++)->data = at(id);
    for (const int64_t id : in.outputs) (operand++)->data = at(id);
  }
  for (const auto* ports : {&program.inputs, &program.outputs})
    for (const Port& port : *ports) program.tensors[size_t(port.tensor)].ref.data = at(port.tensor);
  prepared.moves = moves_;
}

void DeviceExecutor::run(Program& program, const RunRequest& request, const Cancelled& cancelled, std::vector<double>* nanoseconds) {
  if (cancelled()) throw Error("ERR_ABORTED", "program \"" + program.name + "\" was cancelled");
  Prepared& p = prepare(program);
  for (size_t i = 0; i < request.inputs.size(); i++)
    std::memcpy(p.in + p.input_at[i], request.inputs[i], size_t(program.tensors[size_t(program.inputs[i].tensor)].ref.bytes()));
  if (!request.scalars.empty()) std::memcpy(p.in + p.scalars_at, request.scalars.data(), request.scalars.size() * sizeof(double));

  if (request.mode != TraceMode::off || p.runs == 0 || step_by_step()) {  // a graph is captured of what has run once
    enqueue(program, p, &request, nanoseconds);
  } else {
    if (!p.graph) p.graph = device_->capture([&] { enqueue(program, p, nullptr, nullptr); });
    p.graph->launch();
  }
  device_->synchronize();
  if (request.mode == TraceMode::time)
    for (size_t i = 0; i < program.instructions.size(); i++) (*nanoseconds)[i] = device_->seconds(i, i + 1) * 1e9;
  p.runs++;
  require_good_data(program, p);
  for (size_t i = 0; i < request.outputs.size(); i++)
    std::memcpy(request.outputs[i], p.out + p.output_at[i], size_t(program.tensors[size_t(program.outputs[i].tensor)].ref.bytes()));
}

/// Puts a whole run on the stream: copies in, instructions, copies out. `traced` is null while a graph is captured.
void DeviceExecutor::enqueue(Program& program, Prepared& p, const RunRequest* traced, std::vector<double>* nanoseconds) {
  const bool timed = traced && traced->mode == TraceMode::time, checked = traced && traced->mode == TraceMode::check;
  const bool stepped = traced && step_by_step();
  for (size_t i = 0; i < program.inputs.size(); i++) {
    const TensorRef& t = program.tensors[size_t(program.inputs[i].tensor)].ref;
    device_->upload(t.data, p.in + p.input_at[i], t.bytes());
  }
  if (!program.scalars.empty()) device_->upload(p.resident, p.in + p.scalars_at, int64_t(program.scalars.size()) * 8);
  device_->clear(p.resident + p.resident_fault, sizeof(Fault));
  if (timed) {
    nanoseconds->assign(program.instructions.size(), 0);
    device_->mark(0);
  }
  for (size_t i = 0; i < program.instructions.size(); i++) {
    try {
      start(program, p, i);
      if (checked || stepped) device_->synchronize();
    } catch (const Error& e) {
      const Instruction& in = program.instructions[i];
      throw Error(e.code, place_of(in) + ": " + e.what() + " (" + shapes_of(in) + ")", in.op, in.label);
    }
    if (timed) device_->mark(i + 1);
    if (checked) check(program, i);
  }
  for (size_t i = 0; i < program.outputs.size(); i++) {
    const TensorRef& t = program.tensors[size_t(program.outputs[i].tensor)].ref;
    device_->download(p.out + p.output_at[i], t.data, t.bytes());
  }
  device_->download(p.out + p.fault_at, p.resident + p.resident_fault, sizeof(Fault));
}

void DeviceExecutor::start(Program& program, Prepared& p, size_t index) {
  const Instruction& in = program.instructions[index];
  const TensorRef* operands = in.operands.data();
  DeviceCall call{in.attrs, operands, int(in.inputs.size()), operands + in.inputs.size(), int(in.outputs.size())};
  call.scalars = reinterpret_cast<const double*>(p.resident), call.fault = reinterpret_cast<int32_t*>(p.resident + p.resident_fault);
  call.instruction = int32_t(index), call.workspace = workspace_.data, call.workspace_bytes = workspace_.bytes;
  device_->run(in.op, call);
}

/// Looks for NaN and infinity in host copies of an instruction's operands.
void DeviceExecutor::check(Program& program, size_t index) {
  Instruction copy = program.instructions[index];
  std::map<const void*, std::vector<char>> memory;  // operands that share memory go on sharing it
  for (const TensorRef& t : copy.operands)
    if (t.data && int64_t(memory[t.data].size()) < t.bytes()) memory[t.data].resize(size_t(t.bytes()));
  for (auto& [from, host] : memory) device_->download(host.data(), from, int64_t(host.size()));
  device_->synchronize();
  for (TensorRef& t : copy.operands)
    if (t.data) t.data = memory[t.data].data();
  require_finite(copy);
}

void DeviceExecutor::require_good_data(const Program& program, const Prepared& p) const {
  Fault fault;
  std::memcpy(&fault, p.out + p.fault_at, sizeof fault);
  if (fault.kind == 0) return;
  const size_t index = size_t(std::clamp<int64_t>(fault.instruction, 0, int64_t(program.instructions.size()) - 1));
  const Instruction& in = program.instructions[index];
  throw Error("ERR_DATA", place_of(in) + ": expected an id in [0, " + std::to_string(fault.limit) + "), received " + std::to_string(fault.value), in.op,
              in.label);
}

}  // namespace attune
