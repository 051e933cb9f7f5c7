// Matrix products of every heavy kernel: linear, matmul, convolutions, attention.
//
// Two micro kernels, both kTileRows x (1..kTileVectors vectors) of C in registers:
//   rows_tile: A by row pointers, k contiguous in memory with optional jumps (an image row of a convolution), so A needs no packing;
//   cols_tile: A by k, kTileRows neighbours in memory at each k (a transposed or packed A).
// B is read as panels of `width` columns, one row of the panel per k. Two drivers stand on them: gemm_rows for tall A (activations x weights) and
// gemm_cols for sums over rows (weight gradients). Borders of tasks, blocks of k and their order depend on the problem alone.
#pragma once
#include "parallel.h"
#include "simd_vec.h"

ATTUNE_CPU_BEGIN

#if defined(__AVX512F__)
constexpr int kTileRows = 8, kTileVectors = 3;  // 24 of 32 registers accumulate
#elif defined(__AVX2__)
constexpr int kTileRows = 4, kTileVectors = 3;  // 12 of 16
#else
constexpr int kTileRows = 4, kTileVectors = 2;  // 8 of 16, without fused multiply-add
#endif
constexpr int64_t kBlockK = 384;  // steps of k summed in registers before C is touched

/// n columns cut into panels of kTileVectors vectors, the last ones narrower by one vector where that leaves no sliver.
template <typename T>
struct Panels {
  int64_t n, vectors, count, full;
  explicit Panels(int64_t n) : n(n), vectors(ceil_div(n, kLanes<T>)), count(ceil_div(vectors, kTileVectors)) {
    full = count == 1 ? 1 : count - (count * kTileVectors - vectors);
  }
  /// Columns with the zero padding of the last panel: what packing stores per k.
  int64_t padded() const { return vectors * kLanes<T>; }
  int64_t start_vector(int64_t p) const { return p * kTileVectors - (p > full ? p - full : 0); }
  int64_t start(int64_t p) const { return start_vector(p) * kLanes<T>; }
  int vector_count(int64_t p) const { return count == 1 ? int(vectors) : p < full ? kTileVectors : kTileVectors - 1; }
  int64_t width(int64_t p) const { return int64_t(vector_count(p)) * kLanes<T>; }
  /// Columns of panel p that exist.
  int64_t columns(int64_t p) const { return min_of(width(p), n - start(p)); }
};

/// K cut into equal blocks of at most kBlockK.
struct Blocks {
  int64_t k, count, size;
  explicit Blocks(int64_t k) : k(k), count(max_of(1, ceil_div(k, kBlockK))), size(ceil_div(k, count)) {}
  int64_t start(int64_t b) const { return b * size; }
  int64_t length(int64_t b) const { return min_of(size, k - b * size); }
};

/// How k walks through a row of A: runs of `run` contiguous elements whose starts lie `pitch` apart. This is the part [k0, k0 + length).
struct Walk {
  int64_t offset, length, head, run, jump;  // first element; steps; steps before the first jump; steps between jumps; elements jumped over
  Walk(int64_t run, int64_t pitch, int64_t k0, int64_t length)
      : offset(k0 / run * pitch + k0 % run), length(length), head(min_of(run - k0 % run, length)), run(run), jump(pitch - run) {}
};

/// c[i][j] (+)= bias[j] + sum_k a[i][k] b[k * ldb + j] for `rows` <= kTileRows rows and `columns` of the panel.
template <typename T>
struct RowsTile {
  const T* const* a;
  T* const* c;
  int64_t c_offset;  // added to every pointer of c
  int rows;
  Walk walk;
  const T* b;
  int64_t ldb;
  int vectors;
  int64_t columns;
  const T* bias;  // of this panel's first column, or nullptr
  bool accumulate;
};
template <typename T>
void rows_tile(const RowsTile<T>& tile);

/// c[i * ldc + j] (+)= sum_k a[k * lda + i] b[k * ldb + j]. Reads kTileRows elements of a at each k, whatever `rows` is.
template <typename T>
struct ColsTile {
  const T* a;
  int64_t lda;
  const T* b;
  int64_t ldb;
  int64_t length;
  T* c;
  int64_t ldc;
  int rows;
  int vectors;
  int64_t columns;
  bool accumulate;
};
template <typename T>
void cols_tile(const ColsTile<T>& tile);

/// to[k * to_ld + j] = from[k * from_ld + j] for k < length, j < columns; nothing else is written.
template <typename T>
void copy_columns(const T* from, int64_t from_ld, int64_t length, int64_t columns, T* to, int64_t to_ld);
/// panel[k * width + j] = source[k * ld + j] for j < columns, zero up to width.
template <typename T>
void pack_rows(const T* source, int64_t ld, int64_t length, int64_t columns, int64_t width, T* panel);
/// panel[k * kTileRows + i] = source[k * ld + i] for i < rows, zero up to kTileRows: the A panel of cols_tile.
template <typename T>
void pack_rows_narrow(const T* source, int64_t ld, int64_t length, int rows, T* panel);
/// panel[k * width + j] = source[j * ld + k] for j < columns, zero up to width.
template <typename T>
void pack_transposed(const T* source, int64_t ld, int64_t length, int64_t columns, int64_t width, T* panel);

/// One packed panel against m rows given by pointers.
template <typename T>
inline void rows_by_panel(const T* const* a, T* const* c, int64_t m, const Walk& walk, const T* panel, const Panels<T>& panels, int64_t p, const T* bias,
                          bool accumulate) {
  for (int64_t i = 0; i < m; i += kTileRows) {
    const int rows = int(min_of(kTileRows, m - i));
    rows_tile<T>({a + i, c + i, panels.start(p), rows, walk, panel, panels.width(p), panels.vector_count(p), panels.columns(p),
                  bias ? bias + panels.start(p) : nullptr, accumulate});
  }
}

/// Hands out parts of one workspace request, each on its own cache lines.
class Carver {
 public:
  explicit Carver(void* base) : next_(static_cast<char*>(base)) {}
  template <typename T>
  T* take(int64_t count) {
    T* p = reinterpret_cast<T*>(next_);
    next_ += bytes<T>(count);
    return p;
  }
  template <typename T>
  static int64_t bytes(int64_t count) {
    return (count * int64_t(sizeof(T)) + 63) / 64 * 64;
  }

 private:
  char* next_;
};

/// C = A B (+ bias) with A and C as tiles of rows. `rows` is their total; a tile has at most `tile_rows` and may copy its part of A to
/// `tile_scratch` elements (a padded piece of an image).
template <typename T>
struct RowsProblem {
  int64_t tiles, tile_rows, tile_scratch;
  int64_t rows, n, k;
  int64_t run, pitch;  // how k walks through a row of A (Walk)
  const T* bias;       // [n] or nullptr
};

/// Rows per tile: about 4 million multiply-adds make a task. Where B exceeds a second-level cache, more, so that reading it pays.
inline int64_t rows_per_tile(int64_t n, int64_t k) {
  const int64_t steps = 4000000 / (n * k + 1), least = n * k > (1 << 18) ? 256 : kTileRows;
  return max_of(least, min_of(512, steps) / kTileRows * kTileRows);
}

template <typename T, typename Fill, typename Pack>
void gemm_rows_tall(const OpArgs& op, const RowsProblem<T>& g, const Panels<T>& panels, const Fill& fill, const Pack& pack);
template <typename T, typename Fill, typename Pack>
void gemm_rows_wide(const OpArgs& op, const RowsProblem<T>& g, const Panels<T>& panels, const Fill& fill, const Pack& pack);

/// fill(tile, scratch, a, c) writes the tile's row pointers and returns how many there are;
/// pack(k0, length, panels, p, panel) writes one panel of B for k in [k0, k0 + length).
template <typename T, typename Fill, typename Pack>
void gemm_rows(const OpArgs& op, const RowsProblem<T>& g, const Fill& fill, const Pack& pack) {
  const Panels<T> panels(g.n);
  // Many columns and few rows: B outweighs A, so every task packs its own columns of B, block by block, and reads all of A. A B of more than
  // 16 million elements is never packed whole, which bounds the workspace.
  if ((g.rows <= 1024 || g.n * g.k > (int64_t(1) << 24)) && panels.count >= 8) gemm_rows_wide(op, g, panels, fill, pack);
  else gemm_rows_tall(op, g, panels, fill, pack);
}

template <typename T, typename Fill, typename Pack>
void gemm_rows_tall(const OpArgs& op, const RowsProblem<T>& g, const Panels<T>& panels, const Fill& fill, const Pack& pack) {
  const Blocks blocks(g.k);
  const int64_t packed_bytes = Carver::bytes<T>(g.k * panels.padded());
  const int64_t thread_bytes = Carver::bytes<T>(g.tile_scratch) + 2 * Carver::bytes<T*>(g.tile_rows);
  char* memory = static_cast<char*>(op.workspace.get(size_t(packed_bytes + thread_bytes * op.pool.size())));
  T* packed = reinterpret_cast<T*>(memory);
  const auto panel_at = [&](int64_t block, int64_t p) { return packed + blocks.start(block) * panels.padded() + blocks.length(block) * panels.start(p); };

  const int64_t pack_tasks = g.k * g.n < 16384 ? 1 : blocks.count * panels.count;  // a small B is not worth waking threads
  op.pool.run(pack_tasks, [&](int64_t task, int) {
    const int64_t end = pack_tasks == 1 ? blocks.count * panels.count : task + 1;
    for (int64_t i = task; i < end; i++) {
      const int64_t block = i / panels.count, p = i % panels.count;
      pack(blocks.start(block), blocks.length(block), panels, p, panel_at(block, p));
    }
  });

  const int64_t splits = g.tiles >= 16 ? 1 : min_of(panels.count, ceil_div(16, g.tiles));  // of the columns, where rows alone give too few tasks
  op.pool.run(g.tiles * splits, [&](int64_t task, int thread) {
    Carver carver(memory + packed_bytes + thread_bytes * thread);
    const T** a = carver.take<const T*>(g.tile_rows);
    T** c = carver.take<T*>(g.tile_rows);
    T* scratch = carver.take<T>(g.tile_scratch);
    const int64_t m = fill(task / splits, scratch, a, c), split = task % splits;
    const int64_t first = panels.count * split / splits, last = panels.count * (split + 1) / splits;
    for (int64_t block = 0; block < blocks.count; block++) {
      const Walk walk(g.run, g.pitch, blocks.start(block), blocks.length(block));
      for (int64_t p = first; p < last; p++) rows_by_panel<T>(a, c, m, walk, panel_at(block, p), panels, p, block == 0 ? g.bias : nullptr, block > 0);
    }
  });
}

template <typename T, typename Fill, typename Pack>
void gemm_rows_wide(const OpArgs& op, const RowsProblem<T>& g, const Panels<T>& panels, const Fill& fill, const Pack& pack) {
  const Blocks blocks(g.k);
  const int64_t scratch_bytes = Carver::bytes<T>(g.tile_scratch), table_bytes = Carver::bytes<T*>(g.tiles * g.tile_rows);
  const int64_t shared_bytes = g.tiles * scratch_bytes + 2 * table_bytes + Carver::bytes<int64_t>(g.tiles);
  constexpr int64_t kGroup = 2;  // panels per task: halves how often A is read
  const int64_t panel_size = blocks.size * kTileVectors * kLanes<T>, thread_bytes = Carver::bytes<T>(kGroup * panel_size);
  char* memory = static_cast<char*>(op.workspace.get(size_t(shared_bytes + thread_bytes * op.pool.size())));
  Carver carver(memory);
  const T** a = carver.take<const T*>(g.tiles * g.tile_rows);
  T** c = carver.take<T*>(g.tiles * g.tile_rows);
  int64_t* counts = carver.take<int64_t>(g.tiles);
  char* scratch = carver.take<char>(g.tiles * scratch_bytes);
  op.pool.run(g.tiles, [&](int64_t tile, int) {
    counts[tile] = fill(tile, reinterpret_cast<T*>(scratch + tile * scratch_bytes), a + tile * g.tile_rows, c + tile * g.tile_rows);
  });
  op.pool.run(ceil_div(panels.count, kGroup), [&](int64_t task, int thread) {
    T* packed = reinterpret_cast<T*>(memory + shared_bytes + thread_bytes * thread);
    const int64_t first = task * kGroup, last = min_of(panels.count, first + kGroup);
    for (int64_t block = 0; block < blocks.count; block++) {
      for (int64_t p = first; p < last; p++) pack(blocks.start(block), blocks.length(block), panels, p, packed + (p - first) * panel_size);
      const Walk walk(g.run, g.pitch, blocks.start(block), blocks.length(block));
      for (int64_t tile = 0; tile < g.tiles; tile++)
        for (int64_t p = first; p < last; p++)
          rows_by_panel<T>(a + tile * g.tile_rows, c + tile * g.tile_rows, counts[tile], walk, packed + (p - first) * panel_size, panels, p,
                           block == 0 ? g.bias : nullptr, block > 0);
    }
  });
}

/// gemm_rows with A an ordinary [rows, k] matrix and C [rows, n].
template <typename T, typename Pack>
void gemm_matrix(const OpArgs& op, int64_t rows, int64_t n, int64_t k, const T* a, int64_t lda, T* c, int64_t ldc, const T* bias, const Pack& pack) {
  const int64_t tile_rows = min_of(rows_per_tile(n, k), ceil_div(rows, kTileRows) * kTileRows), tiles = ceil_div(rows, tile_rows);
  const RowsProblem<T> problem{tiles, tile_rows, 0, rows, n, k, k, k, bias};
  const auto fill = [=](int64_t tile, T*, const T** a_rows, T** c_rows) {
    const int64_t first = tile * tile_rows, count = min_of(tile_rows, rows - first);
    for (int64_t i = 0; i < count; i++) a_rows[i] = a + (first + i) * lda, c_rows[i] = c + (first + i) * ldc;
    return count;
  };
  gemm_rows<T>(op, problem, fill, pack);
}

/// C [m, n] = sum over k of A(k, m) B(k, n): long sums, small C. Where C has too few tiles to go round, k is cut into a number of
/// partial sums that the shape fixes; they are added in order. pack_a(k0, length, m0, rows, panel) writes panel[k * kTileRows + i].
template <typename T, typename PackA, typename PackB>
void gemm_cols(const OpArgs& op, int64_t m, int64_t n, int64_t k, T* c, const PackA& pack_a, const PackB& pack_b) {
  const Panels<T> panels(n);
  const int64_t tile_m = min_of(ceil_div(m, kTileRows) * kTileRows, 384), tiles_m = ceil_div(m, tile_m);
  const int64_t tile_panels = min_of(panels.count, 8), tiles_n = ceil_div(panels.count, tile_panels);
  const int64_t tiles = tiles_m * tiles_n;
  int64_t parts = max_of(1, min_of(ceil_div(32, tiles), k / 512));
  parts = max_of(1, min_of(parts, (int64_t(32) << 20) / (m * n * int64_t(sizeof(T)))));
  const int64_t part_k = ceil_div(k, parts);

  const int64_t block_k = Blocks(part_k).size;
  const int64_t partial_bytes = parts > 1 ? Carver::bytes<T>(parts * m * n) : 0;
  const int64_t a_bytes = Carver::bytes<T>(tile_m * block_k), b_bytes = Carver::bytes<T>(block_k * kTileVectors * kLanes<T>);
  char* memory = static_cast<char*>(op.workspace.get(size_t(partial_bytes + (a_bytes + b_bytes) * op.pool.size())));
  T* partials = parts > 1 ? reinterpret_cast<T*>(memory) : c;

  op.pool.run(tiles * parts, [&](int64_t task, int thread) {
    T* a_pack = reinterpret_cast<T*>(memory + partial_bytes + (a_bytes + b_bytes) * thread);
    T* b_pack = reinterpret_cast<T*>(reinterpret_cast<char*>(a_pack) + a_bytes);
    const int64_t part = task / tiles, tile = task % tiles;
    const int64_t m0 = tile / tiles_n * tile_m, rows = min_of(tile_m, m - m0);
    const int64_t p0 = tile % tiles_n * tile_panels, p1 = min_of(panels.count, p0 + tile_panels);
    const int64_t k_begin = part * part_k, k_end = min_of(k, k_begin + part_k);
    T* out = partials + part * m * n;
    if (k_begin >= k_end)
      for (int64_t i = m0; i < m0 + rows; i++)
        for (int64_t j = panels.start(p0); j < panels.start(p1 - 1) + panels.columns(p1 - 1); j++) out[i * n + j] = 0;
    for (int64_t k0 = k_begin; k0 < k_end; k0 += block_k) {
      const int64_t length = min_of(block_k, k_end - k0);
      for (int64_t i = 0; i < rows; i += kTileRows) pack_a(k0, length, m0 + i, int(min_of(kTileRows, rows - i)), a_pack + i * length);
      for (int64_t p = p0; p < p1; p++) {
        pack_b(k0, length, panels, p, b_pack);
        for (int64_t i = 0; i < rows; i += kTileRows)
          cols_tile<T>({a_pack + i * length, kTileRows, b_pack, panels.width(p), length, out + (m0 + i) * n + panels.start(p), n,
                        int(min_of(kTileRows, rows - i)), panels.vector_count(p), panels.columns(p), k0 > k_begin});
      }
    }
  });
  if (parts == 1) return;
  op.pool.ranges(m * n, 4096, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) c[i] = partials[i];
    for (int64_t part = 1; part < parts; part++)
      for (int64_t i = begin; i < end; i++) c[i] += partials[part * m * n + i];
  });
}

ATTUNE_CPU_END
