// Attention backward for heads of up to 64 channels: files of their own, so that cores compile side by side.
#include "attention_backward.cuh"

namespace attune {
namespace cuda {

template void start_attention_backward<40>(const OpArgs&, const AttentionShape&);
template void start_attention_backward<64>(const OpArgs&, const AttentionShape&);

}  // namespace cuda
}  // namespace attune
