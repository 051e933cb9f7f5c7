// matmul, linear, linear_dx and linear_dw against triple loops in double. Error bound per element: a dot product of K terms, summed in any order, is
// off by at most K * u * sum abs(terms); blocked sums stay below (block + number of blocks), so 384 + K / 384 is used, plus 2 for bias and rounding.
#include "kernel_test.h"

using namespace attune;
using namespace attune::test;

struct Reference {
  std::vector<double> value, magnitude;
};

/// c[i][j] = bias[j] + sum_k a(i, k) b(k, j)
template <typename A, typename B>
Reference product(int64_t m, int64_t n, int64_t k, A a, B b, const double* bias) {
  Reference r{std::vector<double>(size_t(m * n)), std::vector<double>(size_t(m * n))};
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = bias ? bias[j] : 0, size = std::fabs(sum);
      for (int64_t l = 0; l < k; l++) sum += a(i, l) * b(l, j), size += std::fabs(a(i, l) * b(l, j));
      r.value[size_t(i * n + j)] = sum, r.magnitude[size_t(i * n + j)] = size;
    }
  return r;
}

double bound(int64_t k) { return double(k < 384 ? k : 384) + double(k) / 384 + 2; }

void check_matmul(int64_t batch, int64_t m, int64_t n, int64_t k) {
  for (int form = 0; form < 4; form++) {
    const bool ta = form & 1, tb = form & 2;
    const Array a = random_array(ta ? std::vector<int64_t>{batch, k, m} : std::vector<int64_t>{batch, m, k}, 1);
    const Array b = random_array(tb ? std::vector<int64_t>{batch, n, k} : std::vector<int64_t>{batch, k, n}, 2);
    std::vector<double> value, magnitude;
    for (int64_t s = 0; s < batch; s++) {
      const double *pa = a.values.data() + s * m * k, *pb = b.values.data() + s * k * n;
      const Reference r = product(
          m, n, k, [&](int64_t i, int64_t l) { return ta ? pa[l * m + i] : pa[i * k + l]; },
          [&](int64_t l, int64_t j) { return tb ? pb[j * k + l] : pb[l * n + j]; }, nullptr);
      value.insert(value.end(), r.value.begin(), r.value.end()), magnitude.insert(magnitude.end(), r.magnitude.begin(), r.magnitude.end());
    }
    Attrs attrs;
    attrs.set("transposeA", ta), attrs.set("transposeB", tb);
    const std::string label = std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + (ta ? " ta" : "") + (tb ? " tb" : "");
    check_op(label, "matmul", attrs, {&a, &b}, {{batch, m, n}}, {value}, {magnitude}, bound(k));
  }
}

void check_linear(int64_t rows, int64_t n, int64_t k) {
  const Array x = random_array({rows, k}, 3), w = random_array({n, k}, 4), bias = random_array({n}, 5), dy = random_array({rows, n}, 6);
  const auto at = [](const Array& a, int64_t i, int64_t j) { return a.values[size_t(i * a.shape[1] + j)]; };
  const std::string label = std::to_string(rows) + "x" + std::to_string(n) + "x" + std::to_string(k);
  Reference r = product(rows, n, k, [&](int64_t i, int64_t l) { return at(x, i, l); }, [&](int64_t l, int64_t j) { return at(w, j, l); }, bias.values.data());
  check_op(label, "linear", {}, {&x, &w, &bias}, {{rows, n}}, {r.value}, {r.magnitude}, bound(k));
  r = product(rows, n, k, [&](int64_t i, int64_t l) { return at(x, i, l); }, [&](int64_t l, int64_t j) { return at(w, j, l); }, nullptr);
  check_op(label + " no bias", "linear", {}, {&x, &w}, {{rows, n}}, {r.value}, {r.magnitude}, bound(k));
  r = product(rows, k, n, [&](int64_t i, int64_t l) { return at(dy, i, l); }, [&](int64_t l, int64_t j) { return at(w, l, j); }, nullptr);
  check_op(label, "linear_dx", {}, {&dy, &w}, {{rows, k}}, {r.value}, {r.magnitude}, bound(n));
  r = product(n, k, rows, [&](int64_t i, int64_t l) { return at(dy, l, i); }, [&](int64_t l, int64_t j) { return at(x, l, j); }, nullptr);
  check_op(label, "linear_dw", {}, {&dy, &x}, {{n, k}}, {r.value}, {r.magnitude}, bound(rows) + 32);
}

int main() {
  const int64_t products[][4] = {{1, 1, 1, 1},    {2, 3, 5, 7},     {3, 8, 48, 16},    {1, 9, 49, 257},
                                 {2, 17, 64, 33}, {1, 65, 97, 300}, {1, 130, 3, 1030}, {1, 5, 400, 12}};
  for (const auto& p : products) check_matmul(p[0], p[1], p[2], p[3]);
  const int64_t layers[][3] = {{1, 1, 1}, {2, 96, 32}, {1, 130, 300}, {4100, 5, 9}, {600, 40, 33}, {37, 500, 270}, {1030, 390, 17}, {1000, 400, 17}};
  for (const auto& l : layers) check_linear(l[0], l[1], l[2]);
  return finish("gemm_test");
}
