/** The whole procedure, features to selection, repeated: mean share of mistakes and mean power over nineteen levels, on the reference simulation's logistic
 *  settings and on human labels of generated images (TIA2, AGIQA-3K). Own draws, so the means must agree with the stored ones within three combined standard
 *  errors, and the mean share of mistakes must stay at or below its level. */

import fs from "node:fs";
import path from "node:path";
import { fitAlignment } from "../../lib/conformal/alignment.js";
import { adjustedPValues } from "../../lib/conformal/bh.js";
import { randomisedPValues } from "../../lib/conformal/p-values.js";
import { randomForest } from "../../lib/conformal/predictors/forest.js";
import { logisticRegression } from "../../lib/conformal/predictors/logistic.js";
import type { Predictor } from "../../lib/conformal/predictors/predictor.js";
import { describeSets } from "../support/goldens.js";
import { agiqa3k, type HumanLabels, tia2, whyNoHumanLabels } from "../support/human-labels.js";
import { Rng } from "../support/rng.js";

const { exp, max, sqrt, abs } = Math;

interface Curve {
  readonly alpha: readonly number[];
  readonly mean_fdp: readonly number[];
  readonly se_fdp: readonly number[];
  readonly mean_power: readonly number[];
  readonly reps: number;
}

interface Units {
  readonly x: readonly Float64Array[];
  readonly y: readonly number[];
}

/** Sums over repetitions of FDP and power and of their squares, per level. */
class Means {
  readonly #sums: Float64Array[];
  #repetitions = 0;

  constructor(readonly alpha: readonly number[]) {
    this.#sums = alpha.map(() => new Float64Array(4));
  }

  /** Benjamini-Hochberg at every level: the units whose adjusted p-value is at most alpha. */
  add(adjusted: Float64Array, aligned: readonly number[]): void {
    const total = aligned.reduce((a, b) => a + b, 0);
    this.#repetitions++;
    for (const [a, alpha] of this.alpha.entries()) {
      let selected = 0,
        right = 0;
      for (let j = 0; j < adjusted.length; j++) {
        if (adjusted[j]! > alpha * (1 + 1e-12)) continue;
        selected++;
        right += aligned[j]!;
      }
      const fdp = (selected - right) / max(1, selected),
        power = right / max(1, total),
        sums = this.#sums[a]!;
      for (const [i, v] of [fdp, fdp * fdp, power, power * power].entries()) sums[i]! += v;
    }
  }

  /** What lies too far from the reference, and what exceeds its level, in words. The reference stores no spread of power: ours, scaled to its repetitions, stands
   *  for it, where power is away from 0 and 1 far enough for a normal band (ten repetitions' worth, the rule for shares). */
  faults(reference: Curve): string[] {
    const n = this.#repetitions;
    return this.alpha.flatMap((alpha, a) => {
      const [fdp, fdpSquares, power, powerSquares] = [...this.#sums[a]!].map(v => v / n) as [number, number, number, number];
      const se = sqrt(max(0, fdpSquares - fdp * fdp) / (n - 1)),
        at = reference.alpha.indexOf(alpha);
      const fdpBand = 3 * sqrt(se ** 2 + reference.se_fdp[at]! ** 2) + 1e-5, // stored with five decimals
        expected = reference.mean_power[at]!,
        estimable = n * Math.min(expected, 1 - expected) >= 10,
        powerBand = 3 * sqrt(((powerSquares - power * power) / (n - 1)) * (1 + n / reference.reps)) + 1e-5;
      return [
        ...(abs(fdp - reference.mean_fdp[at]!) <= fdpBand ? [] : [`FDP at ${alpha}: ${fdp}, reference ${reference.mean_fdp[at]}, band ${fdpBand}`]),
        ...(!estimable || abs(power - expected) <= powerBand ? [] : [`power at ${alpha}: ${power}, reference ${expected}, band ${powerBand}`]),
        ...(fdp <= alpha + 3 * se ? [] : [`FDP ${fdp} +- ${se} exceeds ${alpha}`]),
      ];
    });
  }
}

/** One repetition through the front door: tuning 0.2 (unused with one predictor), training 0.5, the rest calibrates. */
function selector(predictor: Predictor, reference: Units, seed: number) {
  return fitAlignment({ features: reference.x, alignment: reference.y, cutoff: 0.5, predictor, split: { tuning: 0.2, training: 0.5 }, seed });
}

/** Repetitions, each with N reference and 500 test units from `draw`. */
function curve(repetitions: number, alpha: readonly number[], predictor: Predictor, draw: (r: number) => { reference: Units; test: Units }): Means {
  const means = new Means(alpha);
  for (let r = 0; r < repetitions; r++) {
    const { reference, test: later } = draw(r);
    means.add(selector(predictor, reference, r).select({ test: { features: later.x }, alpha: 0.5 }).adjusted!, later.y);
  }
  return means;
}

const take = ({ x, y }: Units, rows: Uint32Array): Units => ({ x: Array.from(rows, i => x[i]!), y: Array.from(rows, i => y[i]!) });

/** Images at random, without replacement. */
function byImage(data: HumanLabels, count: number, label: string) {
  const order = Uint32Array.from(data.y.keys());
  return (r: number) => {
    deal(order, count + 500, new Rng(r, label));
    return { reference: take(data, order.subarray(0, count)), test: take(data, order.subarray(count, count + 500)) };
  };
}

/** Reference images of one half of the prompts, test images of the other. */
function byPrompt(data: HumanLabels, count: number, label: string) {
  const names = [...new Set(data.prompt)];
  return (r: number) => {
    const rng = new Rng(r, label),
      order = Uint32Array.from(names.keys());
    deal(order, order.length, rng);
    const half = new Set(Array.from(order.subarray(0, order.length >> 1), i => names[i]!));
    const sides = [true, false].map(side => Uint32Array.from(data.y.keys()).filter(i => half.has(data.prompt[i]!) === side));
    for (const [i, side] of sides.entries()) deal(side, i === 0 ? count : 500, rng);
    return { reference: take(data, sides[0]!.subarray(0, count)), test: take(data, sides[1]!.subarray(0, 500)) };
  };
}

/** The first `count` places get a random choice of all. */
function deal(order: Uint32Array, count: number, rng: Rng): void {
  for (let i = 0; i < count; i++) {
    const j = i + rng.integer(order.length - i);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
}

/** What half a minute of processor time allows for all settings together; large ones vary less. */
const repetitions = (count: number): number => (count >= 2000 ? 200 : 300);

describeSets("conformal", folder => {
  const read = (name: string) => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8"));

  const settings = read("fdr_sim.json").settings as Record<string, { deterministic: Curve; random: Curve }>;
  test.each(Object.keys(settings).filter(name => name.startsWith("logit_D")))("%s with our logistic regression: deterministic and random ties", name => {
    const count = Number(name.slice("logit_D".length)),
      { deterministic, random } = settings[name]!,
      [plain, tied] = [new Means(deterministic.alpha), new Means(random.alpha)];
    for (let r = 0; r < repetitions(count); r++) {
      const rng = new Rng(r, name),
        [reference, later] = [logitUnits(count, rng), logitUnits(500, rng)];
      const fitted = selector(logisticRegression(), reference, r),
        scores = fitted.score(later.x);
      plain.add(fitted.select({ test: { features: later.x }, alpha: 0.5 }).adjusted!, later.y);
      const uniforms = Float64Array.from(later.y, () => rng.uniform());
      tied.add(adjustedPValues(randomisedPValues(fitted.calibration, scores, uniforms)), later.y);
    }
    expect({ plain: plain.faults(deterministic), tied: tied.faults(random) }).toEqual({ plain: [], tied: [] });
  });

  if (whyNoHumanLabels) test.skip(whyNoHumanLabels, () => undefined);
  else {
    const [images, opinions] = [tia2(), agiqa3k()];
    const curves = (name: string): [string, Curve][] => Object.entries(read(name).curves as Record<string, Curve>);
    test.each(curves("tia2_real.json"))("TIA2, %s", (name, golden) => {
      const [split, predictor, count] = name.split("|") as [string, string, string],
        forest = predictor === "rf";
      const draw = (split === "prompt_split" ? byPrompt : byImage)(images, Number(count), name);
      const means = curve(forest ? 40 : repetitions(Number(count)), golden.alpha, forest ? randomForest({ maxDepth: 30 }) : logisticRegression(), draw);
      expect(means.faults(golden)).toEqual([]);
    });
    test.each(curves("agiqa3k_real.json"))("AGIQA-3K, %s", (name, golden) => {
      const count = Number(name.split("|")[1]);
      const means = curve(repetitions(count), golden.alpha, logisticRegression(), byImage(opinions, count, name));
      expect(means.faults(golden)).toEqual([]);
    });
  }
});

/** X ~ N(0, I_13), P(y = 1) = sigmoid(x . beta), beta_k = 1.2 (-0.7)^k. */
function logitUnits(count: number, rng: Rng): Units {
  const x = Array.from({ length: count }, () => Float64Array.from({ length: 13 }, () => rng.normal()));
  const y = x.map(row => Number(rng.uniform() < 1 / (1 + exp(-row.reduce((sum, v, k) => sum + v * 1.2 * (-0.7) ** k, 0)))));
  return { x, y };
}
