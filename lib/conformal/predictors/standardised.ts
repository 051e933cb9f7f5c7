/** A predictor on features of mean 0 and deviation 1, both learnt from its training rows: for those that depend on scale (logistic regression, nearest neighbours). */

import { standardise } from "../features/transform.js";
import type { FittedPredictor, Predictor } from "./predictor.js";
import { steppedPredictor, stepsOf } from "./steps.js";

export function standardised(base: Predictor): Predictor {
  return steppedPredictor(`standardised(${base.name})`, function* (data, options): Generator<undefined, FittedPredictor> {
    const columns = Array.from({ length: data.x[0]?.length ?? 0 }, (_, f) => String(f));
    const apply = standardise.fit({ columns, rows: data.x });
    const scaled = (rows: readonly Float64Array[]): readonly Float64Array[] => apply({ columns, rows }).rows;
    const fitted = yield* stepsOf(base, { ...data, x: scaled(data.x) }, options);
    return { ...fitted, predict: x => fitted.predict(scaled(x)) };
  });
}
