#include "bench.h"
#include "ring.cuh"

namespace attune {
namespace test {

using namespace cuda;

void add_rings(std::vector<Bug>& bugs) {
  constexpr int kNumbers = kRingTile * kRingTiles, kShared = kRingSlots * (kRingTile * 4 + 16);
  const auto reversed_tiles = [](const Numbers& x, const Numbers&) {
    Numbers y(x.size());
    for (size_t i = 0; i < x.size(); i++) y[i] = x[i / kRingTile * kRingTile + kRingTile - 1 - i % kRingTile];
    return y;
  };
  using Ring = void(const float*, float*);
  const auto add = [&](const char* name, const char* kind, Ring* wrong, bool race) {
    bugs.push_back({std::string("ring of bulk copies: ") + name, kind, kNumbers,
                    [=](const OpArgs& args, const float* x, float* y, bool mistake) {
                      launch(args, mistake ? wrong : &simt_test_ring<RingSlip::none>, dim3(1), dim3(96), kShared, x, y);
                    },
                    reversed_tiles, false, race});
  };
  add("a slot is handed back before it is read", "race", &simt_test_ring<RingSlip::released_early>, true);
  add("a slot is filled before it is empty", "race|mbarrier", &simt_test_ring<RingSlip::refilled_early>, true);
  add("a slot is read before it is full", "race", &simt_test_ring<RingSlip::read_early>, true);
  add("one lane hands a slot back for a warp that has not synchronised", "race", &simt_test_ring<RingSlip::one_lane_releases>, true);
  add("more bytes expected than are copied", "deadlock", &simt_test_ring<RingSlip::bytes_missing>, false);
  add("mbarriers used before everyone knows them", "race|mbarrier", &simt_test_ring<RingSlip::no_barrier_at_init>, false);

  bugs.push_back({"operands of a warpgroup: the slot is handed back before the wait", "race", kNumbers,
                  [](const OpArgs& args, const float* x, float* y, bool mistake) {
                    launch(args, mistake ? simt_test_operands<true> : simt_test_operands<false>, dim3(1), dim3(64), kShared, x, y);
                  },
                  [](const Numbers&, Numbers y) {
                    for (int i = 0; i < kRingTiles * 32; i++) y[size_t(i)] = float(i / 32);
                    return y;
                  },
                  false, false});

  bugs.push_back({"multiplies of a warpgroup: nobody waits for them", "wgmma", 128,
                  [](const OpArgs& args, const float* x, float* y, bool mistake) {
                    launch(args, mistake ? simt_test_multiply<true> : simt_test_multiply<false>, dim3(1), dim3(128), 16384, x, y);
                  },
                  [](const Numbers& x, const Numbers&) { return Numbers(x.size(), 16.f); }, false, false});

  const auto add_named = [&](const char* name, const char* kind, Ring* wrong, bool race) {
    bugs.push_back({std::string("named barriers: ") + name, kind, 64,
                    [=](const OpArgs& args, const float* x, float* y, bool mistake) {
                      launch(args, mistake ? wrong : &simt_test_named<NamedSlip::none>, dim3(1), dim3(96), 128, x, y);
                    },
                    [](const Numbers& x, const Numbers&) {
                      Numbers y(x.size());
                      for (size_t i = 0; i < x.size(); i++) y[i] = x[i ^ 31];
                      return y;
                    },
                    false, race});
  };
  add_named("the reader does not wait", "race", &simt_test_named<NamedSlip::no_wait>, true);
  add_named("a warp is expected that never comes", "deadlock", &simt_test_named<NamedSlip::too_many>, false);
}

}  // namespace test
}  // namespace attune
