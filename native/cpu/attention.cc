// Multi-head attention without the N x M matrix: y = softmax(scale q k^T + mask) v per head, in blocks of queries and keys with a running maximum
// and sum per query (Dao et al. 2022, arXiv:2205.14135). q [B, N, heads*d], k and v [B, M, heads*d], mask [B or 1, 1, 1, M] added to the logits.
// lse [B, heads, N] = log sum exp of the logits is all that the gradient needs to recompute the probabilities.
// A query whose keys are all masked with -inf attends to nothing: y = 0, lse = -inf, gradients 0.
#include "gemm.h"

ATTUNE_CPU_BEGIN

namespace {

constexpr int64_t kQueryBlock = 192, kKeyBlock = 192;
template <typename T>
constexpr T kInfinity = T(__builtin_huge_val());

template <typename T>
struct Heads {
  int64_t batch, queries, keys, heads, dim, width;  // width = heads * dim: the distance between tokens
  T scale;
  bool causal;
  const T* mask;  // nullptr, or [keys] per sample
  int64_t mask_stride;

  Heads(const OpArgs& op, const TensorRef& q, const TensorRef& k, int mask_index) {
    batch = q.dim(0), queries = q.dim(1), keys = k.dim(1), width = q.dim(2);
    heads = op.attrs.integer("heads"), dim = width / heads;
    causal = op.attrs.flag("causal", false);
    scale = T(op.attrs.has("scale") ? op.attrs.number("scale") : 1 / std::sqrt(double(dim)));
    mask = op.has(mask_index) ? op.in[mask_index].as<T>() : nullptr;
    mask_stride = mask && op.in[mask_index].dim(0) > 1 ? keys : 0;
  }
  /// Where token t of head h of sample b starts, for a tensor of `tokens` tokens.
  int64_t at(int64_t b, int64_t h, int64_t t, int64_t tokens) const { return (b * tokens + t) * width + h * dim; }
};

/// A block of scores: rows of queries, `ld` apart, wide enough for whole vectors and whole micro tiles.
template <typename T>
constexpr int64_t score_ld(int64_t keys) {
  constexpr int64_t unit = kLanes<T> > kTileRows ? kLanes<T> : kTileRows;
  return (keys + unit - 1) / unit * unit;
}

template <typename T>
struct Rows {  // pointers to up to kQueryBlock rows
  T* row[kQueryBlock];
  Rows(T* first, int64_t stride, int64_t count) {
    for (int64_t i = 0; i < count; i++) row[i] = first + i * stride;
  }
};

/// c (+)= a B, B packed as [depth, columns]; all panels.
template <typename T>
void multiply(const T* const* a, T* const* c, int64_t rows, int64_t depth, int64_t columns, const T* packed, bool accumulate) {
  const Panels<T> panels(columns);
  const Walk walk(depth, depth, 0, depth);
  for (int64_t p = 0; p < panels.count; p++) rows_by_panel<T>(a, c, rows, walk, packed + depth * panels.start(p), panels, p, nullptr, accumulate);
}
/// c += a^T B for a [depth, rows] with row stride lda, B packed as [depth, columns].
template <typename T>
void multiply_transposed(const T* a, int64_t lda, T* c, int64_t ldc, int64_t rows, int64_t depth, int64_t columns, const T* packed) {
  const Panels<T> panels(columns);
  for (int64_t p = 0; p < panels.count; p++)
    for (int64_t i = 0; i < rows; i += kTileRows)
      cols_tile<T>({a + i, lda, packed + depth * panels.start(p), panels.width(p), depth, c + i * ldc + panels.start(p), ldc, int(min_of(kTileRows, rows - i)),
                    panels.vector_count(p), panels.columns(p), true});
}
/// Tokens [count, dim] as B of a product with depth dim (columns are tokens), or with depth count (columns are channels).
template <typename T>
void pack_tokens_across(const T* tokens, int64_t stride, int64_t count, int64_t dim, T* packed) {
  const Panels<T> panels(count);
  for (int64_t p = 0; p < panels.count; p++)
    pack_transposed<T>(tokens + panels.start(p) * stride, stride, dim, panels.columns(p), panels.width(p), packed + dim * panels.start(p));
}
template <typename T>
void pack_tokens_down(const T* tokens, int64_t stride, int64_t count, int64_t dim, T* packed) {
  const Panels<T> panels(dim);
  for (int64_t p = 0; p < panels.count; p++)
    pack_rows<T>(tokens + panels.start(p), stride, count, panels.columns(p), panels.width(p), packed + count * panels.start(p));
}

/// Keys of [first, first + count) that query i may see.
template <typename T>
int64_t visible(const Heads<T>& s, int64_t query, int64_t first, int64_t count) {
  return s.causal ? max_of(0, min_of(count, query + 1 - first)) : count;
}

/// row = scale * row + mask for `count` keys, -inf past them up to ld. Returns the maximum.
template <typename T>
T scale_and_mask(T* row, int64_t count, int64_t ld, T scale, const T* mask) {
  Vec<T> top = splat<T>(-kInfinity<T>);
  int64_t j = 0;
  for (; j + kLanes<T> <= count; j += kLanes<T>) {
    Vec<T> s = load<T>(row + j) * scale;
    if (mask) s += load<T>(mask + j);
    store<T>(row + j, s);
    top = vec_max<T>(top, s);
  }
  if (j < count) {
    Vec<T> s = load<T>(row + j) * scale;
    if (mask) s += load_part<T>(mask + j, count - j);
    s = keep_lanes<T>(s, count - j, -kInfinity<T>);
    store<T>(row + j, s);
    top = vec_max<T>(top, s);
    j += kLanes<T>;
  }
  for (; j < ld; j += kLanes<T>) store<T>(row + j, splat<T>(-kInfinity<T>));
  return lane_max<T>(top);
}
/// row = exp(row - shift), returns the sum.
template <typename T>
T exp_row(T* row, int64_t ld, T shift) {
  Vec<T> sum{};
  for (int64_t j = 0; j < ld; j += kLanes<T>) {
    const Vec<T> e = vec_exp(load<T>(row + j) - shift);
    store<T>(row + j, e);
    sum += e;
  }
  return lane_sum<T>(sum);
}
template <typename T>
void scale_row(T* row, int64_t count, T factor) {
  for (int64_t j = 0; j < count; j++) row[j] *= factor;
}

// Queries [q0, q0 + rows) of one head against all keys.
template <typename T>
void attend(const Heads<T>& s, int64_t b, int64_t h, int64_t q0, int64_t rows, const T* q, const T* k, const T* v, T* y, T* lse, T* memory) {
  Carver carver(memory);
  const int64_t ld = score_ld<T>(min_of(kKeyBlock, s.keys));
  T* scores = carver.take<T>(kQueryBlock * ld);
  T* packed = carver.take<T>(max_of(s.dim * Panels<T>(kKeyBlock).padded(), kKeyBlock * Panels<T>(s.dim).padded()));
  T top[kQueryBlock], sum[kQueryBlock];
  for (int64_t i = 0; i < rows; i++) top[i] = -kInfinity<T>, sum[i] = 0;

  const Rows<const T> q_rows(q + s.at(b, h, q0, s.queries), s.width, rows), p_rows(scores, ld, rows);
  const Rows<T> s_rows(scores, ld, rows), y_rows(y + s.at(b, h, q0, s.queries), s.width, rows);
  const int64_t k_end = s.causal ? min_of(s.keys, q0 + rows) : s.keys;
  for (int64_t k0 = 0; k0 < k_end; k0 += kKeyBlock) {
    const int64_t count = min_of(kKeyBlock, s.keys - k0);
    pack_tokens_across<T>(k + s.at(b, h, k0, s.keys), s.width, count, s.dim, packed);
    multiply<T>(q_rows.row, s_rows.row, rows, s.dim, count, packed, false);
    for (int64_t i = 0; i < rows; i++) {
      T* row = scores + i * ld;
      const T block_top =
          scale_and_mask<T>(row, visible(s, q0 + i, k0, count), score_ld<T>(count), s.scale, s.mask ? s.mask + b * s.mask_stride + k0 : nullptr);
      const T above = block_top > top[i] ? block_top : top[i];
      const T shift = above == -kInfinity<T> ? T(0) : above;
      const T fade = k0 == 0 ? T(0) : std::exp(top[i] - shift);
      if (k0 > 0 && fade != T(1)) scale_row<T>(y_rows.row[i], s.dim, fade);
      sum[i] = sum[i] * fade + exp_row<T>(row, score_ld<T>(count), shift);
      top[i] = above;
    }
    pack_tokens_down<T>(v + s.at(b, h, k0, s.keys), s.width, count, s.dim, packed);
    multiply<T>(p_rows.row, y_rows.row, rows, count, s.dim, packed, k0 > 0);
  }
  for (int64_t i = 0; i < rows; i++) {
    const bool nothing = sum[i] == T(0);
    scale_row<T>(y_rows.row[i], s.dim, nothing ? T(0) : T(1) / sum[i]);
    lse[(b * s.heads + h) * s.queries + q0 + i] = nothing ? -kInfinity<T> : top[i] + std::log(sum[i]);
  }
}

void attention_kernel(const OpArgs& op) {
  const TensorRef &q = op.in[0], &k = op.in[1], &v = op.in[2], &y = op.out[0], &lse = op.out[1];
  dispatch(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    const Heads<T> s(op, q, k, 3);
    const int64_t blocks = ceil_div(s.queries, kQueryBlock);
    const int64_t bytes = Carver::bytes<T>(kQueryBlock * score_ld<T>(min_of(kKeyBlock, s.keys))) +
                          Carver::bytes<T>(max_of(s.dim * Panels<T>(kKeyBlock).padded(), kKeyBlock * Panels<T>(s.dim).padded()));
    char* memory = static_cast<char*>(op.workspace.get(size_t(bytes * op.pool.size())));
    op.pool.run(s.batch * s.heads * blocks, [&](int64_t task, int thread) {
      const int64_t q0 = task % blocks * kQueryBlock, h = task / blocks % s.heads, b = task / (blocks * s.heads);
      attend<T>(s, b, h, q0, min_of(kQueryBlock, s.queries - q0), q.as<T>(), k.as<T>(), v.as<T>(), y.as<T>(), lse.as<T>(),
                reinterpret_cast<T*>(memory + bytes * thread));
    });
  });
}

/// Pointers of the backward pass.
template <typename T>
struct Gradients {
  const T *dy, *q, *k, *v, *lse;
  const T* dot;  // [B, heads, N]: sum over channels of dy * y
  T *dk, *dv;
};

/// p = exp(scale * s + mask - lse), ds = p * (dp - dot) * scale, in place of s and dp.
template <typename T>
void score_gradients(T* s, T* dp, int64_t count, int64_t ld, T scale, const T* mask, T lse, T dot) {
  scale_and_mask<T>(s, count, ld, scale, mask);
  const T shift = lse == -kInfinity<T> ? kInfinity<T> : lse;
  for (int64_t j = count; j < ld; j++) dp[j] = 0;
  for (int64_t j = 0; j < ld; j += kLanes<T>) {
    const Vec<T> p = vec_exp(load<T>(s + j) - shift);
    store<T>(s + j, p);
    store<T>(dp + j, p * (load<T>(dp + j) - dot) * scale);
  }
}

template <typename T>
int64_t gradient_scratch(const Heads<T>& s) {
  const int64_t ld = score_ld<T>(min_of(kKeyBlock, s.keys)), across = s.dim * Panels<T>(kKeyBlock).padded(), channels = Panels<T>(s.dim).padded();
  return 2 * Carver::bytes<T>(kQueryBlock * ld) + 2 * Carver::bytes<T>(across) + Carver::bytes<T>(kKeyBlock * channels) +
         2 * Carver::bytes<T>(kQueryBlock * channels);
}

// Key blocks [first, last) of one head against all queries: adds to dk and dv of those keys and to dq (rows dq_stride apart) of all queries.
template <typename T>
void attend_gradients(const Heads<T>& s, const Gradients<T>& g, int64_t b, int64_t h, int64_t first, int64_t last, T* dq, int64_t dq_stride, T* memory) {
  Carver carver(memory);
  const int64_t ld = score_ld<T>(min_of(kKeyBlock, s.keys)), across = s.dim * Panels<T>(kKeyBlock).padded(), channels = Panels<T>(s.dim).padded();
  T *p = carver.take<T>(kQueryBlock * ld), *ds = carver.take<T>(kQueryBlock * ld);
  T *keys_across = carver.take<T>(across), *values_across = carver.take<T>(across), *keys_down = carver.take<T>(kKeyBlock * channels);
  T *q_down = carver.take<T>(kQueryBlock * channels), *dy_down = carver.take<T>(kQueryBlock * channels);
  for (int64_t i = 0; i < s.queries; i++) zero_values<T>(dq + i * dq_stride, s.dim);

  for (int64_t k0 = first * kKeyBlock; k0 < min_of(last * kKeyBlock, s.keys); k0 += kKeyBlock) {
    const int64_t count = min_of(kKeyBlock, s.keys - k0), used = score_ld<T>(count), key_at = s.at(b, h, k0, s.keys);
    for (int64_t i = 0; i < count; i++) {
      zero_values<T>(g.dk + key_at + i * s.width, s.dim);
      zero_values<T>(g.dv + key_at + i * s.width, s.dim);
    }
    pack_tokens_across<T>(g.k + key_at, s.width, count, s.dim, keys_across);
    pack_tokens_across<T>(g.v + key_at, s.width, count, s.dim, values_across);
    pack_tokens_down<T>(g.k + key_at, s.width, count, s.dim, keys_down);
    const int64_t q_first = s.causal ? k0 / kQueryBlock * kQueryBlock : 0;  // earlier queries see none of these keys
    for (int64_t q0 = q_first; q0 < s.queries; q0 += kQueryBlock) {
      const int64_t rows = min_of(kQueryBlock, s.queries - q0), query_at = s.at(b, h, q0, s.queries), stat = (b * s.heads + h) * s.queries + q0;
      const Rows<const T> q_rows(g.q + query_at, s.width, rows), dy_rows(g.dy + query_at, s.width, rows), ds_in(ds, ld, rows);
      const Rows<T> p_rows(p, ld, rows), ds_rows(ds, ld, rows), dq_rows(dq + q0 * dq_stride, dq_stride, rows);
      multiply<T>(q_rows.row, p_rows.row, rows, s.dim, count, keys_across, false);
      multiply<T>(dy_rows.row, ds_rows.row, rows, s.dim, count, values_across, false);
      for (int64_t i = 0; i < rows; i++)
        score_gradients<T>(p + i * ld, ds + i * ld, visible(s, q0 + i, k0, count), used, s.scale, s.mask ? s.mask + b * s.mask_stride + k0 : nullptr,
                           g.lse[stat + i], g.dot[stat + i]);
      pack_tokens_down<T>(g.dy + query_at, s.width, rows, s.dim, dy_down);
      pack_tokens_down<T>(g.q + query_at, s.width, rows, s.dim, q_down);
      multiply_transposed<T>(p, ld, g.dv + key_at, s.width, count, rows, s.dim, dy_down);
      multiply_transposed<T>(ds, ld, g.dk + key_at, s.width, count, rows, s.dim, q_down);
      multiply<T>(ds_in.row, dq_rows.row, rows, count, s.dim, keys_down, true);
    }
  }
}

template <typename T>
void attention_vjp(const OpArgs& op) {
  const Heads<T> s(op, op.in[1], op.in[2], 6);
  const int64_t pairs = s.batch * s.heads, key_blocks = ceil_div(s.keys, kKeyBlock);
  // A task owns dk and dv of its keys. Where heads are few the keys are split, and each split adds up a dq of its own.
  const int64_t splits = max_of(1, min_of(key_blocks, 32 / pairs));
  const int64_t partial = splits > 1 ? pairs * splits * s.queries * s.dim : 0, scratch = gradient_scratch(s);
  Carver carver(op.workspace.get(size_t(Carver::bytes<T>(pairs * s.queries) + Carver::bytes<T>(partial) + scratch * op.pool.size())));
  T *dot = carver.take<T>(pairs * s.queries), *partials = carver.take<T>(partial);
  char* memory = carver.take<char>(0);
  const T *dy = op.in[0].as<T>(), *y = op.in[4].as<T>();
  T* dq = op.out[0].as<T>();

  op.pool.ranges(s.batch * s.queries, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t token = begin; token < end; token++)
      for (int64_t h = 0; h < s.heads; h++) {
        const T *a = dy + token * s.width + h * s.dim, *c = y + token * s.width + h * s.dim;
        T sum = 0;
        for (int64_t j = 0; j < s.dim; j++) sum += a[j] * c[j];
        dot[(token / s.queries * s.heads + h) * s.queries + token % s.queries] = sum;
      }
  });
  const Gradients<T> g{dy, op.in[1].as<T>(), op.in[2].as<T>(), op.in[3].as<T>(), op.in[5].as<T>(), dot, op.out[1].as<T>(), op.out[2].as<T>()};
  op.pool.run(pairs * splits, [&](int64_t task, int thread) {
    const int64_t pair = task / splits, split = task % splits, b = pair / s.heads, h = pair % s.heads;
    T* target = splits > 1 ? partials + task * s.queries * s.dim : dq + s.at(b, h, 0, s.queries);
    attend_gradients<T>(s, g, b, h, key_blocks * split / splits, key_blocks * (split + 1) / splits, target, splits > 1 ? s.dim : s.width,
                        reinterpret_cast<T*>(memory + scratch * thread));
  });
  if (splits == 1) return;
  op.pool.ranges(pairs * s.queries, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t pair = i / s.queries, query = i % s.queries;
      T* to = dq + s.at(pair / s.heads, pair % s.heads, query, s.queries);
      for (int64_t j = 0; j < s.dim; j++) {
        T sum = 0;
        for (int64_t split = 0; split < splits; split++) sum += partials[((pair * splits + split) * s.queries + query) * s.dim + j];
        to[j] = sum;
      }
    }
  });
}

void attention_vjp_kernel(const OpArgs& op) {
  dispatch(op.out[0].dtype, [&](auto tag) { attention_vjp<decltype(tag)>(op); });
}

}  // namespace

REGISTER_CPU(attention, attention_kernel)
REGISTER_CPU(attention_vjp, attention_vjp_kernel)

ATTUNE_CPU_END
