/** L2-regularised logistic regression at its exact optimum: the predictor of conformal alignment, and equal to scikit-learn's where that has converged. */

import { ConfigError } from "../../errors.js";
import { minimiseLogistic } from "./logistic-newton.js";
import type { FittedPredictor, PredictorOf } from "./predictor.js";
import { type Columns, checkRows, constantPredictor, trainingColumns } from "./training-data.js";
import { normalised } from "./tree.js";
import { sigmoid } from "./vector.js";

export interface FittedLogistic extends FittedPredictor {
  readonly coefficients: Float64Array;
  readonly intercept: number;
}

/** Minimises |w|^2 / 2 + c * sum of weight * log loss, the intercept free (scikit-learn's C). Features are used as given: standardise them where their scales
 *  differ. Labels may be numbers in [0, 1]. Separable labels stay finite by the penalty. `featureImportance`: |w| times the feature's standard deviation. */
export function logisticRegression({ c = 1 }: { readonly c?: number } = {}): PredictorOf<FittedLogistic> {
  if (!(c > 0 && c < Infinity)) throw new ConfigError("logisticRegression", "c", "a finite number > 0", c);
  return {
    name: "logisticRegression",
    fit(data, { signal } = {}) {
      signal?.throwIfAborted();
      const training = trainingColumns("logisticRegression", data, { fractions: true });
      if (training.single !== undefined) {
        const constant = constantPredictor("logisticRegression", training.width, training.single);
        return { ...constant, coefficients: new Float64Array(training.width), intercept: training.single === 1 ? Infinity : -Infinity };
      }
      const { coefficients, intercept } = minimiseLogistic("logisticRegression", training, 1 / c);
      return {
        coefficients,
        intercept,
        featureImportance: normalised(coefficients.map((w, f) => Math.abs(w) * deviation(training, f))),
        predict(x) {
          checkRows("logisticRegression", x, training.width);
          return Float64Array.from(x, row => sigmoid(coefficients.reduce((sum, w, f) => sum + w * row[f]!, intercept)));
        },
      };
    },
  };
}

function deviation({ columns, weights, rows }: Columns, f: number): number {
  let mass = 0,
    mean = 0,
    squares = 0;
  for (let i = 0; i < rows; i++) {
    const w = weights ? weights[i]! : 1,
      off = columns[f]![i]! - mean;
    mass += w;
    mean += (w / mass) * off;
    squares += w * off * (columns[f]![i]! - mean);
  }
  return Math.sqrt(squares / mass);
}
