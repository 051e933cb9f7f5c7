// Reductions, moves of elements, resampling and lookups against index arithmetic. Gradient ops are transposes: <dy, A x> = <A' dy, x>.
#include "call.h"

using namespace attune;
using namespace attune::test;
using Shape = std::vector<int64_t>;

Tensor numbers(DType t, const Shape& shape, uint64_t seed) {
  Tensor x(t, shape, 0.0);
  const auto v = gaussian(x.numel(), seed);
  for (int64_t i = 0; i < x.numel(); i++) x.set(i, v[size_t(i)]);
  return x;
}

std::vector<int64_t> coordinates(int64_t i, const Shape& shape) {
  std::vector<int64_t> c(shape.size());
  for (size_t k = shape.size(); k-- > 0;) c[k] = i % shape[k], i /= shape[k];
  return c;
}
int64_t index_of(const std::vector<int64_t>& c, const Shape& shape) {
  int64_t i = 0;
  for (size_t k = 0; k < shape.size(); k++) i = i * shape[k] + (shape[k] == 1 ? 0 : c[k]);
  return i;
}
std::string text(const Shape& shape) {
  std::string s = "[";
  for (const int64_t d : shape) s += std::to_string(d) + " ";
  return s + "]";
}

void reductions() {
  const std::vector<std::pair<Shape, std::vector<double>>> cases = {{{5}, {0}},
                                                                    {{100000}, {0}},
                                                                    {{3, 70000}, {1}},
                                                                    {{70000, 3}, {0}},
                                                                    {{2, 33, 35, 64}, {1, 2}},
                                                                    {{4, 9, 5, 7}, {0, 2}},
                                                                    {{4, 9, 5, 7}, {1, 3}},
                                                                    {{4, 9, 5, 7}, {}},
                                                                    {{1, 1, 1}, {0, 1, 2}},
                                                                    {{2, 300, 4, 200}, {1, 3}},
                                                                    {{6000, 4}, {1}},
                                                                    {{2, 3, 2, 3, 2, 3}, {0, 2, 4}},
                                                                    {{2, 40, 40, 300}, {1, 2}}};
  for (const auto& [shape, axes] : cases) {
    Shape out = shape;
    for (const double a : axes) out[size_t(a)] = 1;
    for (const DType t : {DType::f32, DType::f64}) {
      Tensor x = numbers(t, shape, 1), y(t, out);
      std::vector<double> sums(size_t(y.numel()), 0), sizes(sums), most(size_t(y.numel()), -HUGE_VAL);
      for (int64_t i = 0; i < x.numel(); i++) {
        const size_t o = size_t(index_of(coordinates(i, shape), out));
        sums[o] += x.get(i), sizes[o] += std::fabs(x.get(i)), most[o] = std::fmax(most[o], x.get(i));
      }
      // both sums are in double, in different orders; then one rounding to T
      std::vector<double> bound(sums);
      const double terms = double(x.numel() / y.numel());
      for (size_t i = 0; i < bound.size(); i++) bound[i] = terms * 0x1p-52 * sizes[i] + roundoff(t) * std::fabs(sums[i]);
      const Attrs attrs = attributes({{"axes", axes}});
      for (const auto& [isa, fn] : kernels_of("sum")) {
        run_on_threads("sum " + isa + text(shape), fn, attrs, {&x}, {&y});
        expect_within("sum " + isa + text(shape), y.values(), sums, bound);
      }
      for (const auto& [isa, fn] : kernels_of("max")) {
        run_on_threads("max " + isa + text(shape), fn, attrs, {&x}, {&y});
        expect(y.values() == most, "max " + isa + text(shape));
      }
      for (const auto& [isa, fn] : kernels_of("broadcast")) {
        Tensor small(t, out, most), big(t, shape);
        run_on_threads("broadcast " + isa + text(shape), fn, {}, {&small}, {&big});
        for (int64_t i = 0; i < big.numel(); i++)
          if (big.get(i) != small.get(index_of(coordinates(i, shape), out))) return expect(false, "broadcast " + isa + " to " + text(shape));
      }
    }
  }
}

void flat_sums() {
  for (const Shape& shape : {Shape{7}, Shape{3, 5, 33}, Shape{20000, 6}, Shape{300, 700}})
    for (const DType t : {DType::f32, DType::f64}) {
      Tensor x = numbers(t, shape, 2), rows(t, {shape.back()}), square(DType::f64, {1});
      std::vector<double> sums(size_t(shape.back()), 0), bound(sums);
      double squares = 0;
      for (int64_t i = 0; i < x.numel(); i++)
        sums[size_t(i % shape.back())] += x.get(i), bound[size_t(i % shape.back())] += std::fabs(x.get(i)), squares += x.get(i) * x.get(i);
      for (size_t i = 0; i < bound.size(); i++) bound[i] = double(x.numel()) * 0x1p-52 * bound[i] + roundoff(t) * std::fabs(sums[i]);
      for (const auto& [isa, fn] : kernels_of("sum_rows")) {
        run_on_threads("sum_rows " + isa, fn, {}, {&x}, {&rows});
        expect_within("sum_rows " + isa + text(shape), rows.values(), sums, bound);
      }
      for (const auto& [isa, fn] : kernels_of("sum_squares")) {
        run_on_threads("sum_squares " + isa, fn, {}, {&x}, {&square});
        expect_within("sum_squares " + isa + text(shape), square.values(), {squares}, {double(x.numel()) * 0x1p-52 * squares});
      }
    }
}

/// to[i] of the kernel must be from[source(coordinates of i)], or 0 where that is negative.
template <typename Source>
void check_move(const std::string& what, KernelFn fn, const Attrs& attrs, Tensor& x, const Shape& out, Source source) {
  Tensor y(x.dtype, out);
  run_on_threads(what, fn, attrs, {&x}, {&y});
  for (int64_t i = 0; i < y.numel(); i++) {
    const int64_t from = source(coordinates(i, out));
    if (y.get(i) != (from < 0 ? 0 : x.get(from))) return expect(false, what + text(x.shape) + ": element " + std::to_string(i));
  }
}

void moves() {
  for (const DType t : {DType::f32, DType::f64, DType::i32, DType::bf16, DType::u8})
    for (const Shape& shape : {Shape{3, 4, 50, 6}, Shape{2, 33, 65}, Shape{40000}, Shape{5, 7000}}) {
      Tensor x(t, shape, 0.0);
      for (int64_t i = 0; i < x.numel(); i++) x.set(i, double(i * 7919 % 251));
      for (size_t axis = 0; axis < shape.size(); axis++) {
        Shape part = shape, wide = shape;
        part[axis] = (shape[axis] + 1) / 2, wide[axis] += 3;
        const int64_t start = shape[axis] - part[axis];
        for (const auto& [isa, fn] : kernels_of("slice"))
          check_move("slice " + isa, fn, attributes({{"axis", double(axis)}, {"start", double(start)}}), x, part,
                     [&](std::vector<int64_t> c) { return c[axis] += start, index_of(c, shape); });
        for (const auto& [isa, fn] : kernels_of("pad"))
          check_move("pad " + isa, fn, attributes({{"axis", double(axis)}, {"before", 2.0}}), x, wide,
                     [&](std::vector<int64_t> c) { return c[axis] -= 2, c[axis] < 0 || c[axis] >= shape[axis] ? -1 : index_of(c, shape); });
        for (const auto& [isa, fn] : kernels_of("concat")) {
          Tensor y(t, part, 1.0), z(t, [&] {
            Shape s = shape;
            return s[axis] += part[axis], s;
          }());
          run_on_threads("concat " + isa, fn, attributes({{"axis", double(axis)}}), {&x, &y}, {&z});
          for (int64_t i = 0; i < z.numel(); i++) {
            const auto c = coordinates(i, z.shape);
            if (z.get(i) != (c[axis] < shape[axis] ? x.get(index_of(c, shape)) : 1)) return expect(false, "concat " + isa + text(shape));
          }
        }
      }
      std::vector<size_t> order(shape.size());
      for (size_t i = 0; i < order.size(); i++) order[i] = i;
      for (size_t round = 0; round < 24; round++) {  // neighbours swapped in turn reach all permutations of four axes
        if (round > 0 && shape.size() > 1) std::swap(order[round % (shape.size() - 1)], order[round % (shape.size() - 1) + 1]);
        Shape out;
        std::vector<double> permutation;
        for (const size_t axis : order) out.push_back(shape[axis]), permutation.push_back(double(axis));
        for (const auto& [isa, fn] : kernels_of("transpose"))
          check_move("transpose " + isa, fn, attributes({{"permutation", permutation}}), x, out, [&](const std::vector<int64_t>& c) {
            std::vector<int64_t> from(c.size());
            for (size_t i = 0; i < c.size(); i++) from[order[i]] = c[i];
            return index_of(from, shape);
          });
      }
      for (const char* op : {"reshape", "stop_gradient"})
        for (const auto& [isa, fn] : kernels_of(op))
          check_move(op + (" " + isa), fn, {}, x, shape, [&](const std::vector<int64_t>& c) { return index_of(c, shape); });
    }
}

double dot(const Tensor& a, const Tensor& b) {
  double s = 0;
  for (int64_t i = 0; i < a.numel(); i++) s += a.get(i) * b.get(i);
  return s;
}

void upsampling() {
  for (const auto& [in, out] : std::vector<std::pair<Shape, Shape>>{
           {{2, 3, 4, 5}, {2, 6, 8, 5}}, {{1, 5, 7, 3}, {1, 12, 10, 3}}, {{1, 6, 6, 70}, {1, 4, 9, 70}}, {{2, 30, 30, 64}, {2, 60, 60, 64}}})
    for (const DType t : {DType::f32, DType::f64})
      for (const auto& [isa, fn] : kernels_of("upsample_nearest")) {
        Tensor x = numbers(t, in, 3), y(t, out), dy = numbers(t, out, 4), dx(t, in);
        check_move("upsample_nearest " + isa, fn, {}, x, out,
                   [&in = in, &out = out](std::vector<int64_t> c) { return c[1] = c[1] * in[1] / out[1], c[2] = c[2] * in[2] / out[2], index_of(c, in); });
        run(fn, {}, {&x}, {&y});
        run_on_threads("upsample_nearest_vjp " + isa, find_kernel("cpu", "upsample_nearest_vjp", isa), {}, {&dy}, {&dx});
        expect(std::fabs(dot(dy, y) - dot(dx, x)) <= 8 * roundoff(t) * double(dy.numel()),
               "upsample_nearest_vjp " + isa + " is not the transpose, " + text(in));
      }
}

void pooling() {
  const struct {
    Shape in;
    int64_t kernel, stride;
  } cases[] = {{{2, 8, 6, 5}, 2, 2}, {{1, 7, 9, 33}, 2, 2}, {{1, 9, 9, 4}, 3, 2}, {{1, 9, 8, 4}, 3, 1}, {{1, 11, 11, 4}, 2, 3}, {{2, 64, 64, 16}, 2, 2}};
  for (const auto& c : cases) {
    const Shape out = {c.in[0], (c.in[1] - c.kernel) / c.stride + 1, (c.in[2] - c.kernel) / c.stride + 1, c.in[3]};
    const Attrs attrs = attributes({{"kernel", double(c.kernel)}, {"stride", double(c.stride)}});
    for (const DType t : {DType::f32, DType::f64})
      for (const auto& [isa, fn] : kernels_of("avg_pool2d")) {
        Tensor x = numbers(t, c.in, 3), y(t, out), dy = numbers(t, out, 4), dx(t, c.in);
        run_on_threads("avg_pool2d " + isa, fn, attrs, {&x}, {&y});
        for (int64_t i = 0; i < y.numel(); i++) {
          const auto at = coordinates(i, out);
          double sum = 0;
          for (int64_t a = 0; a < c.kernel; a++)
            for (int64_t b = 0; b < c.kernel; b++) sum += x.get(index_of({at[0], at[1] * c.stride + a, at[2] * c.stride + b, at[3]}, c.in));
          if (std::fabs(y.get(i) - sum / double(c.kernel * c.kernel)) > 16 * roundoff(t)) return expect(false, "avg_pool2d " + isa + text(c.in));
        }
        run_on_threads("avg_pool2d_vjp " + isa, find_kernel("cpu", "avg_pool2d_vjp", isa), attrs, {&dy}, {&dx});
        expect(std::fabs(dot(dy, y) - dot(dx, x)) <= 8 * roundoff(t) * double(dy.numel()), "avg_pool2d_vjp " + isa + " is not the transpose, " + text(c.in));
      }
  }
}

void embeddings() {
  for (const auto& [isa, fn] : kernels_of("embedding")) {
    const KernelFn backward = find_kernel("cpu", "embedding_vjp", isa);
    for (const DType t : {DType::f32, DType::f64}) {
      Tensor table = numbers(t, {40, 700}, 5), ids(DType::i32, {3, 50}, 0.0), y(t, {3, 50, 700}), dy = numbers(t, {3, 50, 700}, 6), dtable(t, {40, 700}),
             expected(t, {40, 700}, 0.0);
      for (int64_t i = 0; i < 150; i++) ids.set(i, double(i * i % 37));
      run_on_threads("embedding " + isa, fn, {}, {&table, &ids}, {&y});
      run_on_threads("embedding_vjp " + isa, backward, {}, {&dy, &ids}, {&dtable});
      for (int64_t i = 0; i < y.numel(); i++) {
        const int64_t row = int64_t(ids.get(i / 700)) * 700 + i % 700;
        if (y.get(i) != table.get(row)) return expect(false, "embedding " + isa);
        expected.set(row, expected.get(row) + dy.get(i));
      }
      expect(dtable.same_bits(expected), "embedding_vjp " + isa + " adds in the order of ids");
      for (const double bad : {-1.0, 40.0}) {
        ids.set(7, bad);
        std::string message;
        try {
          run(fn, {}, {&table, &ids}, {&y});
        } catch (const Error& e) { message = e.code + " " + e.what(); }
        expect(message.find("ERR_DATA") == 0 && message.find(std::to_string(int(bad))) != std::string::npos,
               "embedding " + isa + " names an id out of range, said: " + message);
      }
    }
  }
}

/// The formula in double; an angle is a float32 product of a float32 frequency, so it is off by at most two roundings of itself, plus the exponent's.
void timestep_embeddings() {
  for (const auto& [isa, fn] : kernels_of("timestep_embedding"))
    for (const DType t : {DType::f32, DType::f64})
      for (const int64_t dim : {320, 7})
        for (const bool flip : {true, false}) {
          const int64_t half = dim / 2;
          Tensor steps(DType::i32, {5}, std::vector<double>{0, 1, 17, 500, 999}), y(t, {5, dim});
          run_on_threads("timestep_embedding " + isa, fn,
                         attributes({{"dim", double(dim)}, {"flipSinToCos", flip}, {"shift", flip ? 0.0 : 1.0}, {"maxPeriod", 10000.0}}), {&steps}, {&y});
          for (int64_t b = 0; b < 5; b++)
            for (int64_t i = 0; i < dim; i++) {
              const double exponent = -std::log(10000.0) * double(i % half) / (double(half) - (flip ? 0 : 1)), angle = steps.get(b) * std::exp(exponent);
              const bool sine = (i < half) != flip;
              const double expected = i == 2 * half ? 0 : sine ? std::sin(angle) : std::cos(angle);
              const double bound = angle * 0x1p-24 * (2 + 3 * std::fabs(exponent)) + roundoff(t);
              if (!(std::fabs(y.get(b * dim + i) - expected) <= bound))
                return expect(false, "timestep_embedding " + isa + " of " + std::to_string(steps.get(b)) + ", element " + std::to_string(i));
            }
        }
}

int main() {
  reductions();
  flat_sums();
  moves();
  upsampling();
  pooling();
  embeddings();
  timestep_embeddings();
  return finish("shape");
}
