// Philox against the vectors of Random123 (kat_vectors), normals against the library's logarithm and circle functions, and the laws of random tensors:
// an element depends on its index alone, not on the tensor's size, the micro-batch it is drawn in, the instruction set or the number of threads.
#include "../core/philox.h"

#include "call.h"

using namespace attune;
using namespace attune::test;

void known_answers() {
  const struct {
    uint32_t counter[4], key[2], expected[4];
  } vectors[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto& v : vectors) {
    const philox::Lanes x = philox::block(v.counter[0], v.counter[1], v.counter[2], v.counter[3], {v.key[0], v.key[1]});
    for (int i = 0; i < 4; i++) expect(x.x[i] == v.expected[i], "philox block differs from Random123's");
  }
}

/// The polynomials are right to 2 units in the last place of the radius; a relative bound for the angle's functions holds away from their zeros.
void box_muller_accuracy() {
  uint32_t a = 1, b = 7;
  for (int i = 0; i < 200000; i++) {
    a = a * 1664525u + 1013904223u, b = b * 22695477u + 1u;
    if (i < 64) a = i < 32 ? 1u << i : ~(1u << (i - 32));  // near 0 and near 1
    double z0, z1;
    philox::box_muller(a, b, &z0, &z1);
    const double u1 = (double(a) + 1) / 4294967296.0, angle = 2 * 3.14159265358979323846 * (double(b) / 4294967296.0), radius = std::sqrt(-2 * std::log(u1));
    const double bound = 8 * 0x1p-53 * (radius + 1e-300) * (1 + angle);  // the reference's own angle is rounded
    if (std::fabs(z0 - radius * std::cos(angle)) > bound || std::fabs(z1 - radius * std::sin(angle)) > bound)
      return expect(false, "box_muller(" + std::to_string(a) + ", " + std::to_string(b) + ") is off");
  }
  double z0, z1;
  philox::box_muller(~0u, 5u, &z0, &z1);
  expect(z0 == 0 && z1 == 0, "u1 = 1 gives radius 0");
}

Attrs random_attrs(int stream) { return attributes({{"seed", 0.0}, {"step", 1.0}, {"offset", 2.0}, {"stream", double(stream)}}); }

/// FNV-1a over the bits of the values.
uint64_t hash_of(const Tensor& t) {
  uint64_t h = 1469598103934665603ull;
  const auto* bytes = reinterpret_cast<const unsigned char*>(t.memory.data());
  for (size_t i = 0; i < size_t(t.numel()) * dtype_size(t.dtype); i++) h = (h ^ bytes[i]) * 1099511628211ull;
  return h;
}

/// Bits of a draw as they must be on every machine and backend.
void pinned_bits(const std::string& isa, KernelFn normal) {
  Tensor x(DType::f64, {5, 1001});
  run_on_threads("random_normal " + isa, normal, random_attrs(3), {}, {&x}, {9007199254740881.0, 12345, 7});
  expect(hash_of(x) == 0xcb8710dbe49cb43cull, "random_normal " + isa + ": the bits changed, hash " + std::to_string(hash_of(x)));
}

void normal_laws(const std::string& isa, KernelFn normal) {
  Tensor all(DType::f32, {6, 77});
  run_on_threads("random_normal " + isa, normal, random_attrs(1), {}, {&all}, {42, 3, 0});
  for (int first = 0; first < 6; first += 2) {  // three micro-batches of two
    Tensor part(DType::f32, {2, 77});
    run(normal, random_attrs(1), {}, {&part}, {42, 3, double(first)});
    for (int64_t i = 0; i < part.numel(); i++)
      if (part.get(i) != all.get(first * 77 + i)) return expect(false, "random_normal " + isa + ": micro-batches draw other noise than the batch");
  }
  Tensor a(DType::f64, {200000}), b(DType::f64, {200000}), c(DType::f64, {200000});
  run_on_threads("random_normal " + isa, normal, random_attrs(1), {}, {&a}, {42, 3, 0});
  run(normal, random_attrs(2), {}, {&b}, {42, 3, 0});
  run(normal, random_attrs(1), {}, {&c}, {42, 4, 0});
  const auto moment = [](const Tensor& x, const Tensor& y) {
    double s = 0;
    for (int64_t i = 0; i < x.numel(); i++) s += x.get(i) * y.get(i);
    return s / double(x.numel());
  };
  const Tensor one(DType::f64, {200000}, 1.0);
  const double deviation = 5 / std::sqrt(200000.0);  // five standard errors
  expect(std::fabs(moment(a, one)) < deviation, "normals have mean 0");
  expect(std::fabs(moment(a, a) - 1) < deviation * std::sqrt(2.0), "normals have variance 1");
  expect(std::fabs(moment(a, b)) < deviation && std::fabs(moment(a, c)) < deviation, "streams and steps are independent");
}

void uniform_and_integers() {
  for (const auto& [isa, fn] : kernels_of("random_uniform")) {
    Tensor x(DType::f32, {10007});
    run_on_threads("random_uniform " + isa, fn, random_attrs(5), {}, {&x}, {1, 2, 0});
    double sum = 0;
    for (int64_t i = 0; i < x.numel(); i++) {
      const double v = x.get(i);
      if (!(v >= 0 && v < 1 && v * 16777216 == std::floor(v * 16777216))) return expect(false, "uniform values are multiples of 2^-24 in [0, 1)");
      sum += v;
    }
    expect(std::fabs(sum / 10007 - 0.5) < 5 / std::sqrt(12.0 * 10007), "uniforms have mean 1/2");
  }
  for (const auto& [isa, fn] : kernels_of("random_int")) {
    Attrs attrs = random_attrs(5);
    attrs.set("low", -3.0), attrs.set("high", 997.0);
    Tensor x(DType::i32, {30011});
    run_on_threads("random_int " + isa, fn, attrs, {}, {&x}, {1, 2, 0});
    for (int64_t i = 0; i < x.numel(); i++) {
      const philox::Lanes lanes = philox::block(uint32_t(i / 4), 0, 5, 2, {1, 0});
      const double expected = -3 + double(uint64_t(lanes.x[i % 4]) * 1000 >> 32);
      if (x.get(i) != expected) return expect(false, "random_int " + isa + ": element " + std::to_string(i) + " is not its lane's");
    }
  }
}

int main() {
  known_answers();
  box_muller_accuracy();
  for (const auto& [isa, fn] : kernels_of("random_normal")) pinned_bits(isa, fn), normal_laws(isa, fn);
  uniform_and_integers();
  return finish("philox");
}
