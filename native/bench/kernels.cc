// Speed of the matrix kernels without Node: best time of many short runs, GFLOP/s, and the share of what fused multiply-adds alone reach on as many
// threads (op fma_ceiling), measured before every run: the median of those shares holds still where clock rates do not.
//   kernels [--threads N] [--isa generic|avx2|avx512] [--seconds S per row] [--f64] [regex of rows]
// On one thread the clock is the thread's CPU time, so that other programs on the machine count less.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <regex>
#include <string>
#include <vector>

#include "../core/op.h"

using namespace attune;

struct Options {
  int threads = 1;
  std::string isa, filter;
  double seconds = 0.3;
  DType dtype = DType::f32;
};

double now(int threads) {
  timespec t;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

struct Bench {
  Options options;
  ThreadPool pool;
  Workspace workspace;

  explicit Bench(const Options& o) : options(o), pool(o.threads) {
    std::printf("%d threads, %s, %s\n", o.threads, dtype_name(o.dtype), o.isa.empty() ? native_isa() : o.isa.c_str());
  }

  TensorRef tensor(const std::vector<int64_t>& shape) const {
    TensorRef t;
    t.dtype = options.dtype, t.rank = int(shape.size());
    for (size_t i = 0; i < shape.size(); i++) t.dims[i] = shape[i];
    t.data = std::aligned_alloc(64, (size_t(t.bytes()) + 63) / 64 * 64);
    for (int64_t i = 0; i < t.numel(); i++) {
      const double v = double(i * 7919 % 2001 - 1000) * 1e-3;
      if (t.dtype == DType::f32) t.as<float>()[i] = float(v);
      else t.as<double>()[i] = v;
    }
    return t;
  }
  static void release(std::vector<TensorRef>& tensors) {
    for (TensorRef& t : tensors) std::free(t.data);
  }

  double run(const char* op, const Attrs& attrs, const std::vector<TensorRef>& in, const std::vector<TensorRef>& out) {
    const KernelFn fn = find_kernel("cpu", op, options.isa);
    if (!fn) std::printf("no kernel for %s\n", op), std::exit(1);
    const OpArgs args{attrs, in.data(), int(in.size()), out.data(), int(out.size()), nullptr, pool, workspace};
    const double start = now(options.threads);
    fn(args);
    return now(options.threads) - start;
  }

  /// Flop/s of multiply-adds that never leave the registers, over about half a millisecond.
  double ceiling() {
    constexpr double kIterations = 4000;
    Attrs attrs;
    attrs.set("tasks", 4.0 * options.threads), attrs.set("iterations", kIterations);
    std::vector<TensorRef> out{tensor({1})};
    const double seconds = run("fma_ceiling", attrs, {}, out);
    const double per_iteration = out[0].dtype == DType::f32 ? double(*out[0].as<float>()) : *out[0].as<double>();
    release(out);
    return 4.0 * options.threads * kIterations * per_iteration / seconds;
  }

  /// One row: `shapes` of inputs, then of outputs.
  void row(const std::string& name, const char* op, const Attrs& attrs, const std::vector<std::vector<int64_t>>& in_shapes,
           const std::vector<std::vector<int64_t>>& out_shapes, double flops) {
    if (!std::regex_search(name + " " + op, std::regex(options.filter))) return;
    std::vector<TensorRef> in, out;
    for (const auto& s : in_shapes) in.push_back(tensor(s));
    for (const auto& s : out_shapes) out.push_back(tensor(s));
    double fastest = 1e30, total = 0;
    std::vector<double> shares;
    while (shares.size() < 3 || total < options.seconds) {
      const double peak = ceiling(), seconds = run(op, attrs, in, out);
      total += seconds + 5e-4;
      if (seconds < fastest) fastest = seconds;
      shares.push_back(100 * flops / seconds / peak);
    }
    std::nth_element(shares.begin(), shares.begin() + shares.size() / 2, shares.end());
    std::printf("%-34s %-14s %9.3f ms %8.1f GFLOP/s %5.1f %%\n", name.c_str(), op, fastest * 1e3, flops / fastest * 1e-9, shares[shares.size() / 2]);
    std::fflush(stdout);
    release(in), release(out);
  }

  void linear(int64_t rows, int64_t k, int64_t n) {
    const std::string name = std::to_string(rows) + " x " + std::to_string(k) + " -> " + std::to_string(n);
    const double flops = 2.0 * double(rows) * double(k) * double(n);
    row(name, "linear", {}, {{rows, k}, {n, k}, {n}}, {{rows, n}}, flops);
    row(name, "linear_dx", {}, {{rows, n}, {n, k}}, {{rows, k}}, flops);
    row(name, "linear_dw", {}, {{rows, n}, {rows, k}}, {{n, k}}, flops);
  }
  void conv(int64_t b, int64_t size, int64_t in, int64_t out, int64_t kernel, int64_t stride) {
    const std::string name = std::to_string(b) + "x" + std::to_string(size) + "x" + std::to_string(size) + "x" + std::to_string(in) + " -> " +
                             std::to_string(out) + " k" + std::to_string(kernel) + (stride > 1 ? " s" + std::to_string(stride) : "");
    const double pad = double(kernel / 2);
    const int64_t after = (size + 2 * (kernel / 2) - kernel) / stride + 1;
    Attrs attrs;
    attrs.set("stride", double(stride)), attrs.set("padding", std::vector<double>{pad, pad, pad, pad});
    const std::vector<int64_t> x{b, size, size, in}, w{out, kernel, kernel, in}, y{b, after, after, out};
    const double flops = 2.0 * double(b * after * after * out) * double(kernel * kernel * in);
    row(name, "conv2d", attrs, {x, w, {out}}, {y}, flops);
    row(name, "conv2d_dx", attrs, {y, w}, {x}, flops);
    row(name, "conv2d_dw", attrs, {y, x}, {w}, flops);
  }
  /// FLOPs of the matrix products alone: 2 forward; 5 backward, the recomputed logits included.
  void attention(int64_t b, int64_t n, int64_t m, int64_t heads, int64_t dim) {
    const std::string name = std::to_string(b) + "x" + std::to_string(n) + "x" + std::to_string(m) + " h" + std::to_string(heads) + " d" + std::to_string(dim);
    Attrs attrs;
    attrs.set("heads", double(heads)), attrs.set("causal", false);
    const std::vector<int64_t> q{b, n, heads * dim}, k{b, m, heads * dim}, lse{b, heads, n};
    const double product = 2.0 * double(b * heads * n) * double(m * dim);
    row(name, "attention", attrs, {q, k, k}, {q, lse}, 2 * product);
    row(name, "attention_vjp", attrs, {q, q, k, k, q, lse}, {q, k, k}, 5 * product);
  }
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i++) {
    const std::string a = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (a == "--threads") o.threads = std::atoi(value), i++;
    else if (a == "--isa") o.isa = value, i++;
    else if (a == "--seconds") o.seconds = std::atof(value), i++;
    else if (a == "--f64") o.dtype = DType::f64;
    else o.filter = a;
  }
  return o;
}

int main(int argc, char** argv) {
  Bench bench(parse(argc, argv));
  bench.linear(1024, 1024, 1024);
  bench.linear(8192, 320, 320);
  bench.linear(2048, 1280, 1280);
  bench.linear(154, 768, 320);
  bench.linear(2, 1280, 1280);
  bench.linear(2048, 64, 256);
  bench.conv(32, 16, 3, 32, 3, 1);
  bench.conv(32, 16, 32, 32, 3, 1);
  bench.conv(32, 16, 32, 3, 3, 1);
  bench.conv(32, 16, 32, 32, 3, 2);
  bench.conv(32, 8, 64, 64, 3, 1);
  bench.conv(32, 4, 96, 96, 3, 1);
  bench.conv(32, 16, 96, 32, 1, 1);
  bench.conv(2, 64, 320, 320, 3, 1);
  bench.conv(2, 32, 640, 640, 3, 1);
  bench.conv(2, 16, 1280, 1280, 3, 1);
  bench.conv(2, 8, 1280, 1280, 3, 1);
  bench.attention(32, 64, 64, 4, 16);
  bench.attention(32, 64, 8, 4, 16);
  bench.attention(2, 256, 256, 8, 160);
  bench.attention(2, 1024, 1024, 8, 80);
  bench.attention(2, 4096, 77, 8, 40);
  bench.attention(2, 4096, 4096, 8, 40);
  return 0;
}
