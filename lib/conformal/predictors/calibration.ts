/** What calibration wrappers share: the map from score to risk is learnt on scores of rows that the scoring model had not seen (cross-fitting), then
 *  applied to a model trained on all rows. Both use training data only, so conformal validity is untouched. */

import { ConfigError } from "../../errors.js";
import { Random } from "../../util/random.js";
import type { FitOptions, FittedPredictor, Predictor, TrainingData } from "./predictor.js";
import { type Steps, scoreSteps, steppedPredictor, stepsOf } from "./steps.js";
import { constantPredictor, trainingColumns } from "./training-data.js";

export interface CalibrationOptions {
  /** Parts of the training rows, each scored by a model of the others, 2 or more. Default 5. */
  readonly folds?: number;
}

type Learn = (scores: Float64Array, y: Float64Array, weights: Float64Array | undefined) => (score: number) => number;

export function calibrated(name: string, base: Predictor, { folds = 5 }: CalibrationOptions, learn: Learn): Predictor {
  if (!(Number.isInteger(folds) && folds >= 2)) throw new ConfigError(name, "folds", "a whole number >= 2", folds);
  return steppedPredictor(`${name}(${base.name})`, function* (data, options): Steps<FittedPredictor> {
    const { single, width } = trainingColumns(name, data);
    if (single !== undefined) return constantPredictor(name, width, single);
    const used = positive(data);
    const map = learn(yield* outOfFold(base, used, folds, options), used.y, used.weights);
    const fitted = yield* stepsOf(base, used, options);
    return { ...fitted, predict: x => fitted.predict(x).map(map) };
  });
}

function positive({ x, y, weights }: TrainingData): TrainingData {
  return weights
    ? subset(
        { x, y, weights },
        [...x.keys()].filter(row => weights[row]! > 0),
      )
    : { x, y };
}

/** Folds hold the classes in equal shares (stratified), drawn by the seed. */
function* outOfFold(base: Predictor, data: TrainingData, folds: number, options: FitOptions): Steps<Float64Array> {
  const { x, y } = data,
    fold = new Int32Array(x.length),
    scores = new Float64Array(x.length);
  const random = new Random(options.seed ?? 0, "calibration folds");
  let next = 0; // the deal goes on from class to class, so that fold sizes differ by one at most
  for (const label of [0, 1]) for (const row of random.shuffle([...x.keys()].filter(i => y[i] === label))) fold[row] = next++ % folds;
  for (let k = 0; k < folds; k++) {
    options.signal?.throwIfAborted();
    const [inside, outside] = [[...x.keys()].filter(i => fold[i] === k), [...x.keys()].filter(i => fold[i] !== k)];
    if (inside.length === 0 || outside.length === 0) continue; // fewer rows than folds
    const fitted = yield* stepsOf(base, subset(data, outside), options);
    const predicted = yield* scoreSteps(
      fitted,
      inside.map(i => x[i]!),
    );
    for (const [at, i] of inside.entries()) scores[i] = predicted[at]!;
  }
  return scores;
}

function subset({ x, y, weights }: TrainingData, rows: readonly number[]): TrainingData {
  return { x: rows.map(i => x[i]!), y: Float64Array.from(rows, i => y[i]!), ...(weights && { weights: Float64Array.from(rows, i => weights[i]!) }) };
}
