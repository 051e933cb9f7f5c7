/** Which outputs to send to which annotator: the expected gain of a proper score per unit of cost. After "Online information acquisition: hiring multiple agents"
 *  (proper scores, explore then commit) in the reading of our notes, not a reproduction of its theorems. Annotators are people or reward models. */

import { ConfigError, DataError } from "../errors.js";

/** Strictly proper: in expectation, the true probability scores best. Larger is better. */
export interface ScoringRule {
  readonly name: string;
  /** Of the report p for outcome 0 or 1. */
  score(p: number, outcome: number): number;
  /** Expected score of the report p where p is true: convex, so information never lowers it. */
  expected(p: number): number;
}

export const brierRule: ScoringRule = { name: "brier", score: (p, outcome) => -((p - outcome) ** 2), expected: p => -p * (1 - p) };

const xlogx = (p: number): number => (p === 0 ? 0 : p * Math.log(p));
export const logRule: ScoringRule = {
  name: "log",
  score: (p, outcome) => (outcome === 1 ? Math.log(p) : Math.log1p(-p)),
  expected: p => xlogx(p) + xlogx(1 - p),
};

/** How an annotator answers, and what an answer costs (> 0, any unit). */
export interface Annotator {
  readonly name: string;
  /** P(says aligned | aligned), P(says not aligned | not aligned). */
  readonly sensitivity: number;
  readonly specificity: number;
  readonly cost: number;
}

/** Expected rise of the score of an output with risk p (probability of being aligned) once the annotator has answered and p was updated by Bayes' rule; >= 0. */
export function informationGain(rule: ScoringRule, p: number, { sensitivity, specificity }: Annotator): number {
  const yes = p * sensitivity + (1 - p) * (1 - specificity),
    no = 1 - yes;
  const after = (yes > 0 ? yes * rule.expected((p * sensitivity) / yes) : 0) + (no > 0 ? no * rule.expected(Math.min(1, (p * (1 - sensitivity)) / no)) : 0);
  return Math.max(0, after - rule.expected(p));
}

export interface Assignment {
  /** Annotator index per output; -1: none. */
  readonly annotator: Int32Array;
  readonly cost: number;
  readonly gain: number;
}

/** At most one annotator per output, total cost within the budget. Upgrades along each output's upper hull of (cost, gain) are taken by gain per cost: the gain is
 *  below the best possible by less than that of the one upgrade which did not fit. Throws ConfigError or DataError for numbers out of range. */
export function assignAnnotators(
  risks: Float64Array,
  annotators: readonly Annotator[],
  { budget, rule = brierRule }: { readonly budget: number; readonly rule?: ScoringRule },
): Assignment {
  check(risks, annotators, budget);
  const upgrades = Array.from(risks, (p, output) =>
    hull(annotators.map((a, i) => ({ output, annotator: i, cost: a.cost, gain: informationGain(rule, p, a) }))),
  ).flat();
  upgrades.sort((a, b) => b.efficiency - a.efficiency || a.output - b.output || a.cost - b.cost);
  const annotator = new Int32Array(risks.length).fill(-1),
    blocked = new Uint8Array(risks.length);
  let cost = 0,
    gain = 0;
  for (const step of upgrades) {
    if (blocked[step.output] || step.cost <= 0) continue;
    // A later upgrade of an output builds on the earlier one.
    if (cost + step.cost > budget * (1 + 1e-12)) blocked[step.output] = 1;
    else {
      annotator[step.output] = step.annotator;
      cost += step.cost;
      gain += step.gain;
    }
  }
  return { annotator, cost, gain };
}

interface Choice {
  readonly output: number;
  readonly annotator: number;
  readonly cost: number;
  readonly gain: number;
}

/** Steps from nothing along the upper convex hull, each with the cost and gain it adds. */
function hull(choices: readonly Choice[]): (Choice & { readonly efficiency: number })[] {
  const steps: (Choice & { readonly efficiency: number })[] = [];
  let at = { cost: 0, gain: 0 };
  for (;;) {
    let best: (Choice & { readonly efficiency: number }) | undefined;
    for (const c of choices) {
      const efficiency = (c.gain - at.gain) / (c.cost - at.cost);
      if (c.cost > at.cost && efficiency > (best?.efficiency ?? 0)) best = { ...c, cost: c.cost - at.cost, gain: c.gain - at.gain, efficiency };
    }
    if (!best) return steps;
    steps.push(best);
    at = { cost: at.cost + best.cost, gain: at.gain + best.gain };
  }
}

function check(risks: Float64Array, annotators: readonly Annotator[], budget: number): void {
  if (!(budget >= 0)) throw new ConfigError("assignAnnotators", "budget", ">= 0", budget);
  for (const [row, p] of risks.entries()) if (!(p >= 0 && p <= 1)) throw new DataError("assignAnnotators", `expected a risk in [0, 1], received ${p}`, { row });
  for (const { name, sensitivity, specificity, cost } of annotators) {
    if (!(cost > 0 && cost < Infinity)) throw new ConfigError("assignAnnotators", `cost of ${name}`, "a finite number > 0", cost);
    for (const [what, rate] of Object.entries({ sensitivity, specificity }))
      if (!(rate >= 0 && rate <= 1)) throw new ConfigError("assignAnnotators", `${what} of ${name}`, "in [0, 1]", rate);
  }
}

/** Gold items on which to try the annotators of an unknown pool before committing to one for the rest of `horizon` items: horizon^(2/3) in all, in equal shares,
 *  which makes the regret grow as horizon^(2/3). */
export function probesPerAnnotator(horizon: number, annotators: number): number {
  if (!(Number.isInteger(horizon) && horizon >= annotators && annotators >= 1))
    throw new ConfigError("probesPerAnnotator", "horizon", "a whole number of at least one item per annotator", horizon);
  return Math.max(1, Math.floor(Math.min(horizon, Math.ceil(horizon ** (2 / 3))) / annotators));
}

/** The annotator to commit to: the one whose reported risks scored best on gold items, less `costWeight` times its cost. `reports[a][i]`: annotator a's
 *  risk for gold item i. A proper rule makes honest reports the best ones. */
export function commitTo(
  reports: readonly Float64Array[],
  gold: readonly Float64Array[],
  { rule = brierRule, costs, costWeight = 0 }: { readonly rule?: ScoringRule; readonly costs?: readonly number[]; readonly costWeight?: number } = {},
): { readonly annotator: number; readonly scores: Float64Array } {
  if (reports.length === 0 || reports.length !== gold.length)
    throw new ConfigError("commitTo", "gold", `outcomes for each of ${reports.length} annotators`, gold.length);
  const scores = Float64Array.from(reports, (report, a) => {
    const outcomes = gold[a]!;
    if (report.length === 0 || report.length !== outcomes.length)
      throw new ConfigError("commitTo", `gold[${a}]`, `${report.length} outcomes, at least one`, outcomes.length);
    return report.reduce((sum, p, i) => sum + rule.score(p, outcomes[i]!), 0) / report.length - costWeight * (costs?.[a] ?? 0);
  });
  return { annotator: scores.indexOf(Math.max(...scores)), scores };
}
