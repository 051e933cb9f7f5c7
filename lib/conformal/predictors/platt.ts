/** Platt scaling (1999): a sigmoid from score to risk, fitted by Newton's method as in Lin, Lin & Weng 2007. */

import { type CalibrationOptions, calibrated } from "./calibration.js";
import { minimiseLogistic } from "./logistic-newton.js";
import type { Predictor } from "./predictor.js";
import { sigmoid } from "./vector.js";

/** sigmoid(slope * score + intercept). */
export interface PlattFit {
  readonly slope: number;
  readonly intercept: number;
}

/** Targets are Platt's (n1 + 1)/(n1 + 2) and 1/(n0 + 2), n by weight, which keep separable scores finite. */
export function plattScaling(scores: Float64Array, y: Float64Array, weights?: Float64Array): PlattFit {
  let aligned = 0,
    other = 0;
  for (let i = 0; i < y.length; i++) {
    const w = weights ? weights[i]! : 1;
    aligned += w * y[i]!;
    other += w * (1 - y[i]!);
  }
  const [high, low] = [(aligned + 1) / (aligned + 2), 1 / (other + 2)];
  const targets = y.map(label => low + (high - low) * label);
  const training = { rows: scores.length, width: 1, columns: [scores], y: targets, weights, single: undefined };
  const { coefficients, intercept } = minimiseLogistic("plattScaling", training, 0);
  return { slope: coefficients[0]!, intercept };
}

/** `base` with its scores mapped to risks by Platt scaling of out-of-fold scores. Strictly increasing where the scores rank at all, so ranks are kept. */
export function plattCalibration(base: Predictor, options: CalibrationOptions = {}): Predictor {
  return calibrated("plattCalibration", base, options, (scores, y, weights) => {
    const { slope, intercept } = plattScaling(scores, y, weights);
    return score => sigmoid(slope * score + intercept);
  });
}
