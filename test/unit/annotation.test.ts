/** Sharing out annotators, and learning which one to hire. */

import { type Annotator, assignAnnotators, brierRule, commitTo, informationGain, logRule, probesPerAnnotator } from "../../lib/conformal/annotation.js";
import { DataError } from "../../lib/errors.js";
import { Rng } from "../support/rng.js";

const grid = Array.from({ length: 99 }, (_, i) => (i + 1) / 100);

test.each([brierRule, logRule])("$name: the truth is the best report, and a linear score's best report is not", rule => {
  for (const truth of grid) {
    const expected = (report: number): number => truth * rule.score(report, 1) + (1 - truth) * rule.score(report, 0);
    expect(expected(truth)).toBeCloseTo(rule.expected(truth), 12);
    for (const report of grid) if (report !== truth) expect(expected(report)).toBeLessThan(expected(truth));
  }
  const linear = (report: number): number => 0.6 * report + 0.4 * (1 - report);
  expect(linear(0.99)).toBeGreaterThan(linear(0.6));
});

const people: readonly Annotator[] = [
  { name: "crowd", sensitivity: 0.7, specificity: 0.75, cost: 1 },
  { name: "expert", sensitivity: 0.95, specificity: 0.9, cost: 4 },
  { name: "coin", sensitivity: 0.5, specificity: 0.5, cost: 0.1 },
];

test.each([brierRule, logRule])("$name: information is never worth less than nothing, a coin nothing, an oracle all there is", rule => {
  for (const p of [0, ...grid, 1]) {
    for (const a of people) expect(informationGain(rule, p, a)).toBeGreaterThanOrEqual(0);
    expect(informationGain(rule, p, people[2]!)).toBeCloseTo(0, 12);
    expect(informationGain(rule, p, { ...people[1]!, sensitivity: 1, specificity: 1 })).toBeCloseTo(-rule.expected(p), 12);
    expect(informationGain(rule, p, people[1]!)).toBeGreaterThanOrEqual(informationGain(rule, p, people[0]!) - 1e-12);
  }
});

test("an assignment stays within its budget and within one upgrade of the best of all", () => {
  for (let seed = 0; seed < 40; seed++) {
    const rng = new Rng(seed, "assign"),
      risks = Float64Array.from({ length: 6 }, () => rng.uniform()),
      budget = rng.uniform() * 20;
    const { annotator, cost, gain } = assignAnnotators(risks, people, { budget });
    const worth = (choice: ArrayLike<number>): { cost: number; gain: number } => {
      const hired = Array.from(choice, (a, i) =>
        a < 0 ? { cost: 0, gain: 0 } : { cost: people[a]!.cost, gain: informationGain(brierRule, risks[i]!, people[a]!) },
      );
      return { cost: hired.reduce((sum, h) => sum + h.cost, 0), gain: hired.reduce((sum, h) => sum + h.gain, 0) };
    };
    expect(worth(annotator).cost).toBeCloseTo(cost, 12);
    expect(worth(annotator).gain).toBeCloseTo(gain, 12);
    expect(cost).toBeLessThanOrEqual(budget * (1 + 1e-9));
    let best = 0;
    for (let code = 0; code < 4 ** 6; code++) {
      const w = worth(Array.from({ length: 6 }, (_, i) => (Math.floor(code / 4 ** i) % 4) - 1));
      if (w.cost <= budget) best = Math.max(best, w.gain);
    }
    const largest = Math.max(...risks.map(p => informationGain(brierRule, p, people[1]!)));
    expect(gain).toBeLessThanOrEqual(best + 1e-12);
    expect(gain).toBeGreaterThan(best - largest - 1e-12);
  }
});

test("with money for all, everyone unsure goes to the expert; with none, nobody", () => {
  expect([...assignAnnotators(Float64Array.of(0.5, 0.4, 0.6), people, { budget: 1e3 }).annotator]).toEqual([1, 1, 1]);
  expect([...assignAnnotators(Float64Array.of(0.5, 0.4, 0.6), people, { budget: 0 }).annotator]).toEqual([-1, -1, -1]);
  expect([...assignAnnotators(Float64Array.of(0, 1, 0.5), people, { budget: 4 }).annotator]).toEqual([-1, -1, 1]);
  expect(() => assignAnnotators(Float64Array.of(1.5), people, { budget: 1 })).toThrow(DataError);
  expect(() => assignAnnotators(Float64Array.of(0.5), [{ ...people[0]!, cost: 0 }], { budget: 1 })).toThrow(/cost of crowd/);
});

test("explore, then commit: the honest annotator is hired, and the regret grows as the horizon to the power 2/3", () => {
  // One reports the risk (0.1 or 0.9), one its opposite, one always 1/2: expected Brier scores lower by 0.64 and 0.16.
  const report = [(p: number) => p, (p: number) => 1 - p, () => 0.5],
    loss = [0, 0.64, 0.16];
  const regret = (horizon: number, seed: number): number => {
    const rng = new Rng(seed, horizon),
      probes = probesPerAnnotator(horizon, 3);
    const truths = report.map(() => Float64Array.from({ length: probes }, () => (rng.uniform() < 0.5 ? 0.1 : 0.9)));
    const gold = truths.map(t => t.map(p => (rng.uniform() < p ? 1 : 0)));
    const { annotator } = commitTo(
      truths.map((t, a) => t.map(report[a]!)),
      gold,
    );
    return probes * (loss[1]! + loss[2]!) + (horizon - 3 * probes) * loss[annotator]!;
  };
  const mean = (horizon: number): number => Array.from({ length: 50 }, (_, seed) => regret(horizon, seed)).reduce((a, b) => a + b, 0) / 50;
  // 133 and more probes each find the honest one up to chances of e^-20, so only the price of probing is left: whole numbers near horizon^(2/3) / 3.
  expect(Math.log(mean(64_000) / mean(8_000)) / Math.log(8)).toBeCloseTo(2 / 3, 2);
  expect(() => probesPerAnnotator(2, 3)).toThrow(/horizon/);
  expect(() => commitTo([Float64Array.of(0.5)], [])).toThrow(/gold/);
});
