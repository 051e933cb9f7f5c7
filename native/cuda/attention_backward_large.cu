// Attention backward for heads of up to 160 channels, more than 64: files of their own, so that cores compile side by side.
#include "attention_backward.cuh"

namespace attune {
namespace cuda {

template void start_attention_backward<80>(const OpArgs&, const AttentionShape&);
template void start_attention_backward<128>(const OpArgs&, const AttentionShape&);
template void start_attention_backward<160>(const OpArgs&, const AttentionShape&);

}  // namespace cuda
}  // namespace attune
