#include "transfer.h"

#include <algorithm>
#include <cstring>

namespace attune {

namespace {

/// A stage holds this many bytes, or one [rows, columns] matrix if that is more. Two stages stay in a second-level cache.
constexpr int64_t kStage = int64_t(1) << 19;

int64_t piece_of(const TensorForm& form) {
  const int64_t whole = form.turns() ? form.rows * form.columns : 1;
  return whole * std::max<int64_t>(1, kStage / (whole * int64_t(dtype_size(form.outside))));
}

TensorRef tensor(const void* data, DType dtype, std::initializer_list<int64_t> dims) {
  TensorRef t;
  t.data = const_cast<void*>(data), t.dtype = dtype;
  for (int64_t d : dims) t.dims[t.rank++] = d;
  return t;
}

const Attrs& turning() {
  static const Attrs attrs = [] {
    Attrs a;
    a.set("permutation", std::vector<double>{0, 2, 1});
    return a;
  }();
  return attrs;
}

const Attrs kNone;

}  // namespace

Transfer::Transfer(const TensorForm& form, const std::string& isa_limit, ThreadPool& pool, Workspace& workspace)
    : form_(form),
      cast_(find_kernel("cpu", "cast", isa_limit)),
      transpose_(find_kernel("cpu", "transpose", isa_limit)),
      piece_(piece_of(form)),
      pool_(pool),
      workspace_(workspace) {}

// Axes are turned in the dtype of outside, the narrower one as a rule.
void Transfer::load(FileRange& file, char* to, const std::function<bool()>& cancelled) const {
  const int64_t width = int64_t(dtype_size(form_.outside));
  const bool turns = form_.turns(), casts = form_.outside != form_.inside;
  pieces(cancelled, [&](int64_t begin, int64_t n) {
    char* const target = to + begin * int64_t(dtype_size(form_.inside));
    char* at = turns || casts ? stage(0) : target;
    file.read(at, n * width);
    if (turns) {
      char* const turned = casts ? stage(1) : target;
      turn(at, turned, form_.rows, form_.columns, n);
      at = turned;
    }
    if (casts) cast(at, form_.outside, target, form_.inside, n);
  });
}

void Transfer::store(const char* from, char* to, const std::function<bool()>& cancelled) const {
  const int64_t width = int64_t(dtype_size(form_.outside));
  const bool turns = form_.turns(), casts = form_.outside != form_.inside;
  pieces(cancelled, [&](int64_t begin, int64_t n) {
    const char* at = from + begin * int64_t(dtype_size(form_.inside));
    char* const target = to + begin * width;
    if (casts) {
      char* const rounded = turns ? stage(0) : target;
      cast(at, form_.inside, rounded, form_.outside, n);
      at = rounded;
    }
    if (turns) turn(at, target, form_.columns, form_.rows, n);
    else if (!casts) std::memcpy(target, at, size_t(n * width));
  });
}

template <typename Piece>
void Transfer::pieces(const std::function<bool()>& cancelled, Piece&& piece) const {
  const int64_t elements = form_.elements();
  for (int64_t begin = 0; begin < elements; begin += piece_) {
    if (cancelled()) throw Error("ERR_ABORTED", "a transfer of weights was cancelled");
    piece(begin, std::min(piece_, elements - begin));
  }
}

int64_t Transfer::stage_bytes() const {
  if (!form_.turns() && form_.outside == form_.inside) return 0;
  const int64_t bytes = std::min(piece_, form_.elements()) * int64_t(dtype_size(form_.outside));
  return 2 * ((bytes + 63) & ~int64_t(63));
}

/// Stage 0 or 1: one request for both, since a second one may move the first.
char* Transfer::stage(int which) const { return static_cast<char*>(workspace_.get(size_t(stage_bytes()))) + which * stage_bytes() / 2; }

void Transfer::cast(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t elements) const {
  const TensorRef in = tensor(from, from_dtype, {elements}), out = tensor(to, to_dtype, {elements});
  cast_({kNone, &in, 1, &out, 1, nullptr, pool_, workspace_});
}

/// [.., rows, columns] -> [.., columns, rows], `elements` in all.
void Transfer::turn(const void* from, void* to, int64_t rows, int64_t columns, int64_t elements) const {
  const int64_t outer = elements / (rows * columns);
  const TensorRef in = tensor(from, form_.outside, {outer, rows, columns}), out = tensor(to, form_.outside, {outer, columns, rows});
  transpose_({turning(), &in, 1, &out, 1, nullptr, pool_, workspace_});
}

}  // namespace attune
