// What a device's matrix and copy instructions do with fixed operands, as the bits they leave: records them on a GPU, and holds any machine, above all the
// twins of native/simt and native/ptxi, against a record. Products are also held against sums in f64 where they run, so that a record is known to be sound.
//   primitives <object.so> [--record file.json] [--compare file.json]
//
// Copies, ldmatrix, packing and products of small whole numbers (whose sums are exact in any order) must agree bit for bit. Products of random numbers: the
// order in which the hardware adds, and how it aligns the terms, are not specified, so either machine may be off from the exact sum by what rounding every term
// of every instruction towards zero at the width of the largest could lose; 2^x by the two ulp that the instruction's own description allows each.
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "../core/device.h"
#include "../core/error.h"

namespace attune {
namespace bench {
namespace {

using Words = std::vector<uint32_t>;
using Halves = std::vector<uint16_t>;

float as_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
uint32_t as_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}
float wide(uint16_t half) { return as_float(uint32_t(half) << 16); }

/// The same numbers on every machine.
struct Random {
  uint32_t state;
  uint32_t next() { return state = state * 1664525u + 1013904223u, state ^ state >> 15; }
  /// bf16: whole numbers -4 .. 4, or numbers of all signs and of magnitudes over 16 powers of two.
  uint16_t half(bool whole) {
    const uint32_t r = next();
    if (whole) return uint16_t(as_bits(float(int(r >> 8) % 9 - 4)) >> 16);
    return uint16_t((r & 0x8000u) | (127 - 8 + (r >> 16) % 16) << 7 | (r & 0x7fu));
  }
  Halves halves(size_t count, bool whole) {
    Halves list(count);
    for (uint16_t& h : list) h = half(whole);
    return list;
  }
  Words words(size_t count) {
    Words list(count);
    for (uint32_t& w : list) w = next();
    return list;
  }
};

Words packed(const Halves& halves) {
  Words words(halves.size() / 2);
  std::memcpy(words.data(), halves.data(), words.size() * 4);
  return words;
}

struct Primitive {
  std::string name;
  Attrs attrs;
  std::vector<Words> in;
  size_t out;                        // words
  std::vector<double> exact, bound;  // of every word as a float; empty: bits alone
  bool whole = false;                // exact sums: equal bits
  bool power = false;                // even words are 2^x
  size_t keep = 1;                   // of a record: all words of each keep-th thread
  size_t thread = 1;                 // words of a thread
};

/// What one instruction that adds `terms` products to a sum may lose: each term, and the sum, less than one unit of the largest's last place.
double loss(double terms, double steps, double magnitudes) { return (terms + 2) * steps * std::ldexp(magnitudes, -23); }

Attrs which(const std::string& name) {
  Attrs a;
  a.set("which", name);
  return a;
}

Primitive mma(int depth, bool whole) {
  Primitive p{"mma.sync m16n8k" + std::to_string(depth) + (whole ? ", whole numbers" : ""), which("mma " + std::to_string(depth)), {}, 128, {}, {}};
  Random random{uint32_t(depth + whole)};
  p.whole = whole, p.thread = 4;
  Words in(128);
  for (uint32_t& w : in) w = uint32_t(random.half(whole)) << 16;
  std::vector<double> magnitude(128);
  for (const uint32_t w : in) p.exact.push_back(double(as_float(w)));
  for (size_t i = 0; i < 128; i++) magnitude[i] = std::fabs(p.exact[i]);
  const size_t of_a = size_t(depth / 4), of_b = size_t(depth / 8);
  for (int step = 0; step < 4; step++) {
    std::vector<double> a(16 * 16), b(16 * 8);
    for (size_t lane = 0; lane < 32; lane++) {
      const size_t g = lane / 4, t = lane % 4;
      const Halves h = random.halves((of_a + of_b) * 2, whole);
      const Words w = packed(h);
      in.insert(in.end(), w.begin(), w.end());
      for (size_t i = 0; i < of_a * 2; i++) a[(g + i / 2 % 2 * 8) * 16 + t * 2 + i % 2 + i / 4 * 8] = double(wide(h[i]));
      for (size_t i = 0; i < of_b * 2; i++) b[(t * 2 + i % 2 + i / 2 * 8) * 8 + g] = double(wide(h[of_a * 2 + i]));
    }
    for (size_t lane = 0; lane < 32; lane++)
      for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < size_t(depth); k++) {
          const double product = a[(lane / 4 + i / 2 * 8) * 16 + k] * b[k * 8 + lane % 4 * 2 + i % 2];
          p.exact[lane * 4 + i] += product, magnitude[lane * 4 + i] += std::fabs(product);
        }
  }
  for (const double m : magnitude) p.bound.push_back(loss(depth, 4, m));
  p.in = {in};
  return p;
}

/// `shape` as native/cuda/primitives.cu names it: n, where A comes from, where B comes from.
Primitive wgmma(const std::string& shape, bool whole) {
  Primitive p{"wgmma " + shape + (whole ? ", whole numbers" : ""), which("wgmma " + shape), {}, 0, {}, {}};
  const size_t n = size_t(std::atoi(shape.c_str()));
  const char from_a = shape[shape.find(' ') + 1], from_b = shape[shape.rfind(' ') + 1];
  p.out = 64 * n, p.thread = n / 2, p.keep = 16, p.whole = whole;
  Random random{uint32_t(n * 2 + whole)};
  const Halves a = random.halves(64 * 64, whole), b = random.halves(64 * n, whole);  // [m][k] and [n][k], or the other way round where so demanded
  const auto at_a = [&](size_t m, size_t k) { return a[from_a == 'm' ? k * 64 + m : m * 64 + k]; };
  const auto at_b = [&](size_t j, size_t k) { return b[from_b == 'n' ? k * n + j : j * 64 + k]; };
  Halves registers;  // [step][thread][8]
  for (size_t step = 0; step < 4; step++)
    for (size_t t = 0; t < 128; t++)
      for (size_t i = 0; i < 8; i++) registers.push_back(at_a(t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8, step * 16 + t % 4 * 2 + i % 2 + i / 4 * 8));
  p.in = {packed(a), packed(b), packed(registers)};
  for (size_t t = 0; t < 128; t++)
    for (size_t i = 0; i < n / 2; i++) {
      double sum = 0, magnitude = 0;
      for (size_t k = 0; k < 64; k++) {
        const double product = 2 * double(wide(at_a(t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8, k))) * double(wide(at_b(i / 4 * 8 + t % 4 * 2 + i % 2, k)));
        sum += product, magnitude += std::fabs(product);
      }
      p.exact.push_back(sum), p.bound.push_back(loss(16, 8, magnitude));
    }
  return p;
}

Primitive box(const std::string& name, std::vector<double> extent, std::vector<double> box, std::vector<double> at, int swizzle) {
  size_t numbers = 1, bytes = 2;
  for (const double e : extent) numbers *= size_t(e);
  for (const double e : box) bytes *= size_t(e);
  Primitive p{"box " + name + ", swizzle " + std::to_string(swizzle == 0 ? 0 : 16 << swizzle), which("box"), {}, bytes / 4, {}, {}};
  p.attrs.set("extent", std::move(extent)), p.attrs.set("box", std::move(box)), p.attrs.set("at", std::move(at)), p.attrs.set("swizzle", double(swizzle));
  Halves halves(numbers);
  for (size_t i = 0; i < numbers; i++) halves[i] = uint16_t(i + 1);  // no two alike, and none zero
  if (numbers % 2) halves.push_back(0);
  p.in = {packed(halves)};
  return p;
}

std::vector<Primitive> primitives(bool hopper) {
  std::vector<Primitive> list;
  for (const bool whole : {true, false})
    for (const int depth : {16, 8}) list.push_back(mma(depth, whole));
  Random random{7};
  list.push_back({"ldmatrix", which("ldmatrix"), {random.words(128)}, 32 * 14, {}, {}});
  list.push_back({"cp.async", which("cp.async"), {random.words(128)}, 192, {}, {}});
  Primitive convert{"ex2 and cvt.bf16x2", which("convert"), {{}}, 512, {}, {}};
  convert.power = true;
  const float special[] = {0.f,    -0.f,     1.f,       -1.f, 127.f,       128.f,       -126.f,        -126.5f,
                           -149.f, INFINITY, -INFINITY, NAN,  1.00390625f, 1.01171875f, 3.3895314e38f, 1e-40f};
  for (const float f : special) convert.in[0].push_back(as_bits(f));
  while (convert.in[0].size() < 256) convert.in[0].push_back(as_bits(float(int(random.next() >> 8) % 200000) / 1024.f - 97.f));
  list.push_back(convert);
  if (!hopper) return list;
  for (const int swizzle : {0, 1, 2, 3}) {
    const double span = swizzle == 0 ? 32 : 8 << swizzle;
    list.push_back(box("2d inside", {200, 40}, {span, 24}, {8, 3}, swizzle));
    list.push_back(box("2d over both ends", {40, 20}, {span, 32}, {24, -5}, swizzle));
    list.push_back(box("2d before the start", {40, 20}, {span, 16}, {-16, 7}, swizzle));
    list.push_back(box("3d", {40, 3, 9}, {span, 2, 8}, {16, 2, -1}, swizzle));
    list.push_back(box("4d: pixels and padding", {40, 7, 5, 2}, {span, 4, 3, 2}, {0, -1, 4, 1}, swizzle));
    list.push_back(box("5d", {24, 2, 5, 3, 2}, {span, 2, 2, 3, 2}, {8, 1, 4, -1, 1}, swizzle));
  }
  for (const bool whole : {true, false})
    for (const char* shape : {"128 k128 k128", "160 k128 k128", "256 k128 k128", "64 k128 k128",  "128 k32 k32",  "128 k64 k64",   "80 k128 k128",
                              "80 k32 k32",    "64 k64 k64",    "32 k64 k64",    "128 k128 n128", "160 k128 n64", "256 k128 n128", "128 m128 n128",
                              "160 m128 n64",  "48 r n32",      "64 r n128",     "80 r n32",      "128 r n128",   "160 r n64"})
      list.push_back(wgmma(shape, whole));
  return list;
}

Words run(Device& device, const Primitive& p) {
  std::vector<void*> memory;
  const auto words = [&](size_t count) {
    memory.push_back(device.allocate(int64_t(count) * 4));
    TensorRef t;
    t.data = memory.back(), t.dtype = DType::i32, t.rank = 1, t.dims[0] = int64_t(count);
    return t;
  };
  std::vector<TensorRef> in;
  for (const Words& w : p.in) {
    in.push_back(words(w.size()));
    device.upload(in.back().data, w.data(), int64_t(w.size()) * 4);
  }
  const TensorRef out = words(p.out);
  Words result(p.out, 0xffffffffu);
  device.upload(out.data, result.data(), int64_t(p.out) * 4);
  device.synchronize();
  device.run("primitive", DeviceCall{p.attrs, in.data(), int(in.size()), &out, 1});
  device.download(result.data(), out.data, int64_t(p.out) * 4);
  device.synchronize();
  for (void* m : memory) device.release(m);
  return result;
}

/// Empty, or what is wrong with a product.
std::string against_exact(const Primitive& p, const Words& got) {
  for (size_t i = 0; i < p.exact.size(); i++) {
    const double value = double(as_float(got[i])), off = std::fabs(value - p.exact[i]);
    if (off <= (p.whole ? 0 : p.bound[i])) continue;
    char text[160];
    std::snprintf(text, sizeof text, "word %zu is %.9g, exactly %.9g, bound %.3g", i, value, p.exact[i], p.whole ? 0 : p.bound[i]);
    return text;
  }
  return "";
}

/// The words that a record holds.
std::vector<size_t> kept(const Primitive& p) {
  std::vector<size_t> list;
  for (size_t i = 0; i < p.out; i++)
    if (i / p.thread % p.keep == p.keep / 2) list.push_back(i);
  return list;
}

std::string against_record(const Primitive& p, const Words& got, const std::string& record, size_t& differing) {
  const std::vector<size_t> list = kept(p);
  if (record.size() != list.size() * 8) return "the record has " + std::to_string(record.size() / 8) + " words, expected " + std::to_string(list.size());
  for (size_t i = 0; i < list.size(); i++) {
    const size_t at = list[i];
    const uint32_t recorded = uint32_t(std::stoul(record.substr(i * 8, 8), nullptr, 16)), here = got[at];
    if (recorded == here) continue;
    differing++;
    const double a = double(as_float(recorded)), b = double(as_float(here));
    bool near = !p.exact.empty() && !p.whole && std::fabs(a - b) <= 2 * p.bound[at];
    if (p.power && at % 2 == 0) near = std::isnan(a) ? std::isnan(b) : std::fabs(a - b) <= 4 * std::ldexp(std::max(std::fabs(a), std::fabs(b)), -23);
    if (near) continue;
    char text[160];
    std::snprintf(text, sizeof text, "word %zu is %08x (%.9g), recorded %08x (%.9g)", at, here, b, recorded, a);
    return text;
  }
  return "";
}

/// "name": "bits" pairs, one a line, as main() writes them.
std::map<std::string, std::string> read_record(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error("ERR_IO", "cannot read " + path);
  std::map<std::string, std::string> record;
  for (std::string line; std::getline(file, line);) {
    const size_t end = line.find("\": \"");
    if (line.rfind("    \"", 0) != 0 || end == std::string::npos) continue;
    const size_t from = end + 4;
    record[line.substr(5, end - 5)] = line.substr(from, line.find('"', from) - from);
  }
  return record;
}

}  // namespace

int main(int argc, char** argv) {
  std::string path, to, from;
  for (int i = 1; i < argc; i++) {
    const std::string arg = argv[i];
    if (arg == "--record" && i + 1 < argc) to = argv[++i];
    else if (arg == "--compare" && i + 1 < argc) from = argv[++i];
    else path = arg;
  }
  if (path.empty()) return std::fprintf(stderr, "usage: primitives <object.so> [--record file.json] [--compare file.json]\n"), 2;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return std::fprintf(stderr, "primitives: %s\n", dlerror()), 2;
  const auto entry = reinterpret_cast<DeviceObjectFn>(dlsym(handle, ATTUNE_DEVICE_OBJECT));
  DeviceObject* object = entry ? entry(kDeviceAbi) : nullptr;
  if (!object) return std::fprintf(stderr, "primitives: %s is no device object of this build\n", path.c_str()), 2;
  int failed = 0, compared = 0;
  size_t differing = 0;
  try {
    const std::unique_ptr<Device> device = object->open(0);
    const std::map<std::string, std::string> record = from.empty() ? std::map<std::string, std::string>{} : read_record(from);
    const std::vector<Primitive> list = primitives(device->caps().arch == 90);
    std::string lines;
    for (const Primitive& p : list) {
      const Words got = run(*device, p);
      std::string verdict = against_exact(p, got);
      const auto found = record.find(p.name);
      if (verdict.empty() && found != record.end()) verdict = against_record(p, got, found->second, differing), compared++;
      if (!verdict.empty()) failed++, std::printf("FAIL %s: %s\n", p.name.c_str(), verdict.c_str());
      std::string bits;
      for (const size_t i : kept(p)) {
        char word[9];
        std::snprintf(word, sizeof word, "%08x", got[i]);
        bits += word;
      }
      lines += (lines.empty() ? "" : ",\n") + ("    \"" + p.name + "\": \"") + bits + "\"";
    }
    if (!to.empty())
      std::ofstream(to) << "{\n  \"device\": \"" << device->caps().name << "\",\n  \"arch\": " << device->caps().arch << ",\n  \"words\": {\n"
                        << lines << "\n  }\n}\n";
    std::printf("%s, arch %d: %zu primitives, %d compared with a record, %zu words differ, %d failed\n", device->caps().name.c_str(), device->caps().arch,
                list.size(), compared, differing, failed);
  } catch (const Error& e) { return std::fprintf(stderr, "primitives: %s: %s\n", e.code.c_str(), e.what()), 2; }
  return failed ? 1 : 0;
}

}  // namespace bench
}  // namespace attune

int main(int argc, char** argv) { return attune::bench::main(argc, argv); }
