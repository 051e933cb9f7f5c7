// Attention on sm_90a: the hooks that the ops ask before their kernels for any architecture.
#pragma once
#include "attention.cuh"

namespace attune {
namespace cuda {

/// Starts the kernels and returns true, or declines: for older architectures, dtypes other than bf16, heads that are no multiple of 8 channels or wider than
/// 160, and few keys (a prompt's 77), which all fit one block's shared memory and are bound by reading queries and writing outputs.
bool start_hopper_attention(const OpArgs& args, const AttentionShape& s);
/// Likewise for the gradients.
bool start_hopper_attention_backward(const OpArgs& args, const AttentionShape& s);

}  // namespace cuda
}  // namespace attune
