/** The few functions of numbers and vectors that predictors share. */

const { abs, exp, log1p, max, sqrt } = Math; // bound once: a sandbox that intercepts globals makes every look-up slow

/** 1 / (1 + e^-x) without overflow. */
export function sigmoid(x: number): number {
  const e = exp(-abs(x));
  return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

/** log(1 + e^x). */
export function softplus(x: number): number {
  return max(x, 0) + log1p(exp(-abs(x)));
}

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

export function norm(a: ArrayLike<number>): number {
  return sqrt(dot(a, a));
}
