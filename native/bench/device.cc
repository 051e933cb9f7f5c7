// Speed of a device's kernels at the sizes of SD 1.5 and SDXL: median time of graph replays, TFLOP/s and GB/s, and the share of ceilings measured in the same
// run: tensor cores that multiply registers (op mma_ceiling), multiply-adds (fma_ceiling), and a copy of a large buffer.
//   device [--backend cuda|simt] [--filter text] [--json file] [--small]
// `--small` runs every row at a fraction of its size, so that the program itself can be proved without a GPU.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "../core/device_object.h"
#include "../core/error.h"

namespace attune {
namespace bench {
namespace {

using Shape = std::vector<int64_t>;

struct Operand {
  DType dtype;
  Shape shape;
  int over = -1;  // an output that lies on this input
};

struct Row {
  std::string name, op;
  Attrs attrs;
  std::vector<Operand> in, out;
  double flops = 0;  // 0: judged by bytes alone
  enum Ceiling { tensor, fma, memory } ceiling = memory;
};

struct Result {
  Row row;
  double seconds = 0, bytes = 0, share = 0;
};

Attrs attrs(std::initializer_list<std::pair<const char*, Attrs::Value>> items) {
  Attrs a;
  for (const auto& [key, value] : items) a.set(key, value);
  return a;
}

int64_t numel(const Shape& s) {
  int64_t n = 1;
  for (const int64_t d : s) n *= d;
  return n;
}

/// One device with operands allocated for a row at a time.
class Bench {
 public:
  Bench(const std::string& backend, bool small) : device_(open_device(backend, 0)), small_(small) {
    scalars_ = static_cast<double*>(device_->allocate(64));
    const double ones[8] = {1e-4, 0.1, 0.1, 1, 1, 0, 0, 0};
    device_->upload(scalars_, ones, sizeof ones);
    fault_ = static_cast<int32_t*>(device_->allocate(sizeof(Fault)));
    device_->synchronize();
  }
  ~Bench() {
    device_->release(scalars_);
    device_->release(fault_);
  }
  Device& device() { return *device_; }

  /// Median seconds of one execution.
  double time(const Row& row) {
    std::vector<void*> memory;
    const auto make = [&](const Operand& o) {
      TensorRef t;
      t.dtype = o.dtype, t.rank = int(o.shape.size());
      for (size_t i = 0; i < o.shape.size(); i++) t.dims[i] = o.shape[i];
      memory.push_back(device_->allocate(t.bytes()));
      t.data = memory.back();
      fill(t);
      return t;
    };
    std::vector<TensorRef> in, out;
    for (const Operand& o : row.in) in.push_back(make(o));
    for (const Operand& o : row.out) out.push_back(o.over >= 0 ? in[size_t(o.over)] : make(o));
    DeviceCall call{row.attrs, in.data(), int(in.size()), out.data(), int(out.size())};
    call.scalars = scalars_, call.fault = fault_, call.dry = true;
    call.workspace_bytes = device_->run(row.op, call);
    call.dry = false;
    memory.push_back(call.workspace = device_->allocate(call.workspace_bytes));
    device_->run(row.op, call);
    device_->synchronize();
    const double once = repeated(row, call, 1);
    const int repeats = small_ ? 1 : int(std::clamp(2e-3 / std::max(once, 1e-7), 1.0, 200.0));
    std::vector<double> seconds;
    for (int i = 0; i < (small_ ? 1 : 9); i++) seconds.push_back(repeated(row, call, repeats));
    for (void* m : memory) device_->release(m);
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  }

  /// Bytes a second of a copy on the device, read and written counted.
  double copy_bandwidth(int64_t bytes) {
    void *from = device_->allocate(bytes), *to = device_->allocate(bytes);
    double best = 0;
    for (int i = 0; i < 8; i++) {
      device_->mark(0);
      for (int k = 0; k < 4; k++) device_->copy(to, from, bytes);
      device_->mark(1);
      device_->synchronize();
      best = std::max(best, 8.0 * double(bytes) / std::max(device_->seconds(0, 1), 1e-12));
    }
    device_->release(from), device_->release(to);
    return best;
  }

 private:
  double repeated(const Row& row, const DeviceCall& call, int repeats) {
    const auto graph = device_->capture([&] {
      for (int i = 0; i < repeats; i++) device_->run(row.op, call);
    });
    device_->mark(0);
    graph->launch();
    device_->mark(1);
    device_->synchronize();
    return device_->seconds(0, 1) / repeats;
  }

  /// Random bits of small numbers: power, and with it the clock, depends on the data.
  void fill(const TensorRef& t) {
    std::vector<char> host(size_t(std::min<int64_t>(t.bytes(), 64 << 20)));
    uint64_t state = 88172645463325252ull;
    const int64_t width = int64_t(dtype_size(t.dtype));
    for (int64_t i = 0; i < int64_t(host.size()) / width; i++) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      const float v = float(int64_t(state >> 40) - (1 << 23)) / float(1 << 23);
      uint32_t bits;
      std::memcpy(&bits, &v, 4);
      char* at = host.data() + i * width;
      if (t.dtype == DType::bf16) *reinterpret_cast<uint16_t*>(at) = uint16_t(bits >> 16);
      else if (t.dtype == DType::f32) *reinterpret_cast<float*>(at) = v;
      else if (t.dtype == DType::f64) *reinterpret_cast<double*>(at) = double(v);
      else if (t.dtype == DType::i32) *reinterpret_cast<int32_t*>(at) = int32_t(state >> 56);
    }
    for (int64_t at = 0; at < t.bytes(); at += int64_t(host.size())) {
      device_->upload(static_cast<char*>(t.data) + at, host.data(), std::min<int64_t>(t.bytes() - at, int64_t(host.size())));
      device_->synchronize();
    }
  }

  std::unique_ptr<Device> device_;
  const bool small_;
  double* scalars_ = nullptr;
  int32_t* fault_ = nullptr;
};

constexpr DType kB = DType::bf16, kF = DType::f32;

void add_products(std::vector<Row>& rows, int64_t batch) {
  const auto linear = [&](const std::string& name, int64_t m, int64_t n, int64_t k) {
    const double flops = 2.0 * double(m) * double(n) * double(k);
    rows.push_back({"linear " + name, "linear", {}, {{kB, {m, k}}, {kB, {n, k}}, {kF, {n}}}, {{kB, {m, n}}}, flops, Row::tensor});
    rows.push_back({"linear " + name + ", d input", "linear_dx", {}, {{kB, {m, n}}, {kB, {n, k}}}, {{kB, {m, k}}}, flops, Row::tensor});
    rows.push_back({"linear " + name + ", d weight", "linear_dw", {}, {{kB, {m, n}}, {kB, {m, k}}}, {{kF, {n, k}}}, flops, Row::tensor});
  };
  linear("4096x4096x4096", 4096, 4096, 4096);
  linear("8192x8192x8192", 8192, 8192, 8192);
  linear("to_q 64^2 x 320", batch * 4096, 320, 320);
  linear("to_q 32^2 x 640", batch * 1024, 640, 640);
  linear("to_q 16^2 x 1280", batch * 256, 1280, 1280);
  linear("ff1 64^2 x 320", batch * 4096, 2560, 320);
  linear("ff2 64^2 x 320", batch * 4096, 320, 1280);
  linear("ff1 32^2 x 640", batch * 1024, 5120, 640);
}

void add_convolutions(std::vector<Row>& rows, int64_t batch) {
  const auto conv = [&](int64_t size, int64_t in, int64_t out, int64_t k, int64_t stride) {
    const int64_t to = size / stride;
    const double flops = 2.0 * double(batch * to * to) * double(out) * double(k * k * in), pad = double((k - 1) / 2);
    const Attrs a = attrs({{"stride", double(stride)}, {"padding", std::vector<double>{pad, pad, pad, pad}}});
    const std::string name = std::to_string(k) + "x" + std::to_string(k) + (stride > 1 ? " s2 " : " ") + std::to_string(size) + "^2 " + std::to_string(in) +
                             " to " + std::to_string(out);
    const Operand x{kB, {batch, size, size, in}}, y{kB, {batch, to, to, out}}, w{kB, {out, k, k, in}}, dw{kF, {out, k, k, in}};
    rows.push_back({"conv " + name, "conv2d", a, {x, w, {kF, {out}}}, {y}, flops, Row::tensor});
    rows.push_back({"conv " + name + ", d input", "conv2d_dx", a, {y, w}, {x}, flops, Row::tensor});
    rows.push_back({"conv " + name + ", d weight", "conv2d_dw", a, {y, x}, {dw}, flops, Row::tensor});
  };
  conv(64, 320, 320, 3, 1), conv(32, 640, 640, 3, 1), conv(16, 1280, 1280, 3, 1), conv(8, 1280, 1280, 3, 1), conv(8, 2560, 1280, 3, 1);
  conv(64, 640, 320, 3, 1), conv(64, 320, 320, 3, 2), conv(64, 4, 320, 3, 1), conv(64, 320, 4, 3, 1), conv(64, 960, 320, 1, 1);
}

void add_attention(std::vector<Row>& rows, int64_t batch) {
  const auto attention = [&](const std::string& name, int64_t n, int64_t m, int64_t heads, int64_t d) {
    const double flops = 4.0 * double(batch * heads) * double(n) * double(m) * double(d);
    const Attrs a = attrs({{"heads", double(heads)}, {"causal", false}, {"scale", 1 / std::sqrt(double(d))}});
    const Operand q{kB, {batch, n, heads * d}}, k{kB, {batch, m, heads * d}}, lse{kF, {batch, heads, n}};
    rows.push_back({"attention " + name, "attention", a, {q, k, k}, {q, lse}, flops, Row::tensor});
    rows.push_back({"attention " + name + ", backward", "attention_vjp", a, {q, q, k, k, q, lse}, {q, k, k}, 2.5 * flops, Row::tensor});
  };
  attention("self 4096, 8 x 40", 4096, 4096, 8, 40), attention("self 1024, 8 x 80", 1024, 1024, 8, 80), attention("self 256, 8 x 160", 256, 256, 8, 160);
  attention("cross 4096 to 77, 8 x 40", 4096, 77, 8, 40), attention("cross 1024 to 77, 8 x 80", 1024, 77, 8, 80),
      attention("SDXL self 4096, 10 x 64", 4096, 4096, 10, 64);
  attention("self 4096, 8 x 128", 4096, 4096, 8, 128);
}

void add_memory_bound(std::vector<Row>& rows, int64_t batch) {
  const auto group_norm = [&](int64_t size, int64_t c) {
    const Attrs a = attrs({{"groups", 32.0}, {"eps", 1e-5}, {"silu", true}});
    const Operand x{kB, {batch, size, size, c}}, p{kF, {c}}, s{kF, {batch, 32}};
    const std::string name = "group norm + SiLU " + std::to_string(size) + "^2 x " + std::to_string(c);
    rows.push_back({name, "group_norm", a, {x, p, p}, {x, s, s}});
    rows.push_back({name + ", backward", "group_norm_vjp", a, {x, x, p, p, s, s}, {x, p, p}});
  };
  group_norm(64, 320), group_norm(32, 640), group_norm(16, 1280), group_norm(64, 960);
  const Operand t{kB, {batch, 4096, 320}}, p{kF, {320}}, s{kF, {batch, 4096}};
  rows.push_back({"layer norm 64^2 x 320", "layer_norm", attrs({{"eps", 1e-5}}), {t, p, p}, {t, s, s}});
  rows.push_back({"layer norm 64^2 x 320, backward", "layer_norm_vjp", attrs({{"eps", 1e-5}}), {t, t, p, s, s}, {t, p, p}});
  const Operand wide{kB, {batch, 4096, 2560}}, half{kB, {batch, 4096, 1280}};
  rows.push_back({"geglu 64^2 x 1280", "geglu", {}, {wide}, {half}});
  rows.push_back({"geglu 64^2 x 1280, backward", "geglu_vjp", {}, {half, wide}, {wide}});
  rows.push_back({"add 64^2 x 320", "add", {}, {t, t}, {t}});
  rows.push_back({"upsample 32^2 x 640", "upsample_nearest", {}, {{kB, {batch, 32, 32, 640}}}, {{kB, {batch, 64, 64, 640}}}});
  const int64_t parameters = 100 * 1000 * 1000;
  const Operand f{kF, {parameters}};
  const Attrs adam = attrs({{"beta1", 0.9}, {"beta2", 0.999}, {"eps", 1e-8}, {"weightDecay", 0.01}, {"lr", 0.0}, {"correction1", 1.0}, {"correction2", 2.0}});
  rows.push_back({"AdamW 100 M parameters", "adamw", adam, {f, f, f, f}, {{kF, {parameters}, 0}, {kF, {parameters}, 2}, {kF, {parameters}, 3}}});
  rows.push_back({"sum of squares, 100 M", "sum_squares", {}, {f}, {{DType::f64, {1}}}});
  rows.push_back({"accumulate 100 M", "accumulate", {}, {f, f}, {{kF, {parameters}, 0}}});
  const Attrs random = attrs({{"seed", 3.0}, {"step", 4.0}, {"offset", 5.0}, {"stream", 1.0}});
  rows.push_back({"normal noise 64x4x128x128", "random_normal", random, {}, {{kF, {64, 128, 128, 4}}}});
  const Operand maps{kF, {128, 128, 128, 4}}, sums{DType::f64, {128, 1}};
  const Attrs one = attrs({{"segments", 1.0}});
  rows.push_back({"preference sums 64 pairs 4x128x128", "pair_sums", one, {maps, maps, maps}, {sums, sums, sums, sums}});
  rows.push_back({"preference gradient 64 pairs 4x128x128", "pair_sums_vjp", one, {sums, sums, sums, sums, maps, maps, maps}, {maps}});
}

/// The same row at a fraction of its size: dimensions above 64 are divided, kept multiples of 8.
void shrink(Row& row, int64_t by) {
  double ratio = 1;
  for (auto* list : {&row.in, &row.out})
    for (Operand& o : *list) {
      const double before = double(numel(o.shape));
      for (size_t i = 0; i + 1 < o.shape.size() || (o.shape.size() == 1 && i == 0); i++)
        if (o.shape[i] >= 64 * by) o.shape[i] = std::max<int64_t>(8, o.shape[i] / by / 8 * 8);
      ratio = std::min(ratio, double(numel(o.shape)) / before);
    }
  row.flops *= ratio;
}

double bytes_of(const Row& row) {
  double bytes = 0;
  for (const Operand& o : row.in) bytes += double(numel(o.shape)) * double(dtype_size(o.dtype));
  for (const Operand& o : row.out) bytes += double(numel(o.shape)) * double(dtype_size(o.dtype));
  return bytes;
}

/// Flop/s of a loop that never leaves the registers; 0 where the device has no such op.
double ceiling(Bench& bench, const char* op, bool small) {
  if (!bench.device().has(op)) return 0;
  const double blocks = small ? 1 : bench.device().caps().multiprocessors * 8, iterations = small ? 2 : 4096;
  const double seconds = bench.time({op, op, attrs({{"tasks", blocks}, {"iterations", iterations}}), {}, {{kF, {1}}}});
  return blocks * iterations * (std::string(op) == "fma_ceiling" ? 256 * 16 : 8 * 4 * 4096) / std::max(seconds, 1e-12);
}

int main(int argc, char** argv) {
  std::string backend = "cuda", filter, json;
  bool small = false;
  for (int i = 1; i < argc; i++) {
    const std::string arg = argv[i];
    if (arg == "--backend" && i + 1 < argc) backend = argv[++i];
    else if (arg == "--filter" && i + 1 < argc) filter = argv[++i];
    else if (arg == "--json" && i + 1 < argc) json = argv[++i];
    else if (arg == "--small") small = true;
    else return std::fprintf(stderr, "usage: device [--backend cuda|simt] [--filter text] [--json file] [--small]\n"), 2;
  }
  Bench bench(backend, small);
  const double copy = bench.copy_bandwidth(small ? 1 << 20 : int64_t(1) << 30), tensor = ceiling(bench, "mma_ceiling", small),
               fma = ceiling(bench, "fma_ceiling", small);
  const DeviceCaps& caps = bench.device().caps();
  std::printf("%s, %d multiprocessors: copy %.2f TB/s, mma.sync %.0f TFLOP/s, f32 multiply-add %.0f TFLOP/s\n", caps.name.c_str(), caps.multiprocessors,
              copy * 1e-12, tensor * 1e-12, fma * 1e-12);
  std::vector<Row> rows;
  const int64_t batch = small ? 1 : 16;  // 8 pairs
  add_products(rows, batch), add_convolutions(rows, batch), add_attention(rows, batch), add_memory_bound(rows, batch);
  std::vector<Result> results;
  for (Row& row : rows) {
    if (row.name.find(filter) == std::string::npos) continue;
    if (small) shrink(row, 64);
    if (!bench.device().has(row.op)) {
      std::printf("%-44s no kernel\n", row.name.c_str());
      continue;
    }
    Result r{row, bench.time(row), bytes_of(row), 0};
    const double top = row.ceiling == Row::memory ? copy : row.ceiling == Row::tensor ? tensor : fma;
    r.share = (row.ceiling == Row::memory ? r.bytes : row.flops) / std::max(r.seconds, 1e-12) / std::max(top, 1.0);
    std::printf("%-44s %10.1f us %8.1f TFLOP/s %8.1f GB/s %6.1f %% of %s\n", row.name.c_str(), r.seconds * 1e6, row.flops / r.seconds * 1e-12,
                r.bytes / r.seconds * 1e-9, 100 * r.share,
                row.ceiling == Row::memory   ? "copy"
                : row.ceiling == Row::tensor ? "mma.sync"
                                             : "multiply-add");
    std::fflush(stdout);
    results.push_back(r);
  }
  if (json.empty()) return 0;
  std::ofstream file(json);
  file << "{\"device\": \"" << caps.name << "\", \"arch\": " << caps.arch << ", \"multiprocessors\": " << caps.multiprocessors
       << ",\n \"copyBytesPerSecond\": " << copy << ", \"mmaFlopsPerSecond\": " << tensor << ", \"fmaFlopsPerSecond\": " << fma << ",\n \"rows\": [\n";
  for (size_t i = 0; i < results.size(); i++) {
    const Result& r = results[i];
    file << "  {\"name\": \"" << r.row.name << "\", \"op\": \"" << r.row.op << "\", \"microseconds\": " << r.seconds * 1e6 << ", \"flops\": " << r.row.flops
         << ", \"bytes\": " << r.bytes << ", \"share\": " << r.share << "}" << (i + 1 < results.size() ? ",\n" : "\n");
  }
  file << " ]}\n";
  return file.good() ? 0 : 1;
}

}  // namespace
}  // namespace bench
}  // namespace attune

int main(int argc, char** argv) {
  try {
    return attune::bench::main(argc, argv);
  } catch (const attune::Error& e) { return std::fprintf(stderr, "device: %s: %s\n", e.code.c_str(), e.what()), 1; }
}
