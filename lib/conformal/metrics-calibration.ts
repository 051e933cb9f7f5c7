/** Whether scores can be read as risks: reliability curve, expected calibration error, Brier score and its parts, log score. A selector needs none of this, a
 *  person who looks at a score does. */

import { ConfigError, DataError, ShapeError } from "../errors.js";

/** Cuts [0, 1] by the predicted risks: ascending edges, the first <= and the last >= every risk. A risk is in the bin [edge, next edge), 1 in the last. */
export interface Binning {
  readonly name: string;
  edges(p: Float64Array): Float64Array;
}

function checkCount(subject: string, count: number): void {
  if (!(Number.isInteger(count) && count >= 1)) throw new ConfigError(subject, "count", "a whole number >= 1", count);
}

export function equalWidthBins(count = 10): Binning {
  checkCount("equalWidthBins", count);
  return { name: "equal width", edges: () => Float64Array.from({ length: count + 1 }, (_, b) => b / count) };
}

/** Edges at the quantiles of the risks, linear between order statistics (numpy's default); equal edges give empty bins. */
export function equalMassBins(count = 10): Binning {
  checkCount("equalMassBins", count);
  return {
    name: "equal mass",
    edges(p) {
      const sorted = p.slice().sort();
      return Float64Array.from({ length: count + 1 }, (_, b) => {
        const at = (b / count) * (sorted.length - 1),
          low = Math.floor(at);
        return sorted[low]! + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)]! - sorted[low]!);
      });
    },
  };
}

export interface ReliabilityBin {
  readonly lower: number;
  readonly upper: number;
  readonly count: number;
  /** Means over the bin's rows; NaN where it is empty. */
  readonly predicted: number;
  readonly observed: number;
}

export interface BinningOptions {
  /** Default equalWidthBins(10). */
  readonly bins?: Binning;
}

/** Throws unless every p is in [0, 1] and every label 0 or 1. */
function check(subject: string, p: Float64Array, y: Float64Array): void {
  if (p.length === 0 || p.length !== y.length)
    throw new ShapeError(subject, `expected as many risks as labels and at least one, received ${p.length} and ${y.length}`);
  for (let row = 0; row < p.length; row++) {
    if (!(p[row]! >= 0 && p[row]! <= 1)) throw new DataError(subject, `expected a risk in [0, 1], received ${p[row]}`, { row, field: "p" });
    if (y[row] !== 0 && y[row] !== 1) throw new DataError(subject, `expected a label 0 or 1, received ${y[row]}`, { row, field: "y" });
  }
}

/** Index of the last bin whose lower edge is <= value. Equal edges: the last of the empty bins' successors, so [lo, hi) holds. */
function binOf(edges: Float64Array, value: number): number {
  let low = 0,
    high = edges.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (edges[middle]! <= value) low = middle;
    else high = middle;
  }
  return low;
}

/** One point per bin: what was predicted there, and how often it came true. */
export function reliabilityCurve(p: Float64Array, y: Float64Array, { bins = equalWidthBins() }: BinningOptions = {}): ReliabilityBin[] {
  check("reliabilityCurve", p, y);
  const edges = bins.edges(p),
    sums = Array.from({ length: edges.length - 1 }, () => ({ count: 0, predicted: 0, observed: 0 }));
  for (let i = 0; i < p.length; i++) {
    const bin = sums[binOf(edges, p[i]!)]!;
    bin.count++;
    bin.predicted += p[i]!;
    bin.observed += y[i]!;
  }
  return sums.map(({ count, predicted, observed }, b) => ({
    ...{ lower: edges[b]!, upper: edges[b + 1]!, count },
    ...{ predicted: predicted / count, observed: observed / count },
  }));
}

/** Expected calibration error of the positive class: mean over rows of |observed - predicted| of the row's bin. Naeini et al. 2015. */
export function calibrationError(p: Float64Array, y: Float64Array, options: BinningOptions = {}): number {
  return reliabilityCurve(p, y, options).reduce((sum, b) => (b.count === 0 ? sum : sum + (b.count / p.length) * Math.abs(b.observed - b.predicted)), 0);
}

/** The likelier label's risk, in [1/2, 1], and whether it came true. The calibration error of these two is the "top-label" one (netcal, folktexts), which is
 *  not comparable with that of the positive class. */
export function topLabel(p: Float64Array, y: Float64Array): { readonly confidence: Float64Array; readonly hit: Float64Array } {
  check("topLabel", p, y);
  return { confidence: p.map(v => Math.max(v, 1 - v)), hit: p.map((v, i) => (v >= 0.5 === (y[i] === 1) ? 1 : 0)) };
}

/** Mean squared distance of risk and label, in [0, 1]; strictly proper. Brier 1950. */
export function brierScore(p: Float64Array, y: Float64Array): number {
  check("brierScore", p, y);
  return p.reduce((sum, v, i) => sum + (v - y[i]!) ** 2, 0) / p.length;
}

/** Mean of -log of the risk given to what happened, >= 0; strictly proper. Infinity where something happened that had risk 0: nothing is clipped. */
export function logScore(p: Float64Array, y: Float64Array): number {
  check("logScore", p, y);
  return p.reduce((sum, v, i) => sum - (y[i] === 1 ? Math.log(v) : Math.log1p(-v)), 0) / p.length;
}

export interface BrierParts {
  /** Squared calibration error of the bins; smaller is better. */
  readonly reliability: number;
  /** Variance of the bins' observed rates; larger is better. */
  readonly resolution: number;
  /** Variance of the labels: the score of always predicting their mean. */
  readonly uncertainty: number;
  /** What binning hides: variance of risks within bins minus twice their covariance with labels; 0 where bins hold one risk each. */
  readonly within: number;
}

/** brierScore = reliability - resolution + uncertainty + within. Murphy 1973; the last term Stephenson, Coelho & Jolliffe 2008. */
export function brierDecomposition(p: Float64Array, y: Float64Array, options: BinningOptions = {}): BrierParts {
  const curve = reliabilityCurve(p, y, options).filter(b => b.count > 0),
    rate = y.reduce((a, b) => a + b, 0) / y.length;
  const lower = Float64Array.from(curve, b => b.lower);
  let within = 0;
  for (let i = 0; i < p.length; i++) {
    const { predicted, observed } = curve[p[i]! >= lower.at(-1)! ? lower.length - 1 : binOf(lower, p[i]!)]!;
    within += (p[i]! - predicted) * (p[i]! - predicted - 2 * (y[i]! - observed));
  }
  const mean = (of: (b: ReliabilityBin) => number): number => curve.reduce((sum, b) => sum + b.count * of(b), 0) / p.length;
  return {
    reliability: mean(b => (b.predicted - b.observed) ** 2),
    resolution: mean(b => (b.observed - rate) ** 2),
    uncertainty: rate * (1 - rate),
    within: within / p.length,
  };
}

export interface RiskReport {
  readonly curve: readonly ReliabilityBin[];
  readonly calibrationError: { readonly positive: number; readonly positiveEqualMass: number; readonly topLabel: number };
  /** Mean confidence minus accuracy of the likelier label: > 0 is overconfident. */
  readonly confidenceBias: number;
  readonly brier: number;
  readonly brierParts: BrierParts;
  readonly logScore: number;
}

/** Everything above, with 10 bins: the report of folktexts (Cruz, Hardt & Mendler-Dünner 2024) for any predictor of alignment. */
export function riskReport(p: Float64Array, y: Float64Array): RiskReport {
  const { confidence, hit } = topLabel(p, y);
  return {
    curve: reliabilityCurve(p, y),
    calibrationError: {
      positive: calibrationError(p, y),
      positiveEqualMass: calibrationError(p, y, { bins: equalMassBins() }),
      topLabel: calibrationError(confidence, hit),
    },
    confidenceBias: confidence.reduce((sum, c, i) => sum + c - hit[i]!, 0) / p.length,
    brier: brierScore(p, y),
    brierParts: brierDecomposition(p, y),
    logScore: logScore(p, y),
  };
}
