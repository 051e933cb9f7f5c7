/** Laws of conformal selection on small random inputs full of ties, signed zeros and infinities, against definitions written out in full. */

import fc from "fast-check";
import { adjustedPValues, benjaminiHochberg, benjaminiYekutieli, storey } from "../../lib/conformal/bh.js";
import { eBh, thresholdEValues } from "../../lib/conformal/e-values.js";
import { optCs } from "../../lib/conformal/optcs.js";
import { superuniformPValues } from "../../lib/conformal/p-value-kinds.js";
import { alignmentPValues, lexicographicPValues, randomisedPValues } from "../../lib/conformal/p-values.js";
import { Ranks } from "../../lib/conformal/ranks.js";
import { scoreThreshold } from "../../lib/conformal/threshold.js";
import { weightedConformalSelection } from "../../lib/conformal/wcs.js";
import { weightedPValues } from "../../lib/conformal/weighted.js";
import { Rng } from "../support/rng.js";

/** Few levels, so that most cases have ties, and every special value a score may have. */
const score = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 8 }).map(i => i / 8) },
  { weight: 2, arbitrary: fc.double({ noNaN: true }) },
  { weight: 1, arbitrary: fc.constantFrom(-0, 0, Infinity, -Infinity, Number.MAX_VALUE, -Number.MAX_VALUE, Number.MIN_VALUE) },
);
const calibration = fc.array(fc.tuple(score, fc.integer({ min: 0, max: 1 })), { maxLength: 40 }).map(units => ({
  scores: units.map(([s]) => s),
  aligned: units.map(([, y]) => y),
}));
const test_ = fc.array(score, { maxLength: 30 });
const alpha = fc.double({ min: 0.01, max: 0.99, noNaN: true });
const pValues = fc.array(
  fc.oneof(
    fc.double({ min: 0, max: 1, noNaN: true }),
    fc.integer({ min: 1, max: 20 }).map(i => i / 20),
  ),
  { maxLength: 40 },
);

const list = (values: ArrayLike<number>): number[] => Array.from(values);
const indices = <T>(values: readonly T[], holds: (value: T, i: number) => boolean): number[] => values.flatMap((v, i) => (holds(v, i) ? [i] : []));

/** max{k: p_(k) <= alpha k / m}, by sorting. */
function naiveSize(p: readonly number[], level: number): number {
  const sorted = [...p].sort((a, b) => a - b);
  return sorted.reduce((k, value, i) => (value * p.length <= level * (i + 1) * (1 + 1e-12) ? i + 1 : k), 0);
}

function naiveBh(p: readonly number[], level: number): number[] {
  const k = naiveSize(p, level);
  return indices(p, value => k > 0 && value * p.length <= level * k * (1 + 1e-12));
}

describe("ranks", () => {
  const many = fc.oneof(
    fc.array(score, { maxLength: 300 }),
    fc.array(fc.double({ noNaN: true }), { maxLength: 300 }),
    // Crowds at several scales: buckets within buckets, down to the deepest.
    fc.array(
      fc.tuple(fc.integer({ min: -300, max: 300 }), fc.double({ min: 1, max: 10, noNaN: true })).map(([e, x]) => x * 10 ** e),
      { minLength: 100, maxLength: 600 },
    ),
    fc.nat().map(seed => {
      const rng = new Rng(seed);
      return Array.from({ length: 2000 }, () => 10 ** (-320 * rng.uniform() ** 4) * (rng.uniform() < 0.5 ? -1 : 1));
    }),
  );

  test("below and at most are counts, one by one and in blocks; sorted is sorted", () =>
    fc.assert(
      fc.property(many, test_, (values, asked) => {
        const all = [...asked, ...values.slice(0, 40)],
          ranks = new Ranks(Float64Array.from(values));
        expect(list(ranks.sorted).map(v => v + 0)).toEqual(values.map(v => v + 0).sort((a, b) => a - b || 0));
        const below = all.map(v => values.filter(other => other < v).length),
          atMost = all.map(v => values.filter(other => other <= v).length);
        expect([all.map(v => ranks.below(v)), all.map(v => ranks.atMost(v))]).toEqual([below, atMost]);
        expect([list(ranks.counts(Float64Array.from(all))), list(ranks.counts(Float64Array.from(all), true))]).toEqual([below, atMost]);
      }),
    ));
});

describe("p-values", () => {
  test("count what their definition counts", () =>
    fc.assert(
      fc.property(calibration, test_, (cal, t) => {
        const nulls = cal.scores.filter((_, i) => cal.aligned[i] === 0);
        const expected = t.map(tj => (1 + nulls.filter(s => s >= tj).length) / (cal.scores.length + 1));
        expect(list(alignmentPValues(cal, t).values)).toEqual(expected);
        expect(list(alignmentPValues(cal, t, "null-only").values)).toEqual(t.map(tj => (1 + nulls.filter(s => s >= tj).length) / (nulls.length + 1)));
      }),
    ));

  test("random and lexicographic ties lie between counting no tie and counting every tie; with u = 1 random is deterministic", () =>
    fc.assert(
      fc.property(calibration, test_, fc.nat(), (cal, t, seed) => {
        const rng = new Rng(seed);
        const draw = (n: number): number[] => Array.from({ length: n }, () => rng.uniform());
        const most = alignmentPValues(cal, t).values,
          least = randomisedPValues(cal, t, new Float64Array(t.length)).values;
        expect(list(randomisedPValues(cal, t, new Float64Array(t.length).fill(1)).values)).toEqual(list(most));
        const keys = { calibration: draw(cal.scores.length), test: draw(t.length) };
        for (const p of [randomisedPValues(cal, t, draw(t.length)).values, lexicographicPValues(cal, t, keys).values]) {
          for (const [j, value] of p.entries()) expect(value >= least[j]! && value <= most[j]!).toBe(true);
        }
      }),
    ));

  test("any increasing map of the scores, and any order of the calibration units, leaves them as they are", () =>
    fc.assert(
      fc.property(calibration, test_, fc.nat(), (cal, t, seed) => {
        const map = (s: number): number => (s === 0 ? 0 : Math.sign(s) * Math.log1p(Math.abs(s)));
        const distinct = new Set([...cal.scores, ...t].map(s => s + 0)).size === new Set([...cal.scores, ...t].map(s => map(s) + 0)).size;
        fc.pre(distinct); // rounding may merge two values that were told apart
        const order = cal.scores.map((_, i) => i).sort((a, b) => ((a * 7919 + seed) % 101) - ((b * 7919 + seed) % 101));
        const moved = { scores: order.map(i => map(cal.scores[i]!)), aligned: order.map(i => cal.aligned[i]!) };
        expect(list(alignmentPValues(moved, t.map(map)).values)).toEqual(list(alignmentPValues(cal, t).values));
      }),
    ));
});

describe("step-up selection", () => {
  test("is its definition by sorting", () =>
    fc.assert(
      fc.property(pValues, alpha, (p, level) => {
        const { selected, k, threshold } = benjaminiHochberg(superuniformPValues(p), level);
        expect(list(selected)).toEqual(naiveBh(p, level));
        expect(k).toBe(selected.length);
        if (p.length > 0) expect(threshold).toBeCloseTo((level * k) / p.length, 12);
        const harmonic = p.reduce((sum, _, i) => sum + 1 / (i + 1), 0);
        expect(list(benjaminiYekutieli(superuniformPValues(p), level).selected)).toEqual(p.length === 0 ? [] : naiveBh(p, level / harmonic));
        const nullShare = (1 + p.filter(v => v > 0.5).length) / (p.length * 0.5);
        const capped = indices(
          p,
          v =>
            v <= 0.5 &&
            naiveBh(
              [...p].map(x => (x > 0.5 ? 2 : x)),
              level / nullShare,
            ).some(j => p[j]! >= v),
        );
        expect(list(storey(superuniformPValues(p), level).selected)).toEqual(p.length === 0 ? [] : capped);
      }),
    ));

  test("adjusted p-values are at most alpha exactly where it selects", () =>
    fc.assert(
      fc.property(pValues, alpha, (p, level) => {
        const adjusted = adjustedPValues(superuniformPValues(p));
        const borderline = adjusted.some(a => Math.abs(a - level) < 1e-9);
        fc.pre(!borderline); // where rounding decides, the selection has slack and a plain comparison has none
        expect(list(benjaminiHochberg(superuniformPValues(p), level).selected)).toEqual(indices(list(adjusted), a => a <= level));
      }),
    ));

  test("equality selects: p = k alpha / m for each of the k smallest", () =>
    fc.assert(
      fc.property(alpha, fc.integer({ min: 1, max: 60 }), (level, m) => {
        const p = Array.from({ length: m }, (_, i) => Math.min(1, (level * (i + 1)) / m));
        expect(benjaminiHochberg(superuniformPValues(p), level).k).toBe(m);
      }),
    ));

  test("the threshold form, the e-value form and the p-value form select the same units", () =>
    fc.assert(
      fc.property(calibration, test_, alpha, (cal, t, level) => {
        const selected = list(benjaminiHochberg(alignmentPValues(cal, t), level).selected);
        const { threshold, k } = scoreThreshold(cal, t, level);
        expect(k === 0 ? [] : indices(t, s => s >= threshold)).toEqual(selected);
        expect(list(eBh(thresholdEValues(cal, t, level), level).selected)).toEqual(selected);
      }),
      { numRuns: 400 },
    ));

  test("a larger alpha selects no less; another order of the test units selects the same units", () =>
    fc.assert(
      fc.property(calibration, test_, alpha, alpha, fc.nat(), (cal, t, one, other, seed) => {
        const p = alignmentPValues(cal, t);
        const small = new Set(benjaminiHochberg(p, Math.min(one, other)).selected),
          large = new Set(benjaminiHochberg(p, Math.max(one, other)).selected);
        expect([...small].every(j => large.has(j))).toBe(true);
        const order = t.map((_, j) => j).sort((a, b) => ((a * 31 + seed) % 17) - ((b * 31 + seed) % 17));
        const again = benjaminiHochberg(
          alignmentPValues(
            cal,
            order.map(j => t[j]!),
          ),
          one,
        ).selected;
        expect(
          list(again)
            .map(j => order[j]!)
            .sort((a, b) => a - b),
        ).toEqual(list(benjaminiHochberg(p, one).selected));
      }),
    ));
});

describe("selections with a set per unit", () => {
  const weight = fc.constantFrom(0, 0.25, 0.5, 1, 2, 4);

  /** |R_j| by sorting the auxiliary p-values of j, its own set to zero. */
  const naiveSizes = (m: number, level: number, auxiliary: (j: number, l: number) => number): number[] =>
    Array.from({ length: m }, (_, j) =>
      naiveSize(
        Array.from({ length: m }, (_, l) => (l === j ? 0 : auxiliary(j, l))),
        level,
      ),
    );

  const naivePruned = (candidates: readonly number[], values: readonly number[]): number[] => {
    const fits = (r: number): boolean => candidates.filter(j => values[j]! <= r).length >= r;
    const kept = Math.max(0, ...candidates.map((_, i) => i + 1).filter(fits));
    return candidates.filter(j => values[j]! <= kept);
  };

  test("weighted conformal selection is its definition", () =>
    fc.assert(
      fc.property(
        fc.array(fc.tuple(score, fc.integer({ min: 0, max: 1 }), weight), { maxLength: 25 }),
        fc.array(fc.tuple(score, weight), { maxLength: 15 }),
        alpha,
        fc.nat(),
        (cal, t, level, seed) => {
          const rng = new Rng(seed),
            xi = t.map(() => rng.uniform()),
            total = cal.reduce((sum, [, , w]) => sum + w, 0);
          const sum = (holds: (s: number) => boolean): number => cal.reduce((a, [s, y, w]) => a + (y === 0 && holds(s) ? w : 0), 0);
          const calibrationUnits = { scores: cal.map(([s]) => s), aligned: cal.map(([, y]) => y) },
            weights = { calibration: cal.map(([, , w]) => w), test: t.map(([, w]) => w) };
          fc.pre(t.every(([, w]) => total + w > 0));
          const p = t.map(([tj, w]) => (w + sum(s => s >= tj)) / (total + w));
          const sizes = naiveSizes(t.length, level, (j, l) => (sum(s => s > t[l]![0]) + (t[j]![0] > t[l]![0] ? t[j]![1] : 0)) / (total + t[j]![1]));
          const candidates = indices(p, (value, j) => value * t.length <= level * sizes[j]! * (1 + 1e-12));
          for (const [j, value] of weightedPValues(
            calibrationUnits,
            t.map(([s]) => s),
            weights,
          ).values.entries())
            expect(value).toBeCloseTo(p[j]!, 12);
          for (const [pruning, factor] of [
            ["hete", (j: number) => xi[j]!],
            ["homo", () => xi[0]!],
            ["dtm", () => 1],
          ] as const) {
            const result = weightedConformalSelection({ calibration: calibrationUnits, test: t.map(([s]) => s), weights, alpha: level, pruning, xi });
            expect(list(result.sizes)).toEqual(sizes);
            expect(list(result.selected)).toEqual(
              naivePruned(
                candidates,
                sizes.map((size, j) => size * factor(j)),
              ),
            );
          }
        },
      ),
    ));

  test("choice among scores is its definition", () =>
    fc.assert(
      fc.property(
        fc.array(fc.tuple(score, score, fc.integer({ min: 0, max: 1 })), { maxLength: 25 }),
        fc.array(fc.tuple(score, score), { minLength: 1, maxLength: 15 }),
        alpha,
        (cal, t, level) => {
          const n = cal.length,
            above = (k: 0 | 1, s: number): number => cal.filter(unit => unit[2] === 0 && unit[k] >= s).length;
          const sizes = ([0, 1] as const).map(k => naiveSizes(t.length, level, (j, l) => (above(k, t[l]![k]) + (t[j]![k] >= t[l]![k] ? 1 : 0)) / (n + 1)));
          const chosen = t.map((_, j) => (sizes[1]![j]! > sizes[0]![j]! ? 1 : 0)),
            best = t.map((_, j) => Math.max(sizes[0]![j]!, sizes[1]![j]!));
          const p = t.map((unit, j) => (1 + above(chosen[j] as 0 | 1, unit[chosen[j]!]!)) / (n + 1));
          const candidates = indices(p, (value, j) => value * t.length <= level * best[j]! * (1 + 1e-12));
          const result = optCs({
            calibration: { scores: [cal.map(u => u[0]), cal.map(u => u[1])], aligned: cal.map(u => u[2]) },
            test: { scores: [t.map(u => u[0]), t.map(u => u[1])] },
            ...{ alpha: level, pruning: "dtm", xi: [] },
          });
          expect([list(result.sizes), list(result.chosen), list(result.p)]).toEqual([best, chosen, p]);
          expect(list(result.selected)).toEqual(naivePruned(candidates, best));
        },
      ),
    ));

  test("with equal weights the weighted p-value is the plain one", () =>
    fc.assert(
      fc.property(calibration, test_, (cal, t) => {
        const weights = { calibration: cal.scores.map(() => 3), test: t.map(() => 3) };
        for (const [j, p] of weightedPValues(cal, t, weights).values.entries()) expect(p).toBeCloseTo(alignmentPValues(cal, t).values[j]!, 12);
      }),
    ));
});
