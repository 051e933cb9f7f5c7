/** The front door, the whole procedure, streams, and what is refused: pairings that break the guarantee, and input that cannot be used. */

import { Ranks } from "../../lib/conformal/ranks.js";
import { kolmogorovSmirnov } from "../../lib/conformal/shift.js";
import { ConfigError, conformal } from "../../lib/index.js";
import { Rng } from "../support/rng.js";

const { log, exp } = Math;
const sigmoid = (x: number): number => 1 / (1 + exp(-x));
const list = (values: ArrayLike<number>): number[] => Array.from(values);

function units(count: number, seed: number, rounding = (s: number): number => s): { scores: number[]; aligned: boolean[] } {
  const rng = new Rng(seed);
  const z = Array.from({ length: count }, () => rng.normal());
  return { scores: z.map(v => rounding(sigmoid(2 * v))), aligned: z.map(v => rng.uniform() < sigmoid(2 * v)) };
}

/** The message of the ConfigError that `call` throws. */
function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message;
  }
  throw new Error("nothing was thrown");
}

describe("select", () => {
  const calibration = units(400, 1),
    test_ = { scores: units(300, 2).scores };

  test("selects the units whose adjusted p-value is at most alpha, those at or above the threshold", () => {
    const ids = test_.scores.map((_, j) => `unit ${j}`);
    const result = conformal.select({ calibration, test: { ...test_, ids }, alpha: 0.2 });
    expect(result.k).toBeGreaterThan(20);
    expect(list(result.selected)).toEqual(test_.scores.flatMap((s, j) => (s >= result.threshold ? [j] : [])));
    expect(list(result.selected)).toEqual(list(result.adjusted!).flatMap((p, j) => (p <= 0.2 * (1 + 1e-12) ? [j] : [])));
    expect(result.ids).toEqual(list(result.selected).map(j => `unit ${j}`));
    expect(result.guarantee.holds).toBe("finite-sample");
    expect(result.guarantee.statement).toContain("at most 0.2");
    expect(result.units).toEqual({ calibration: 400, nulls: calibration.aligned.filter(a => !a).length, test: 300, unlabelled: 0 });
    expect(result.warnings).toEqual([]);
  });

  test("one seed, one selection; another seed may differ; the seed is kept", () => {
    const coarse = { calibration: units(300, 3, s => Math.round(4 * s) / 4), test: { scores: units(300, 4, s => Math.round(4 * s) / 4).scores }, alpha: 0.2 };
    for (const ties of ["random", "lexicographic"] as const) {
      const one = conformal.select({ ...coarse, ties, seed: 5 });
      expect(list(conformal.select({ ...coarse, ties, seed: 5 }).pValues.values)).toEqual(list(one.pValues.values));
      expect(list(conformal.select({ ...coarse, ties, seed: 6 }).pValues.values)).not.toEqual(list(one.pValues.values));
      expect([one.seed, one.ties]).toEqual([5, ties]);
      expect(one.k).toBeGreaterThanOrEqual(conformal.select(coarse).k);
    }
    expect(conformal.select(coarse).warnings.map(w => w.code)).toEqual(["ties"]);
  });

  test("minCalibration is the least n at which a unit can be selected", () => {
    for (const [alpha, share] of [
      [0.1, 1],
      [0.1, 0.1],
      [0.05, 0.25],
      [0.3, 0.5],
    ] as const) {
      const n = conformal.minCalibration(alpha, share),
        m = 20,
        k = Math.round(share * m);
      const best = (size: number): number => {
        const p = new Float64Array(m).fill(1);
        p.fill(1 / (size + 1), 0, k);
        return conformal.benjaminiHochberg(conformal.superuniformPValues(p), alpha).k;
      };
      expect([best(n), best(n - 1)]).toEqual([k, 0]);
    }
  });

  test("warns of a calibration set that is too small, of shift, of missing labels", () => {
    const small = conformal.select({ calibration: units(20, 7), test: test_, alpha: 0.05 });
    expect(small.warnings.map(w => w.code)).toContain("calibration-too-small");
    expect(small.minSelectable).toBe(Math.ceil(300 / (0.05 * 21)));
    expect(small.k).toBe(0);
    const shifted = conformal.select({ calibration, test: { scores: test_.scores.map(s => s * s) }, alpha: 0.1 });
    expect(shifted.warnings.map(w => w.code)).toContain("shift");
    const some = calibration.aligned.map((a, i) => (i % 4 === 0 ? null : a));
    const missing = conformal.select({ calibration: { scores: calibration.scores, aligned: some }, test: test_, alpha: 0.1 });
    expect(missing.units).toMatchObject({ calibration: 300, unlabelled: 100 });
    expect(missing.warnings[0]).toMatchObject({ code: "unlabelled", message: expect.stringContaining("25 %") });
    const kept = { scores: calibration.scores.filter((_, i) => i % 4 !== 0), aligned: calibration.aligned.filter((_, i) => i % 4 !== 0) };
    expect(list(conformal.select({ calibration: kept, test: test_, alpha: 0.1 }).selected)).toEqual(list(missing.selected));
  });

  test("weights: weighted conformal selection, and estimated weights lose the exact guarantee in words", () => {
    const weights = { calibration: calibration.scores.map(s => 0.5 + s), test: test_.scores.map(s => 0.5 + s) };
    const exact = conformal.select({ calibration, test: test_, alpha: 0.3, weights });
    expect([exact.guarantee.holds, exact.adjusted, exact.warnings]).toEqual(["finite-sample", undefined, []]);
    expect(exact.k).toBeGreaterThan(0);
    const scaled = { calibration: weights.calibration.map(w => 4 * w), test: weights.test.map(w => 4 * w) };
    expect(list(conformal.select({ calibration, test: test_, alpha: 0.3, weights: scaled }).selected)).toEqual(list(exact.selected));
    const guessed = conformal.select({ calibration, test: test_, alpha: 0.3, weights: { ...weights, estimated: true } });
    expect(guessed.guarantee.holds).toBe("as-estimated");
    expect(guessed.guarantee.statement).toContain("not a finite-sample guarantee");
    expect(guessed.warnings.map(w => w.code)).toEqual(["estimated-weights"]);
    const heavy = { calibration: calibration.scores.map((_, i) => (i < 3 ? 1000 : 1)), test: test_.scores.map(() => 1) };
    expect(conformal.select({ calibration, test: test_, alpha: 0.3, weights: heavy }).warnings.map(w => w.code)).toEqual(["few-effective-units"]);
  });

  test("input that cannot be used is refused, named by field and place", () => {
    const good: conformal.SelectInput = { calibration, test: test_, alpha: 0.1 };
    const refuse = (change: Partial<conformal.SelectInput>): string => refusal(() => conformal.select({ ...good, ...change }));
    const scores = calibration.scores.with(17, Number.NaN);
    expect(refuse({ calibration: { ...calibration, scores } })).toMatch(/calibration\.scores.*NaN.*index 17/);
    expect(refuse({ test: { scores: [0.1, Number.NaN] } })).toMatch(/test\.scores.*NaN.*index 1/);
    expect(refuse({ test: { scores: [] } })).toMatch(/test\.scores\.length/);
    expect(refuse({ calibration: { scores: [], aligned: [] } })).toMatch(/labelled units/);
    expect(refuse({ calibration: { ...calibration, aligned: [true] } })).toMatch(/calibration\.aligned\.length.*400.*1/);
    expect(refuse({ calibration: { ...calibration, aligned: calibration.aligned.map(() => 1) } })).toMatch(/both classes/);
    expect(refuse({ calibration: { ...calibration, aligned: calibration.aligned.map(() => 2) } })).toMatch(/labels 0, 1, false or true.*2.*index 0/);
    for (const alpha of [0, 1, -0.1, 1.5, Number.NaN]) expect(refuse({ alpha })).toMatch(/alpha.*\(0, 1\)/);
    expect(refuse({ seed: 0.5 })).toMatch(/seed/);
    expect(refuse({ ties: "none" as "random" })).toMatch(/ties/);
    expect(refuse({ test: { scores: [1, 2], ids: ["a", "a"] } })).toMatch(/distinct names.*"a"/);
    expect(refuse({ weights: { calibration: [1], test: [1] } })).toMatch(/weights\.calibration\.length/);
    expect(refuse({ weights: { calibration: calibration.scores.map(() => -1), test: test_.scores } })).toMatch(/weights\.calibration.*-1/);
    expect(refuse({ calibration: undefined as never })).toMatch(/calibration.*undefined/);
    expect(refuse({ test: [1, 2] as never })).toMatch(/test\.scores/);
  });
});

describe("pairings that break the guarantee", () => {
  const calibration = units(50, 1),
    p = conformal.alignmentPValues(calibration, [0.2, 0.9]);

  test("alignment p-values are refused where the share of nulls is estimated", () => {
    const reason = /uniform on \[0, share of nulls\].*null-only/;
    expect(refusal(() => conformal.storey(p as never, 0.1))).toMatch(reason);
    expect(refusal(() => new conformal.OnlineStream(conformal.saffron({ alpha: 0.1 })).push(p as never))).toMatch(reason);
    const asked = { calibration, procedure: conformal.saffron({ alpha: 0.1 }), kind: "alignment" as never };
    expect(refusal(() => conformal.onlineSelection(asked))).toMatch(reason);
    const nullOnly = conformal.alignmentPValues(calibration, [0.2, 0.9], "null-only");
    expect(conformal.storey(nullOnly, 0.1).k).toBeGreaterThanOrEqual(0);
    expect(new conformal.OnlineStream(conformal.saffron({ alpha: 0.1 })).push(nullOnly)).toHaveLength(2);
  });

  test("a stream decides nothing of what it refuses", () => {
    const stream = new conformal.OnlineStream(conformal.saffron({ alpha: 0.1 }));
    const { level } = stream;
    refusal(() => stream.push(p as never));
    expect([stream.seen, stream.level]).toEqual([0, level]);
  });

  test("1 / p is not an e-value", () => {
    const reason = /1 \/ p is not an e-value.*infinite/;
    expect(refusal(() => conformal.calibrated(p, x => 1 / x))).toMatch(reason);
    expect(refusal(() => conformal.calibrated(p, x => 0.6 / Math.sqrt(x)))).toMatch(reason);
    expect(refusal(() => conformal.eBh(p as never, 0.1))).toMatch(reason);
    expect(refusal(() => conformal.eValues(p as never))).toMatch(reason);
    expect(refusal(() => new conformal.EValueStream({ alpha: 0.1 }).push(p as never))).toMatch(reason);
    expect(list(conformal.calibrated(p, conformal.rootCalibrator).values)).toEqual(list(p.values).map(x => 0.5 / Math.sqrt(x)));
    expect(conformal.calibrated(p, x => -log(x)).values).toHaveLength(2); // integral 1
  });

  test("numbers without a kind are not p-values", () => {
    expect(refusal(() => conformal.benjaminiHochberg([0.1, 0.2] as never, 0.1))).toMatch(/with their kind.*bare numbers/);
    expect(refusal(() => conformal.superuniformPValues([0.1, 1.2]))).toMatch(/\[0, 1\].*1\.2.*index 1/);
    expect(refusal(() => conformal.superuniformPValues([Number.NaN]))).toMatch(/NaN/);
  });
});

describe("streams", () => {
  test("a unit's p-value and decision are those of the batch", () => {
    const calibration = units(300, 1),
      { scores } = units(100, 2);
    const online = conformal.onlineSelection({ calibration, procedure: conformal.lordPlusPlus({ alpha: 0.3 }) });
    const pushed = scores.map(s => online.push(s));
    const p = conformal.alignmentPValues(calibration, scores);
    const batch = new conformal.OnlineStream(conformal.lordPlusPlus({ alpha: 0.3 })).push(p);
    expect(pushed).toEqual(batch.map((decision, j) => ({ ...decision, pValue: p.values[j] })));
    expect([online.stream.seen, online.stream.selected]).toEqual([100, batch.filter(d => d.selected).length]);
    expect(refusal(() => online.push(Number.NaN))).toMatch(/NaN/);
    expect(online.stream.seen).toBe(100);
  });

  test("levels spend no more than alpha where nothing is selected", () => {
    const p = conformal.superuniformPValues(new Float64Array(5000).fill(1));
    for (const procedure of [conformal.lond({ alpha: 0.1 }), conformal.lordPlusPlus({ alpha: 0.1 })]) {
      const spent = new conformal.OnlineStream(procedure).push(p).reduce((sum, { level }) => sum + level, 0);
      expect(spent).toBeLessThanOrEqual(0.1);
      expect(spent).toBeGreaterThan(0.015); // half of the sum lies beyond 10^7 tests
    }
  });
});

describe("the whole procedure", () => {
  /** Score by distance to the class means: enough to separate two Gaussians. */
  const meanDifference = (name: string, sign = 1): conformal.Predictor => ({
    name,
    fit({ x, y }) {
      const direction = x[0]!.map((_, d) => {
        const of = (label: number): number => x.reduce((sum, row, i) => sum + (y[i] === label ? row[d]! : 0), 0) / y.filter(v => v === label).length;
        return sign * (of(1) - of(0));
      });
      return { predict: rows => Float64Array.from(rows, row => row.reduce((sum, v, d) => sum + v * direction[d]!, 0)) };
    },
  });
  const draw = (count: number, seed: number): { features: number[][]; alignment: number[] } => {
    const rng = new Rng(seed);
    const features = Array.from({ length: count }, () => [rng.normal(), rng.normal(), rng.normal()]);
    return { features, alignment: features.map(([a, b]) => 3 + a! - b! + 0.7 * rng.normal()) };
  };
  const reference = draw(600, 1),
    later = draw(400, 2);
  const input: conformal.AlignmentInput = { ...reference, cutoff: 3, predictor: meanDifference("means"), seed: 4 };

  test("splits, fits on training alone, calibrates on the rest, and keeps its promise here", () => {
    const { selector, selection } = conformal.conformalAlignment({ ...input, test: { features: later.features }, alpha: 0.1 });
    const { tuning, training, calibration } = selector.split;
    expect([tuning.length, training.length, calibration.length]).toEqual([0, 300, 300]);
    expect(new Set([...training, ...calibration]).size).toBe(600);
    const wrong = list(selection.selected).filter(j => later.alignment[j]! <= 3).length;
    expect(selection.k).toBeGreaterThan(80);
    expect(wrong / selection.k).toBeLessThan(0.2);
    expect(list(selection.scores)).toEqual(list(selector.score(later.features)));
    const direct = conformal.select({ calibration: selector.calibration, test: { scores: selection.scores }, alpha: 0.1 });
    expect(list(direct.selected)).toEqual(list(selection.selected));
    expect(list(selector.calibration.aligned)).toEqual(list(calibration).map(i => Number(reference.alignment[i]! > 3)));
  });

  test("the predictor never sees a calibration unit or its label", () => {
    const seen: Float64Array[] = [];
    const spy: conformal.Predictor = {
      name: "spy",
      fit(data, options) {
        seen.push(...data.x);
        return meanDifference("means").fit(data, options);
      },
    };
    const selector = conformal.fitAlignment({ ...input, predictor: spy });
    const firsts = new Set(seen.map(row => row[0]));
    expect(list(selector.split.calibration).filter(i => firsts.has(reference.features[i]![0]))).toEqual([]);
    const relabelled = reference.alignment.slice();
    for (const i of selector.split.calibration) relabelled[i] = 6 - relabelled[i]!;
    const again = conformal.fitAlignment({ ...input, alignment: relabelled });
    expect(list(again.score(later.features))).toEqual(list(selector.score(later.features)));
  });

  test("of several predictors the one with the largest AUC on the tuning part; same seed, same split", () => {
    const selector = conformal.fitAlignment({ ...input, predictor: [meanDifference("backwards", -1), meanDifference("forwards")] });
    expect(selector.predictor).toBe("forwards");
    expect(selector.tuning.map(t => t.predictor)).toEqual(["backwards", "forwards"]);
    expect(selector.tuning[0]!.auc + selector.tuning[1]!.auc).toBeCloseTo(1, 12);
    expect(selector.split.tuning).toHaveLength(120);
    expect(conformal.fitAlignment(input).split).toEqual(conformal.fitAlignment(input).split);
    expect(conformal.fitAlignment({ ...input, seed: 5 }).split).not.toEqual(conformal.fitAlignment(input).split);
  });

  test("sizes are floor(share N), unmeasured units are left out before the split, and a cutoff may be one per unit", () => {
    expect(Object.values(conformal.splitUnits(103, { tuning: 0.2, training: 0.5 }, 1)).map(part => part.length)).toEqual([20, 51, 32]);
    const holes = reference.alignment.map((a, i) => (i % 3 === 0 ? null : a));
    const selector = conformal.fitAlignment({ ...input, alignment: holes });
    expect(selector.calibration.unlabelled).toBe(200);
    expect([...selector.split.training, ...selector.split.calibration].filter(i => i % 3 === 0)).toEqual([]);
    expect(selector.select({ test: { features: later.features }, alpha: 0.1 }).warnings.map(w => w.code)).toContain("unlabelled");
    const cutoffs = reference.alignment.map((_, i) => (i % 2 === 0 ? 2 : 4));
    const own = conformal.fitAlignment({ ...input, cutoff: cutoffs });
    expect(list(own.calibration.aligned)).toEqual(list(own.split.calibration).map(i => Number(reference.alignment[i]! > cutoffs[i]!)));
  });

  test("alignment at the cutoff is not above it", () => {
    const whole = reference.alignment.map(a => Math.round(a));
    const selector = conformal.fitAlignment({ ...input, alignment: whole });
    expect(list(selector.calibration.aligned)).toEqual(list(selector.split.calibration).map(i => Number(whole[i]! >= 4)));
  });

  test("training labels of one class make a constant score, not a failure", () => {
    const selector = conformal.fitAlignment({ ...input, cutoff: -100 });
    expect(list(selector.score(later.features.slice(0, 2)))).toEqual([1, 1]);
    expect(list(conformal.fitAlignment({ ...input, cutoff: 100 }).score(later.features.slice(0, 2)))).toEqual([0, 0]);
  });

  test("bad input is refused", () => {
    expect(refusal(() => conformal.fitAlignment({ ...input, features: [...reference.features.slice(1), [1, 2]] }))).toMatch(/features\[599\]\.length.*3.*2/);
    expect(refusal(() => conformal.fitAlignment({ ...input, features: [...reference.features.slice(1), [1, 2, Infinity]] }))).toMatch(/unit 599, feature 2/);
    expect(refusal(() => conformal.fitAlignment({ ...input, alignment: reference.alignment.with(2, Number.NaN) }))).toMatch(/alignment.*NaN.*index 2/);
    expect(refusal(() => conformal.fitAlignment({ ...input, cutoff: Number.NaN }))).toMatch(/cutoff/);
    expect(refusal(() => conformal.fitAlignment({ ...input, split: { training: 1 } }))).toMatch(/split/);
    expect(refusal(() => conformal.fitAlignment({ ...input, predictor: [] }))).toMatch(/predictor/);
    const selector = conformal.fitAlignment(input);
    expect(refusal(() => selector.score([[1, 2]]))).toMatch(/test\.features\[0\]\.length/);
  });
});

describe("shift", () => {
  test("the test of shift: distance by hand, its tail, and a size near its level where nothing shifted", () => {
    const ranks = (values: readonly number[]): Ranks => new Ranks(Float64Array.from(values));
    expect(kolmogorovSmirnov(ranks([1, 2, 3, 4]), ranks([3, 4, 4, 9])).statistic).toBe(0.5); // at 2: 2/4 against 0/4; at 4: 4/4 against 3/4
    expect(kolmogorovSmirnov(ranks([1, 1]), ranks([1])).statistic).toBe(0);
    const rng = new Rng(5);
    const rejected = (mean: number): number => {
      let count = 0;
      for (let r = 0; r < 2000; r++) {
        const draw = (m: number): Ranks => ranks(Array.from({ length: 60 }, () => m + rng.normal()));
        if (kolmogorovSmirnov(draw(0), draw(mean)).pValue < 0.05) count++;
      }
      return count / 2000;
    };
    const size = rejected(0);
    expect(size).toBeLessThan(0.05 + 4 * Math.sqrt((0.05 * 0.95) / 2000));
    expect(size).toBeGreaterThan(0.02);
    expect(rejected(1)).toBeGreaterThan(0.95);
  });

  test("weights estimated by a good classifier order units as the true density ratio does", () => {
    const rng = new Rng(3);
    const calibration = Array.from({ length: 400 }, () => Float64Array.of(rng.normal())),
      test_ = Array.from({ length: 400 }, () => Float64Array.of(1 + rng.normal()));
    const exact: conformal.Predictor = { name: "bayes", fit: () => ({ predict: rows => Float64Array.from(rows, ([x]) => sigmoid(x! - 0.5)) }) };
    const weights = conformal.estimateShiftWeights({ calibration, test: test_, predictor: exact });
    expect(weights.estimated).toBe(true);
    for (const [i, w] of Array.from(weights.calibration).entries()) expect(w).toBeCloseTo(Math.min(999, exp(calibration[i]![0]! - 0.5)), 8);
    const wild: conformal.Predictor = { name: "margins", fit: () => ({ predict: rows => new Float64Array(rows.length).fill(3) }) };
    expect(refusal(() => conformal.estimateShiftWeights({ calibration, test: test_, predictor: wild }))).toMatch(/probabilities in \[0, 1\].*3/);
  });
});

describe("small procedures", () => {
  test("boosting an e-value never lowers it, and averaging keeps the mean", () => {
    const e = conformal.eValues([2, 0, 5]);
    expect(list(conformal.boosted(e, [0.5, 1, 1]).values)).toEqual([4, 0, 5]);
    expect(list(conformal.averagedEValues([e, conformal.eValues([0, 0, 1])]).values)).toEqual([1, 0, 3]);
    expect(refusal(() => conformal.boosted(e, [0, 1, 1]))).toMatch(/uniforms/);
    expect(refusal(() => conformal.averagedEValues([e, conformal.eValues([1])]))).toMatch(/length/);
  });

  test("residual and null-only conformity, with a cutoff per unit, count what they say", () => {
    const cal = { scores: [0.1, 0.5, 0.9, 0.4], alignment: [1, 2, 5, 3], cutoff: [2, 1, 4, 3] },
      t = { scores: [0.45, 0.8], cutoff: [2, 3] };
    // V_i = y - mu = 0.9, 1.5, 4.1, 2.6; at the cutoffs V_j = 1.55, 2.2.
    expect(list(conformal.conformityPValues(cal, t, conformal.residual).values)).toEqual([3 / 5, 3 / 5]);
    // Not aligned: units 0 (1 <= 2) and 3 (3 <= 3); clip compares -mu: -0.1, -0.4 with -0.45, -0.8.
    const nullOnly = conformal.conformityPValues(cal, t, conformal.clip, { kind: "null-only" });
    expect([nullOnly.kind, list(nullOnly.values)]).toEqual(["null-only", [1 / 3, 1 / 3]]);
    expect(list(conformal.conformityPValues(cal, t, conformal.residual, { uniforms: [0.5, 0] }).values)).toEqual([2.5 / 5, 2 / 5]);
    expect(refusal(() => conformal.conformityPValues(cal, t, () => Number.NaN))).toMatch(/conformity.*NaN/);
  });

  test("a criterion table with a ragged row or a probability above 1 is refused", () => {
    expect(refusal(() => conformal.jointLabel([[1, 0], [1]], "all"))).toMatch(/row 1/);
    expect(refusal(() => conformal.jointScore([[0.5, 1.1]], "any"))).toMatch(/1\.1/);
    expect(refusal(() => conformal.jointScore([[0.5]], "most" as never))).toMatch(/"all" or "any"/);
  });

  test("bounds on ranks are ascending and at most 1, and hold for all ranks at once in a share 1 - delta of sets", () => {
    for (const bounds of [conformal.simesBounds, conformal.dkwmBounds]) {
      const n = 50,
        table = list(bounds(n, 0.2));
      expect(table.every((b, i) => b <= 1 && b >= (table[i - 1] ?? 0))).toBe(true);
      const rng = new Rng(8);
      let held = 0;
      for (let r = 0; r < 2000; r++) {
        const u = Float64Array.from({ length: n }, () => rng.uniform()).sort();
        if (u.every((value, i) => value <= table[i]!)) held++;
      }
      expect(held / 2000).toBeGreaterThanOrEqual(0.8 - 3 * Math.sqrt(0.16 / 2000));
    }
  });
});
