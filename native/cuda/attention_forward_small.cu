// Attention forward for heads of up to 64 channels: files of their own, so that cores compile side by side.
#include "attention_forward.cuh"

namespace attune {
namespace cuda {

template void start_attention_forward<40>(const OpArgs&, const AttentionShape&);
template void start_attention_forward<64>(const OpArgs&, const AttentionShape&);

}  // namespace cuda
}  // namespace attune
