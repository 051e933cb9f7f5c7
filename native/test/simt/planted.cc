#include <algorithm>
#include <numeric>

#include "bench.h"
#include "planted.cuh"

namespace attune {
namespace test {

using namespace cuda;

namespace {

constexpr int kThreads = 64;

/// A kernel over x and y in its right and its wrong form.
template <typename Kernel>
auto start(Kernel* right, Kernel* wrong, int blocks = 1, int shared = kThreads * 4) {
  return [=](const OpArgs& args, const float* x, float* y, bool mistake) {
    launch(args, mistake ? wrong : right, dim3(unsigned(blocks)), dim3(kThreads), shared, x, y);
  };
}
#define BOTH(kernel) &kernel<false>, &kernel<true>

Numbers same(const Numbers& x, const Numbers&) { return x; }

/// y[i] = x[from(i)]
auto moved(int (*from)(int)) {
  return [=](const Numbers& x, const Numbers&) {
    Numbers y(x.size());
    for (size_t i = 0; i < x.size(); i++) y[i] = x[size_t(from(int(i)))];
    return y;
  };
}

}  // namespace

void add_planted(std::vector<Bug>& bugs) {
  const auto reversed = moved([](int i) { return kThreads - 1 - i; });
  const auto positive = [](const Numbers& x) { return float(std::count_if(x.begin(), x.end(), [](float v) { return v > 0; })); };
  const auto add = [&](Bug bug, bool race = false, bool full = false) { bug.race = race, bug.full = full, bugs.push_back(std::move(bug)); };

  add({"shared memory: no barrier between writing and reading", "race", kThreads, start(BOTH(simt_test_reverse)), reversed}, true);
  add({"shared memory: written again before all have read", "race", kThreads, start(BOTH(simt_test_rotate)), moved([](int i) { return (i + 3) % kThreads; })},
      true);
  add({"lanes of a warp: no __syncwarp", "race", kThreads, start(BOTH(simt_test_swap_lanes)), moved([](int i) { return i ^ 1; })}, true);
  add({"halves of a warp: read what the other half wrote", "race", kThreads, start(BOTH(simt_test_swap_in_halves)), moved([](int i) { return i ^ 15; })}, true);
  add({"shared memory: read before anyone wrote", "uninitialised", kThreads, start(BOTH(simt_test_fill)), moved([](int i) { return (i + 1) % kThreads; })});
  add({"shared memory: one number past the end", "out of bounds", kThreads, start(BOTH(simt_test_shared_end)), same});
  add({"shared memory: += by several threads", "race", kThreads, start(BOTH(simt_test_count)),
       [=](const Numbers& x, const Numbers&) { return Numbers(x.size(), positive(x)); }},
      true);

  add({"global memory: misaligned vector", "misaligned", kThreads,
       [](const OpArgs& args, const float* x, float* y, bool mistake) {
         launch(args, mistake ? simt_test_vectors<true> : simt_test_vectors<false>, dim3(1), dim3(kThreads), 0, x, y);
       },
       [](const Numbers& x, const Numbers&) { return x; }});
  add({"global memory: one number past the end", "out of bounds", kThreads, start(BOTH(simt_test_global_end)), same});
  add({"global memory: += by several blocks", "race", kThreads, start(BOTH(simt_test_count_blocks), 3), [](const Numbers&, Numbers y) { return y[0] += 3, y; }},
      true, true);
  add({"global memory: parts of two blocks overlap", "race", 3 * kThreads, start(BOTH(simt_test_parts), 3),
       [](const Numbers& x, const Numbers&) {
         Numbers y(x.size());
         for (size_t i = 0; i < y.size(); i++) y[i] = x[i % kThreads];
         return y;
       }},
      true, true);
  add({"global memory: a block's sum is published without a fence", "race", kThreads,
       [](const OpArgs& args, const float* x, float* y, bool mistake) {
         float* partial = args.scratch<float>(3);
         unsigned* ticket = args.scratch<unsigned>(1);
         args.clear(ticket, 4);
         launch(args, mistake ? simt_test_last_block<true> : simt_test_last_block<false>, dim3(3), dim3(kThreads), block_bytes<float>() + 4, x, y, partial,
                ticket);
       },
       [](const Numbers& x, Numbers y) {
         std::fill(y.begin(), y.begin() + 3, std::accumulate(x.begin(), x.end(), 0.f));
         return y;
       }},
      false, true);
  add({"global memory: reversed in place without a barrier", "race", kThreads, start(BOTH(simt_test_reverse_in_place)),
       [](const Numbers&, Numbers y) { return std::reverse(y.begin(), y.end()), y; }},
      true, true);
  add({"scratch memory: read before anyone wrote", "uninitialised", kThreads,
       [](const OpArgs& args, const float* x, float* y, bool mistake) {
         float* scratch = args.scratch<float>(kThreads);
         launch(args, mistake ? simt_test_scratch<true> : simt_test_scratch<false>, dim3(1), dim3(kThreads), 0, x, y, scratch);
       },
       same});

  add({"warp: a shuffle at two lines", "collective", kThreads, start(BOTH(simt_test_diverge)), moved([](int i) { return i ^ 1; })});
  add({"warp: a mask without the lane itself", "collective", kThreads, start(BOTH(simt_test_mask)), [](const Numbers& x, const Numbers&) {
         Numbers y = x;
         for (int first : {0, 32}) std::fill_n(y.begin() + first, 16, std::accumulate(x.begin() + first, x.begin() + first + 16, 0.f));
         return y;
       }});
  add({"warp: a shuffle from a lane that is absent", "shuffle", kThreads, start(BOTH(simt_test_absent_lane)),
       moved([](int i) { return i % 32 < 16 ? i / 32 * 32 + 15 : i; })});
  add({"warp: a lane has left", "collective", kThreads, start(BOTH(simt_test_lane_leaves)), [](const Numbers& x, const Numbers&) {
         Numbers y(x.size());
         for (int i = 0; i < kThreads; i++)
           y[size_t(i)] = float(std::count_if(x.begin() + i / 32 * 32, x.begin() + i / 32 * 32 + 32, [](float v) { return v > 0; }));
         return y;
       }});
  add({"block: a thread has left", "barrier", kThreads, start(BOTH(simt_test_thread_leaves)), same});
  add({"block: __syncthreads at two lines", "barrier", kThreads, start(BOTH(simt_test_two_barriers)), same});
  add({"launch: more shared memory than the device has", "cudaErrorInvalidConfiguration", kThreads,
       [](const OpArgs& args, const float* x, float* y, bool mistake) {
         launch(args, simt_test_thread_leaves<false>, dim3(1), dim3(kThreads), args.caps().shared_bytes + (mistake ? 1 : 0), x, y);
       },
       same});
  add({"launch: more threads than a block can have", "cudaErrorInvalidConfiguration", 1024,
       [](const OpArgs& args, const float* x, float* y, bool mistake) {
         launch(args, simt_test_thread_leaves<false>, dim3(1), dim3(mistake ? 1025 : 1024), 0, x, y);
       },
       same});
  add({"launch: no blocks", "cudaErrorInvalidConfiguration", kThreads,
       [](const OpArgs& args, const float* x, float* y, bool mistake) {
         launch(args, simt_test_thread_leaves<false>, dim3(mistake ? 0 : 1), dim3(kThreads), 0, x, y);
       },
       same});
}

}  // namespace test
}  // namespace attune
