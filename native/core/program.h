// A program as the executor runs it (lib/graph/program.ts is the same thing in TypeScript), and the checks that make it safe to run:
// after check_program no instruction can name memory outside its arenas.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "op.h"

namespace attune {

struct ArenaSpec {
  std::string name;
  int64_t bytes = 0;
};

/// A typed place in an arena; `ref.data` is null until an instruction is bound to memory.
struct ProgramTensor {
  int64_t arena = 0;
  int64_t offset = 0;
  TensorRef ref;
};

struct Instruction {
  std::string op, label;
  Attrs attrs;
  std::vector<int64_t> inputs, outputs;  // tensor ids; -1 stands for an optional input that is absent

  // Set by check_program:
  KernelFn kernel = nullptr;        // on the cpu
  std::vector<TensorRef> operands;  // inputs, then outputs; addresses are those of the latest run
};

struct Port {
  std::string name;
  int64_t tensor = 0;
};

struct Program {
  std::string name;
  std::vector<ArenaSpec> arenas;  // 0 is "scratch"
  std::vector<ProgramTensor> tensors;
  std::vector<Instruction> instructions;
  std::vector<Port> inputs, outputs;
  std::vector<std::string> scalars;
};

/// Verifies ids, extents, alignments, overlaps and attribute-free structure, and lets `resolve` find each instruction's kernel. Throws ERR_PROGRAM naming
/// instruction, op and label; `backend` is for the message.
void check_program(Program& program, const std::string& backend, const std::function<bool(Instruction&)>& resolve);

/// "group_norm at policy/mid/norm1", or the op alone.
std::string place_of(const Instruction& instruction);
/// "f32 [2, 3]".
std::string type_of(const TensorRef& tensor);

}  // namespace attune
