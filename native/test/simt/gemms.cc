#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "../../simt/launch.h"
#include "bench.h"
#include "gemm.cuh"

namespace attune {
namespace test {

using namespace cuda;

namespace {

float as_float(uint16_t bits) {
  const uint32_t u = uint32_t(bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

/// Of the process: other programs on the machine do not count.
double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

/// x and y hold bf16 here, two in a float's place: a [m, k], then b [n, k].
constexpr int kM = 40, kN = 24, kK = 136;
constexpr int kFloats = (kM + kN) * kK / 2;

template <Slip kSlip, bool kRefill>
void start_gemm(const OpArgs& args, const float* x, float* y) {
  const bf16* a = reinterpret_cast<const bf16*>(x);
  // Four warps of 16 x 16, three stages; row 24 of b lies behind the end of x.
  launch(args, simt_test_gemm<kSlip, kRefill, 32, 32, 16, 16, 3>, dim3((kN + 31) / 32, (kM + 31) / 32), dim3(128), 3 * 64 * kTestDepth * 2, a, a + kM * kK,
         reinterpret_cast<bf16*>(y), kM, kN, kK);
}

Numbers expected_product(const Numbers& x, Numbers y) {
  const auto* a = reinterpret_cast<const uint16_t*>(x.data());
  const uint16_t* b = a + kM * kK;
  auto* to = reinterpret_cast<uint16_t*>(y.data());
  for (int i = 0; i < kM; i++)
    for (int j = 0; j < kN; j++) {
      float sum = 0;  // in k's order, as the twin of mma.sync adds: the same bits
      for (int k = 0; k < kK; k++) sum += as_float(a[i * kK + k]) * as_float(b[j * kK + k]);
      to[i * kN + j] = uint16_t(pack_bf16(sum, 0));
    }
  return y;
}

template <Slip kSlip, bool kRefill>
Bug gemm_bug(const char* name, const char* kind, bool race) {
  return {std::string("matrix product: ") + name,
          kind,
          kFloats,
          [](const OpArgs& args, const float* x, float* y, bool mistake) {
            mistake ? start_gemm<kSlip, kRefill>(args, x, y) : start_gemm<Slip::none, kRefill>(args, x, y);
          },
          expected_product,
          false,
          race};
}

}  // namespace

void add_gemms(std::vector<Bug>& bugs) {
  bugs.push_back(gemm_bug<Slip::no_barrier_before, false>("no barrier before a k-tile", "race", true));
  bugs.push_back(gemm_bug<Slip::no_barrier_after, true>("no barrier after a k-tile", "race|copy in flight", true));
  bugs.push_back(gemm_bug<Slip::short_wait, false>("a wait one group short", "copy in flight", false));
  bugs.push_back(gemm_bug<Slip::row_too_many, false>("one row too many", "out of bounds", false));
}

void measure_speed() {
  const int size = 512;
  for (const char* settings : {"checks=off", "checks=on", "checks=full"}) {
    const auto device = open_device(settings);
    auto* a = static_cast<bf16*>(device->allocate(int64_t(size) * size * 2));
    auto* b = static_cast<bf16*>(device->allocate(int64_t(size) * size * 2));
    auto* y = static_cast<bf16*>(device->allocate(int64_t(size) * size * 2));
    simt::Request request;
    request.grid = dim3(size / 128, size / 128), request.threads = dim3(256), request.shared_bytes = 3 * 256 * kTestDepth * 2;
    const auto kernel = &simt_test_gemm<Slip::none, false, 128, 128, 64, 32, 3>;
    request.kernel = reinterpret_cast<const void*>(kernel);
    double best = 1e9;
    for (int run = 0; run < 3; run++) {
      const double start = cpu_seconds();
      simt::run(request, [=] { kernel(a, b, y, size, size, size); });
      best = std::min(best, cpu_seconds() - start);
    }
    std::printf("%-20s bf16 product of %d^3 by tiles of 128 x 128: %.2f GFLOP/s\n", settings, size, 2.0 * size * size * size / best * 1e-9);
    for (void* p : {a, b, y}) device->release(p);
  }
}

}  // namespace test
}  // namespace attune
