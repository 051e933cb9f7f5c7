// Weights on their way between a checkpoint's form and an arena's: another float dtype, conv weights [O, I, kh, kw] outside and [O, kh, kw, I] inside.
// Both ways go in pieces through a bounded stage, by the kernels of the ops cast and transpose: rounding is theirs, to nearest even.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "file_range.h"
#include "op.h"

namespace attune {

/// One tensor in both forms: [outer, rows, columns] outside, [outer, columns, rows] inside.
struct TensorForm {
  DType outside = DType::f32, inside = DType::f32;  // floats
  int64_t outer = 1, rows = 1, columns = 1;

  int64_t elements() const { return outer * rows * columns; }
  int64_t outside_bytes() const { return elements() * int64_t(dtype_size(outside)); }
  int64_t inside_bytes() const { return elements() * int64_t(dtype_size(inside)); }
  bool turns() const { return rows > 1 && columns > 1; }
};

class Transfer {
 public:
  Transfer(const TensorForm& form, const std::string& isa_limit, ThreadPool& pool, Workspace& workspace);

  /// Bytes of workspace that it takes.
  int64_t stage_bytes() const;

  /// From a file into the memory of an arena. `cancelled` is asked before each piece: ERR_ABORTED. Throws ERR_DATA; what was read by then is in the arena.
  void load(FileRange& file, char* to, const std::function<bool()>& cancelled) const;
  /// From the memory of an arena to `to`, outside_bytes() long. Throws ERR_ABORTED.
  void store(const char* from, char* to, const std::function<bool()>& cancelled) const;

 private:
  template <typename Piece>
  void pieces(const std::function<bool()>& cancelled, Piece&& piece) const;
  char* stage(int which) const;
  void cast(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t elements) const;
  void turn(const void* from, void* to, int64_t rows, int64_t columns, int64_t elements) const;

  const TensorForm form_;
  const KernelFn cast_, transpose_;
  const int64_t piece_;  // elements: whole matrices where axes change places
  ThreadPool& pool_;
  Workspace& workspace_;
};

}  // namespace attune
