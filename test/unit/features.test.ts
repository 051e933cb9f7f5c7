/** Feature tables: what is counted, what is learnt from training rows alone, and what becomes of missing values. */

import { denoisingErrorFeatures } from "../../lib/conformal/features/denoising-errors.js";
import { fillConstant, fillMean, fillMedian, fillMissing, refuseMissing } from "../../lib/conformal/features/missing.js";
import { promptStatistics } from "../../lib/conformal/features/prompt-statistics.js";
import { answerRisk, ensembleFeatures, textNormFeatures } from "../../lib/conformal/features/reward-features.js";
import { columnOf, type FeatureTable, featureTable, joinFeatures, takeRows } from "../../lib/conformal/features/table.js";
import { chainTransforms, standardise } from "../../lib/conformal/features/transform.js";
import { logisticRegression } from "../../lib/conformal/predictors/logistic.js";
import { DataError, ShapeError } from "../../lib/errors.js";

const first = (table: FeatureTable): Record<string, number> =>
  Object.fromEntries(table.columns.map((name, c) => [name.replace(/^\w+\./, ""), table.rows[0]![c]!]));

test("tables join by row, refuse what does not fit, and give their columns back", () => {
  const [a, b] = [featureTable({ x: [1, 2], y: [3, Number.NaN] }), featureTable({ z: Float64Array.of(5, 6) })];
  const joined = joinFeatures(a, b);
  expect(joined.columns).toEqual(["x", "y", "z"]);
  expect([...joined.rows[1]!]).toEqual([2, Number.NaN, 6]);
  expect([...columnOf(joined, "z")]).toEqual([5, 6]);
  expect(takeRows(joined, [1, 1]).rows).toEqual([joined.rows[1], joined.rows[1]]);
  expect(() => joinFeatures(a, a)).toThrow(/x/);
  expect(() => joinFeatures(a, featureTable({ z: [1] }))).toThrow(ShapeError);
  expect(() => featureTable({ x: [1, 2], y: [1] })).toThrow(/column y/);
  expect(() => featureTable({ x: [1, Infinity] })).toThrow(/row 1.*column x/s);
  expect(() => featureTable({})).toThrow(ShapeError);
  expect(() => takeRows(a, [2])).toThrow(/indices/);
  expect(() => columnOf(a, "q")).toThrow(/"q"/);
});

test("standardising learns from training rows alone", () => {
  const training = featureTable({ a: [1, 3, 5, Number.NaN], b: [7, 7, 7, 7] });
  const apply = standardise.fit(training);
  const own = apply(training);
  expect([...columnOf(own, "a")]).toEqual([-Math.sqrt(1.5), 0, Math.sqrt(1.5), Number.NaN]);
  expect([...columnOf(own, "b")]).toEqual([0, 0, 0, 0]);
  // Other rows, whatever they are, are moved by the same numbers.
  const later = apply(featureTable({ a: [3, 1000], b: [8, 7] }));
  expect([...columnOf(later, "a")]).toEqual([0, 997 / Math.sqrt(8 / 3)]);
  expect([...columnOf(later, "b")]).toEqual([1, 0]);
  expect(() => apply(featureTable({ b: [1], a: [1] }))).toThrow(/columns of training \(a, b\)/);
});

test("a column with nothing in it stays missing under standardising, and is filled with 0", () => {
  const training = featureTable({ a: [Number.NaN, Number.NaN] }),
    later = featureTable({ a: [5, Number.NaN] });
  expect([...columnOf(standardise.fit(training)(later), "a")]).toEqual([5, Number.NaN]);
  expect(
    fillMissing({ fill: fillMean })
      .fit(training)(later)
      .rows.map(row => [...row]),
  ).toEqual([
    [5, 0],
    [0, 1],
  ]);
});

test("missing values are refused by name, or filled from training and marked", () => {
  const training = featureTable({ a: [1, 2, 9, Number.NaN], b: [1, 1, 1, 1] }),
    test = featureTable({ a: [Number.NaN, 5], b: [Number.NaN, 2] });
  expect(() => refuseMissing.fit(training)).toThrow(/row 3.*column a/s);
  expect(() => refuseMissing.fit(takeRows(training, [0, 1]))(test)).toThrow(DataError);
  const filled = (fill: typeof fillMean, indicator = true) => fillMissing({ fill, indicator }).fit(training)(test);
  expect(filled(fillMean).columns).toEqual(["a", "b", "a missing"]);
  expect(filled(fillMean).rows.map(row => [...row])).toEqual([
    [4, 1, 1],
    [5, 2, 0],
  ]);
  expect(filled(fillMedian, false).rows.map(row => [...row])).toEqual([
    [2, 1],
    [5, 2],
  ]);
  expect(columnOf(filled(fillConstant(-1)), "a")[0]).toBe(-1);
});

test("a chain learns each step from what the step before made, and its rows are fit for a predictor", () => {
  const training = featureTable({ a: [0, 10, Number.NaN, 2, 8], b: [1, 2, 3, 4, 5] });
  const table = chainTransforms(fillMissing({ fill: fillMean }), standardise).fit(training)(training);
  expect(table.columns).toEqual(["a", "b", "a missing"]);
  for (const name of table.columns) expect(columnOf(table, name).reduce((sum, v) => sum + v, 0)).toBeCloseTo(0, 12);
  expect(() => logisticRegression().fit({ x: training.rows, y: Float64Array.of(0, 1, 0, 1, 1) })).toThrow(DataError);
  expect(
    logisticRegression()
      .fit({ x: table.rows, y: Float64Array.of(0, 1, 0, 1, 1) })
      .predict(table.rows).length,
  ).toBe(5);
});

test("prompt statistics count what they say", () => {
  expect(first(promptStatistics(["Three red apples on top of a blue-ish wooden table, next to 2 dogs; no cats"]))).toEqual({
    ...{ characters: 58 + 15 + 2, words: 16, wordLength: 58 / 16, uniqueWords: 1, clauses: 3 },
    ...{ numbers: 2, colours: 1, spatial: 2, negations: 1, materials: 1, links: 0, quoted: 0 },
  });
  expect(first(promptStatistics(['A sign that says "open", below a green and a green lamp']))).toMatchObject({
    quoted: 1,
    spatial: 1,
    colours: 2,
    links: 1,
    numbers: 0,
  });
  expect(first(promptStatistics(["a cat isn’t under the table"]))).toMatchObject({ negations: 1, spatial: 1, words: 6 });
  expect(first(promptStatistics(["十二 только кот 7"]))).toMatchObject({ words: 4, numbers: 1 });
  expect(Object.values(first(promptStatistics(["  "])))).toEqual(Array(12).fill(0));
});

test("TextNorm's confidence is a softmax over prompts", () => {
  const scores = { own: [1, 2, 0], contrast: [[0, 1], [2], []] };
  const table = textNormFeatures("clip", scores, { temperature: 0.5 });
  expect(table.columns).toEqual(["clip.confidence", "clip.margin", "clip.beaten"]);
  const e = Math.exp;
  for (const [i, expected] of [
    [e(2) / (e(2) + e(0) + e(2)), 0, 0.75],
    [0.5, 0, 0.5],
    [1, Number.NaN, Number.NaN],
  ].entries())
    for (const [c, value] of expected.entries())
      if (Number.isNaN(value)) expect(table.rows[i]![c]).toBeNaN();
      else expect(table.rows[i]![c]).toBeCloseTo(value, 12);
  // Only differences count: a reward's offset does not matter, and large rewards do not overflow.
  const moved = textNormFeatures("clip", { own: scores.own.map(v => v + 1e4), contrast: scores.contrast.map(c => c.map(v => v + 1e4)) }, { temperature: 0.5 });
  for (const [i, row] of moved.rows.entries()) expect(row[0]).toBeCloseTo(table.rows[i]![0]!, 9);
  expect(() => textNormFeatures("clip", { own: [1], contrast: [] })).toThrow(ShapeError);
  expect(() => textNormFeatures("clip", scores, { temperature: 0 })).toThrow(/temperature/);
});

test("an ensemble's spread, and risks read from answers", () => {
  expect(first(ensembleFeatures("rewards", [[1], [3], [5], [3]]))).toEqual({ mean: 3, min: 1, max: 5, deviation: Math.sqrt(2) });
  expect(() => ensembleFeatures("rewards", [[1]])).toThrow(/members/);
  expect(() => ensembleFeatures("rewards", [[1], [1, 2]])).toThrow(ShapeError);
  const log = Math.log;
  expect(
    answerRisk([
      { yes: log(0.3), no: log(0.1) },
      { yes: log(0.2), no: log(0.2) },
    ]),
  ).toBeCloseTo((0.75 + 0.5) / 2, 12);
  expect(answerRisk([{ yes: -Infinity, no: -3 }])).toBe(0);
  expect(() => answerRisk([])).toThrow(/orders/);
  expect(() => answerRisk([{ yes: -Infinity, no: -Infinity }])).toThrow(DataError);
});

test("denoising errors: means, halves, spread over draws, slope, gains", () => {
  const table = denoisingErrorFeatures({
    timesteps: 3,
    conditional: [[1, 3, 2, 4, 3, 5]],
    unconditional: [[2, 4, 3, 5, 4, 8]],
    reference: [[1, 3, 2, 4, 3, 2]],
  });
  const { promptGain, promptGainError, policyGain, ...rest } = first(table);
  expect(rest).toEqual({ mean: 3, low: 2.5, high: 3.5, deviation: 1, slope: 2 });
  expect(promptGain).toBeCloseTo(8 / 6, 12);
  expect(promptGainError).toBeCloseTo(Math.sqrt(20 / 36 / 6), 12); // variance 14/6 - (8/6)^2
  expect(policyGain).toBeCloseTo(-0.5, 12);
  expect(denoisingErrorFeatures({ timesteps: 1, conditional: [[1, 2]] }).columns).not.toContain("denoising.promptGain");
  expect(() => denoisingErrorFeatures({ timesteps: 2, conditional: [[1, 2, 3]] })).toThrow(/multiple of 2/);
  expect(() => denoisingErrorFeatures({ timesteps: 1, conditional: [[1, 2], [1]] })).toThrow(/output 1 in conditional/);
  expect(() => denoisingErrorFeatures({ timesteps: 1, conditional: [[1]], reference: [] })).toThrow(ShapeError);
});
