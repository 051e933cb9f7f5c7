/** Isotonic regression by pooling adjacent violators (Ayer et al. 1955), and calibration of any predictor by it (Zadrozny & Elkan 2002). Calibration does
 *  not raise a selector's power, which depends on ranks alone; the ties that isotonic steps make can lower it. Use it where scores are read as risks. */

import { DataError, ShapeError } from "../../errors.js";
import { type CalibrationOptions, calibrated } from "./calibration.js";
import type { Predictor } from "./predictor.js";

export interface IsotonicFit {
  /** Knots: ascending x, and the fitted value there. */
  readonly x: Float64Array;
  readonly y: Float64Array;
  /** Linear between knots, constant beyond them. */
  at(x: number): number;
}

/** The non-decreasing function of x nearest to y in weighted least squares; y of equal x are averaged first. Throws on NaN and lengths that differ. */
export function isotonicRegression(x: Float64Array, y: Float64Array, weights?: Float64Array): IsotonicFit {
  if (x.length === 0 || y.length !== x.length || (weights && weights.length !== x.length))
    throw new ShapeError(
      "isotonicRegression",
      `expected x, y and weights of one length > 0, received ${x.length}, ${y.length}, ${weights?.length ?? x.length}`,
    );
  for (let i = 0; i < x.length; i++) {
    if (Number.isNaN(x[i]!) || !Number.isFinite(y[i]!))
      throw new DataError("isotonicRegression", `expected numbers, received x ${x[i]}, y ${y[i]}`, { row: i });
    if (weights && !(weights[i]! > 0 && weights[i]! < Infinity))
      throw new DataError("isotonicRegression", `expected a weight > 0, received ${weights[i]}`, { row: i });
  }
  const blocks: Block[] = [];
  for (const point of distinct(x, y, weights)) {
    let last = point;
    for (let before = blocks.at(-1); before && before.sum / before.weight >= last.sum / last.weight; before = blocks.at(-1)) {
      blocks.pop();
      last = { first: before.first, last: last.last, sum: before.sum + last.sum, weight: before.weight + last.weight };
    }
    blocks.push(last);
  }
  const knots = blocks.flatMap(({ first, last, sum, weight }) =>
    first === last
      ? [[first, sum / weight]]
      : [
          [first, sum / weight],
          [last, sum / weight],
        ],
  );
  const [xs, ys] = [Float64Array.from(knots, k => k[0]!), Float64Array.from(knots, k => k[1]!)];
  return { x: xs, y: ys, at: value => interpolate(xs, ys, value) };
}

/** Values of x from `first` to `last` share one fitted value. */
interface Block {
  readonly first: number;
  readonly last: number;
  readonly sum: number;
  readonly weight: number;
}

function distinct(x: Float64Array, y: Float64Array, weights: Float64Array | undefined): Block[] {
  const order = [...x.keys()].sort((a, b) => x[a]! - x[b]!),
    points: Block[] = [];
  for (const i of order) {
    const w = weights ? weights[i]! : 1,
      last = points.at(-1);
    if (last && last.first === x[i]) points[points.length - 1] = { ...last, sum: last.sum + w * y[i]!, weight: last.weight + w };
    else points.push({ first: x[i]!, last: x[i]!, sum: w * y[i]!, weight: w });
  }
  return points;
}

function interpolate(xs: Float64Array, ys: Float64Array, x: number): number {
  if (!(x > xs[0]!)) return ys[0]!;
  if (x >= xs.at(-1)!) return ys.at(-1)!;
  let low = 0,
    high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle]! <= x) low = middle;
    else high = middle;
  }
  const width = xs[high]! - xs[low]!;
  return ys[low]! + (ys[high]! - ys[low]!) * (width < Infinity ? (x - xs[low]!) / width : 0.5);
}

/** `base` with its scores mapped to risks by isotonic regression on out-of-fold scores. Needs some hundred rows; below, prefer plattCalibration. */
export function isotonicCalibration(base: Predictor, options: CalibrationOptions = {}): Predictor {
  return calibrated("isotonicCalibration", base, options, (scores, y, weights) => {
    const fit = isotonicRegression(scores, y, weights);
    return score => fit.at(score);
  });
}
