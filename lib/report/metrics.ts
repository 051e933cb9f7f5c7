/** Statistics of held-out comparisons: what a report may claim from a finite number of pictures. */

import { ConfigError } from "../errors.js";
import { Random } from "../util/random.js";

export interface Estimate {
  readonly value: number;
  /** Ends of the confidence interval. */
  readonly low: number;
  readonly high: number;
}

/** A proportion with Wilson's score interval (Wilson 1927): inside [0, 1] and honest for few trials and for 0 or all successes.
 *  `successes` may be fractional (a tie counts half). `confidence` default 0.95. */
export function wilsonInterval({ successes, trials, confidence = 0.95 }: { successes: number; trials: number; confidence?: number }): Estimate {
  if (!(trials > 0)) throw new ConfigError("wilsonInterval", "trials", "a positive number", trials);
  if (!(successes >= 0 && successes <= trials)) throw new ConfigError("wilsonInterval", "successes", `between 0 and ${trials}`, successes);
  const z = normalQuantile((1 + confidenceIn(confidence)) / 2);
  const p = successes / trials;
  const centre = (p + z ** 2 / (2 * trials)) / (1 + z ** 2 / trials);
  const half = (z / (1 + z ** 2 / trials)) * Math.sqrt((p * (1 - p)) / trials + z ** 2 / (4 * trials ** 2));
  return { value: p, low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/** Share of pairs that `a` wins over `b` by more than `margin`, ties half, with its interval. The values stand for the same prompt and seed. */
export function winRate({
  a,
  b,
  margin = 0,
  confidence = 0.95,
}: {
  a: readonly number[];
  b: readonly number[];
  margin?: number;
  confidence?: number;
}): Estimate {
  if (a.length !== b.length) throw new ConfigError("winRate", "b", `${a.length} values, one for each of a`, b.length);
  const points = a.map((value, i) => (value - b[i]! > margin ? 1 : b[i]! - value > margin ? 0 : 0.5));
  return wilsonInterval({ successes: sum(points), trials: a.length, confidence });
}

export interface BootstrapOptions {
  /** Measured on the same items in the same order. */
  readonly a: readonly number[];
  readonly b: readonly number[];
  readonly seed: number;
  /** Default 2000. */
  readonly resamples?: number;
  readonly confidence?: number;
}

/** Mean of a - b with its percentile interval over resampled items (Efron 1979). Paired: item i is drawn for both or for neither. */
export function pairedBootstrap({ a, b, seed, resamples = 2000, confidence = 0.95 }: BootstrapOptions): Estimate {
  if (a.length === 0 || a.length !== b.length) throw new ConfigError("pairedBootstrap", "a and b", "of one length above 0", [a.length, b.length]);
  const differences = a.map((value, i) => value - b[i]!);
  const random = new Random(seed, "bootstrap");
  const n = differences.length;
  const means = Float64Array.from({ length: resamples }, () => {
    let total = 0;
    for (let i = 0; i < n; i++) total += differences[random.integer(n)]!;
    return total / n;
  }).sort();
  const tail = (1 - confidenceIn(confidence)) / 2;
  return { value: sum(differences) / n, low: quantile(means, tail), high: quantile(means, 1 - tail) };
}

/** Linear interpolation between order statistics of an ascending array; q in [0, 1]. */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const at = q * (sorted.length - 1);
  const below = Math.floor(at);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return low + (high - low) * (at - below);
}

/** Inverse of the standard normal distribution: Acklam's rational approximation (relative error 1.2e-9). */
export function normalQuantile(p: number): number {
  if (!(p > 0 && p < 1)) throw new ConfigError("normalQuantile", "p", "between 0 and 1, both excluded", p);
  if (p > 0.5) return -normalQuantile(1 - p);
  const polynomial = (x: number, coefficients: readonly number[]) => coefficients.reduce((value, c) => value * x + c, 0);
  if (p < 0.02425) {
    const q = Math.sqrt(-2 * Math.log(p));
    return polynomial(q, tailTop) / (polynomial(q, tailBottom) * q + 1);
  }
  const q = p - 0.5;
  const r = q * q;
  return (polynomial(r, middleTop) * q) / (polynomial(r, middleBottom) * r + 1);
}

const middleTop = [-3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.38357751867269e2, -3.066479806614716e1, 2.506628277459239];
const middleBottom = [-5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1];
const tailTop = [-7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734, 4.374664141464968, 2.938163982698783];
const tailBottom = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];

function confidenceIn(confidence: number): number {
  if (!(confidence > 0 && confidence < 1)) throw new ConfigError("metrics", "confidence", "between 0 and 1", confidence);
  return confidence;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
