// Tensor maps: what the bulk copy engine of sm_90 (TMA) is told about a tensor in global memory, so that one instruction fetches a whole box of it and fills
// zeros where the box leaves the tensor. A map is a kernel parameter (const __grid_constant__ TensorMap): a captured graph keeps it by value, so it may be made
// anew at every call of an op.
//
// On a GPU the driver encodes the 128 bytes (cuTensorMapEncodeTiled), and nobody else may read them. The host machines (native/simt, native/ptxi) have no
// driver: there the same 128 bytes hold a TensorMapFields, which the twins of the copy instructions interpret.
#pragma once
#include <cstdint>

namespace attune {
namespace cuda {

struct alignas(64) TensorMap {
  uint64_t words[16];
};

/// How the 16-byte chunks of a box lie in shared memory: chunk c of the 128-byte line l goes to chunk c ^ (l mod 8) of that line, or fewer bits of it (see
/// swizzled()). The innermost extent of a box is one span; a box starts at a multiple of 8 spans.
enum class Swizzle : uint32_t { none = 0, span32 = 1, span64 = 2, span128 = 3 };  // the driver's numbers

constexpr int swizzle_span(Swizzle swizzle) { return swizzle == Swizzle::none ? 16 : 16 << int(swizzle); }

/// Where a swizzled layout keeps the byte at an address of shared memory: bits 4.. are crossed with bits 7.., 3, 2 or 1 of them (cute's Swizzle<B, 4, 3>).
constexpr uint32_t swizzled(uint32_t address, Swizzle swizzle) { return address ^ (((address >> 7) & ((1u << uint32_t(swizzle)) - 1)) << 4); }

constexpr int kMapRank = 5;

/// What a TensorMap holds on the host machines. Extents are in elements, innermost first; strides in bytes, of dimensions 1 and up.
struct TensorMapFields {
  uint64_t base;                  // bytes  0..7
  uint64_t stride[kMapRank - 1];  //        8..39
  uint32_t extent[kMapRank];      //       40..59
  uint32_t box[kMapRank];         //       60..79
  uint32_t rank;                  //       80..83
  uint32_t element_bytes;         //       84..87
  uint32_t swizzle;               //       88..91   Swizzle
  uint32_t mark;                  //       92..95   kTensorMapMark
  uint64_t unused[4];             //       96..127

  uint32_t box_bytes() const {
    uint32_t bytes = element_bytes;
    for (uint32_t i = 0; i < rank; i++) bytes *= box[i];
    return bytes;
  }
};
static_assert(sizeof(TensorMapFields) == sizeof(TensorMap), "the twins read a map in place");
constexpr uint32_t kTensorMapMark = 0x70616d74;  // "tmap": anything else is no map

/// A map of a bf16 tensor. `extent` and `box` have `rank` entries, `stride` (bytes) rank - 1. Throws ERR_DEVICE with the rule that was broken: base and strides
/// in multiples of 16 bytes, strides below 2^40, extents 1..2^32 - 1, boxes 1..256; and the innermost box as wide as the swizzle
/// (the driver also takes narrower ones, whose layout nothing here relies on).
TensorMap tensor_map(const void* base, int rank, const int64_t* extent, const int64_t* stride, const int* box, Swizzle swizzle);

}  // namespace cuda
}  // namespace attune
