// What the kernels of attention share: the shape of the op, and for bf16 on tensor cores tiles of one head in shared memory and the two products over them.
//
// Heads lie side by side in the last axis, so a token's channels of one head are a run of `dim` numbers every `width`: tiles are copied straight from there. A
// kernel compiled for kDim channels serves every dim <= kDim that is a multiple of 8: channels past dim are zero in shared memory and never stored.
// A warp owns kM * 16 rows of one operand. Scores stay in the accumulators that made them, whose layout is that of a left operand of the next product.
#pragma once
#include <cmath>

#include "mma.cuh"

namespace attune {
namespace cuda {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr int kAttentionThreads = 128;       // four warps: each has 255 registers, and two blocks or more fit a multiprocessor
constexpr int kAttentionShared = 99 * 1024;  // what a block may have on sm_86 and sm_89, the least of all
constexpr int kStatisticsUnit = 128;         // rows of statistics are padded to whole tiles of queries

struct AttentionShape {
  int batch, queries, keys, heads, dim;
  int64_t width;  // heads * dim: from a token to the next
  float scale;
  bool causal;
  Parameter mask;       // [keys], added to the scaled logits
  int64_t mask_stride;  // between samples: keys or 0

  /// The first channel of head h of sample b's first token, of `tokens` tokens.
  ATTUNE_BOTH int64_t at(int b, int h, int tokens) const { return int64_t(b) * tokens * width + int64_t(h) * dim; }
  /// Keys that a query may see are the first of them: this many.
  ATTUNE_BOTH int visible(int query) const { return causal && query < keys ? query + 1 : keys; }
  /// Keys that some query before `end` may see.
  ATTUNE_BOTH int visible_before(int end) const { return causal && end < keys ? end : keys; }
  ATTUNE_BOTH int padded_queries() const { return (queries + kStatisticsUnit - 1) / kStatisticsUnit * kStatisticsUnit; }
};

/// What the backward pass knows of a query, one pair each: the log-sum-exp that makes probabilities of logits, +infinity for a query that attends to nothing
/// (all its probabilities are then 0), and the sum over channels of dy * y. Laid out [B, heads, padded_queries()].
struct alignas(8) QueryStatistics {
  float lse, dot;
};

/// The ops for heads of up to kDim channels, bf16, on tensor cores: compiled in attention_forward_*.cu and attention_backward_*.cu.
template <int kDim>
void start_attention_forward(const OpArgs& args, const AttentionShape& s);
template <int kDim>
void start_attention_backward(const OpArgs& args, const AttentionShape& s);
/// What a backward pass begins with, in scratch memory; logits and lse in units of 1 / unit: kLog2E, or 1 for natural ones.
const QueryStatistics* start_attention_statistics(const OpArgs& args, const AttentionShape& s, float unit);
/// dk and dv (outputs 1 and 2) from parts [2, splits, B, M, heads * d], added in order.
void start_attention_reduce(const OpArgs& args, const float* parts, int splits);
/// Likewise for more channels than that, as long as they are a multiple of 8: attention_wide.cu.
void start_attention_wide(const OpArgs& args, const AttentionShape& s);
void start_attention_wide_backward(const OpArgs& args, const AttentionShape& s);
/// The ops for everything else: f32, and heads that vectors do not divide.
void start_attention_ffma(const OpArgs& args, const AttentionShape& s);
void start_attention_ffma_backward(const OpArgs& args, const AttentionShape& s);

// ---- tiles in shared memory ----------------------------------------------------------------------------------------------------------------------------

/// Numbers from a row of a tile to the next: an odd count of 16-byte units, so that the eight rows of an ldmatrix fall into different banks.
template <int kDim>
constexpr int kPitch = (kDim / 8 | 1) * 8;

/// Copies kRows tokens from `first` on; those past the last, and channels past `channels`, become zero. `from` is the head's first token.
template <int kDim, int kRows>
ATTUNE_DEVICE void copy_tile(bf16* to, const bf16* from, int first, int tokens, int64_t width, int channels) {
  constexpr int kUnits = kDim / 8;
#pragma unroll 1  // unrolled, its addresses would stay in registers across the loop over tiles, which has none to spare
  for (int i = int(threadIdx.x); i < kRows * kUnits; i += kAttentionThreads) {
    const int row = i / kUnits, channel = i % kUnits * 8;
    const bool inside = first + row < tokens && channel < channels;
    copy_async16(to + row * kPitch<kDim> + channel, inside ? from + (first + row) * width + channel : from, inside ? 16 : 0);
  }
}

/// A warp's kM * 16 rows of a tile as the left operand of a product over channels: read once and kept in registers, or read at every use.
template <int kDim, int kM, bool kKept>
struct RowFragments {
  static constexpr int kSteps = kDim / 16;
  const bf16* rows;
  uint32_t kept[kKept ? kSteps : 1][kM][4], kept_last[kM][2];

  ATTUNE_DEVICE void read(int step, uint32_t (&a)[kM][4]) const {
    const int lane = threadIdx.x % 32;
    ATTUNE_UNROLL
    for (int m = 0; m < kM; m++) ldmatrix_x4(a[m], rows + (m * 16 + lane % 16) * kPitch<kDim> + step * 16 + lane / 16 * 8);
  }
  ATTUNE_DEVICE void read_last(uint32_t (&a)[kM][2]) const {  // the last 8 channels, where kDim is an odd multiple of 8
    const int lane = threadIdx.x % 32;
    ATTUNE_UNROLL
    for (int m = 0; m < kM; m++) ldmatrix_x2(a[m], rows + (m * 16 + lane % 16) * kPitch<kDim> + kSteps * 16);
  }
  ATTUNE_DEVICE void keep() {
    if constexpr (kKept) {
      ATTUNE_UNROLL
      for (int step = 0; step < kSteps; step++) read(step, kept[step]);
      if constexpr (kDim % 16 != 0) read_last(kept_last);
    }
  }
  ATTUNE_DEVICE void get(int step, uint32_t (&a)[kM][4]) const {
    if constexpr (kKept) {
      ATTUNE_UNROLL
      for (int m = 0; m < kM; m++) {
        ATTUNE_UNROLL
        for (int i = 0; i < 4; i++) a[m][i] = kept[step][m][i];
      }
    } else read(step, a);
  }
  ATTUNE_DEVICE void get_last(uint32_t (&a)[kM][2]) const {
    if constexpr (kKept) {
      ATTUNE_UNROLL
      for (int m = 0; m < kM; m++) a[m][0] = kept_last[m][0], a[m][1] = kept_last[m][1];
    } else read_last(a);
  }
};

template <int kM, int kN>
ATTUNE_DEVICE void clear(float (&acc)[kN][kM][4]) {
  ATTUNE_UNROLL
  for (int n = 0; n < kN; n++) {
    ATTUNE_UNROLL
    for (int m = 0; m < kM; m++) {
      ATTUNE_UNROLL
      for (int i = 0; i < 4; i++) acc[n][m][i] = 0.f;
    }
  }
}

/// scores += A B^T over channels: the warp's rows against the kN * 8 tokens of `tile`.
template <int kDim, int kM, int kN, bool kKept>
ATTUNE_DEVICE void multiply_channels(float (&scores)[kN][kM][4], const RowFragments<kDim, kM, kKept>& rows, const bf16* tile) {
  static_assert(kN % 2 == 0, "tokens come in pairs of eight");
  const int lane = threadIdx.x % 32;
  ATTUNE_UNROLL
  for (int step = 0; step < kDim / 16; step++) {
    uint32_t a[kM][4];
    rows.get(step, a);
    ATTUNE_UNROLL
    for (int n = 0; n < kN; n += 2) {
      uint32_t r[4];
      ldmatrix_x4(r, tile + (n * 8 + lane % 8 + lane / 16 * 8) * kPitch<kDim> + step * 16 + lane / 8 % 2 * 8);
      const uint32_t b[2][2] = {{r[0], r[1]}, {r[2], r[3]}};
      mma_run<16, kM, 2>(scores + n, a, b);
    }
  }
  if constexpr (kDim % 16 != 0) {
    uint32_t a[kM][2];
    rows.get_last(a);
    ATTUNE_UNROLL
    for (int n = 0; n < kN; n += 2) {
      uint32_t r[2];
      ldmatrix_x2(r, tile + (n * 8 + lane % 16) * kPitch<kDim> + kDim / 16 * 16);
      const uint32_t b[2][1] = {{r[0]}, {r[1]}};
      mma_run<8, kM, 2>(scores + n, a, b);
    }
  }
}

/// acc += weights B over tokens: weights of the warp's rows for kN * 8 tokens, rounded to bf16, times those tokens' channels in `tile`.
template <int kDim, int kM, int kN>
ATTUNE_DEVICE void multiply_tokens(float (&acc)[kDim / 8][kM][4], const float (&weights)[kN][kM][4], const bf16* tile) {
  const int lane = threadIdx.x % 32;
  ATTUNE_UNROLL
  for (int step = 0; step < kN / 2; step++) {
    uint32_t a[kM][4];
    ATTUNE_UNROLL
    for (int m = 0; m < kM; m++) {
      ATTUNE_UNROLL
      for (int i = 0; i < 4; i++) {
        const float (&w)[4] = weights[step * 2 + i / 2][m];
        a[m][i] = pack_bf16(w[i % 2 * 2], w[i % 2 * 2 + 1]);
      }
    }
    const bf16* const row = tile + (step * 16 + lane % 16) * kPitch<kDim>;
    ATTUNE_UNROLL
    for (int n = 0; n + 1 < kDim / 8; n += 2) {
      uint32_t r[4];
      ldmatrix_x4_trans(r, row + n * 8 + lane / 16 * 8);
      const uint32_t b[2][2] = {{r[0], r[1]}, {r[2], r[3]}};
      mma_run<16, kM, 2>(acc + n, a, b);
    }
    if constexpr (kDim / 8 % 2 != 0) {
      uint32_t b[1][2];
      ldmatrix_x2_trans(b[0], row + kDim - 8);
      mma_run<16, kM, 1>(acc + kDim / 8 - 1, a, b);
    }
  }
}

// ---- scores --------------------------------------------------------------------------------------------------------------------------------------------

/// Where the accumulators of a warp lie: element [n][m][i] is row m * 16 + i / 2 * 8 + own_row(), column n * 8 + i % 2 + own_column().
ATTUNE_DEVICE int own_row() { return int(threadIdx.x % 32 / 4); }
ATTUNE_DEVICE int own_column() { return int(threadIdx.x % 4 * 2); }

/// Products of queries (rows from first_query on) and keys (columns from first_key on) become logits in units of log 2, -infinity where the key is not visible.
template <int kM, int kN>
ATTUNE_DEVICE void make_logits(float (&scores)[kN][kM][4], int first_query, int first_key, int b, const AttentionShape& s) {
  ATTUNE_UNROLL
  for (int n = 0; n < kN; n++) {
    ATTUNE_UNROLL
    for (int column = 0; column < 2; column++) {
      const int key = first_key + n * 8 + own_column() + column;
      const float added = s.mask && key < s.keys ? s.mask.at(b * s.mask_stride + key) * kLog2E : 0.f;
      ATTUNE_UNROLL
      for (int r = 0; r < kM * 2; r++) {
        float& score = scores[n][r / 2][r % 2 * 2 + column];
        score = key < s.visible(first_query + r * 8 + own_row()) ? score * (s.scale * kLog2E) + added : -INFINITY;
      }
    }
  }
}

/// Stores a warp's rows times `factor` as tokens from `first` on; `to` is the head's first token.
template <int kDim, int kM, typename T>
ATTUNE_DEVICE void store_rows(T* to, const float (&acc)[kDim / 8][kM][4], const float (&factor)[kM * 2], int first, int tokens, int64_t width, int channels) {
  ATTUNE_UNROLL
  for (int r = 0; r < kM * 2; r++) {
    const int token = first + r * 8 + own_row();
    if (token >= tokens) continue;
    T* const at = to + token * width + own_column();
    ATTUNE_UNROLL
    for (int n = 0; n < kDim / 8; n++) {
      if (n * 8 >= channels) break;
      const float lo = acc[n][r / 2][r % 2 * 2] * factor[r], hi = acc[n][r / 2][r % 2 * 2 + 1] * factor[r];
      if constexpr (sizeof(T) == 2) store(reinterpret_cast<uint32_t*>(at + n * 8), pack_bf16(lo, hi));
      else store(reinterpret_cast<float2*>(at + n * 8), make_float2(lo, hi));
    }
  }
}

}  // namespace cuda
}  // namespace attune
