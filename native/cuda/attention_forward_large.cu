// Attention forward for heads of up to 160 channels, more than 64: files of their own, so that cores compile side by side.
#include "attention_forward.cuh"

namespace attune {
namespace cuda {

template void start_attention_forward<80>(const OpArgs&, const AttentionShape&);
template void start_attention_forward<128>(const OpArgs&, const AttentionShape&);
template void start_attention_forward<160>(const OpArgs&, const AttentionShape&);

}  // namespace cuda
}  // namespace attune
