// Makes tensor maps. The rules of cuTensorMapEncodeTiled (cuda.h) are checked here first, on every machine: the driver only says "invalid value".
#include "tensor_map.h"

#include <string>

#include "../core/error.h"

#ifdef __CUDACC__
#include <cuda.h>  // types only: the one driver function is asked for at run time, so that nothing links libcuda
#include <cuda_runtime.h>
#endif
#include <cstring>

namespace attune {
namespace cuda {

static void check_map(const void* base, int rank, const int64_t* extent, const int64_t* stride, const int* box, Swizzle swizzle) {
  const auto demand = [](bool holds, const std::string& rule) {
    if (!holds) throw Error("ERR_DEVICE", "tensor map: " + rule);
  };
  const auto got = [](int64_t value) { return ", received " + std::to_string(value); };
  demand(rank >= 1 && rank <= kMapRank, "expected 1 to 5 dimensions" + got(rank));
  demand(base && reinterpret_cast<uintptr_t>(base) % 16 == 0, "expected a base aligned to 16 bytes" + got(int64_t(reinterpret_cast<uintptr_t>(base) % 16)));
  for (int i = 0; i < rank; i++) {
    demand(extent[i] >= 1 && extent[i] < int64_t(1) << 32, "expected extents of 1 to 2^32 - 1" + got(extent[i]));
    demand(box[i] >= 1 && box[i] <= 256, "expected boxes of 1 to 256 elements a side" + got(box[i]));
    if (i > 0)
      demand(stride[i - 1] % 16 == 0 && stride[i - 1] >= 0 && stride[i - 1] < int64_t(1) << 40,
             "expected strides in multiples of 16 bytes" + got(stride[i - 1]));
  }
  demand(swizzle == Swizzle::none ? box[0] * 2 % 16 == 0 : box[0] * 2 == swizzle_span(swizzle),
         "expected an innermost box as wide as the swizzle" + got(box[0] * 2));
}

#ifdef __CUDACC__

using EncodeFn = decltype(&cuTensorMapEncodeTiled);

static EncodeFn encoder() {
  static const EncodeFn found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result{};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &result);  // the version that first had it
    if (error != cudaSuccess || result != cudaDriverEntryPointSuccess || !entry)
      throw Error("ERR_DEVICE", "the driver has no cuTensorMapEncodeTiled: CUDA 12.0 or newer is needed");
    return reinterpret_cast<EncodeFn>(entry);
  }();
  return found;
}

TensorMap tensor_map(const void* base, int rank, const int64_t* extent, const int64_t* stride, const int* box, Swizzle swizzle) {
  check_map(base, rank, extent, stride, box, swizzle);
  cuuint64_t extents[kMapRank], strides[kMapRank];
  cuuint32_t boxes[kMapRank], steps[kMapRank];
  for (int i = 0; i < rank; i++) {
    extents[i] = cuuint64_t(extent[i]), boxes[i] = cuuint32_t(box[i]), steps[i] = 1;
    if (i > 0) strides[i - 1] = cuuint64_t(stride[i - 1]);
  }
  static_assert(CU_TENSOR_MAP_SWIZZLE_32B == int(Swizzle::span32) && CU_TENSOR_MAP_SWIZZLE_64B == int(Swizzle::span64) &&
                    CU_TENSOR_MAP_SWIZZLE_128B == int(Swizzle::span128) && sizeof(CUtensorMap) == sizeof(TensorMap),
                "Swizzle and TensorMap follow cuda.h");
  CUtensorMap encoded;
  const CUresult status =
      encoder()(&encoded, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, cuuint32_t(rank), const_cast<void*>(base), extents, strides, boxes, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CUtensorMapSwizzle(swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) throw Error("ERR_DEVICE", "cuTensorMapEncodeTiled: CUDA driver error " + std::to_string(int(status)));
  TensorMap map;
  std::memcpy(&map, &encoded, sizeof map);
  return map;
}

#else

TensorMap tensor_map(const void* base, int rank, const int64_t* extent, const int64_t* stride, const int* box, Swizzle swizzle) {
  check_map(base, rank, extent, stride, box, swizzle);
  TensorMapFields fields{};
  fields.base = reinterpret_cast<uintptr_t>(base), fields.rank = uint32_t(rank), fields.element_bytes = 2, fields.swizzle = uint32_t(swizzle),
  fields.mark = kTensorMapMark;
  for (int i = 0; i < kMapRank; i++) {
    fields.extent[i] = i < rank ? uint32_t(extent[i]) : 1, fields.box[i] = i < rank ? uint32_t(box[i]) : 1;
    if (i > 0) fields.stride[i - 1] = i < rank ? uint64_t(stride[i - 1]) : 0;
  }
  TensorMap map;
  std::memcpy(&map, &fields, sizeof map);
  return map;
}

#endif

}  // namespace cuda
}  // namespace attune
