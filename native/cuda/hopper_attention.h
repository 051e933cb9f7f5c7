// Attention forward on sm_90a: the hook that the op asks before its kernels for any architecture.
#pragma once
#include "attention.cuh"

namespace attune {
namespace cuda {

/// Starts the kernels and returns true, or declines: for older architectures, dtypes other than bf16, heads that are no multiple of 8 channels or wider than
/// 160, and few keys (a prompt's 77), which all fit one block's shared memory and are bound by reading queries and writing outputs.
bool start_hopper_attention(const OpArgs& args, const AttentionShape& s);

}  // namespace cuda
}  // namespace attune
