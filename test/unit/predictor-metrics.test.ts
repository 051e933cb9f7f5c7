/** Ranking and calibration measures by their definitions. */

import {
  brierDecomposition,
  brierScore,
  calibrationError,
  equalMassBins,
  equalWidthBins,
  logScore,
  reliabilityCurve,
  topLabel,
} from "../../lib/conformal/metrics-calibration.js";
import { areaUnderRoc, averagePrecision, precisionAtK } from "../../lib/conformal/metrics-ranking.js";
import { DataError, ShapeError } from "../../lib/errors.js";
import { Rng } from "../support/rng.js";

/** Scores on a grid, so that ties are common. */
function scored(n: number, seed: number): { s: Float64Array; y: Float64Array } {
  const rng = new Rng(seed, "scored"),
    s = Float64Array.from({ length: n }, () => rng.integer(12) / 12);
  return {
    s,
    y: s
      .map(v => (rng.uniform() < v ? 1 : 0))
      .with(0, 1)
      .with(1, 0),
  };
}

const cases = Array.from({ length: 30 }, (_, seed) => scored(5 + seed * 3, seed));

test("the area under the ROC curve counts pairs in the right order, ties half", () => {
  for (const { s, y } of cases) {
    const [aligned, other] = [1, 0].map(label => [...s].filter((_, i) => y[i] === label));
    const wins = aligned!.flatMap(a => other!.map(b => (a > b ? 1 : a === b ? 0.5 : 0) as number));
    expect(areaUnderRoc(s, y)).toBeCloseTo(wins.reduce((a, b) => a + b, 0) / wins.length, 12);
    expect(
      areaUnderRoc(
        s.map(v => -v),
        y,
      ),
    ).toBeCloseTo(1 - areaUnderRoc(s, y), 12);
    expect(areaUnderRoc(s.map(Math.exp), y)).toBe(areaUnderRoc(s, y));
  }
  expect(areaUnderRoc(Float64Array.of(1, 2), Float64Array.of(1, 1))).toBeNaN();
  expect(areaUnderRoc(Float64Array.of(-Infinity, Infinity), Float64Array.of(0, 1))).toBe(1);
});

test("average precision sums precision over recall steps of the distinct scores", () => {
  for (const { s, y } of cases) {
    const total = y.reduce((a, b) => a + b, 0);
    let sum = 0,
      before = 0;
    for (const cut of [...new Set(s)].sort((a, b) => b - a)) {
      const inside = [...s.keys()].filter(i => s[i]! >= cut),
        hits = inside.filter(i => y[i] === 1).length;
      sum += ((hits - before) / total) * (hits / inside.length);
      before = hits;
    }
    expect(averagePrecision(s, y)).toBeCloseTo(sum, 12);
  }
  expect(averagePrecision(Float64Array.of(3, 2, 1), Float64Array.of(1, 1, 0))).toBe(1);
});

test("precision at k is its mean over all orders of ties", () => {
  const s = Float64Array.of(3, 2, 2, 2, 1),
    y = Float64Array.of(0, 1, 1, 0, 1);
  expect([1, 2, 3, 4, 5].map(k => precisionAtK(s, y, k))).toEqual([0, 2 / 3 / 2, 4 / 3 / 3, 2 / 4, 3 / 5]);
  for (const { s, y } of cases) expect(precisionAtK(s, y, s.length)).toBeCloseTo(y.reduce((a, b) => a + b, 0) / y.length, 12);
  expect(() => precisionAtK(s, y, 6)).toThrow(/k/);
});

test("Brier = reliability - resolution + uncertainty + within, for any bins; one bin per risk has nothing within", () => {
  for (const { s, y } of cases)
    for (const bins of [equalWidthBins(1), equalWidthBins(7), equalWidthBins(12), equalMassBins(4), equalMassBins(30)]) {
      const { reliability, resolution, uncertainty, within } = brierDecomposition(s, y, { bins });
      expect(reliability - resolution + uncertainty + within).toBeCloseTo(brierScore(s, y), 12);
      if (bins.edges(s).length === 13) expect(within).toBeCloseTo(0, 12);
    }
});

test("every row is in the bin that its risk says", () => {
  const p = Float64Array.of(0, 0.0999, 0.1, 0.5, 0.95, 1),
    curve = reliabilityCurve(p, Float64Array.of(0, 0, 1, 1, 0, 1));
  expect(curve.map(b => b.count)).toEqual([2, 1, 0, 0, 0, 1, 0, 0, 0, 2]);
  expect(curve[9]).toEqual({ lower: 0.9, upper: 1, count: 2, predicted: 0.975, observed: 0.5 });
  const mass = reliabilityCurve(
    Float64Array.from({ length: 100 }, (_, i) => i / 100),
    new Float64Array(100),
    { bins: equalMassBins(5) },
  );
  expect(mass.map(b => b.count)).toEqual([20, 20, 20, 20, 20]);
});

test("labels drawn from the risks are calibrated; sharpened risks are not", () => {
  const rng = new Rng(1, "calibrated"),
    p = Float64Array.from({ length: 40_000 }, () => rng.uniform()),
    y = p.map(v => (rng.uniform() < v ? 1 : 0));
  // The mean of 4,000 labels has a standard deviation below 0.008; the mean over ten bins of its absolute value stays below it.
  expect(calibrationError(p, y)).toBeLessThan(0.008);
  const sharp = p.map(v => v ** 3 / (v ** 3 + (1 - v) ** 3));
  expect(calibrationError(sharp, y)).toBeGreaterThan(0.1);
  const { confidence, hit } = topLabel(sharp, y);
  expect(calibrationError(confidence, hit)).toBeGreaterThan(0.1);
  expect(brierScore(p, y)).toBeLessThan(brierScore(sharp, y));
  expect(logScore(p, y)).toBeLessThan(logScore(sharp, y));
});

test("a certain risk that is wrong costs everything, and what is not a risk is refused", () => {
  expect(logScore(Float64Array.of(0, 0.5), Float64Array.of(1, 1))).toBe(Infinity);
  expect(logScore(Float64Array.of(0, 1), Float64Array.of(0, 1))).toBe(0);
  for (const measure of [brierScore, logScore, calibrationError, reliabilityCurve]) {
    expect(() => measure(Float64Array.of(0.5, 1.1), Float64Array.of(0, 1))).toThrow(DataError);
    expect(() => measure(Float64Array.of(0.5, Number.NaN), Float64Array.of(0, 1))).toThrow(/row 1/);
    expect(() => measure(Float64Array.of(0.5), Float64Array.of(0, 1))).toThrow(ShapeError);
  }
  for (const measure of [areaUnderRoc, averagePrecision]) {
    expect(() => measure(Float64Array.of(Number.NaN, 1), Float64Array.of(0, 1))).toThrow(DataError);
    expect(() => measure(Float64Array.of(1, 2), Float64Array.of(0, 0.5))).toThrow(/row 1/);
    expect(() => measure(new Float64Array(0), new Float64Array(0))).toThrow(ShapeError);
  }
});
