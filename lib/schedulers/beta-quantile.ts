/** The quantile function of the Beta(0.6, 0.6) distribution, by which "Beta Sampling is All You Need" (Lee et al. 2024, arXiv:2407.12173) spaces noise levels. */

const shape = 0.6;
/** B(0.6, 0.6) = Gamma(0.6)^2 / Gamma(1.2). */
const beta = 1.4891922488128169 ** 2 / 0.9181687423997604;

/** x with P(X <= x) = p, for p in [0, 1]. */
export function betaQuantile(p: number): number {
  if (p > 0.5) return 1 - betaQuantile(1 - p); // the distribution is symmetric
  let low = 0,
    high = 0.5;
  for (let i = 0; i < 200 && low < high; i++) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (distribution(middle) < p) low = middle;
    else high = middle;
  }
  return p === 0 ? 0 : high;
}

/** P(X <= x) for x in [0, 0.5]: x^a / B sum of (1 - b)_n / (n! (a + n)) x^n, NIST DLMF 8.17.7 and 15.2.1. */
function distribution(x: number): number {
  let sum = 0;
  for (let n = 0, term = 1; n < 200; n++) {
    const part = term / (shape + n);
    sum += part;
    if (part < 1e-17 * sum) break;
    term *= (x * (n + 1 - shape)) / (n + 1);
  }
  return (x ** shape * sum) / beta;
}
