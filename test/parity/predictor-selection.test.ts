/** From features to a selection: split, logistic scores, conformal p-values, the number selected; on stored draws and on real human labels. */

import fs from "node:fs";
import path from "node:path";
import { logisticRegression } from "../../lib/conformal/predictors/logistic.js";
import { describeSets } from "../support/goldens.js";
import { agiqa3k, tia2, whyNoHumanLabels } from "../support/human-labels.js";

interface Selection {
  readonly alpha: number;
  readonly k: number;
  readonly fdp: number;
  readonly power: number;
}

interface Split {
  readonly train: readonly number[];
  readonly calibration: readonly number[];
  readonly test: readonly number[];
  readonly coef: readonly number[];
  readonly intercept: number;
  readonly p_deterministic: readonly number[];
}

interface EndToEnd extends Split {
  readonly name: string;
  readonly X: readonly (readonly number[])[];
  readonly y: readonly number[];
  readonly s_cal: readonly number[];
  readonly s_test: readonly number[];
  readonly select_deterministic: readonly (Selection & { selected: number[] })[];
}

interface Real {
  readonly fixed_splits: readonly (Split & { seed: number; results: Selection[] })[];
}

/** Conformal p-values of the test rows and the Benjamini-Hochberg selection, by definition. */
function pValues(calibration: Float64Array, aligned: readonly number[], test: Float64Array): number[] {
  return Array.from(test, t => (1 + calibration.filter((s, i) => aligned[i] === 0 && s >= t).length) / (calibration.length + 1));
}

function select(p: readonly number[], alpha: number): number[] {
  const sorted = [...p].sort((a, b) => a - b);
  const k = sorted.reduce((most, value, i) => (value * p.length <= alpha * (i + 1) * (1 + 1e-12) ? i + 1 : most), 0);
  return k === 0 ? [] : [...p.keys()].filter(j => p[j]! <= sorted[k - 1]!);
}

function expectSplit(x: readonly Float64Array[], y: readonly number[], split: Split, selections: readonly Selection[]) {
  const pick = (rows: readonly number[]): Float64Array[] => rows.map(i => x[i]!);
  const fitted = logisticRegression().fit({ x: pick(split.train), y: Float64Array.from(split.train, i => y[i]!) });
  for (const [f, w] of split.coef.entries()) expect(Math.abs(fitted.coefficients[f]! - w)).toBeLessThanOrEqual(1e-6 * Math.abs(w));
  expect(Math.abs(fitted.intercept - split.intercept)).toBeLessThanOrEqual(1e-6 * Math.abs(split.intercept));
  const scores = { calibration: fitted.predict(pick(split.calibration)), test: fitted.predict(pick(split.test)) };
  const p = pValues(
    scores.calibration,
    split.calibration.map(i => y[i]!),
    scores.test,
  );
  for (const [j, expected] of split.p_deterministic.entries()) expect(Math.abs(p[j]! - expected)).toBeLessThanOrEqual(1e-15);
  const labels = split.test.map(i => y[i]!),
    total = labels.filter(Boolean).length;
  const selected = selections.map(({ alpha }) => select(p, alpha));
  for (const [i, { k, fdp, power }] of selections.entries()) {
    const hits = selected[i]!.filter(j => labels[j] === 1).length;
    expect(selected[i]!.length).toBe(k);
    expect(Math.abs((k - hits) / Math.max(1, k) - fdp)).toBeLessThanOrEqual(1e-15);
    expect(Math.abs(hits / Math.max(1, total) - power)).toBeLessThanOrEqual(1e-15);
  }
  return { scores, selected };
}

const read = <T>(folder: string, name: string): T => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8")) as T;

describeSets("conformal", folder => {
  test.each(read<{ cases: EndToEnd[] }>(folder, "e2e.json").cases)("$name: scores, p-values and selections", golden => {
    const { scores, selected } = expectSplit(
      golden.X.map(row => Float64Array.from(row)),
      golden.y,
      golden,
      golden.select_deterministic,
    );
    for (const [i, s] of golden.s_cal.entries()) expect(Math.abs(scores.calibration[i]! - s)).toBeLessThanOrEqual(1e-7);
    for (const [j, s] of golden.s_test.entries()) expect(Math.abs(scores.test[j]! - s)).toBeLessThanOrEqual(1e-7);
    for (const [i, s] of golden.select_deterministic.entries()) expect(selected[i]).toEqual(s.selected);
  });

  if (whyNoHumanLabels) test.skip(whyNoHumanLabels, () => undefined);
  else {
    test("TIA2 (27,500 images with human labels): fixed splits", () => {
      const { x, y } = tia2();
      for (const split of read<Real>(folder, "tia2_real.json").fixed_splits) expectSplit(x, y, split, split.results);
    });
    test("AGIQA-3K (2,982 images with opinion scores): fixed splits", () => {
      const { x, y } = agiqa3k();
      for (const split of read<Real>(folder, "agiqa3k_real.json").fixed_splits) expectSplit(x, y, split, split.results);
    });
  }
});
