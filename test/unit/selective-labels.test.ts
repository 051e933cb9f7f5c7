/** Labels seen only where somebody chose to look: the likelihood sums to one, its gradient is right, and knowing the domain brings the coefficients nearer. */

import { minimise } from "../../lib/conformal/predictors/bfgs.js";
import { selectiveLabels, selectiveLoss } from "../../lib/conformal/predictors/selective-labels.js";
import { marginalRisk, unitLikelihood } from "../../lib/conformal/predictors/selective-likelihood.js";
import { DataError, ShapeError } from "../../lib/errors.js";
import { Rng } from "../support/rng.js";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const softplus = (x: number): number => Math.log1p(Math.exp(x));

test("the three things that can be seen have probability 1 together, and equal the closed form", () => {
  for (const a of [-6, -1.3, 0, 2, 5])
    for (const b of [-5, -1.2, 0.4, 3])
      for (const s of [0.01, 1, 4, 10]) {
        const [unseen, no, yes] = [unitLikelihood(a, b, s, 0, 0), unitLikelihood(a, b, s, 1, 0), unitLikelihood(a, b, s, 1, 1)].map(u => Math.exp(-u.loss));
        expect(unseen! + no! + yes!).toBeCloseTo(1, 12);
        const integral = (x: number): number => softplus(x + s) - softplus(x),
          k = Math.exp(b - a);
        // The closed form loses digits to cancellation: 1e-9 is what it can show.
        expect(Math.abs(yes! - (k * integral(a) - integral(b)) / ((k - 1) * s))).toBeLessThanOrEqual(1e-9);
        expect(Math.abs(unseen! - (1 - integral(b) / s))).toBeLessThanOrEqual(1e-9);
        expect(Math.abs(marginalRisk(a, s).risk - integral(a) / s)).toBeLessThanOrEqual(1e-9);
      }
});

interface Drawn {
  readonly x: Float64Array[];
  readonly y: Float64Array;
  readonly tested: Float64Array;
  readonly prevalence: number;
}

/** Chosen to be looked at by risk, and by the first column beyond it. */
function draw(rows: number, seed: number): Drawn {
  const rng = new Rng(seed, "selective");
  const x = Array.from({ length: rows }, () => Float64Array.from({ length: 4 }, () => rng.normal()));
  const z = x.map(() => width * rng.uniform()),
    a = x.map(row => row.reduce((sum, v, f) => sum + v * truth[f]!, -2));
  const y = Float64Array.from(a, (v, i) => (rng.uniform() < sigmoid(v + z[i]!) ? 1 : 0));
  const tested = Float64Array.from(a, (v, i) => (rng.uniform() < sigmoid(v + z[i]! + 0.8 * x[i]![0]! + 0.6) ? 1 : 0));
  return { x, y, tested, prevalence: y.reduce((sum, v) => sum + v, 0) / rows };
}
const truth = [1, -0.8, 0.5, 0.3],
  width = 1.6;

test("the gradient agrees with central differences", () => {
  const { x, y, tested } = draw(40, 1);
  const at = { x: x.map(row => Float64Array.of(...row, 1)), y, tested, choice: [0, 4] };
  const [bY, bD, s] = [Float64Array.of(0.4, -0.2, 0.3, 0.1, -1), Float64Array.of(0.5, 0.2), 1.3],
    h = 1e-5;
  const gradient = selectiveLoss(at, bY, bD, s);
  const difference = (loss: (step: number) => number): number => (loss(h) - loss(-h)) / (2 * h);
  for (const f of bY.keys()) expect(difference(d => selectiveLoss(at, bY.with(f, bY[f]! + d), bD, s).loss)).toBeCloseTo(gradient.bY[f]!, 6);
  for (const k of bD.keys()) expect(difference(d => selectiveLoss(at, bY, bD.with(k, bD[k]! + d), s).loss)).toBeCloseTo(gradient.bD[k]!, 6);
  expect(difference(d => selectiveLoss(at, bY, bD, s + d).loss)).toBeCloseTo(gradient.s, 6);
});

test("knowing prevalence and expertise brings the risk's coefficients nearer to the truth, and the implied prevalence to the known one", () => {
  const seeds = [1, 2, 3];
  const off = (both: boolean): number =>
    seeds.reduce((sum, seed) => {
      const { prevalence, ...data } = draw(1000, seed);
      const fitted = selectiveLabels(both ? { prevalence: { known: prevalence }, choiceColumns: [0] } : {}).fit(data);
      if (both) expect(Math.abs(fitted.impliedPrevalence - prevalence)).toBeLessThan(0.01);
      return sum + truth.reduce((total, b, f) => total + Math.abs(fitted.risk[f]! - b), 0) / (4 * seeds.length);
    }, 0);
  expect(off(true)).toBeLessThan(off(false));
});

test("labels of rows that were not looked at are not read", () => {
  const { x, y, tested } = draw(200, 9);
  const learn = (labels: Float64Array) => selectiveLabels().fit({ x, y: labels, tested });
  expect(learn(y).risk).toEqual(learn(y.map((v, i) => (tested[i] === 1 ? v : Number.NaN))).risk);
  expect(
    learn(y)
      .predict(x)
      .every(p => p > 0 && p < 1),
  ).toBe(true);
  expect(() => learn(y.map(() => 2))).toThrow(DataError);
  expect(() => selectiveLabels().fit({ x, y, tested: y.slice(1) })).toThrow(ShapeError);
  expect(() => selectiveLabels().fit({ x, y, tested: y.map(() => 0) })).toThrow(/seen/);
  expect(() => selectiveLabels({ choiceColumns: [4] }).fit({ x, y, tested })).toThrow(/choiceColumns/);
  expect(() => selectiveLabels({ prevalence: { known: 1 } })).toThrow(/prevalence/);
});

test("BFGS finds the minimum of a narrow valley (Rosenbrock)", () => {
  const f = ([x = 0, y = 0]: Float64Array) => ({
    value: (1 - x) ** 2 + 100 * (y - x * x) ** 2,
    gradient: Float64Array.of(-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)),
  });
  for (const v of minimise(f, Float64Array.of(-1.2, 1))) expect(v).toBeCloseTo(1, 6);
});
