/** Laws of the predictors: what must hold for any data. */

import { areaUnderRoc } from "../../lib/conformal/metrics-ranking.js";
import { gradientBoosting } from "../../lib/conformal/predictors/boosting.js";
import { exactSplits } from "../../lib/conformal/predictors/boosting-exact.js";
import { binColumn, histogramSplits } from "../../lib/conformal/predictors/boosting-histogram.js";
import { cart } from "../../lib/conformal/predictors/cart.js";
import { randomForest } from "../../lib/conformal/predictors/forest.js";
import { histogramSums, stride } from "../../lib/conformal/predictors/histogram-sums.js";
import { isotonicCalibration, isotonicRegression } from "../../lib/conformal/predictors/isotonic.js";
import { logisticRegression } from "../../lib/conformal/predictors/logistic.js";
import { nearestNeighbours } from "../../lib/conformal/predictors/nearest-neighbours.js";
import { permutationImportance } from "../../lib/conformal/predictors/permutation-importance.js";
import { plattCalibration, plattScaling } from "../../lib/conformal/predictors/platt.js";
import type { Predictor } from "../../lib/conformal/predictors/predictor.js";
import { rankColumn } from "../../lib/conformal/predictors/ranked-columns.js";
import { DataError, ShapeError } from "../../lib/errors.js";
import { Rng } from "../support/rng.js";

interface Sample {
  readonly x: Float64Array[];
  readonly y: Float64Array;
}

/** Labels follow a sigmoid of the first two columns and a product; the last column is noise. `grid`: values are multiples of 1/grid, so many are tied. */
function sample(rows: number, width: number, seed: number, grid = 0): Sample {
  const rng = new Rng(seed);
  const x = Array.from({ length: rows }, () =>
    Float64Array.from({ length: width }, () => (grid > 0 ? Math.round(rng.normal() * grid) / grid : Math.fround(rng.normal()))),
  );
  const y = Float64Array.from(x, row => (rng.uniform() < 1 / (1 + Math.exp(-(1.5 * row[0]! - row[1]! + row[0]! * row[1]!))) ? 1 : 0));
  return { x, y };
}

function far(a: Float64Array, b: Float64Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, v, i) => Math.max(worst, Math.abs(v - b[i]!)), 0);
}

const shuffled = ({ x, y }: Sample, seed: number): Sample & { order: number[] } => {
  const rng = new Rng(seed),
    order = [...x.keys()]
      .map(i => [rng.uniform(), i] as const)
      .sort((a, b) => a[0] - b[0])
      .map(pair => pair[1]);
  return { x: order.map(i => x[i]!), y: Float64Array.from(order, i => y[i]!), order };
};

const everyPredictor: readonly Predictor[] = [
  logisticRegression(),
  cart({ maxDepth: 4 }),
  randomForest({ trees: 5 }),
  gradientBoosting({ rounds: 5 }),
  gradientBoosting({ rounds: 5, splits: exactSplits }),
  nearestNeighbours({ k: 7 }),
  isotonicCalibration(logisticRegression()),
  plattCalibration(cart({ maxDepth: 3 })),
];

describe.each(everyPredictor.map((p, i) => [`${p.name} (${i})`, p] as const))("%s", (_, predictor) => {
  const data = sample(200, 4, 1);

  test("the same seed gives the same scores, in [0, 1], better than chance", () => {
    const [a, b] = [predictor.fit(data, { seed: 5 }).predict(data.x), predictor.fit(data, { seed: 5 }).predict(data.x)];
    expect(a).toEqual(b);
    expect(a.every(s => s >= 0 && s <= 1)).toBe(true);
    expect(areaUnderRoc(a, data.y)).toBeGreaterThan(0.7);
  });

  test("one class in training is everyone's score", () => {
    for (const label of [0, 1]) {
      const fitted = predictor.fit({ x: data.x, y: new Float64Array(200).fill(label) });
      expect([...fitted.predict(data.x)]).toEqual(Array(200).fill(label));
    }
    const weights = data.y.map(label => label); // the zeros have no weight, so they are not there
    expect(
      predictor
        .fit({ ...data, weights })
        .predict(data.x)
        .every(s => s === 1),
    ).toBe(true);
  });

  test("what cannot be used is refused by a typed error that names the place", () => {
    const { x, y } = data;
    const bad = (row: Float64Array) => ({ x: x.with(3, row), y });
    expect(() => predictor.fit({ x: [], y: new Float64Array(0) })).toThrow(ShapeError);
    expect(() => predictor.fit({ x: x.map(() => new Float64Array(0)), y })).toThrow(ShapeError);
    expect(() => predictor.fit({ x, y: y.slice(1) })).toThrow(ShapeError);
    expect(() => predictor.fit({ x, y, weights: y.slice(1) })).toThrow(ShapeError);
    expect(() => predictor.fit(bad(Float64Array.of(1, 2, 3)))).toThrow(/row 3/);
    expect(() => predictor.fit(bad(Float64Array.of(1, Number.NaN, 3, 4)))).toThrow(/row 3.*column 1.*NaN/s);
    expect(() => predictor.fit(bad(Float64Array.of(1, 2, Infinity, 4)))).toThrow(DataError);
    expect(() => predictor.fit({ x, y: y.with(7, 2) })).toThrow(/row 7/);
    expect(() => predictor.fit({ x, y: y.with(7, Number.NaN) })).toThrow(DataError);
    expect(() => predictor.fit({ x, y, weights: new Float64Array(200).fill(1).with(9, -1) })).toThrow(/row 9/);
    expect(() => predictor.fit({ x, y, weights: new Float64Array(200) })).toThrow(DataError);
    const fitted = predictor.fit(data);
    expect(() => fitted.predict([Float64Array.of(1, 2, 3)])).toThrow(ShapeError);
    expect(() => fitted.predict([Float64Array.of(1, 2, 3, Number.NaN)])).toThrow(DataError);
    expect(fitted.predict([])).toEqual(new Float64Array(0));
  });

  test("a cancelled signal stops training with its reason", () => {
    const reason = new Error("enough");
    expect(() => predictor.fit(data, { signal: AbortSignal.abort(reason) })).toThrow(reason);
  });
});

describe("weights of 2 and 4 equal repetition, weight 0 equals absence, and row order does not matter", () => {
  const data = sample(150, 3, 2),
    weights = Float64Array.from(data.y.keys(), i => [1, 2, 0, 4][i % 4]!);
  const copies = [...data.y.keys()].flatMap(i => Array<number>(weights[i]!).fill(i));
  const repeated: Sample = { x: copies.map(i => data.x[i]!), y: Float64Array.from(copies, i => data.y[i]!) };
  const mixed = shuffled(data, 3);
  // Bootstraps draw rows, so the forest's weights are not repetition.
  test.each([
    ["logistic", logisticRegression(), 1e-12],
    ["cart", cart({ maxDepth: 5 }), 1e-14],
    ["exact boosting", gradientBoosting({ rounds: 10, splits: exactSplits }), 1e-12],
    ["histogram boosting", gradientBoosting({ rounds: 10 }), 1e-12],
    ["neighbours", nearestNeighbours({ k: 9 }), 1e-14],
  ] as const)("%s", (_, predictor, bound) => {
    expect(far(predictor.fit({ ...data, weights }).predict(data.x), predictor.fit(repeated).predict(data.x))).toBeLessThanOrEqual(bound);
    expect(far(predictor.fit(data).predict(data.x), predictor.fit(mixed).predict(data.x))).toBeLessThanOrEqual(bound);
  });
});

describe("logistic regression", () => {
  test("the gradient of the objective is 0 to rounding", () => {
    const { x, y } = sample(300, 5, 4),
      weights = Float64Array.from(y.keys(), i => 0.5 + (i % 3)),
      c = 0.7;
    const { coefficients: w, intercept } = logisticRegression({ c }).fit({ x, y, weights });
    const residual = x.map((row, i) => c * weights[i]! * (1 / (1 + Math.exp(-row.reduce((sum, v, f) => sum + v * w[f]!, intercept))) - y[i]!));
    const size = residual.reduce((sum, r) => sum + Math.abs(r), 0); // rounding of a sum is a few eps of the sum of magnitudes
    expect(Math.abs(residual.reduce((sum, r) => sum + r, 0))).toBeLessThanOrEqual(100 * Number.EPSILON * size);
    for (let f = 0; f < 5; f++)
      expect(Math.abs(residual.reduce((sum, r, i) => sum + r * x[i]![f]!, w[f]!))).toBeLessThanOrEqual(100 * Number.EPSILON * (size + Math.abs(w[f]!)));
  });

  test("shifting features, even by a million, moves the intercept alone", () => {
    const { x, y } = sample(200, 3, 5);
    const [near, away] = [x, x.map(row => row.map(v => v + 2 ** 20))].map(rows => logisticRegression().fit({ x: rows, y }));
    expect(far(near!.coefficients, away!.coefficients)).toBeLessThanOrEqual(1e-8); // 2^20 times eps of float64 is 2e-10 in each value
  });

  test("labels in (0, 1) equal both labels weighted", () => {
    const { x } = sample(60, 2, 6),
      y = Float64Array.from(x, row => 1 / (1 + Math.exp(-row[0]!)));
    const soft = logisticRegression().fit({ x, y });
    const hard = logisticRegression().fit({
      x: [...x, ...x],
      y: Float64Array.from([...y.map(() => 1), ...y.map(() => 0)]),
      weights: Float64Array.from([...y, ...y.map(v => 1 - v)]),
    });
    expect(far(soft.coefficients, hard.coefficients)).toBeLessThanOrEqual(1e-10);
  });

  test("separable labels, constant and duplicate columns stay finite", () => {
    const x = Array.from({ length: 40 }, (_, i) => Float64Array.of(1e4 * (i - 20), 3, 1e4 * (i - 20))),
      y = Float64Array.from(x, row => (row[0]! >= 0 ? 1 : 0));
    for (const c of [1e-6, 1, 1e6]) {
      const fitted = logisticRegression({ c }).fit({ x, y });
      expect([...fitted.coefficients, fitted.intercept].every(Number.isFinite)).toBe(true);
      expect(fitted.coefficients[1]).toBe(0);
      expect(Math.abs(fitted.coefficients[0]! - fitted.coefficients[2]!)).toBeLessThanOrEqual(1e-6 * Math.abs(fitted.coefficients[0]!));
    }
  });
});

describe("trees", () => {
  /** Least weighted Gini impurity over all thresholds of all columns, by trying each. */
  function bestSplit({ x, y }: Sample): number {
    const gini = (rows: number[]): number => {
      const p = rows.reduce((sum, i) => sum + y[i]!, 0) / rows.length;
      return rows.length * 2 * p * (1 - p);
    };
    const splits = [...x[0]!.keys()].flatMap(f => x.map(row => [...x.keys()].filter(i => x[i]![f]! <= row[f]!)));
    const all = [...x.keys()];
    return Math.min(...splits.filter(left => left.length < x.length).map(left => gini(left) + gini(all.filter(i => !left.includes(i)))));
  }

  test("a stump is the best of all splits, ties or not", () => {
    for (let seed = 0; seed < 30; seed++) {
      const data = sample(20 + seed * 2, 3, 100 + seed, seed % 2 === 0 ? 2 : 0);
      const scores = cart({ maxDepth: 1 }).fit(data).predict(data.x);
      const impurity = data.y.reduce((sum, _, i) => sum + 2 * scores[i]! * (1 - scores[i]!), 0);
      expect(Math.abs(impurity - bestSplit(data))).toBeLessThanOrEqual(1e-9);
    }
  });

  test("a deep tree learns every distinct row", () => {
    const data = sample(400, 3, 7);
    expect(cart().fit(data).predict(data.x)).toEqual(data.y);
  });

  test.each([
    ["cart", cart({ maxDepth: 6 })],
    ["forest", randomForest({ trees: 4, maxDepth: 6, bootstrap: (_, rows) => [...Array(rows).keys()] })], // else rows out of the bag lie between neighbours
    ["exact boosting", gradientBoosting({ rounds: 5, splits: exactSplits })],
    ["histogram boosting", gradientBoosting({ rounds: 5 })],
  ] as const)("%s: increasing transforms of features change no score", (_, predictor) => {
    const { x, y } = sample(400, 4, 8);
    const bent = x.map(row => row.map((v, f) => [v, 1000 + 50 * v, Math.exp(v), v ** 3][f]!));
    // Only on training rows: thresholds lie midway between neighbours, and midway bends.
    expect(predictor.fit({ x: bent, y }).predict(bent)).toEqual(predictor.fit({ x, y }).predict(x));
  });

  test.each([
    [1, 1, 0, 1],
    [5000, 5, 0, 5000],
    [5000, 2, 17, 4113],
    [2048, 3, 0, 2048],
    [300, 1, 40, 40],
  ])("sums of %i rows and %i words of bins over [%i, %i) are the loop's, bit for bit", (rows, quads, start, end) => {
    const rng = new Rng(rows, "sums"),
      sums = histogramSums(rows, quads);
    for (let i = 0; i < sums.packed.length; i++) sums.packed[i] = (rng.integer(65536) << 16) | rng.integer(65536);
    for (let i = 0; i < rows; i++) sums.order[i] = rng.integer(rows);
    for (let i = 0; i < 2 * rows; i++) sums.pairs[i] = rng.normal();
    const expected = new Float64Array(4 * quads * stride);
    for (let i = start; i < end; i++) {
      for (let column = 0; column < 4 * quads; column++) {
        const bin = (sums.packed[sums.order[i]! * quads + (column >> 2)]! >>> (8 * (column & 3))) & 255;
        for (const k of [0, 1]) expected[column * stride + 2 * bin + k]! += sums.pairs[2 * i + k]!;
      }
    }
    for (const _ of [1, 2]) expect(sums.sum(start, end)).toEqual(expected); // a second call starts from zero
  });

  test("rows beyond what WebAssembly can address are refused", () => {
    expect(() => histogramSums(2 ** 28, 5)).toThrow("268435456 rows of 20 binned features need more than the 4 GiB");
  });

  test("the histogram search is the exact one where every value has a bin", () => {
    const data = sample(800, 4, 9, 8);
    for (const rules of [{}, { lambda: 3, alpha: 0.5 }, { gamma: 2, maxDepth: 4 }, { minChildWeight: 5 }]) {
      const [exact, histogram] = [exactSplits, histogramSplits()].map(splits =>
        gradientBoosting({ rounds: 8, ...rules, splits })
          .fit(data)
          .margin(data.x),
      );
      expect(far(exact!, histogram!)).toBeLessThanOrEqual(1e-9);
    }
  });

  test("best-leaf-first growth keeps its leaf limit, and the limit takes the best splits", () => {
    const data = sample(600, 4, 10);
    const grow = (maxLeaves: number) => gradientBoosting({ rounds: 1, maxLeaves }).fit(data).trees[0]!;
    expect(grow(5).feature.filter(f => f < 0).length).toBe(5);
    const [small, large] = [grow(2), grow(64)];
    expect([small.feature[0], small.threshold[0]]).toEqual([large.feature[0], large.threshold[0]]);
  });

  test("bins keep order, hold their share and fit in a byte", () => {
    const rng = new Rng(11),
      values = Float64Array.from({ length: 5000 }, (_, i) => (i % 5 === 0 ? 7 : rng.normal())); // one value holds a fifth of all rows
    const ranked = rankColumn("test", values, 0);
    for (const most of [2, 16, 256]) {
      const { bins, edges } = binColumn(ranked, most);
      expect(edges.length).toBeLessThan(most);
      for (let i = 0; i < values.length; i++) expect(edges.filter(edge => Math.fround(values[i]!) >= edge).length).toBe(bins[i]);
      const counts = new Map<number, number>();
      for (const bin of bins) counts.set(bin, (counts.get(bin) ?? 0) + 1);
      const heavy = bins[0]!;
      for (const [bin, count] of counts) if (bin !== heavy) expect(count).toBeLessThanOrEqual(values.length / most + 1);
    }
  });

  test("ranks sort floats: negative, subnormal, signed zero", () => {
    const values = Float64Array.of(3, -0, 0, -1e-42, 1e-42, -3, 3, 1e38, -1e38);
    const { ranks, values: distinct, order } = rankColumn("test", values, 0);
    expect([...distinct]).toEqual([-1e38, -3, -1e-42, 0, 1e-42, 3, 1e38].map(Math.fround));
    expect([...order]).toEqual([8, 5, 3, 1, 2, 4, 0, 6, 7]);
    for (const [i, v] of values.entries()) expect(distinct[ranks[i]!]).toBe(Math.fround(v) + 0);
    expect(() => rankColumn("test", Float64Array.of(1, 1e39), 2)).toThrow(/row 1.*column 2/s);
  });

  test("a tree of the forest depends on its seed and number alone", () => {
    const data = sample(200, 5, 12);
    const [few, many, other] = [
      randomForest({ trees: 2 }).fit(data, { seed: 3 }),
      randomForest({ trees: 6 }).fit(data, { seed: 3 }),
      randomForest({ trees: 2 }).fit(data, { seed: 4 }),
    ];
    expect(few.trees).toEqual(many.trees.slice(0, 2));
    expect(few.trees).not.toEqual(other.trees);
  });
});

describe("feature importance", () => {
  const train = sample(1500, 4, 20),
    held = sample(1500, 4, 21);
  // Three standard errors of an area under the curve of two half classes.
  const noise = 3 * Math.sqrt(1 / (3 * 1500));

  test.each(everyPredictor.slice(0, 5).map((p, i) => [`${p.name} (${i})`, p] as const))(
    "%s: noise is worth nothing on new rows, signal something",
    (_, predictor) => {
      const { mean, baseline } = permutationImportance(predictor.fit(train), held, { seed: 1 });
      expect(Math.abs(mean[3]!)).toBeLessThan(noise);
      expect(mean[0]!).toBeGreaterThan(noise);
      expect(baseline).toBeGreaterThan(0.7);
    },
  );

  test("built-in importance sums to 1, puts the first column first, and gives a constant none", () => {
    const data = { x: train.x.map(row => row.with(3, 5)), y: train.y };
    for (const predictor of everyPredictor.slice(0, 5)) {
      const importance = predictor.fit(data).featureImportance!;
      expect(importance.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
      expect(importance[3]).toBe(0);
      expect(importance.indexOf(Math.max(...importance))).toBe(0);
    }
  });
});

describe("isotonic regression", () => {
  test("it is the projection on non-decreasing functions", () => {
    for (let seed = 0; seed < 50; seed++) {
      const rng = new Rng(seed, "isotonic"),
        n = 1 + rng.integer(40);
      const x = Float64Array.from({ length: n }, () => rng.integer(15)), // with ties
        y = Float64Array.from({ length: n }, () => rng.normal()),
        weights = Float64Array.from({ length: n }, () => 0.1 + rng.uniform());
      const fit = isotonicRegression(x, y, weights),
        fitted = x.map(v => fit.at(v));
      const order = [...x.keys()].sort((a, b) => x[a]! - x[b]!);
      for (const [k, i] of order.slice(1).entries()) expect(fitted[i]!).toBeGreaterThanOrEqual(fitted[order[k]!]!);
      // f is the projection on a convex cone exactly if the residual is orthogonal to f and has no positive product with any member; the cone is spanned by
      // steps at the distinct x and the constants.
      const product = (g: (i: number) => number): number => y.reduce((sum, v, i) => sum + weights[i]! * (v - fitted[i]!) * g(i), 0);
      expect(Math.abs(product(i => fitted[i]!))).toBeLessThanOrEqual(1e-12 * n);
      expect(Math.abs(product(() => 1))).toBeLessThanOrEqual(1e-12 * n);
      for (const step of x) expect(product(i => (x[i]! >= step ? 1 : 0))).toBeLessThanOrEqual(1e-12 * n);
    }
  });

  test("a non-decreasing y is left alone, a decreasing one becomes its mean; between knots it is linear", () => {
    const x = Float64Array.of(0, 1, 2);
    expect([0, 0.5, 1, 1.5, 2, 9, -9, Infinity].map(isotonicRegression(x, Float64Array.of(0, 2, 4)).at)).toEqual([0, 1, 2, 3, 4, 4, 0, 4]);
    expect([...isotonicRegression(x, Float64Array.of(4, 2, 0)).y]).toEqual([2, 2]);
    expect(() => isotonicRegression(x, Float64Array.of(1, 2))).toThrow(ShapeError);
    expect(() => isotonicRegression(x, Float64Array.of(1, 2, Number.NaN))).toThrow(DataError);
  });
});

describe("calibration", () => {
  test("Platt's sigmoid: mean risk equals mean target, and so does its product with the score", () => {
    const { x, y } = sample(300, 2, 30),
      scores = Float64Array.from(x, row => row[0]!),
      aligned = y.reduce((a, b) => a + b, 0);
    const { slope, intercept } = plattScaling(scores, y);
    const residual = y.map(
      (label, i) => 1 / (1 + Math.exp(-(slope * scores[i]! + intercept))) - (label === 1 ? (aligned + 1) / (aligned + 2) : 1 / (300 - aligned + 2)),
    );
    expect(Math.abs(residual.reduce((a, b) => a + b, 0))).toBeLessThanOrEqual(1e-11);
    expect(Math.abs(residual.reduce((sum, r, i) => sum + r * scores[i]!, 0))).toBeLessThanOrEqual(1e-11);
    const separable = plattScaling(Float64Array.of(-1, -2, 1, 2), Float64Array.of(0, 0, 1, 1));
    expect(Number.isFinite(separable.slope) && separable.slope > 0).toBe(true);
    expect(plattScaling(Float64Array.of(2, 2, 2, 2), Float64Array.of(0, 1, 1, 1)).slope).toBe(0);
  });

  test("both bring an overconfident forest nearer to what comes true, on new rows", () => {
    const [train, held] = [sample(1500, 3, 31), sample(4000, 3, 32)],
      forest = randomForest({ trees: 20 });
    const brier = (p: Predictor): number =>
      p
        .fit(train)
        .predict(held.x)
        .reduce((sum, s, i) => sum + (s - held.y[i]!) ** 2 / held.y.length, 0);
    const raw = brier(forest);
    expect(brier(plattCalibration(forest))).toBeLessThan(raw);
    expect(brier(isotonicCalibration(forest))).toBeLessThan(raw);
  });
});

test("neighbours: the mean label of the k nearest, by sorting all distances", () => {
  const { x, y } = sample(120, 3, 40),
    queries = sample(20, 3, 41).x;
  const fitted = nearestNeighbours({ k: 8 }).fit({ x, y });
  for (const [q, score] of fitted.predict(queries).entries()) {
    const nearest = [...x.keys()].map(i => [Math.hypot(...x[i]!.map((v, f) => v - queries[q]![f]!)), y[i]!] as const).sort((a, b) => a[0] - b[0]);
    expect(score).toBeCloseTo(nearest.slice(0, 8).reduce((sum, pair) => sum + pair[1], 0) / 8, 12);
  }
});

test("neighbours at one distance share what is left of k", () => {
  const x = [0, 1, 1, -1, 5].map(v => Float64Array.of(v)),
    y = Float64Array.of(1, 1, 0, 0, 0);
  const at = (k: number, weights?: Float64Array): number =>
    nearestNeighbours({ k })
      .fit({ x, y, ...(weights && { weights }) })
      .predict([Float64Array.of(0)])[0]!;
  expect([1, 2, 3, 4, 5, 99].map(k => at(k))).toEqual([1, (1 + 1 / 3) / 2, (1 + 2 / 3) / 3, 2 / 4, 2 / 5, 2 / 5]);
  expect(at(2, Float64Array.of(1, 6, 2, 2, 1))).toBeCloseTo((1 + 6 / 10) / 2, 12);
});

test("settings that cannot be used are refused where they are given", () => {
  for (const make of [
    () => logisticRegression({ c: 0 }),
    () => cart({ maxDepth: 0 }),
    () => cart({ minSamplesLeaf: 1.5 }),
    () => randomForest({ trees: 0 }),
    () => gradientBoosting({ learningRate: 2 }),
    () => gradientBoosting({ lambda: -1 }),
    () => gradientBoosting({ maxLeaves: 1 }),
    () => histogramSplits({ bins: 300 }),
    () => nearestNeighbours({ k: 0 }),
    () => plattCalibration(cart(), { folds: 1 }),
  ])
    expect(make).toThrow(expect.objectContaining({ code: "ERR_CONFIG" }));
});
