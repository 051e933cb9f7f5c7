// The op registry: a kernel is a function over OpArgs, registered in its own file under (backend, op, isa).
// Shapes and dtypes were checked by the op's entry in lib/graph/ops and again, against the arenas, by program.cc; a kernel trusts them.
#pragma once
#include <string>
#include <vector>

#include "attrs.h"
#include "tensor_ref.h"
#include "thread_pool.h"
#include "workspace.h"

namespace attune {

struct OpArgs {
  const Attrs& attrs;
  const TensorRef* in;
  int n_in;
  const TensorRef* out;
  int n_out;
  const double* scalars;  // the program's slots that change per step (lib/graph/scalars.ts)
  ThreadPool& pool;
  Workspace& workspace;

  bool has(int i) const { return i < n_in && in[i].data != nullptr; }
};

using KernelFn = void (*)(const OpArgs&);

struct KernelEntry {
  const char* backend;  // "cpu"
  const char* op;       // "group_norm"
  const char* isa;      // "generic", "avx2", "avx512": cpu kernels are compiled once per instruction set
  KernelFn fn;
};

/// Adds a kernel; called by static initialisers, before main. A second kernel under the same key is a programming error and aborts.
bool register_kernel(const KernelEntry& entry);
/// The kernel of the best instruction set that this machine has, and that `isa_limit` allows ("" = no limit); nullptr if none.
KernelFn find_kernel(const char* backend, const std::string& op, const std::string& isa_limit);
/// Every registered kernel, in registration order.
const std::vector<KernelEntry>& all_kernels();
/// The best instruction set of this machine: "generic", "avx2" or "avx512".
const char* native_isa();

}  // namespace attune
