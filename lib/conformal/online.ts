/** Selection in a stream: each unit is decided on arrival, and FDR stays below alpha at every time. Conformal p-values that share a calibration set are
 *  positively dependent: LOND is proved there, LORD++ holds in practice, SAFFRON needs p-values uniform under the null, e-LOND allows any dependence. */

import { ConfigError } from "../errors.js";
import { checkLevel } from "./check.js";
import { allKinds, type NullUniformKind, nullUniformKinds, type PValueKind, whyNullShare } from "./p-value-kinds.js";

/** The level of the next test given the past, and what is learnt from its outcome. */
export interface LevelRule {
  level(): number;
  record(p: number, rejected: boolean): void;
  /** What later levels depend on, as JSON; `start` takes it. */
  state(): RuleState;
}

/** Counts, and places in the stream. */
export type RuleState = Readonly<Record<string, number | readonly number[]>>;

/** A stream procedure. `kinds`: the p-values for which its guarantee was proved or checked; a stream refuses others, giving `why`. */
export interface OnlineProcedure<Kind extends PValueKind = PValueKind> {
  readonly name: string;
  readonly kinds: readonly Kind[];
  readonly why: string;
  /** What its levels depend on: a saved state belongs to a procedure of equal name and settings. */
  readonly settings: Readonly<Record<string, number>>;
  /** From the beginning, or from where a rule's `state` was taken. Throws ConfigError for a state that no such rule can have. */
  start(state?: RuleState): LevelRule;
}

const { log, exp, max, sqrt } = Math; // bound once: a sandbox that intercepts globals makes every look-up slow

/** 0.07720838 log(max(t, 2)) / (t exp(sqrt(log t))): the spending sequence of Javanmard & Montanari 2018, sum 1. */
export const lordGamma = sequence(t => (0.07720838 * log(max(t, 2))) / (t * exp(sqrt(log(t)))));

/** t^-1.6 / zeta(1.6). */
export const powerGamma = sequence(t => 0.43749017834549614 * t ** -1.6);

/** Terms t = 1, 2, ..., each computed once: a level of a long stream needs one per past rejection. */
function sequence(term: (t: number) => number): (t: number) => number {
  const known: number[] = [0];
  return t => {
    while (known.length <= t) known.push(term(known.length));
    return known[t]!;
  };
}

/** LOND (Javanmard & Montanari 2015): alpha gamma_t (1 + rejections so far). */
export function lond(options: { readonly alpha: number }): OnlineProcedure {
  const alpha = checkLevel("lond", "alpha", options.alpha);
  const start = (state?: RuleState): LevelRule => {
    let [t, rejections] = [count("LOND", state, "t", 1), count("LOND", state, "rejections", 0)];
    return {
      state: () => ({ t, rejections }),
      level: () => alpha * lordGamma(t) * (rejections + 1),
      record: (_, rejected) => {
        t++;
        if (rejected) rejections++;
      },
    };
  };
  return { name: "LOND", kinds: allKinds, why: "", settings: { alpha }, start };
}

/** LORD++ (Ramdas et al. 2017): w0 gamma_t + (alpha - w0) gamma_{t - tau_1} + alpha sum_{i >= 2} gamma_{t - tau_i}, w0 = alpha / 2. A level costs one term per
 *  past rejection. */
export function lordPlusPlus(options: { readonly alpha: number; readonly initialWealth?: number }): OnlineProcedure {
  const alpha = checkLevel("lordPlusPlus", "alpha", options.alpha);
  const w0 = checkLevel("lordPlusPlus", "initialWealth / alpha", (options.initialWealth ?? alpha / 2) / alpha) * alpha;
  const start = (state?: RuleState): LevelRule => {
    let t = count("LORD++", state, "t", 1);
    const rejectedAt = places("LORD++", state, "rejectedAt", t);
    return {
      state: () => ({ t, rejectedAt: [...rejectedAt] }),
      level: () => rejectedAt.reduce((sum, tau, i) => sum + (i === 0 ? alpha - w0 : alpha) * lordGamma(t - tau), w0 * lordGamma(t)),
      record: (_, rejected) => {
        if (rejected) rejectedAt.push(t);
        t++;
      },
    };
  };
  return { name: "LORD++", kinds: allKinds, why: "", settings: { alpha, initialWealth: w0 }, start };
}

/** SAFFRON (Ramdas et al. 2018): LORD++ that spends only where p > lambda, so it estimates the share of nulls. w0 = alpha / 4, lambda = 1/2, gamma ~ t^-1.6. */
export function saffron(options: { readonly alpha: number; readonly lambda?: number; readonly initialWealth?: number }): OnlineProcedure<NullUniformKind> {
  const alpha = checkLevel("saffron", "alpha", options.alpha),
    lambda = checkLevel("saffron", "lambda", options.lambda ?? 0.5);
  const budget = (1 - lambda) * alpha;
  const w0 = checkLevel("saffron", "initialWealth / ((1 - lambda) alpha)", (options.initialWealth ?? alpha / 4) / budget) * budget;
  const start = (state?: RuleState): LevelRule => {
    let [t, candidates] = [count("SAFFRON", state, "t", 1), count("SAFFRON", state, "candidates", 0)];
    const before = places("SAFFRON", state, "candidatesBefore", candidates + 1),
      rejections = places("SAFFRON", state, "rejectedAt", t).map((at, i) => ({ at, candidates: before[i]! }));
    if (before.length !== rejections.length) throw new ConfigError("SAFFRON", "state.candidatesBefore.length", `${rejections.length}`, before.length);
    // Candidates after a rejection do not count as tests; the rejected unit is a candidate itself and came before.
    const term = (r: (typeof rejections)[number]): number => powerGamma(t - r.at - (candidates - r.candidates));
    return {
      state: () => ({ t, candidates, rejectedAt: rejections.map(r => r.at), candidatesBefore: rejections.map(r => r.candidates) }),
      level: () =>
        Math.min(
          lambda,
          rejections.reduce((sum, r, i) => sum + (i === 0 ? budget - w0 : budget) * term(r), w0 * powerGamma(t - candidates)),
        ),
      record: (p, rejected) => {
        if (p <= lambda) candidates++;
        if (rejected) rejections.push({ at: t, candidates });
        t++;
      },
    };
  };
  return { name: "SAFFRON", kinds: nullUniformKinds, why: whyNullShare, settings: { alpha, lambda, initialWealth: w0 }, start };
}

function count(subject: string, state: RuleState | undefined, field: string, least: number): number {
  const value = state ? state[field] : least;
  if (!(typeof value === "number" && Number.isSafeInteger(value) && value >= least))
    throw new ConfigError(subject, `state.${field}`, `a whole number >= ${least}`, value);
  return value;
}

/** Whole numbers in [1, limit), ascending: where in the stream something happened. */
function places(subject: string, state: RuleState | undefined, field: string, limit: number): number[] {
  const value = state ? state[field] : [];
  const sound = Array.isArray(value) && value.every((v, i) => Number.isSafeInteger(v) && v >= (i === 0 ? 1 : value[i - 1]) && v < limit);
  if (!sound) throw new ConfigError(subject, `state.${field}`, `whole numbers from 1 below ${limit}, ascending`, value);
  return [...(value as number[])];
}
