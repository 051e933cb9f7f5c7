// attention and attention_vjp against the full N x M matrix in double. Error model: logits of d terms, a softmax that amplifies an absolute
// logit error e to a relative error 2e, sums over the keys. With inputs in [-1, 1) and scale 1/sqrt(d), logits stay below sqrt(d), so
// (d + sqrt(d) * 4 + M + 40) roundoffs of the sum of absolute terms are enough; 2 more of the same for the gradient's second product.
#include <algorithm>
#include <limits>

#include "kernel_test.h"

using namespace attune;
using namespace attune::test;

struct Case {
  int64_t batch, queries, keys, heads, dim;
  bool causal;
  int mask;  // 0 none, 1 shared, 2 per sample, 3 per sample with -inf on all keys of sample 0
};

constexpr double kInf = std::numeric_limits<double>::infinity();

void check(const Case& c) {
  const int64_t width = c.heads * c.dim;
  const Array q = random_array({c.batch, c.queries, width}, 1), k = random_array({c.batch, c.keys, width}, 2), v = random_array({c.batch, c.keys, width}, 3);
  const Array dy = random_array({c.batch, c.queries, width}, 4);
  Array mask = random_array({c.mask == 1 ? 1 : c.batch, 1, 1, c.keys}, 5);
  for (size_t j = 0; j < mask.values.size(); j++)
    if (c.mask == 3 && int64_t(j) < c.keys) mask.values[j] = -kInf;
    else if (j % 5 == 4) mask.values[j] = -1e4;
  const double scale = double(float(1 / std::sqrt(double(c.dim))));

  Array y{q.shape, std::vector<double>(q.values.size())}, lse{{c.batch, c.heads, c.queries}, std::vector<double>(size_t(c.batch * c.heads * c.queries))};
  std::vector<double> y_size(y.values.size()), lse_size(lse.values.size());
  std::vector<double> dq(q.values.size()), dk(k.values.size()), dv(v.values.size()), dq_size(dq.size()), dk_size(dk.size()), dv_size(dv.size());
  std::vector<double> p(size_t(c.keys)), dp(size_t(c.keys));
  for (int64_t b = 0; b < c.batch; b++)
    for (int64_t h = 0; h < c.heads; h++)
      for (int64_t i = 0; i < c.queries; i++) {
        const size_t qi = size_t((b * c.queries + i) * width + h * c.dim), stat = size_t((b * c.heads + h) * c.queries + i);
        const auto key = [&](int64_t j) { return size_t((b * c.keys + j) * width + h * c.dim); };
        double top = -kInf, sum = 0;
        for (int64_t j = 0; j < c.keys; j++) {
          double s = 0;
          for (int64_t d = 0; d < c.dim; d++) s += q.values[qi + size_t(d)] * k.values[key(j) + size_t(d)];
          p[size_t(j)] = c.causal && j > i ? -kInf : s * scale + (c.mask == 0 ? 0 : mask.values[size_t((c.mask == 1 ? 0 : b) * c.keys + j)]);
          top = std::max(top, p[size_t(j)]);
        }
        for (double& x : p) x = top == -kInf ? 0 : std::exp(x - top), sum += x;
        for (double& x : p) x = sum == 0 ? 0 : x / sum;
        lse.values[stat] = sum == 0 ? -kInf : top + std::log(sum), lse_size[stat] = std::fabs(sum == 0 ? 0 : top) + 2;
        double dot = 0, dot_size = 0;
        for (int64_t j = 0; j < c.keys; j++) {
          dp[size_t(j)] = 0;
          for (int64_t d = 0; d < c.dim; d++) {
            const double gv = dy.values[qi + size_t(d)] * v.values[key(j) + size_t(d)];
            y.values[qi + size_t(d)] += p[size_t(j)] * v.values[key(j) + size_t(d)], y_size[qi + size_t(d)] += p[size_t(j)];
            dp[size_t(j)] += gv, dot_size += p[size_t(j)] * std::fabs(gv);
            dv[key(j) + size_t(d)] += p[size_t(j)] * dy.values[qi + size_t(d)], dv_size[key(j) + size_t(d)] += p[size_t(j)];
          }
          dot += p[size_t(j)] * dp[size_t(j)];
        }
        for (int64_t j = 0; j < c.keys; j++) {
          const double ds = p[size_t(j)] * (dp[size_t(j)] - dot) * scale, ds_size = p[size_t(j)] * (double(c.dim) + dot_size) * scale;
          for (int64_t d = 0; d < c.dim; d++) {
            dq[qi + size_t(d)] += ds * k.values[key(j) + size_t(d)], dq_size[qi + size_t(d)] += ds_size;
            dk[key(j) + size_t(d)] += ds * q.values[qi + size_t(d)], dk_size[key(j) + size_t(d)] += ds_size;
          }
        }
      }
  Attrs attrs;
  attrs.set("heads", double(c.heads)), attrs.set("causal", c.causal), attrs.set("scale", scale);
  char label[128];
  std::snprintf(label, sizeof label, "B%ld N%ld M%ld h%ld d%ld%s mask%d", long(c.batch), long(c.queries), long(c.keys), long(c.heads), long(c.dim),
                c.causal ? " causal" : "", c.mask);
  const double d = double(c.dim), forward = d + 4 * std::sqrt(d) + double(c.keys) + 40;
  const Array* m = c.mask ? &mask : nullptr;
  check_op(label, "attention", attrs, {&q, &k, &v, m}, {q.shape, lse.shape}, {y.values, lse.values}, {y_size, lse_size}, forward);
  check_op(label, "attention_vjp", attrs, {&dy, &q, &k, &v, &y, &lse, m}, {q.shape, k.shape, v.shape}, {dq, dk, dv}, {dq_size, dk_size, dv_size},
           3 * forward + double(c.queries));
}

// Two keys with logits 0 and -x and values 0 and 1: y = e^-x / (1 + e^-x), which shows the exponential itself. It may be off by 1 ulp (2 roundoffs),
// sum, reciprocal and product add 4; below e^-87.3 it may be 0.
void check_exponential() {
  const int64_t count = 5000;
  Array q = random_array({1, count, 1}, 9);
  for (double& x : q.values) x = double(float(44 * (x + 1)));
  const Array k{{1, 2, 1}, {0, -1}}, v{{1, 2, 1}, {0, 1}};
  std::vector<double> y, y_size, lse, lse_size;
  for (double x : q.values) {
    const double e = std::exp(-x);
    y.push_back(e / (1 + e)), y_size.push_back(y.back() + 1.3e-38 / (6 * 0x1p-24));
    lse.push_back(std::log1p(e)), lse_size.push_back(1);
  }
  Attrs attrs;
  attrs.set("heads", 1.0), attrs.set("causal", false), attrs.set("scale", 1.0);
  check_op("exponential", "attention", attrs, {&q, &k, &v}, {q.shape, {1, 1, count}}, {y, lse}, {y_size, lse_size}, 6);
}

int main() {
  check_exponential();
  const Case cases[] = {
      {1, 1, 1, 1, 8, false, 0},    {2, 7, 7, 2, 16, false, 0},     {2, 7, 7, 2, 16, true, 0},    {1, 130, 77, 2, 40, false, 0}, {2, 64, 64, 4, 16, false, 0},
      {1, 200, 300, 1, 8, true, 0}, {1, 300, 200, 1, 8, true, 0},   {3, 5, 77, 2, 24, false, 2},  {2, 9, 130, 1, 160, false, 1}, {2, 33, 33, 2, 20, true, 2},
      {2, 6, 40, 3, 12, false, 3},  {1, 129, 513, 1, 33, false, 0}, {1, 1, 600, 2, 64, false, 1},
  };
  for (const Case& c : cases) check(c);
  return finish("attention_test");
}
