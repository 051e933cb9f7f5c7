// Each instruction that moves matrices or multiplies them, alone, on operands that the caller gives, its result stored as the bits that it left: what the twins
// of native/simt and native/ptxi are held against once a GPU has recorded them (native/bench/primitives.cc). Op "primitive" with the attribute "which"; inputs
// and the output are words of 32 bits, a thread's results side by side.
#include "hopper.cuh"
#include "mma.cuh"

namespace attune {
namespace cuda {

/// in: a lane's A, B and accumulators for each of four steps of a chain; out: 4 floats a lane.
template <int kDepth>
__global__ void __launch_bounds__(32) primitive_mma_kernel(const uint32_t* __restrict__ in, uint32_t* __restrict__ out) {
  constexpr int kA = kDepth / 4, kB = kDepth / 8;
  float acc[1][1][4];
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) acc[0][0][i] = bits_to_float(load(in + threadIdx.x * 4 + i));
  ATTUNE_UNROLL
  for (int step = 0; step < 4; step++) {
    const uint32_t* const words = in + 128 + (step * 32 + int(threadIdx.x)) * (kA + kB);
    uint32_t a[1][kA], b[1][kB];
    ATTUNE_UNROLL
    for (int i = 0; i < kA; i++) a[0][i] = load(words + i);
    ATTUNE_UNROLL
    for (int i = 0; i < kB; i++) b[0][i] = load(words + kA + i);
    mma_run<kDepth, 1, 1>(acc, a, b);
  }
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) store(out + threadIdx.x * 4 + i, float_to_bits(acc[0][0][i]));
}

/// in: 512 bytes, rows of 16; lane l names row 5 l mod 32. out: 14 words a lane, of one, two and four matrices, plain and transposed.
__global__ void __launch_bounds__(32) primitive_ldmatrix_kernel(const uint32_t* __restrict__ in, uint32_t* __restrict__ out) {
  ATTUNE_SHARED(memory);
  for (int i = int(threadIdx.x); i < 128; i += 32) store(reinterpret_cast<uint32_t*>(memory) + i, load(in + i));
  __syncthreads();
  const unsigned char* const row = memory + threadIdx.x * 5 % 32 * 16;
  uint32_t x1[1], t1[1], x2[2], t2[2], x4[4], t4[4];
  ldmatrix_x1(x1, row), ldmatrix_x1_trans(t1, row);
  ldmatrix_x2(x2, row), ldmatrix_x2_trans(t2, row);
  ldmatrix_x4(x4, row), ldmatrix_x4_trans(t4, row);
  uint32_t* const to = out + threadIdx.x * 14;
  store(to, x1[0]), store(to + 1, t1[0]);
  ATTUNE_UNROLL
  for (int i = 0; i < 2; i++) store(to + 2 + i, x2[i]), store(to + 4 + i, t2[i]);
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) store(to + 6 + i, x4[i]), store(to + 10 + i, t4[i]);
}

/// cp.async: lane l copies 16 bytes of which l mod 17 are valid, and 8 bytes of which all or none are. out: 6 words a lane.
__global__ void __launch_bounds__(32) primitive_copy_kernel(const uint32_t* __restrict__ in, uint32_t* __restrict__ out) {
  ATTUNE_SHARED(memory);
  const int lane = int(threadIdx.x);
  copy_async16(memory + lane * 16, in + lane * 4, lane % 17);
  copy_async8(memory + 512 + lane * 8, in + lane * 2, lane % 3 != 1);
  copy_commit();
  copy_wait<0>();
  __syncthreads();
  for (int i = lane; i < 192; i += 32) store(out + i, load(reinterpret_cast<const uint32_t*>(memory) + i));
}

/// in: 32 floats; out: 2^x of each, and the same number packed with its negative.
__global__ void __launch_bounds__(32) primitive_convert_kernel(const uint32_t* __restrict__ in, uint32_t* __restrict__ out) {
  const float x = bits_to_float(load(in + blockIdx.x * 32 + threadIdx.x));
  uint32_t* const to = out + (blockIdx.x * 32 + threadIdx.x) * 2;
  store(to, float_to_bits(exp2_approx(x))), store(to + 1, pack_bf16(x, -x));
}

/// One box of `bytes`; out: shared memory as the copy engine left it.
template <int kRank>
__global__ void __launch_bounds__(128)
    primitive_box_kernel(const __grid_constant__ TensorMap map, uint32_t* __restrict__ out, int c0, int c1, int c2, int c3, int c4, int bytes) {
  if constexpr (kHopper) {
    ATTUNE_SHARED(memory);
    uint64_t* const full = reinterpret_cast<uint64_t*>(memory + 32768);
    if (threadIdx.x == 0) barrier_init(full, 1), barrier_init_fence();
    __syncthreads();
    if (threadIdx.x == 0) {
      barrier_expect(full, uint32_t(bytes));
      if constexpr (kRank == 2) load_box(memory, &map, full, c0, c1);
      if constexpr (kRank == 3) load_box(memory, &map, full, c0, c1, c2);
      if constexpr (kRank == 4) load_box(memory, &map, full, c0, c1, c2, c3);
      if constexpr (kRank == 5) load_box(memory, &map, full, c0, c1, c2, c3, c4);
    }
    barrier_wait(full, 0);
    for (int i = int(threadIdx.x); i < bytes / 4; i += 128) store(out + i, load(reinterpret_cast<const uint32_t*>(memory) + i));
  }
}

/// D [64, kN] = A [64, 64] B [64, kN], twice over: four steps of 16, then four more that add. A comes K-major ('k'), M-major ('m') or as registers ('r'), B
/// K-major ('k') or N-major ('n'); out: kN / 2 floats a thread.
template <int kN, char kA, char kB, Swizzle kSwizzleA, Swizzle kSwizzleB>
__global__ void __launch_bounds__(128) primitive_wgmma_kernel(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
                                                              const uint32_t* __restrict__ registers, uint32_t* __restrict__ out) {
  if constexpr (kHopper) {
    constexpr int kSpanA = kSpan<kSwizzleA>, kSpanB = kSpan<kSwizzleB>;
    ATTUNE_SHARED(memory);
    unsigned char* const b_tile = memory + 8192;
    uint64_t* const full = reinterpret_cast<uint64_t*>(b_tile + kN * 128);
    if (threadIdx.x == 0) barrier_init(full, 1), barrier_init_fence();
    __syncthreads();
    if (threadIdx.x == 0) {
      barrier_expect(full, 8192 + kN * 128);
      // Boxes of one span of k and all rows, or one span of rows and all of k.
      for (int i = 0; i < 128 / kSpanA; i++) load_box(memory + i * 64 * kSpanA, &map_a, full, i * (kSpanA / 2), 0);
      for (int i = 0; i < (kB == 'k' ? 128 : kN * 2) / kSpanB; i++) load_box(b_tile + i * (kB == 'k' ? kN : 64) * kSpanB, &map_b, full, i * (kSpanB / 2), 0);
    }
    uint32_t a[4][4];
    ATTUNE_UNROLL
    for (int i = 0; i < 16; i++) a[i / 4][i % 4] = load(registers + (i / 4 * 128 + int(threadIdx.x)) * 4 + i % 4);
    float acc[kN / 2];
    ATTUNE_UNROLL
    for (int i = 0; i < kN / 2; i++) acc[i] = 0.f;
    barrier_wait(full, 0);
    pin_registers(acc), pin_registers(a);
    wgmma_fence();
    ATTUNE_UNROLL
    for (int step = 0; step < 8; step++) {
      const int k = step % 4, bytes = k * 32;
      const uint64_t of_a = kA == 'm' ? descriptor_step(mn_major<kSwizzleA>(memory, 64 * kSpanA), k * 16 * kSpanA)
                                      : descriptor_step(k_major<kSwizzleA>(memory + bytes / kSpanA * 64 * kSpanA), bytes % kSpanA);
      const uint64_t of_b = kB == 'n' ? descriptor_step(mn_major<kSwizzleB>(b_tile, 64 * kSpanB), k * 16 * kSpanB)
                                      : descriptor_step(k_major<kSwizzleB>(b_tile + bytes / kSpanB * kN * kSpanB), bytes % kSpanB);
      if constexpr (kA == 'r') Wgmma<kN>::template registers<kB == 'n'>(acc, a[k], of_b, step > 0);
      else Wgmma<kN>::template shared<kA == 'm', kB == 'n'>(acc, of_a, of_b, step > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin_registers(acc);
    for (int i = 0; i < kN / 2; i++) store(out + threadIdx.x * (kN / 2) + i, float_to_bits(acc[i]));
  }
}

// ---- starting them -----------------------------------------------------------------------------------------------------------------------------------------

static void start_words(const OpArgs& args, void (*kernel)(const uint32_t*, uint32_t*), int blocks, int shared) {
  launch(args, kernel, dim3(unsigned(blocks)), dim3(32), shared, args.in[0].as<const uint32_t>(), args.out[0].as<uint32_t>());
}

/// Attributes as lists: extent, box, at (innermost first), and the number of the swizzle; the tensor of bf16 is packed.
static void start_box(const OpArgs& args) {
  const std::vector<double>&extents = args.attrs.list("extent"), &boxes = args.attrs.list("box"), &from = args.attrs.list("at");
  const int rank = int(extents.size());
  int64_t extent[kMapRank] = {}, stride[kMapRank] = {}, step = 2;
  int box[kMapRank] = {}, at[kMapRank] = {}, bytes = 2;
  for (int i = 0; i < rank; i++) {
    extent[i] = int64_t(extents[size_t(i)]), box[i] = int(boxes[size_t(i)]), at[i] = int(from[size_t(i)]);
    step *= extent[i], bytes *= box[i], stride[i] = step;
  }
  const TensorMap map = args.dry ? TensorMap{} : tensor_map(args.in[0].data, rank, extent, stride, box, Swizzle(args.attrs.integer("swizzle")));
  const auto kernel = rank == 2 ? primitive_box_kernel<2> : rank == 3 ? primitive_box_kernel<3> : rank == 4 ? primitive_box_kernel<4> : primitive_box_kernel<5>;
  launch(args, kernel, dim3(1), dim3(128), 32768 + 8, map, args.out[0].as<uint32_t>(), at[0], at[1], at[2], at[3], at[4], bytes);
}

/// in: A as [64][64] bf16, K- or M-major; B as [n][64] or [64][n]; A as registers.
template <int kN, char kA, char kB, Swizzle kSwizzleA, Swizzle kSwizzleB>
void start_wgmma(const OpArgs& args) {
  constexpr int kSpanA = kSpan<kSwizzleA>, kSpanB = kSpan<kSwizzleB>;
  TensorMap map_a{}, map_b{};
  if (!args.dry) {
    const int64_t extent_a[] = {64, 64}, stride_a[] = {128}, extent_b[] = {kB == 'k' ? 64 : kN, kB == 'k' ? kN : 64}, stride_b[] = {extent_b[0] * 2};
    const int box_a[] = {kSpanA / 2, 64}, box_b[] = {kSpanB / 2, int(extent_b[1])};
    map_a = tensor_map(args.in[0].data, 2, extent_a, stride_a, box_a, kSwizzleA);
    map_b = tensor_map(args.in[1].data, 2, extent_b, stride_b, box_b, kSwizzleB);
  }
  launch(args, primitive_wgmma_kernel<kN, kA, kB, kSwizzleA, kSwizzleB>, dim3(1), dim3(128), 8192 + kN * 128 + 8, map_a, map_b, args.in[2].as<const uint32_t>(),
         args.out[0].as<uint32_t>());
}

static void primitive_op(const OpArgs& args) {
  constexpr Swizzle k32 = Swizzle::span32, k64 = Swizzle::span64, k128 = Swizzle::span128;
  const std::string& which = args.attrs.text("which");
  const std::pair<const char*, void (*)(const OpArgs&)> shapes[] = {
      // products over channels: gemm, scores
      {"wgmma 128 k128 k128", start_wgmma<128, 'k', 'k', k128, k128>},
      {"wgmma 160 k128 k128", start_wgmma<160, 'k', 'k', k128, k128>},
      {"wgmma 256 k128 k128", start_wgmma<256, 'k', 'k', k128, k128>},
      {"wgmma 64 k128 k128", start_wgmma<64, 'k', 'k', k128, k128>},
      {"wgmma 128 k32 k32", start_wgmma<128, 'k', 'k', k32, k32>},
      {"wgmma 128 k64 k64", start_wgmma<128, 'k', 'k', k64, k64>},
      {"wgmma 80 k128 k128", start_wgmma<80, 'k', 'k', k128, k128>},
      {"wgmma 80 k32 k32", start_wgmma<80, 'k', 'k', k32, k32>},
      {"wgmma 64 k64 k64", start_wgmma<64, 'k', 'k', k64, k64>},
      {"wgmma 32 k64 k64", start_wgmma<32, 'k', 'k', k64, k64>},
      // gradients of inputs and weights
      {"wgmma 128 k128 n128", start_wgmma<128, 'k', 'n', k128, k128>},
      {"wgmma 160 k128 n64", start_wgmma<160, 'k', 'n', k128, k64>},
      {"wgmma 256 k128 n128", start_wgmma<256, 'k', 'n', k128, k128>},
      {"wgmma 128 m128 n128", start_wgmma<128, 'm', 'n', k128, k128>},
      {"wgmma 160 m128 n64", start_wgmma<160, 'm', 'n', k128, k64>},
      // probabilities and their gradients times tokens
      {"wgmma 48 r n32", start_wgmma<48, 'r', 'n', k128, k32>},
      {"wgmma 64 r n128", start_wgmma<64, 'r', 'n', k128, k128>},
      {"wgmma 80 r n32", start_wgmma<80, 'r', 'n', k128, k32>},
      {"wgmma 128 r n128", start_wgmma<128, 'r', 'n', k128, k128>},
      {"wgmma 160 r n64", start_wgmma<160, 'r', 'n', k128, k64>},
  };
  if (which == "mma 16") return start_words(args, primitive_mma_kernel<16>, 1, 0);
  if (which == "mma 8") return start_words(args, primitive_mma_kernel<8>, 1, 0);
  if (which == "ldmatrix") return start_words(args, primitive_ldmatrix_kernel, 1, 512);
  if (which == "cp.async") return start_words(args, primitive_copy_kernel, 1, 768);
  if (which == "convert") return start_words(args, primitive_convert_kernel, int(args.in[0].numel() / 32), 0);
  if (!hopper_serves(args.caps(), reinterpret_cast<const void*>(primitive_wgmma_kernel<256, 'k', 'k', k128, k128>)))
    throw Error("ERR_DEVICE", "primitive: " + which + " needs sm_90");
  if (which == "box") return start_box(args);
  for (const auto& [name, start] : shapes)
    if (which == name) return start(args);
  throw Error("ERR_PROGRAM", "primitive: there is no \"" + which + "\"");
}

REGISTER_CUDA(primitive, primitive_op)

}  // namespace cuda
}  // namespace attune
