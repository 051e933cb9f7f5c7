/** Calibration measures and the likelihood of selectively seen labels, against stored results. */

import fs from "node:fs";
import path from "node:path";
import { riskReport } from "../../lib/conformal/metrics-calibration.js";
import { selectiveLoss } from "../../lib/conformal/predictors/selective-labels.js";
import { marginalRisk, unitLikelihood } from "../../lib/conformal/predictors/selective-likelihood.js";
import { describeSets } from "../support/goldens.js";

interface Golden<I, O> {
  readonly cases: readonly {
    readonly name: string;
    readonly params?: { readonly expertise_features?: readonly number[] };
    readonly inputs: I;
    readonly outputs: O;
  }[];
}
type Calibration = Golden<
  { p: number[]; y: number[] },
  { ece_top: number; ece_pos: number; ece_pos_quantile: number; brier: number; log_loss: number; confidence_bias: number }
>;
type Selective = Golden<
  { bY: number[]; bD: number[]; s: number[]; X: number[][]; T: number[]; Y: number[] },
  { loss: number; per_item: number[]; grad: { bY: number[]; bD: number[]; s: number[] }; implied_prevalence: number }
>;

/** 1e-11 of the largest expected value, as the set's README asks of float64. */
function expectNear(actual: ArrayLike<number>, expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  const bound = 1e-11 * Math.max(...expected.map(Math.abs));
  for (const [i, value] of expected.entries()) expect(Math.abs(actual[i]! - value)).toBeLessThanOrEqual(bound);
}

describeSets("objectives", folder => {
  const read = <T>(name: string): T => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8")) as T;

  test.each(read<Calibration>("calibration.json").cases)("calibration $name", ({ inputs, outputs }) => {
    const report = riskReport(Float64Array.from(inputs.p), Float64Array.from(inputs.y));
    expectNear([report.calibrationError.topLabel], [outputs.ece_top]);
    expectNear([report.calibrationError.positive], [outputs.ece_pos]);
    expectNear([report.calibrationError.positiveEqualMass], [outputs.ece_pos_quantile]);
    expectNear([report.brier], [outputs.brier]);
    expectNear([report.logScore], [outputs.log_loss]);
    expectNear([report.confidenceBias], [outputs.confidence_bias]);
  });

  test.each(read<Selective>("selective_labels.json").cases)("selective labels: $name", ({ params, inputs, outputs }) => {
    const [bY, bD, s] = [Float64Array.from(inputs.bY), Float64Array.from(inputs.bD), inputs.s[0]!];
    const choice = params!.expertise_features!;
    const x = inputs.X.map(row => Float64Array.from(row)),
      n = x.length;
    const at = { x, y: Float64Array.from(inputs.Y), tested: Float64Array.from(inputs.T), choice };
    const { loss, ...gradient } = selectiveLoss(at, bY, bD, s);
    expectNear([loss / n], [outputs.loss]); // stored as means
    expectNear(
      gradient.bY.map(v => v / n),
      outputs.grad.bY,
    );
    expectNear(
      gradient.bD.map(v => v / n),
      outputs.grad.bD,
    );
    expectNear([gradient.s / n], outputs.grad.s);
    const a = x.map(row => row.reduce((sum, v, f) => sum + v * bY[f]!, 0));
    const b = x.map((row, i) => choice.reduce((sum, column, k) => sum + row[column]! * bD[k]!, a[i]!));
    expectNear(
      a.map((v, i) => unitLikelihood(v, b[i]!, s, inputs.T[i]!, inputs.Y[i]!).loss),
      outputs.per_item,
    );
    expectNear([a.reduce((sum, v) => sum + marginalRisk(v, s).risk, 0) / n], [outputs.implied_prevalence]);
  });
});
