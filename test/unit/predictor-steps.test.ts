/** Fits in turns with the event loop: the same fit as at once, others run meanwhile, and an abort is noticed midway. */

import { setImmediate } from "node:timers/promises";
import { conformal } from "../../lib/index.js";
import { Rng } from "../support/rng.js";

function rows(count: number, width: number, seed: number): conformal.TrainingData & { readonly weights: Float64Array } {
  const rng = new Rng(seed, "steps");
  const x = Array.from({ length: count }, () => Float64Array.from({ length: width }, () => rng.normal()));
  const y = Float64Array.from(x, row => Number(row[0]! + row[1]! * row[2]! + 0.5 * rng.normal() > 0));
  return { x, y, weights: Float64Array.from(x, () => 1 + rng.integer(3)) };
}

const predictors: readonly conformal.Predictor[] = [
  conformal.cart({ maxDepth: 5 }),
  conformal.randomForest({ trees: 5 }),
  conformal.gradientBoosting({ rounds: 5, subsample: 0.8 }),
  conformal.gradientBoosting({ rounds: 3, splits: conformal.exactSplits, columnsByNode: 0.7 }),
  conformal.logisticRegression(),
  conformal.plattCalibration(conformal.randomForest({ trees: 3 }), { folds: 3 }),
  conformal.isotonicCalibration(conformal.gradientBoosting({ rounds: 3 }), { folds: 3 }),
];

test.each(predictors.map(p => [p.name, p] as const))("%s: fitted in turns or at once, the same scores", async (_, predictor) => {
  const data = rows(400, 4, 1),
    later = rows(100, 4, 2).x;
  const fitted = await conformal.fitAsync(predictor, data, { seed: 3 });
  expect(fitted.predict(later)).toEqual(predictor.fit(data, { seed: 3 }).predict(later));
});

test("an alignment fitted in turns is the one fitted at once, choice of predictor included", async () => {
  const { x, y } = rows(600, 4, 4),
    input = {
      features: x,
      alignment: Array.from(y),
      cutoff: 0.5,
      predictor: [conformal.cart({ maxDepth: 1 }), conformal.gradientBoosting({ rounds: 10 })],
      seed: 5,
    };
  const [turns, once] = [await conformal.fitAlignmentAsync(input), conformal.fitAlignment(input)];
  expect([turns.predictor, turns.split, turns.tuning, turns.calibration]).toEqual([once.predictor, once.split, once.tuning, once.calibration]);
  const later = rows(50, 4, 6).x;
  expect(turns.select({ test: { features: later }, alpha: 0.3 })).toEqual(once.select({ test: { features: later }, alpha: 0.3 }));
});

describe.each([
  ["forest", conformal.randomForest({ trees: 30 })],
  ["boosting", conformal.gradientBoosting({ rounds: 1000 })],
] as const)("a long fit: %s", (_, predictor) => {
  const data = rows(10_000, 6, 7);

  test("others have many turns before it is done", async () => {
    let turns = 0,
      done = false;
    const fit = conformal.fitAsync(predictor, data).then(() => {
      done = true;
    });
    while (!done) {
      await setImmediate();
      turns++;
    }
    await fit;
    expect(turns).toBeGreaterThan(5);
  });

  test("an abort midway rejects with its reason, before the fit is done", async () => {
    const stop = new AbortController(),
      reason = new Error("enough");
    const fit = conformal.fitAlignmentAsync({ features: data.x, alignment: Array.from(data.y), cutoff: 0.5, predictor, signal: stop.signal });
    const outcome = fit.then(
      () => "fitted",
      (error: unknown) => error,
    );
    for (let turn = 0; turn < 3; turn++) await setImmediate();
    stop.abort(reason);
    expect(await outcome).toBe(reason);
  });
});

test("a fit whose signal had aborted does not begin", async () => {
  const signal = AbortSignal.abort(new Error("never mind"));
  let begun = false;
  const spy: conformal.Predictor = {
    name: "spy",
    fit() {
      begun = true;
      return { predict: x => new Float64Array(x.length) };
    },
  };
  await expect(conformal.fitAsync(spy, rows(10, 3, 1), { signal })).rejects.toThrow("never mind");
  await expect(
    conformal.fitAlignmentAsync({ features: rows(10, 3, 1).x, alignment: [0, 1, 0, 1, 0, 1, 0, 1, 0, 1], cutoff: 0.5, predictor: spy, signal }),
  ).rejects.toThrow("never mind");
  expect(begun).toBe(false);
});
