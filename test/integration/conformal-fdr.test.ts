/** What the whole room is for: over a thousand repetitions the mean share of wrong units among those selected is at most alpha, for every valid procedure,
 *  give or take three standard errors; and every procedure known to break the promise is seen to break it, so that the simulation would notice.
 *  Settings of the stored reference simulation are also held against its means, within four combined standard errors. */

import fs from "node:fs";
import path from "node:path";
import { benjaminiHochberg, storey } from "../../lib/conformal/bh.js";
import { calibrationConditionalPValues } from "../../lib/conformal/calibration-conditional.js";
import { averagedScores, derandomised } from "../../lib/conformal/derandomise.js";
import { calibrated, rootCalibrator } from "../../lib/conformal/e-values.js";
import { jointLabel, jointScore } from "../../lib/conformal/multi-criteria.js";
import { lond, lordPlusPlus, type OnlineProcedure, saffron } from "../../lib/conformal/online.js";
import { EValueStream, type OnlineDecision, OnlineStream } from "../../lib/conformal/online-stream.js";
import { optCs } from "../../lib/conformal/optcs.js";
import { type PValueKind, type PValues, superuniformPValues } from "../../lib/conformal/p-value-kinds.js";
import { alignmentPValues, lexicographicPValues, randomisedPValues } from "../../lib/conformal/p-values.js";
import { riskThreshold } from "../../lib/conformal/risk-control.js";
import { weightedConformalSelection } from "../../lib/conformal/wcs.js";
import { weightedPValues } from "../../lib/conformal/weighted.js";
import { goldenSets, goldensRoot } from "../support/goldens.js";
import { Rng } from "../support/rng.js";

const { exp, min, max, sqrt, abs, round } = Math;
const [set] = goldenSets("conformal");
const reference = set && JSON.parse(fs.readFileSync(path.join(goldensRoot, set, "fdr_sim.json"), "utf8")).settings;
const alphas = [0.1, 0.2, 0.3, 0.5] as const;
const sigmoid = (x: number): number => 1 / (1 + exp(-x));

interface Units {
  readonly scores: number[];
  readonly aligned: number[];
}
/** The selections of one repetition, by method, at one alpha. */
type Methods = (alpha: number) => Record<string, ArrayLike<number>>;

interface Summary {
  readonly fdp: number;
  readonly se: number;
  readonly power: number;
}

/** Mean FDP of each method at each alpha. `draw` makes the data of a repetition and says what selects from it. */
function simulate(repetitions: number, name: string, draw: (rng: Rng) => { truth: readonly number[]; methods: Methods }): Record<string, Summary[]> {
  const sums: Record<string, number[][]> = {};
  for (let r = 0; r < repetitions; r++) {
    const { truth, methods } = draw(new Rng(r, name));
    const total = truth.reduce((a, b) => a + b, 0);
    for (const [a, alpha] of alphas.entries()) {
      for (const [method, selected] of Object.entries(methods(alpha))) {
        let right = 0;
        for (let i = 0; i < selected.length; i++) right += truth[selected[i]!]!;
        const fdp = (selected.length - right) / max(1, selected.length);
        sums[method] ??= alphas.map(() => [0, 0, 0]);
        const cell = sums[method]![a]!;
        cell[0]! += fdp;
        cell[1]! += fdp * fdp;
        cell[2]! += right / max(1, total);
      }
    }
  }
  const summary = ([sum, squares, power]: number[]): Summary => {
    const fdp = sum! / repetitions;
    return { fdp, se: sqrt(max(0, squares! / repetitions - fdp * fdp) / (repetitions - 1)), power: power! / repetitions };
  };
  return Object.fromEntries(Object.entries(sums).map(([method, rows]) => [method, rows.map(summary)]));
}

function expectValid(result: Record<string, Summary[]>, ...methods: string[]): void {
  const worse = methods.flatMap(m => result[m]!.flatMap(({ fdp, se }, a) => (fdp <= alphas[a]! + 3 * se ? [] : [`${m} at ${alphas[a]}: FDP ${fdp} +- ${se}`])));
  expect(worse).toEqual([]);
}

/** The trap springs: FDR above alpha by five standard errors at this alpha. */
function expectBroken(result: Record<string, Summary[]>, method: string, alpha: (typeof alphas)[number]): void {
  const { fdp, se } = result[method]![alphas.indexOf(alpha)]!;
  expect({ method, fdp, exceeds: fdp > alpha + 5 * se }).toEqual({ method, fdp, exceeds: true });
}

/** Agreement with the reference simulation; `names` maps our method to its column. */
function expectReference(result: Record<string, Summary[]>, setting: string, names: Readonly<Record<string, string>>): void {
  if (!reference) return;
  const far = Object.entries(names).flatMap(([mine, theirs]) => {
    const golden = reference[setting][theirs];
    return alphas.flatMap((alpha, a) => {
      const at = golden.alpha.indexOf(alpha),
        { fdp, se } = result[mine]![a]!;
      const bound = 4 * sqrt(se ** 2 + golden.se_fdp[at] ** 2) + 1e-9;
      return abs(fdp - golden.mean_fdp[at]) <= bound ? [] : [`${mine} at ${alpha}: ${fdp}, reference ${golden.mean_fdp[at]}, bound ${bound}`];
    });
  });
  expect(far).toEqual([]);
}

const bh = (p: PValues, alpha: number): Uint32Array => benjaminiHochberg(p, alpha).selected;
const uniforms = (rng: Rng, n: number): Float64Array => Float64Array.from({ length: n }, () => rng.uniform());
function units(n: number, one: () => [score: number, aligned: number]): Units {
  const all = Array.from({ length: n }, one);
  return { scores: all.map(([s]) => s), aligned: all.map(([, y]) => y) };
}

test("ties: deterministic, random, lexicographic, null-only and calibration-conditional", () => {
  const result = simulate(1000, "ties", rng => {
    const one = (): [number, number] => {
      const z = rng.normal();
      return [round(5 * sigmoid(2 * z)) / 5, Number(rng.uniform() < sigmoid(2 * z))];
    };
    const cal = units(400, one),
      t = units(500, one);
    const p: Record<string, PValues> = {
      deterministic: alignmentPValues(cal, t.scores),
      random: randomisedPValues(cal, t.scores, uniforms(rng, 500)),
      lexicographic: lexicographicPValues(cal, t.scores, { calibration: uniforms(rng, 400), test: uniforms(rng, 500) }),
      nullOnly: alignmentPValues(cal, t.scores, "null-only"),
      conditional: calibrationConditionalPValues(cal, t.scores, { delta: 0.1 }),
    };
    return { truth: t.aligned, methods: alpha => Object.fromEntries(Object.entries(p).map(([name, values]) => [name, bh(values, alpha)])) };
  });
  expectValid(result, "deterministic", "random", "lexicographic", "nullOnly", "conditional");
  expectReference(result, "ties_6_levels", { deterministic: "deterministic", random: "random", lexicographic: "lexicographic", nullOnly: "null_only_det" });
  for (const a of [0, 1]) expect(result.random![a]!.power).toBeGreaterThan(result.deterministic![a]!.power + 0.02);
});

test("a score that knows nothing, and thirty calibration units", () => {
  const blind = simulate(1000, "blind", rng => {
    const one = (): [number, number] => [rng.uniform(), Number(rng.uniform() < 0.6)];
    const cal = units(200, one),
      t = units(500, one),
      p = alignmentPValues(cal, t.scores);
    return { truth: t.aligned, methods: alpha => ({ deterministic: bh(p, alpha) }) };
  });
  expectValid(blind, "deterministic");
  expectReference(blind, "uninformative_score", { deterministic: "deterministic" });
  const tiny = simulate(1000, "tiny", rng => {
    const one = (): [number, number] => {
      const z = rng.normal();
      return [z, Number(rng.uniform() < sigmoid(2 * z + 0.5))];
    };
    const cal = units(30, one),
      t = units(100, one);
    const p = alignmentPValues(cal, t.scores),
      random = randomisedPValues(cal, t.scores, uniforms(rng, 100));
    return { truth: t.aligned, methods: alpha => ({ deterministic: bh(p, alpha), random: bh(random, alpha) }) };
  });
  expectValid(tiny, "deterministic", "random");
  expectReference(tiny, "tiny_calibration_30", { deterministic: "deterministic", random: "random" });
});

test("a predictor fitted on other units holds, one fitted on the calibration units does not", () => {
  /** Mean label of the three nearest training units on the line. */
  const nearest =
    (train: readonly (readonly [x: number, y: number])[]) =>
    (x: number): number => {
      const three = [Infinity, Infinity, Infinity],
        labels = [0, 0, 0];
      for (const [other, y] of train) {
        const distance = abs(other - x);
        const worst = three.indexOf(max(...three));
        if (distance < three[worst]!) [three[worst], labels[worst]] = [distance, y];
      }
      return (labels[0]! + labels[1]! + labels[2]!) / 3;
    };
  const result = simulate(200, "leak", rng => {
    const draw = (n: number): [number, number][] =>
      Array.from({ length: n }, () => {
        const x = rng.normal();
        return [x, Number(rng.uniform() < sigmoid(1.5 * x))];
      });
    const [train, cal, t] = [draw(100), draw(100), draw(100)];
    const select = (score: (x: number) => number, alpha: number): Uint32Array => {
      const calibration = { scores: cal.map(([x]) => score(x)), aligned: cal.map(([, y]) => y) };
      return bh(
        alignmentPValues(
          calibration,
          t.map(([x]) => score(x)),
        ),
        alpha,
      );
    };
    return { truth: t.map(([, y]) => y), methods: alpha => ({ split: select(nearest(train), alpha), leak: select(nearest(cal), alpha) }) };
  });
  expectValid(result, "split");
  for (const alpha of [0.1, 0.2] as const) expectBroken(result, "leak", alpha);
});

test("covariate shift: weighted conformal selection holds, ignoring the shift does not", () => {
  const shift = -1.2;
  const result = simulate(1000, "shift", rng => {
    const one = (mean: number): { x2: number; score: number; y: number } => {
      const x1 = rng.normal(),
        x2 = mean + rng.normal();
      return { x2, score: sigmoid(1.5 * x1), y: Number(rng.uniform() < sigmoid(1.5 * x1 + 2 * x2 + 0.8)) };
    };
    const cal = Array.from({ length: 300 }, () => one(0)),
      t = Array.from({ length: 60 }, () => one(shift));
    const calibration = { scores: cal.map(u => u.score), aligned: cal.map(u => u.y) },
      scores = t.map(u => u.score),
      weights = { calibration: cal.map(u => exp(shift * u.x2)), test: t.map(u => exp(shift * u.x2)) },
      xi = uniforms(rng, 60);
    const plain = alignmentPValues(calibration, scores),
      weighted = weightedPValues(calibration, scores, weights);
    const wcs = (alpha: number, pruning: "homo" | "hete" | "dtm"): Uint32Array =>
      weightedConformalSelection({ calibration, test: scores, weights, alpha, pruning, xi }).selected;
    const methods: Methods = alpha => ({
      unweighted: bh(plain, alpha),
      weightedBh: bh(weighted, alpha),
      homo: wcs(alpha, "homo"),
      hete: wcs(alpha, "hete"),
      dtm: wcs(alpha, "dtm"),
    });
    return { truth: t.map(u => u.y), methods };
  });
  expectValid(result, "weightedBh", "homo", "hete", "dtm");
  for (const alpha of alphas) expectBroken(result, "unweighted", alpha);
  expectReference(result, "covariate_shift", { unweighted: "unweighted", weightedBh: "weighted_bh", homo: "wcs_homo", hete: "wcs_hete", dtm: "wcs_dtm" });
});

test("choice among scores: OptCS holds, the score that selects most does not", () => {
  const noise = [1, 2.5, 3, 8, 8, 8];
  const result = simulate(1000, "optcs", rng => {
    const draw = (n: number): { scores: number[][]; aligned: number[] } => {
      const z = Array.from({ length: n }, () => rng.normal());
      return { scores: noise.map(sd => z.map(v => v + sd * rng.normal())), aligned: z.map(v => Number(rng.uniform() < sigmoid(2 * v))) };
    };
    const cal = draw(100),
      t = draw(40),
      xi = uniforms(rng, 40);
    const single = noise.map((_, k) => alignmentPValues({ scores: cal.scores[k]!, aligned: cal.aligned }, t.scores[k]!));
    const methods: Methods = alpha => ({
      homo: optCs({ calibration: cal, test: t, alpha, xi }).selected,
      hete: optCs({ calibration: cal, test: t, alpha, xi, pruning: "hete" }).selected,
      dtm: optCs({ calibration: cal, test: t, alpha, xi, pruning: "dtm" }).selected,
      best: single.map(p => bh(p, alpha)).reduce((a, b) => (b.length > a.length ? b : a)),
    });
    return { truth: t.aligned, methods };
  });
  expectValid(result, "homo", "hete", "dtm");
  for (const alpha of [0.1, 0.2, 0.3] as const) expectBroken(result, "best", alpha);
});

test("three criteria: one joint score holds, intersections and the largest p-value do not", () => {
  const result = simulate(1000, "criteria", rng => {
    const draw = (n: number): { p: number[][]; y: number[][] } => {
      const p = Array.from({ length: n }, () => Array.from({ length: 3 }, () => sigmoid(1.5 + 3 * rng.normal())));
      return { p, y: p.map(row => row.map(v => Number(rng.uniform() < v))) };
    };
    const cal = draw(300),
      t = draw(300);
    const joint = alignmentPValues({ scores: jointScore(cal.p, "all"), aligned: jointLabel(cal.y, "all") }, jointScore(t.p, "all"));
    const each = [0, 1, 2].map(k =>
      alignmentPValues(
        { scores: cal.p.map(row => row[k]!), aligned: cal.y.map(row => row[k]!) },
        t.p.map(row => row[k]!),
      ),
    );
    const largest = superuniformPValues(each[0]!.values.map((v, j) => max(v, each[1]!.values[j]!, each[2]!.values[j]!)));
    const methods: Methods = alpha => {
      const [a, b, c] = each.map(p => new Set(bh(p, alpha)));
      return { joint: bh(joint, alpha), intersection: [...a!].filter(j => b!.has(j) && c!.has(j)), largest: bh(largest, alpha) };
    };
    return { truth: [...jointLabel(t.y, "all")], methods };
  });
  expectValid(result, "joint");
  for (const alpha of [0.1, 0.2, 0.3] as const) expectBroken(result, "intersection", alpha);
  expectBroken(result, "largest", 0.3);
});

test("streams: SAFFRON and Storey hold on null-only p-values and collapse on alignment p-values passed off as uniform", () => {
  const result = simulate(300, "stream", rng => {
    const one = (): [number, number] => {
      const z = rng.normal();
      return [z, Number(rng.uniform() < sigmoid(3 * z))];
    };
    const cal = units(1000, one),
      t = units(200, one);
    const u = uniforms(rng, 200); // levels fall below 1 / (n + 1), where only randomised p-values can follow
    const alignment = randomisedPValues(cal, t.scores, u),
      nullOnly = randomisedPValues(cal, t.scores, u, "null-only"),
      disguised = superuniformPValues(alignment.values); // what the types and the check at run time refuse to take as it is
    const run = <K extends PValueKind>(procedure: OnlineProcedure<K>, p: PValues<K>): number[] => chosen(new OnlineStream(procedure).push(p));
    const chosen = (decisions: readonly OnlineDecision[]): number[] => decisions.flatMap(({ selected }, i) => (selected ? [i] : []));
    const methods: Methods = alpha => ({
      lond: run(lond({ alpha }), alignment as PValues),
      lord: run(lordPlusPlus({ alpha }), alignment as PValues),
      saffron: run(saffron({ alpha }), nullOnly),
      saffronOnAlignment: run(saffron({ alpha }), disguised),
      storey: storey(nullOnly, alpha).selected,
      storeyOnAlignment: storey(disguised, alpha).selected,
      eLond: chosen(new EValueStream({ alpha }).push(calibrated(alignment, rootCalibrator))),
      offline: bh(alignment, alpha),
    });
    return { truth: t.aligned, methods };
  });
  expectValid(result, "lond", "lord", "saffron", "storey", "eLond", "offline");
  for (const alpha of [0.1, 0.2, 0.3] as const) {
    expectBroken(result, "saffronOnAlignment", alpha);
    expectBroken(result, "storeyOnAlignment", alpha);
  }
  expectReference(result, "online_stream_200", {
    lord: "lordpp_joint_p",
    saffron: "saffron_null_only_p",
    saffronOnAlignment: "saffron_joint_p",
    offline: "offline_bh_joint_p",
  });
});

test("several noisy scores: averaged scores and averaged e-values hold, and averaged scores find more than one score", () => {
  const result = simulate(400, "derandomised", rng => {
    const draw = (n: number): { runs: number[][]; aligned: number[] } => {
      const z = Array.from({ length: n }, () => rng.normal());
      return { runs: Array.from({ length: 8 }, () => z.map(v => v + 0.6 * rng.normal())), aligned: z.map(v => Number(rng.uniform() < sigmoid(2.5 * v))) };
    };
    const cal = draw(300),
      t = draw(200);
    const single = alignmentPValues({ scores: cal.runs[0]!, aligned: cal.aligned }, t.runs[0]!),
      averaged = alignmentPValues({ scores: averagedScores(cal.runs), aligned: cal.aligned }, averagedScores(t.runs));
    const runs = cal.runs.map((scores, r) => ({ calibration: { scores, aligned: cal.aligned }, test: t.runs[r]! }));
    const methods: Methods = alpha => ({
      single: bh(single, alpha),
      averaged: bh(averaged, alpha),
      eValues: derandomised(runs, alpha, { innerAlpha: alpha / 4 }).selected,
    });
    return { truth: t.aligned, methods };
  });
  expectValid(result, "single", "averaged", "eValues");
  expect(result.averaged![1]!.power).toBeGreaterThan(result.single![1]!.power + 0.05);
  expect(result.eValues![1]!.power).toBeGreaterThan(0.02);
});

test("risk control: the expected share of all units that are selected and not aligned is at most alpha", () => {
  const losses = alphas.map(() => [0, 0]);
  const repetitions = 2000;
  for (let r = 0; r < repetitions; r++) {
    const rng = new Rng(r, "risk");
    const one = (): [number, number] => {
      const z = rng.normal();
      return [z, Number(rng.uniform() < sigmoid(z))];
    };
    const cal = units(60, one),
      t = units(50, one);
    for (const [a, alpha] of alphas.entries()) {
      const threshold = riskThreshold({ scores: cal.scores, losses: cal.aligned.map(y => 1 - y), alpha: min(alpha, 0.4) });
      const loss = t.scores.reduce((sum, s, i) => sum + (s >= threshold ? 1 - t.aligned[i]! : 0), 0) / 50;
      losses[a]![0]! += loss / repetitions;
      losses[a]![1]! += (loss * loss) / repetitions;
    }
  }
  for (const [a, alpha] of alphas.entries()) {
    const [mean, squares] = losses[a]! as [number, number];
    expect(mean).toBeLessThanOrEqual(min(alpha, 0.4) + 3 * sqrt((squares - mean * mean) / repetitions));
  }
  expect(losses[0]![0]).toBeGreaterThan(0.07); // 0.1 less at most B / (n + 1): not by selecting nothing
});
