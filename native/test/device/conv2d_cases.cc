// conv2d and its gradients: every kernel size, stride and padding takes the same kernels, so the sizes here vary what those see: channels in whole chunks or
// not, few and many of them, windows over an edge, gradients whose phases see no taps, maps that need one tile, many tiles or parts of k.
#include "product_case.h"

namespace attune {
namespace test {

namespace {

struct Conv {
  const char* name;
  int64_t batch, height, width, in, out, kh, kw, stride;
  std::vector<double> padding;  // top, bottom, left, right
  bool large = false;
};

const std::vector<Conv> kConvs = {
    {"unit", 1, 1, 1, 1, 1, 1, 1, 1, {0, 0, 0, 0}},
    {"3x3", 2, 7, 9, 40, 24, 3, 3, 1, {1, 1, 1, 1}},
    {"3x3 s2", 2, 9, 7, 40, 24, 3, 3, 2, {1, 1, 1, 1}},
    {"3x3 s2 padded below and right", 1, 8, 10, 16, 24, 3, 3, 2, {0, 1, 0, 1}},
    {"few channels in", 2, 8, 8, 4, 32, 3, 3, 1, {1, 1, 1, 1}},
    {"few channels out", 1, 6, 5, 16, 4, 3, 3, 1, {1, 1, 1, 1}},
    {"few channels in and out, s2", 2, 8, 7, 12, 20, 3, 3, 2, {1, 1, 1, 1}},
    {"three channels", 3, 5, 6, 3, 17, 3, 3, 1, {1, 1, 1, 1}},
    {"nine channels, s2", 1, 9, 8, 9, 16, 3, 3, 2, {1, 1, 1, 1}},
    {"1x1", 2, 5, 7, 24, 40, 1, 1, 1, {0, 0, 0, 0}},
    {"1x1 s2: pixels that no tap sees", 2, 5, 6, 16, 8, 1, 1, 2, {0, 0, 0, 0}},
    {"2x2 s2", 2, 7, 6, 8, 16, 2, 2, 2, {0, 0, 0, 0}},
    {"3x3 s3", 1, 11, 9, 8, 16, 3, 3, 3, {1, 1, 0, 0}},
    {"4x4 s2", 1, 10, 8, 8, 16, 4, 4, 2, {1, 1, 1, 1}},
    {"7x7", 1, 8, 9, 16, 8, 7, 7, 1, {3, 3, 3, 3}},
    {"3x1", 1, 6, 7, 8, 8, 3, 1, 1, {1, 1, 0, 0}},
    {"no padding", 1, 6, 7, 16, 16, 3, 3, 1, {0, 0, 0, 0}},
    {"all padding", 1, 1, 1, 8, 8, 3, 3, 1, {1, 1, 1, 1}},
    {"small map, long k", 1, 4, 4, 264, 72, 3, 3, 1, {1, 1, 1, 1}},
    {"small map, long k back", 1, 4, 4, 72, 264, 3, 3, 1, {1, 1, 1, 1}},
    {"small map, long k back, s2", 1, 7, 8, 24, 512, 3, 3, 2, {1, 1, 1, 1}},
    {"long sums", 2, 24, 23, 8, 16, 3, 3, 1, {1, 1, 1, 1}},
    {"many outputs", 1, 8, 8, 56, 256, 3, 3, 1, {1, 1, 1, 1}},
    {"many tiles", 2, 16, 16, 32, 160, 3, 3, 1, {1, 1, 1, 1}},
    {"many tiles out of 320", 3, 13, 14, 96, 32, 3, 3, 1, {1, 1, 1, 1}},
    {"many tiles, s2", 3, 26, 23, 160, 32, 3, 3, 2, {0, 1, 0, 1}},
    // SD 1.5 at 8 samples; the VAE's encoder.
    {"320 at 64x64", 8, 64, 64, 320, 320, 3, 3, 1, {1, 1, 1, 1}, true},
    {"conv_in", 8, 64, 64, 4, 320, 3, 3, 1, {1, 1, 1, 1}, true},
    {"conv_out", 8, 64, 64, 320, 4, 3, 3, 1, {1, 1, 1, 1}, true},
    {"down 320 at 64x64", 8, 64, 64, 320, 320, 3, 3, 2, {1, 1, 1, 1}, true},
    {"1920 to 640 at 32x32", 8, 32, 32, 1920, 640, 3, 3, 1, {1, 1, 1, 1}, true},
    {"1280 at 16x16", 8, 16, 16, 1280, 1280, 3, 3, 1, {1, 1, 1, 1}, true},
    {"1280 at 8x8", 8, 8, 8, 1280, 1280, 3, 3, 1, {1, 1, 1, 1}, true},
    {"shortcut 1x1", 8, 32, 32, 960, 640, 1, 1, 1, {0, 0, 0, 0}, true},
    {"128 at 256x256, s2", 1, 256, 256, 128, 128, 3, 3, 2, {0, 1, 0, 1}, true},
};

int64_t outputs(int64_t size, int64_t taps, int64_t stride, double before, double after) { return (size + int64_t(before + after) - taps) / stride + 1; }

}  // namespace

DEVICE_CASES(conv2d, {
  for (const Types& t : kProductTypes)
    for (const Conv& c : kConvs) {
      const std::string name = text(t) + c.name;
      const Shape map{c.batch, c.height, c.width, c.in}, window{c.out, c.kh, c.kw, c.in};
      const Shape result{c.batch, outputs(c.height, c.kh, c.stride, c.padding[0], c.padding[1]), outputs(c.width, c.kw, c.stride, c.padding[2], c.padding[3]),
                         c.out};
      const Attrs how = attrs({{"stride", double(c.stride)}, {"padding", c.padding}});
      const auto add = [&](DeviceCase one, int64_t depth) {
        one.depth = sum_depth(t.in, double(depth)), one.large = c.large;
        cases.push_back(std::move(one));
      };
      add({name, "conv2d", how, {tensor(t.in, map), tensor(t.in, window), tensor(t.out, {c.out})}, {tensor(t.out, result)}}, c.kh * c.kw * c.in);
      add({name, "conv2d_dx", how, {tensor(t.in, result), tensor(t.in, window)}, {tensor(t.out, map)}}, c.kh * c.kw * c.out);
      add({name, "conv2d_dw", how, {tensor(t.in, result), tensor(t.in, map)}, {tensor(t.out, window)}}, result[0] * result[1] * result[2]);
    }
})

}  // namespace test
}  // namespace attune
