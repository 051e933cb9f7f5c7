// device_test <object.so> [--filter text] [--every N] [--large] [--list]: runs every case of native/test/device on the object's first device, each output
// compared with the cpu backend in f64. Exits 1 if one differs, naming case, output, element and both values.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "device_case.h"

namespace attune {
namespace test {
namespace {

std::vector<std::function<void(std::vector<DeviceCase>&)>>& fillers() {
  static std::vector<std::function<void(std::vector<DeviceCase>&)>> list;
  return list;
}

int64_t numel(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

float bf16_to_float(uint16_t bits) {
  const uint32_t u = uint32_t(bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
uint16_t float_to_bf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

void put(void* at, DType dtype, int64_t i, double v) {
  switch (dtype) {
    case DType::f64: static_cast<double*>(at)[i] = v; break;
    case DType::f32: static_cast<float*>(at)[i] = float(v); break;
    case DType::bf16: static_cast<uint16_t*>(at)[i] = float_to_bf16(float(v)); break;
    case DType::i32: static_cast<int32_t*>(at)[i] = int32_t(v); break;
    case DType::u8: static_cast<uint8_t*>(at)[i] = uint8_t(v); break;
    case DType::f16: static_cast<_Float16*>(at)[i] = _Float16(v); break;
  }
}
double get(const void* at, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::f64: return static_cast<const double*>(at)[i];
    case DType::f32: return double(static_cast<const float*>(at)[i]);
    case DType::bf16: return double(bf16_to_float(static_cast<const uint16_t*>(at)[i]));
    case DType::i32: return double(static_cast<const int32_t*>(at)[i]);
    case DType::u8: return double(static_cast<const uint8_t*>(at)[i]);
    case DType::f16: return double(static_cast<const _Float16*>(at)[i]);
  }
  return 0;
}

double rounding_of(DType dtype, double depth) {
  switch (dtype) {
    case DType::bf16: return std::ldexp(1.0, -9);
    case DType::f16: return std::ldexp(1.0, -12);
    case DType::f32: return std::ldexp(1.0, -24) * std::sqrt(std::max(1.0, depth));
    case DType::f64: return std::ldexp(1.0, -53) * std::sqrt(std::max(1.0, depth));
    default: return 0;
  }
}

TensorRef ref(void* data, DType dtype, const Shape& shape) {
  TensorRef t;
  t.data = data, t.dtype = dtype, t.rank = int(shape.size());
  for (size_t i = 0; i < shape.size(); i++) t.dims[i] = shape[i];
  return t;
}

/// In memory that is aligned for every dtype.
struct Host {
  DType dtype;
  Shape shape;
  std::vector<double> memory;
  Host(DType dtype, const Shape& shape) : dtype(dtype), shape(shape), memory(size_t(numel(shape)) * dtype_size(dtype) / 8 + 1) {}
  void* data() { return memory.data(); }
  int64_t bytes() const { return numel(shape) * int64_t(dtype_size(dtype)); }
};

/// Floats are computed in f64 by the reference; integers stay.
DType reference_dtype(DType t) { return t == DType::i32 || t == DType::u8 ? t : DType::f64; }

struct Random {
  uint64_t state;
  double next() {
    double sum = 0;
    for (int i = 0; i < 3; i++) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      sum += double(int64_t(state >> 11) - (int64_t(1) << 52)) / double(int64_t(1) << 52);
    }
    return sum;  // variance 1
  }
};

std::vector<Host> reference_run(const std::string& op, const Attrs& attrs, std::vector<TensorRef> in, const std::vector<std::pair<DType, Shape>>& out,
                                const std::vector<double>& scalars) {
  static ThreadPool pool(2);
  static Workspace workspace;
  const KernelFn fn = find_kernel("cpu", op, "");
  if (!fn) throw Error("ERR_PROGRAM", "the cpu backend has no kernel for \"" + op + "\"");
  std::vector<Host> results;
  std::vector<TensorRef> outputs;
  for (const auto& [dtype, shape] : out) results.emplace_back(dtype, shape);
  for (Host& h : results) outputs.push_back(ref(h.data(), h.dtype, h.shape));
  fn({attrs, in.data(), int(in.size()), outputs.data(), int(outputs.size()), scalars.data(), pool, workspace});
  return results;
}

constexpr int64_t kGuard = 256;
constexpr int32_t kInstruction = 7;

class Runner {
 public:
  explicit Runner(Device& device) : device_(device) {}

  /// An empty text: the case passed.
  std::string run(const DeviceCase& c) {
    Random random{0x9E3779B97F4A7C15ull ^ std::hash<std::string>()(c.op + c.name)};
    std::vector<Host> narrow, wide;  // inputs as the device sees them, and as the reference does
    for (const Operand& o : c.inputs) {
      narrow.emplace_back(o.dtype, o.absent ? Shape{} : o.shape);
      wide.emplace_back(reference_dtype(o.dtype), o.absent ? Shape{} : o.shape);
      if (o.absent || o.made_by >= 0) continue;
      for (int64_t i = 0; i < numel(o.shape); i++) {
        put(narrow.back().data(), o.dtype, i, o.values.empty() ? o.shift + o.scale * random.next() : o.values[size_t(i) % o.values.size()]);
        put(wide.back().data(), wide.back().dtype, i,
            o.stand_for.empty() ? get(narrow.back().data(), o.dtype, i) : o.stand_for[size_t(i) % o.stand_for.size()]);
      }
    }
    const auto wide_ref = [&](size_t i) { return c.inputs[i].absent ? TensorRef{} : ref(wide[i].data(), wide[i].dtype, wide[i].shape); };
    for (const auto& before : c.before) {
      std::vector<TensorRef> in;
      for (const int i : before.inputs) in.push_back(i < 0 ? TensorRef{} : wide_ref(size_t(i)));
      std::vector<std::pair<DType, Shape>> out;
      for (const Shape& s : before.outputs) out.emplace_back(DType::f64, s);
      std::vector<Host> made = reference_run(before.op, c.attrs, in, out, c.scalars);
      for (size_t i = 0; i < c.inputs.size(); i++)
        if (const int from = c.inputs[i].made_by; from >= 0)
          for (int64_t e = 0; e < numel(c.inputs[i].shape); e++) {
            put(narrow[i].data(), narrow[i].dtype, e, get(made[size_t(from)].data(), DType::f64, e));
            put(wide[i].data(), wide[i].dtype, e, get(narrow[i].data(), narrow[i].dtype, e));
          }
    }
    // Device memory: each operand in an allocation of its own, so that a byte past its end is seen where the machine can.
    std::vector<void*> memory;
    const auto allocate = [&](int64_t bytes) { return memory.push_back(device_.allocate(std::max<int64_t>(bytes, 1))), memory.back(); };
    std::vector<TensorRef> in, out;
    for (size_t i = 0; i < c.inputs.size(); i++) {
      if (c.inputs[i].absent) {
        in.push_back({});
        continue;
      }
      in.push_back(ref(allocate(narrow[i].bytes()), narrow[i].dtype, narrow[i].shape));
      device_.upload(in.back().data, narrow[i].data(), narrow[i].bytes());
    }
    std::vector<std::vector<unsigned char>> poison;
    for (const Operand& o : c.outputs) {
      if (o.in_place_of >= 0) {
        out.push_back(in[size_t(o.in_place_of)]);
        poison.emplace_back();
        continue;
      }
      const int64_t bytes = numel(o.shape) * int64_t(dtype_size(o.dtype));
      char* at = static_cast<char*>(allocate(bytes + 2 * kGuard));
      poison.emplace_back(size_t(bytes + 2 * kGuard), 0xFF);
      device_.upload(at, poison.back().data(), bytes + 2 * kGuard);
      out.push_back(ref(at + kGuard, o.dtype, o.shape));
    }
    double* scalars = static_cast<double*>(allocate(int64_t(c.scalars.size()) * 8));
    device_.upload(scalars, c.scalars.data(), int64_t(c.scalars.size()) * 8);
    DeviceCall call{c.attrs, in.data(), int(in.size()), out.data(), int(out.size())};
    call.scalars = scalars, call.fault = static_cast<int32_t*>(allocate(sizeof(Fault))), call.instruction = kInstruction, call.dry = true;
    const Fault none, earlier{1, 3, 5, 4};
    device_.upload(call.fault, &none, sizeof none);
    call.workspace_bytes = device_.run(c.op, call);
    call.dry = false, call.workspace = allocate(call.workspace_bytes);
    std::vector<unsigned char> garbage(size_t(call.workspace_bytes), 0xFF);
    device_.upload(call.workspace, garbage.data(), call.workspace_bytes);
    device_.synchronize();
    const auto start = std::chrono::steady_clock::now();
    device_.run(c.op, call);
    device_.synchronize();
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

    std::string verdict = check_fault(call.fault, c.fault.empty() ? none : Fault{1, kInstruction, c.fault[0].value, c.fault[0].limit});
    if (!c.fault.empty() && verdict.empty()) {
      device_.upload(call.fault, &earlier, sizeof earlier);
      device_.run(c.op, call);
      verdict = check_fault(call.fault, earlier);
    }

    std::vector<TensorRef> reference_in;
    for (size_t i = 0; i < c.inputs.size(); i++) reference_in.push_back(wide_ref(i));
    std::vector<std::pair<DType, Shape>> reference_out;
    for (const Operand& o : c.outputs) reference_out.emplace_back(reference_dtype(o.dtype), o.shape);
    std::vector<Host> expected = reference_with_effects(c, reference_in, reference_out);

    for (size_t i = 0; i < c.outputs.size() && verdict.empty(); i++) verdict = compare(c, i, out[i], expected[i]);
    for (void* m : memory) device_.release(m);
    return verdict;
  }
  double seconds = 0;

 private:
  std::vector<Host> reference_with_effects(const DeviceCase& c, std::vector<TensorRef>& in, const std::vector<std::pair<DType, Shape>>& out) {
    static ThreadPool pool(2);
    static Workspace workspace;
    const KernelFn fn = find_kernel("cpu", c.op, "");
    if (!fn) throw Error("ERR_PROGRAM", "the cpu backend has no kernel for \"" + c.op + "\"");
    std::vector<Host> results;
    std::vector<TensorRef> outputs;
    for (const auto& [dtype, shape] : out) results.emplace_back(dtype, shape);
    for (size_t i = 0; i < results.size(); i++) {
      const int over = c.outputs[i].in_place_of;
      outputs.push_back(over >= 0 ? in[size_t(over)] : ref(results[i].data(), results[i].dtype, results[i].shape));
    }
    fn({c.attrs, in.data(), int(in.size()), outputs.data(), int(outputs.size()), c.scalars.data(), pool, workspace});
    for (size_t i = 0; i < results.size(); i++)
      if (c.outputs[i].in_place_of >= 0) std::memcpy(results[i].data(), outputs[i].data, size_t(results[i].bytes()));
    return results;
  }

  std::string check_fault(const int32_t* at, const Fault& expected) {
    Fault got;
    device_.download(&got, at, sizeof got);
    device_.synchronize();
    const auto text = [](const Fault& f) {
      return std::to_string(f.kind) + ", instruction " + std::to_string(f.instruction) + ", value " + std::to_string(f.value) + ", limit " +
             std::to_string(f.limit);
    };
    return std::memcmp(&got, &expected, sizeof got) == 0 ? "" : "fault record: expected kind " + text(expected) + "; received kind " + text(got);
  }

  std::string compare(const DeviceCase& c, size_t index, const TensorRef& out, Host& expected) {
    const Operand& o = c.outputs[index];
    const int64_t bytes = out.bytes(), n = out.numel();
    const bool guarded = o.in_place_of < 0;
    Host got(o.dtype, o.shape);
    std::vector<unsigned char> raw(size_t(bytes + (guarded ? 2 * kGuard : 0)));
    device_.download(raw.data(), static_cast<char*>(out.data) - (guarded ? kGuard : 0), int64_t(raw.size()));
    device_.synchronize();
    std::memcpy(got.data(), raw.data() + (guarded ? kGuard : 0), size_t(bytes));
    if (guarded)
      for (int64_t i = 0; i < kGuard; i++)
        if (raw[size_t(i)] != 0xFF || raw[size_t(kGuard + bytes + i)] != 0xFF) return "output " + std::to_string(index) + ": bytes outside of it were written";
    double error = 0, size = 0, worst = -1;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
      const double e = get(expected.data(), expected.dtype, i), g = get(got.data(), got.dtype, i);
      const double want = c.exact ? [&] {
        Host one(o.dtype, {1});
        put(one.data(), o.dtype, 0, e);
        return get(one.data(), o.dtype, 0);
      }()
                                  : e;
      double d = std::fabs(g - want);
      if (std::isnan(g) != std::isnan(want)) d = INFINITY;
      else if (std::isnan(g) || g == want) d = 0;
      error += d * d, size += e * e;
      if (d > worst) worst = d, at = i;
    }
    const double rms = std::sqrt(size / double(n)), relative = std::sqrt(error / std::max(size, 1e-300));
    const double bound = c.exact ? 0 : c.tolerance * rounding_of(o.dtype, c.depth);
    if (worst == 0 || (relative <= bound && worst <= 8 * bound * std::max(rms, std::fabs(get(expected.data(), expected.dtype, at))))) return "";
    char text[512];
    std::snprintf(text, sizeof text, "output %zu (%s): relative L2 %.3g, bound %.3g; worst at element %lld: expected %.9g, received %.9g", index,
                  dtype_name(o.dtype), relative, bound, static_cast<long long>(at), get(expected.data(), expected.dtype, at), get(got.data(), got.dtype, at));
    return text;
  }

  Device& device_;
};

}  // namespace

bool add_cases(std::function<void(std::vector<DeviceCase>&)> fill) {
  fillers().push_back(std::move(fill));
  return true;
}

int main(int argc, char** argv) {
  std::string filter, path;
  bool large = false, list = false;
  int every = 1, seen = 0;  // --every N: each Nth case, for tools that slow a kernel down
  for (int i = 1; i < argc; i++) {
    const std::string arg = argv[i];
    if (arg == "--filter" && i + 1 < argc) filter = argv[++i];
    else if (arg == "--every" && i + 1 < argc) every = std::max(1, std::atoi(argv[++i]));
    else if (arg == "--large") large = true;
    else if (arg == "--list") list = true;
    else path = arg;
  }
  if (path.empty()) return std::fprintf(stderr, "usage: device_test <object.so> [--filter text] [--every N] [--large] [--list]\n"), 2;
  std::vector<DeviceCase> cases;
  for (const auto& fill : fillers()) fill(cases);
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return std::fprintf(stderr, "device_test: %s\n", dlerror()), 2;
  const auto entry = reinterpret_cast<DeviceObjectFn>(dlsym(handle, ATTUNE_DEVICE_OBJECT));
  DeviceObject* object = entry ? entry(kDeviceAbi) : nullptr;
  if (!object) return std::fprintf(stderr, "device_test: %s is no device object of this build\n", path.c_str()), 2;
  int passed = 0, failed = 0;
  double seconds = 0;
  try {
    const std::unique_ptr<Device> device = object->open(0);
    Runner runner(*device);
    std::printf("%s, arch %d\n", device->caps().name.c_str(), device->caps().arch);
    for (const DeviceCase& c : cases) {
      const std::string name = c.op + ": " + c.name;
      if ((c.large && !large) || (!filter.empty() && name.find(filter) == std::string::npos) || seen++ % every != 0) continue;
      if (list) {
        std::printf("%s\n", name.c_str());
        continue;
      }
      std::string verdict;
      try {
        verdict = runner.run(c);
      } catch (const Error& e) { verdict = e.code + ": " + e.what(); }
      seconds += runner.seconds;
      verdict.empty() ? passed++ : failed++;
      if (!verdict.empty()) std::printf("FAIL %s\n     %s\n", name.c_str(), verdict.c_str());
      else if (runner.seconds > 1) std::printf("  ok %s (%.1f s)\n", name.c_str(), runner.seconds);
      std::fflush(stdout);
    }
  } catch (const Error& e) { return std::fprintf(stderr, "device_test: %s: %s\n", e.code.c_str(), e.what()), 2; }
  std::printf("%d passed, %d failed (%.1f s in kernels)\n", passed, failed, seconds);
  return failed ? 1 : 0;
}

}  // namespace test
}  // namespace attune

int main(int argc, char** argv) { return attune::test::main(argc, argv); }
