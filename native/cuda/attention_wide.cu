// Attention forward and backward in bf16 on tensor cores for heads of more than 160 channels (the one head of 512 in a VAE), whose rows fit neither registers
// nor, twice, shared memory. A block of four warps owns 64 tokens and walks over the others 32 at a time, as the kernels for narrow heads do, but scores are
// summed over slabs of 64 channels of both, which come through two slots of shared memory, and the result is a panel of channels: a head takes a block for
// each, and they all make the scores anew.
#include "attention_backward.cuh"
#include "attention_forward.cuh"

namespace attune {
namespace cuda {

constexpr int kWideOwned = 64, kWideWalked = 32, kWideSlab = 64, kWidePanel = 256, kWideKeysPanel = 128;  // dk and dv are two panels: half as wide
constexpr int kWideSlot = (kWideOwned + kWideWalked) * kPitch<kWideSlab>;
constexpr int kWideBytes = (2 * kWideSlot + kWideWalked * kPitch<kWidePanel>)*2, kWideKeysBytes = (2 * kWideSlot + 2 * kWideWalked * kPitch<kWideKeysPanel>)*2;
using WideScores = float[kWideWalked / 8][1][4];

struct WideTokens {
  const bf16* head;  // of the first token
  int first, count;  // where the tile begins; tokens in all
};

/// scores = the warp's 16 of the owned tokens times the walked ones. Begins with a barrier; copies that were issued before it have arrived when it returns.
ATTUNE_DEVICE void wide_scores(WideScores& scores, const WideTokens& owned, const WideTokens& walked, bf16* slots, const AttentionShape& s) {
  const auto fetch = [&](int channel, int slot) {
    bf16* const to = slots + slot * kWideSlot;
    copy_tile<kWideSlab, kWideOwned>(to, owned.head + channel, owned.first, owned.count, s.width, s.dim - channel);
    copy_tile<kWideSlab, kWideWalked>(to + kWideOwned * kPitch<kWideSlab>, walked.head + channel, walked.first, walked.count, s.width, s.dim - channel);
    copy_commit();
  };
  clear(scores);
  __syncthreads();  // both slots are free
  fetch(0, 0);
  for (int channel = 0, slot = 0; channel < s.dim; channel += kWideSlab, slot = 1 - slot) {
    copy_wait<0>();
    __syncthreads();
    if (channel + kWideSlab < s.dim) fetch(channel + kWideSlab, 1 - slot);
    RowFragments<kWideSlab, 1, false> rows;
    rows.rows = slots + slot * kWideSlot + threadIdx.x / 32 * 16 * kPitch<kWideSlab>;
    multiply_channels(scores, rows, slots + slot * kWideSlot + kWideOwned * kPitch<kWideSlab>);
  }
}

__global__ void __launch_bounds__(kAttentionThreads) attention_wide_kernel(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                                                                           bf16* __restrict__ y, float* __restrict__ lse, AttentionShape s, int panels) {
  ATTUNE_SHARED(memory);
  bf16 *const slots = reinterpret_cast<bf16*>(memory), *const panel = slots + 2 * kWideSlot;
  const int h = int(blockIdx.y), b = int(blockIdx.z), q0 = int(blockIdx.x) / panels * kWideOwned, channel = int(blockIdx.x) % panels * kWidePanel;
  const int first = q0 + int(threadIdx.x / 32) * 16;
  const WideTokens queries{q + s.at(b, h, s.queries), q0, s.queries};
  float o[kWidePanel / 8][1][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};
  clear(o);
  for (int k0 = 0; k0 < s.visible_before(q0 + kWideOwned); k0 += kWideWalked) {
    __syncthreads();  // the panel is free
    copy_tile<kWidePanel, kWideWalked>(panel, v + s.at(b, h, s.keys) + channel, k0, s.keys, s.width, s.dim - channel);
    WideScores p;
    wide_scores(p, queries, WideTokens{k + s.at(b, h, s.keys), k0, s.keys}, slots, s);
    make_logits(p, first, k0, b, s);
    next_powers(p, 1.f, top, sum, o);
    multiply_tokens<kWidePanel>(o, p, panel);
  }
  finish_rows<kWidePanel, 1>(o, top, sum, first, y + s.at(b, h, s.queries), lse + (int64_t(b) * s.heads + h) * s.queries, s, channel);
}

__global__ void __launch_bounds__(kAttentionThreads)
    attention_wide_keys_kernel(const bf16* __restrict__ dy, const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                               const QueryStatistics* __restrict__ statistics, bf16* __restrict__ dk, bf16* __restrict__ dv, AttentionShape s, int panels) {
  ATTUNE_SHARED(memory);
  bf16 *const slots = reinterpret_cast<bf16*>(memory), *const query_panel = slots + 2 * kWideSlot;
  bf16* const gradient_panel = query_panel + kWideWalked * kPitch<kWideKeysPanel>;
  const int h = int(blockIdx.y), b = int(blockIdx.z), k0 = int(blockIdx.x) / panels * kWideOwned, channel = int(blockIdx.x) % panels * kWideKeysPanel;
  const int first = k0 + int(threadIdx.x / 32) * 16;
  const WideTokens keys{k + s.at(b, h, s.keys), k0, s.keys}, values{v + s.at(b, h, s.keys), k0, s.keys};
  const QueryStatistics* const rows = statistics + (int64_t(b) * s.heads + h) * s.padded_queries();
  float dk_rows[kWideKeysPanel / 8][1][4], dv_rows[kWideKeysPanel / 8][1][4];
  clear(dk_rows);
  clear(dv_rows);
  for (int q0 = s.causal ? k0 : 0; q0 < s.queries; q0 += kWideWalked) {
    const WideTokens queries{q + s.at(b, h, s.queries), q0, s.queries}, gradients{dy + s.at(b, h, s.queries), q0, s.queries};
    __syncthreads();  // the panels are free
    copy_tile<kWideKeysPanel, kWideWalked>(query_panel, queries.head + channel, q0, s.queries, s.width, s.dim - channel);
    copy_tile<kWideKeysPanel, kWideWalked>(gradient_panel, gradients.head + channel, q0, s.queries, s.width, s.dim - channel);
    WideScores p, ds;
    wide_scores(p, keys, queries, slots, s);
    make_logits_across(p, first, q0, b, s);
    wide_scores(ds, values, gradients, slots, s);
    make_gradients_across(p, ds, 1.f, rows + q0 + own_column());
    multiply_tokens<kWideKeysPanel>(dv_rows, p, gradient_panel);
    multiply_tokens<kWideKeysPanel>(dk_rows, ds, query_panel);
  }
  const SameFactor<2> scale(s.scale), one(1.f);
  store_rows<kWideKeysPanel, 1>(dk + s.at(b, h, s.keys) + channel, dk_rows, scale.of, first, s.keys, s.width, s.dim - channel);
  store_rows<kWideKeysPanel, 1>(dv + s.at(b, h, s.keys) + channel, dv_rows, one.of, first, s.keys, s.width, s.dim - channel);
}

__global__ void __launch_bounds__(kAttentionThreads)
    attention_wide_queries_kernel(const bf16* __restrict__ dy, const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                                  const QueryStatistics* __restrict__ statistics, bf16* __restrict__ dq, AttentionShape s, int panels) {
  ATTUNE_SHARED(memory);
  bf16 *const slots = reinterpret_cast<bf16*>(memory), *const panel = slots + 2 * kWideSlot;
  const int h = int(blockIdx.y), b = int(blockIdx.z), q0 = int(blockIdx.x) / panels * kWideOwned, channel = int(blockIdx.x) % panels * kWidePanel;
  const int first = q0 + int(threadIdx.x / 32) * 16;
  const WideTokens queries{q + s.at(b, h, s.queries), q0, s.queries}, gradients{dy + s.at(b, h, s.queries), q0, s.queries};
  float dq_rows[kWidePanel / 8][1][4];
  clear(dq_rows);
  QueryStatistics own[2];
  load_statistics<1>(own, statistics + (int64_t(b) * s.heads + h) * s.padded_queries(), first, s.queries);
  for (int k0 = 0; k0 < s.visible_before(q0 + kWideOwned); k0 += kWideWalked) {
    const WideTokens keys{k + s.at(b, h, s.keys), k0, s.keys}, values{v + s.at(b, h, s.keys), k0, s.keys};
    __syncthreads();  // the panel is free
    copy_tile<kWidePanel, kWideWalked>(panel, keys.head + channel, k0, s.keys, s.width, s.dim - channel);
    WideScores p, ds;
    wide_scores(p, queries, keys, slots, s);
    make_logits(p, first, k0, b, s);
    wide_scores(ds, gradients, values, slots, s);
    make_gradients(p, ds, 1.f, own);
    multiply_tokens<kWidePanel>(dq_rows, ds, panel);
  }
  store_rows<kWidePanel, 1>(dq + s.at(b, h, s.queries) + channel, dq_rows, SameFactor<2>(s.scale).of, first, s.queries, s.width, s.dim - channel);
}

static dim3 wide_grid(int tokens, int panels, const AttentionShape& s) {
  return dim3(unsigned(ceil_div(tokens, kWideOwned) * panels), unsigned(s.heads), unsigned(s.batch));
}

void start_attention_wide(const OpArgs& args, const AttentionShape& s) {
  const int panels = int(ceil_div(s.dim, kWidePanel));
  launch(args, attention_wide_kernel, wide_grid(s.queries, panels, s), dim3(kAttentionThreads), kWideBytes, args.in[0].as<const bf16>(),
         args.in[1].as<const bf16>(), args.in[2].as<const bf16>(), args.out[0].as<bf16>(), args.out[1].as<float>(), s, panels);
}

void start_attention_wide_backward(const OpArgs& args, const AttentionShape& s) {
  const bf16 *dy = args.in[0].as<const bf16>(), *q = args.in[1].as<const bf16>(), *k = args.in[2].as<const bf16>(), *v = args.in[3].as<const bf16>();
  const QueryStatistics* const statistics = start_attention_statistics(args, s, kLog2E);
  const int panels = int(ceil_div(s.dim, kWidePanel)), keys_panels = int(ceil_div(s.dim, kWideKeysPanel));
  launch(args, attention_wide_keys_kernel, wide_grid(s.keys, keys_panels, s), dim3(kAttentionThreads), kWideKeysBytes, dy, q, k, v, statistics,
         args.out[1].as<bf16>(), args.out[2].as<bf16>(), s, keys_panels);
  launch(args, attention_wide_queries_kernel, wide_grid(s.queries, panels, s), dim3(kAttentionThreads), kWideBytes, dy, q, k, v, statistics,
         args.out[0].as<bf16>(), s, panels);
}

}  // namespace cuda
}  // namespace attune
