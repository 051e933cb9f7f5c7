// Moving elements: slice, pad, concat, broadcast, transpose, and copies for views that the planner could not share. Elements are moved as bits, so every dtype
// goes. A copy is a walk over axes with a stride on either side; the widest units of 1 to 16 bytes are moved that its innermost runs and strides are made of.
// Where a transpose changes the innermost axis, tiles of 32 x 32 go through shared memory, so that both sides are read and written along lines. Bytes moved:
// each element once in and once out.
#include <algorithm>

#include "broadcast.cuh"

namespace attune {
namespace cuda {

constexpr int kCopyThreads = 256;

/// Positions and strides in units.
struct Copy {
  int rank = 0, element = 1;  // bytes of an element
  bool repeats = false;       // the innermost axis is one element of the input, a unit is several of them
  Divider dims[kMaxRank];
  int64_t in[kMaxRank] = {}, out[kMaxRank] = {}, in_offset = 0, out_offset = 0, count = 1;
};

/// One unit, from null: zeros. Units that do not lie on multiples of their size (views can begin anywhere) are moved as elements.
template <typename U>
ATTUNE_DEVICE void move_unit(const U* from, U* to, int element) {
  if (from == nullptr) {
    if ((reinterpret_cast<uintptr_t>(to) & (sizeof(U) - 1)) == 0) return store(to, U{});
  } else if (((reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to)) & (sizeof(U) - 1)) == 0) {
    return store(to, load(from));
  }
  ATTUNE_ROLLED
  for (int at = 0; at < int(sizeof(U)); at += element) {
    const char* f = reinterpret_cast<const char*>(from) + at;
    char* t = reinterpret_cast<char*>(to) + at;
    if (element == 1) store(reinterpret_cast<uint8_t*>(t), from ? load(reinterpret_cast<const uint8_t*>(f)) : uint8_t(0));
    else if (element == 2) store(reinterpret_cast<uint16_t*>(t), from ? load(reinterpret_cast<const uint16_t*>(f)) : uint16_t(0));
    else if (element == 4) store(reinterpret_cast<uint32_t*>(t), from ? load(reinterpret_cast<const uint32_t*>(f)) : 0u);
    else store(reinterpret_cast<uint64_t*>(t), from ? load(reinterpret_cast<const uint64_t*>(f)) : uint64_t(0));
  }
}

template <typename U>
__global__ void __launch_bounds__(kCopyThreads) copy_kernel(const void* from, void* to, const __grid_constant__ Copy c) {
  ATTUNE_ROLLED
  for (int64_t unit = int64_t(blockIdx.x) * kCopyThreads + threadIdx.x; unit < c.count; unit += int64_t(gridDim.x) * kCopyThreads) {
    int64_t i = unit, in = c.in_offset, out = c.out_offset;
    ATTUNE_ROLLED
    for (int axis = c.rank - 1; axis >= 0; axis--) {
      const int64_t rest = axis > 0 ? c.dims[axis].quotient(i) : 0, index = i - rest * c.dims[axis].divisor;
      in += index * c.in[axis], out += index * c.out[axis], i = rest;
    }
    if constexpr (sizeof(U) == 16) {
      if (c.repeats) {  // `in` counts elements then
        const char* p = static_cast<const char*>(from) + in * c.element;
        uint32_t low, high;
        if (c.element == 8) {
          const uint2 w = load(reinterpret_cast<const uint2*>(p));
          low = w.x, high = w.y;
        } else {
          low = high = c.element == 4   ? load(reinterpret_cast<const uint32_t*>(p))
                       : c.element == 2 ? load(reinterpret_cast<const uint16_t*>(p)) * 0x10001u
                                        : load(reinterpret_cast<const uint8_t*>(p)) * 0x1010101u;
        }
        store(static_cast<U*>(to) + out, make_uint4(low, high, low, high));
        continue;
      }
    }
    move_unit(from ? static_cast<const U*>(from) + in : nullptr, static_cast<U*>(to) + out, c.element);
  }
}

/// An axis of a copy: elements from one index to the next on either side.
struct Axis {
  int64_t dim, in, out;
};

/// Copies `axes` of elements, outermost first; offsets in elements. from: null for zeros.
static void copy_axes(const OpArgs& args, const void* from, int64_t in_offset, void* to, int64_t out_offset, const Axis* axes, int rank, int element) {
  Axis merged[kMaxRank];
  Copy c;
  for (int i = 0; i < rank; i++) {
    if (axes[i].dim == 1) continue;
    Axis* last = c.rank > 0 ? &merged[c.rank - 1] : nullptr;
    if (last && last->in == axes[i].in * axes[i].dim && last->out == axes[i].out * axes[i].dim) *last = {last->dim * axes[i].dim, axes[i].in, axes[i].out};
    else merged[c.rank++] = axes[i];
  }
  int unit = element;
  const Axis* inner = c.rank > 0 ? &merged[c.rank - 1] : nullptr;
  const auto fits = [&](int bytes) {
    if (!inner || inner->out != 1 || (inner->in != 1 && !(inner->in == 0 && bytes == 16 && from)) || inner->dim * element % bytes != 0) return false;
    for (int i = 0; i + 1 < c.rank; i++)
      if (merged[i].out * element % bytes != 0 || (inner->in == 1 && merged[i].in * element % bytes != 0)) return false;
    return out_offset * element % bytes == 0 && (inner->in == 0 || in_offset * element % bytes == 0);
  };
  for (const int bytes : {16, 8, 4, 2})
    if (bytes > element && unit == element && fits(bytes)) unit = bytes;
  const int factor = unit / element;
  c.element = element, c.repeats = unit > element && inner->in == 0;
  c.in_offset = c.repeats ? in_offset : in_offset / factor, c.out_offset = out_offset / factor;
  for (int i = 0; i < c.rank; i++) {
    const bool innermost = i + 1 == c.rank;
    const int64_t dim = innermost ? merged[i].dim / factor : merged[i].dim;
    c.dims[i] = Divider(dim), c.count *= dim;
    c.in[i] = innermost || c.repeats ? merged[i].in : merged[i].in / factor, c.out[i] = innermost ? merged[i].out : merged[i].out / factor;
  }
  const auto start = [&](auto kernel) { launch(args, kernel, grid_of(args, ceil_div(c.count, kCopyThreads)), dim3(kCopyThreads), 0, from, to, c); };
  if (unit == 16) start(copy_kernel<uint4>);
  else if (unit == 8) start(copy_kernel<uint64_t>);
  else if (unit == 4) start(copy_kernel<uint32_t>);
  else if (unit == 2) start(copy_kernel<uint16_t>);
  else start(copy_kernel<uint8_t>);
}

/// A tensor cut at one axis: `outer` rows of `row` elements, of which one step along the axis takes `step`.
struct Rows {
  int64_t outer = 1, row, step = 1;
  Rows(const TensorRef& x, int axis) {
    for (int i = 0; i < axis; i++) outer *= x.dims[i];
    for (int i = axis + 1; i < x.rank; i++) step *= x.dims[i];
    row = step * x.dims[axis];
  }
};

/// `count` elements at `in_offset` of each row of `from` (null: zeros) to `out_offset` of each row of `to`.
static void copy_rows(const OpArgs& args, const Rows& rows, int64_t count, const void* from, int64_t in_offset, int64_t in_row, void* to, int64_t out_offset,
                      int element) {
  if (count == 0) return;
  const Axis axes[] = {{rows.outer, in_row, rows.row}, {count, 1, 1}};
  copy_axes(args, from, in_offset, to, out_offset, axes, 2, element);
}

static int element_of(const TensorRef& x) { return int(dtype_size(x.dtype)); }

void copy_op(const OpArgs& args) {
  if (!args.dry) args.launcher.copy(args.out[0].data, args.in[0].data, args.out[0].bytes());
}

void slice_op(const OpArgs& args) {
  const int axis = int(args.attrs.integer("axis"));
  const TensorRef &x = args.in[0], &y = args.out[0];
  const Rows in(x, axis), out(y, axis);
  copy_rows(args, out, out.row, x.data, args.attrs.integer("start") * in.step, in.row, y.data, 0, element_of(x));
}

void pad_op(const OpArgs& args) {
  const int axis = int(args.attrs.integer("axis"));
  const TensorRef &x = args.in[0], &y = args.out[0];
  const Rows in(x, axis), out(y, axis);
  const int64_t before = args.attrs.integer("before") * out.step, end = before + in.row;
  copy_rows(args, out, before, nullptr, 0, 0, y.data, 0, element_of(x));
  copy_rows(args, out, in.row, x.data, 0, in.row, y.data, before, element_of(x));
  copy_rows(args, out, out.row - end, nullptr, 0, 0, y.data, end, element_of(x));
}

void concat_op(const OpArgs& args) {
  const int axis = int(args.attrs.integer("axis"));
  const TensorRef& y = args.out[0];
  const Rows out(y, axis);
  int64_t at = 0;
  for (int i = 0; i < args.n_in; i++) {
    const Rows in(args.in[i], axis);
    copy_rows(args, out, in.row, args.in[i].data, 0, in.row, y.data, at, element_of(y));
    at += in.row;
  }
}

void broadcast_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  Axis axes[kMaxRank];
  int64_t in = 1, out = 1;
  for (int i = y.rank - 1; i >= 0; i--) {
    axes[i] = {y.dims[i], x.dims[i] == 1 ? 0 : in, out};
    in *= x.dims[i], out *= y.dims[i];
  }
  copy_axes(args, x.data, 0, y.data, 0, axes, y.rank, element_of(x));
}

// ---- transpose -----------------------------------------------------------------------------------------------------------------------------------------

constexpr int kTile = 32, kTilePitch = kTile + 1;  // a column then meets 32 banks, also of 2-byte elements, two of which share one

/// Axes `fast`, contiguous in the input, and `last`, contiguous in the output, change places under the others.
struct Swap {
  int64_t rows, columns, in_stride, out_stride;  // rows along fast, columns along last; in_stride of a column, out_stride of a row
  Divider row_tiles, column_tiles;
  int rank = 0;  // other axes
  Divider dims[kMaxRank] = {};
  int64_t in[kMaxRank] = {}, out[kMaxRank] = {};
};

template <typename U>
__global__ void __launch_bounds__(256) transpose_kernel(const U* __restrict__ x, U* __restrict__ y, const __grid_constant__ Swap s) {
  ATTUNE_SHARED(memory);
  U* tile = reinterpret_cast<U*>(memory);  // [columns][kTilePitch] of rows
  const int64_t row_block = s.column_tiles.quotient(blockIdx.x), column0 = (blockIdx.x - row_block * s.column_tiles.divisor) * kTile;
  int64_t i = s.row_tiles.quotient(row_block), in = 0, out = 0;
  const int64_t row0 = (row_block - i * s.row_tiles.divisor) * kTile;
  for (int axis = s.rank - 1; axis >= 0; axis--) {
    const int64_t rest = s.dims[axis].quotient(i), index = i - rest * s.dims[axis].divisor;
    in += index * s.in[axis], out += index * s.out[axis], i = rest;
  }
  const int lane = int(threadIdx.x) % kTile, group = int(threadIdx.x) / kTile, groups = int(blockDim.x) / kTile;
  for (int c = group; c < kTile; c += groups)
    if (column0 + c < s.columns && row0 + lane < s.rows) store(tile + c * kTilePitch + lane, load(x + in + row0 + lane + (column0 + c) * s.in_stride));
  __syncthreads();
  for (int r = group; r < kTile; r += groups)
    if (column0 + lane < s.columns && row0 + r < s.rows) store(y + out + (row0 + r) * s.out_stride + column0 + lane, load(tile + lane * kTilePitch + r));
}

void transpose_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  const auto& permutation = args.attrs.list("permutation");
  int64_t strides[kMaxRank], stride = 1;
  for (int axis = x.rank - 1; axis >= 0; axis--) strides[axis] = stride, stride *= x.dims[axis];
  Axis axes[kMaxRank];  // of the output, merged where the input is contiguous across them
  int rank = 0;
  for (int i = 0; i < x.rank; i++) {
    const int axis = int(permutation[size_t(i)]);
    if (x.dims[axis] == 1) continue;
    if (rank > 0 && axes[rank - 1].in == strides[axis] * x.dims[axis]) axes[rank - 1] = {axes[rank - 1].dim * x.dims[axis], strides[axis], 0};
    else axes[rank++] = {x.dims[axis], strides[axis], 0};
  }
  stride = 1;
  for (int i = rank - 1; i >= 0; i--) axes[i].out = stride, stride *= axes[i].dim;
  int fast = 0;
  while (fast < rank && axes[fast].in != 1) fast++;
  constexpr int64_t kNarrow = 8;  // few planes or channels: lines on one side are read in turn by the threads of a warp, and the tile would be mostly empty
  if (fast >= rank - 1 || axes[fast].dim <= kNarrow || axes[rank - 1].dim <= kNarrow) return copy_axes(args, x.data, 0, y.data, 0, axes, rank, element_of(x));
  const Axis &row = axes[fast], &column = axes[rank - 1];
  Swap s{row.dim, column.dim, column.in, row.out, Divider(ceil_div(row.dim, kTile)), Divider(ceil_div(column.dim, kTile))};
  int64_t tiles = s.row_tiles.divisor * s.column_tiles.divisor;
  for (int i = 0; i + 1 < rank; i++) {
    if (i == fast) continue;
    s.dims[s.rank] = Divider(axes[i].dim), s.in[s.rank] = axes[i].in, s.out[s.rank++] = axes[i].out;
    tiles *= axes[i].dim;
  }
  const auto start = [&](auto unit) {
    using U = decltype(unit);
    launch(args, transpose_kernel<U>, dim3(unsigned(tiles)), dim3(256), kTile * kTilePitch * int(sizeof(U)), x.as<const U>(), y.as<U>(), s);
  };
  switch (element_of(x)) {
    case 8: return start(uint64_t{});
    case 4: return start(uint32_t{});
    case 2: return start(uint16_t{});
    default: return start(uint8_t{});
  }
}

REGISTER_CUDA(reshape, copy_op)
REGISTER_CUDA(stop_gradient, copy_op)
REGISTER_CUDA(slice, slice_op)
REGISTER_CUDA(pad, pad_op)
REGISTER_CUDA(concat, concat_op)
REGISTER_CUDA(broadcast, broadcast_op)
REGISTER_CUDA(transpose, transpose_op)

}  // namespace cuda
}  // namespace attune
