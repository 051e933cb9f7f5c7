/** Conformal Alignment as a whole (Gui, Jin & Ren 2024, algorithm 1): reference units with features and measured alignment are split; a predictor learns
 *  from the training part who is aligned; the calibration part, untouched until then, turns its scores into a guarantee for new units. */

import { ConfigError } from "../errors.js";
import { checkLength } from "./check.js";
import { areaUnderRoc } from "./metrics-ranking.js";
import type { FitOptions, FittedPredictor, Predictor } from "./predictors/predictor.js";
import { finish, finishAsync, type Steps, scoreSteps, stepsOf } from "./predictors/steps.js";
import { type SelectInput, type Selection, select } from "./select.js";
import { type Split, type SplitShares, splitUnits } from "./split.js";

export interface AlignmentInput {
  /** One row per reference unit, all of one length, finite. */
  readonly features: readonly ArrayLike<number>[];
  /** Measured alignment, null where it was not measured. */
  readonly alignment: ArrayLike<number | null>;
  /** A unit is aligned where its alignment exceeds this; one number per unit, or one for all. */
  readonly cutoff: number | ArrayLike<number>;
  /** One predictor, or several to choose from by AUC on the tuning part. */
  readonly predictor: Predictor | readonly Predictor[];
  /** Default: training 0.5, and tuning 0.2 where there are predictors to choose from, else 0. */
  readonly split?: Partial<SplitShares>;
  /** Of the split and of the fits; default 0. */
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

type TestSettings = Omit<SelectInput, "calibration" | "test" | "weights">;
export interface TestInput extends TestSettings {
  readonly test: { readonly features: readonly ArrayLike<number>[]; readonly ids?: readonly string[] };
}

/** A fitted predictor with its calibration set, ready for test units. */
export interface AlignmentSelector {
  readonly predictor: string;
  readonly fitted: FittedPredictor;
  /** Indices into the reference units. */
  readonly split: Split;
  /** AUC of each predictor on the tuning part, NaN where that part is of one class; empty for one predictor. */
  readonly tuning: readonly { readonly predictor: string; readonly auc: number }[];
  readonly calibration: { readonly scores: Float64Array; readonly aligned: Uint8Array; readonly unlabelled: number };
  /** Larger scores: more likely aligned. */
  score(features: readonly ArrayLike<number>[]): Float64Array;
  select(input: TestInput): Selection & { readonly scores: Float64Array };
}

/** Split, fit and calibrate. `signal` is looked at between trees and rounds; the calling thread is busy all the while. */
export function fitAlignment(input: AlignmentInput): AlignmentSelector {
  return finish(alignmentSteps(input));
}

/** The same selector, fitted in turns with the event loop: a few milliseconds at a time where the predictor can be interrupted (`Predictor.steps`). Rejects with the
 *  signal's reason soon after it aborts. */
export async function fitAlignmentAsync(input: AlignmentInput): Promise<AlignmentSelector> {
  return finishAsync(alignmentSteps(input), input.signal);
}

function* alignmentSteps(input: AlignmentInput): Steps<AlignmentSelector> {
  const { seed = 0, signal } = input;
  const { rows, units, labels, predictors, dealt } = yield* dealUnits(input);
  const x = (part: Uint32Array): Float64Array[] => Array.from(part, i => rows[units[i]!]!);
  const y = (part: Uint32Array): Uint8Array => Uint8Array.from(part, i => labels[i]!);
  const original = (part: Uint32Array): Uint32Array => part.map(i => units[i]!);
  const training = { x: x(dealt.training), y: Float64Array.from(y(dealt.training)) };
  const candidates: Candidate[] = [];
  for (const one of predictors) candidates.push({ predictor: one.name, fitted: yield* fitOrConstant(one, training, { seed, ...(signal && { signal }) }) });
  const chosen = yield* choose(candidates, x(dealt.tuning), y(dealt.tuning));
  const scores = yield* scoreSteps(chosen.fitted, x(dealt.calibration));
  const calibration = { scores, aligned: y(dealt.calibration), unlabelled: rows.length - units.length };
  const score = (features: readonly ArrayLike<number>[]): Float64Array => {
    return chosen.fitted.predict(checkFeatures(subject, "test.features", features, rows[0]!.length));
  };
  return {
    ...chosen,
    split: { tuning: original(dealt.tuning), training: original(dealt.training), calibration: original(dealt.calibration) },
    calibration,
    score,
    select({ test, ...settings }) {
      const testScores = score(test.features);
      return { ...select({ ...settings, calibration, test: { scores: testScores, ...(test.ids && { ids: test.ids }) } }), scores: testScores };
    },
  };
}

const subject = "conformalAlignment";

/** Checked rows, the units among them that were measured with their labels, and the split of these. */
function* dealUnits({ features, alignment, cutoff, predictor, split, seed = 0 }: AlignmentInput) {
  const rows = yield* featureSteps(subject, "features", features);
  const { units, labels } = measured(alignment, cutoff, rows.length);
  const predictors = Array.isArray(predictor) ? (predictor as readonly Predictor[]) : [predictor as Predictor];
  if (predictors.length === 0) throw new ConfigError(subject, "predictor", "at least one predictor", "none");
  const shares = { tuning: split?.tuning ?? (predictors.length > 1 ? 0.2 : 0), training: split?.training ?? 0.5 };
  const dealt = splitUnits(units.length, shares, seed);
  if (predictors.length > 1 && dealt.tuning.length === 0) throw new ConfigError(subject, "split.tuning", "units to choose among predictors by", 0);
  if (dealt.training.length === 0 || dealt.calibration.length === 0) {
    throw new ConfigError(subject, "features.length", "enough labelled units for training and calibration", units.length);
  }
  return { rows, units, labels, predictors, dealt };
}

/** The full procedure in one call; `fitAlignment` keeps the selector for later batches. */
export function conformalAlignment(input: AlignmentInput & TestInput): {
  readonly selector: AlignmentSelector;
  readonly selection: Selection & { readonly scores: Float64Array };
} {
  const { features, alignment, cutoff, predictor, split, signal, ...testInput } = input;
  const seed = input.seed ?? 0;
  const selector = fitAlignment({ features, alignment, cutoff, predictor, seed, ...(split && { split }), ...(signal && { signal }) });
  return { selector, selection: selector.select({ ...testInput, seed }) };
}

type Candidate = Pick<AlignmentSelector, "predictor" | "fitted">;

function* choose(candidates: readonly Candidate[], x: readonly Float64Array[], aligned: Uint8Array): Steps<Candidate & Pick<AlignmentSelector, "tuning">> {
  const tuning: { predictor: string; auc: number }[] = [];
  if (candidates.length > 1) {
    for (const { predictor, fitted } of candidates) tuning.push({ predictor, auc: areaUnderRoc(yield* scoreSteps(fitted, x), aligned) });
  }
  const best = tuning.reduce((at, { auc }, i) => (auc > tuning[at]!.auc ? i : at), 0);
  return { ...candidates[best]!, tuning };
}

/** Training labels of one class leave nothing to learn: every unit scores that class, as in the authors' code. */
function* fitOrConstant(predictor: Predictor, data: { readonly x: Float64Array[]; readonly y: Float64Array }, options: FitOptions): Steps<FittedPredictor> {
  const [first] = data.y;
  if (data.y.every(label => label === first)) return { predict: rows => new Float64Array(rows.length).fill(first!) };
  return yield* stepsOf(predictor, data, options);
}

/** Units that were measured, and whether each is aligned. */
function measured(alignment: ArrayLike<number | null>, cutoff: number | ArrayLike<number>, count: number): { units: Uint32Array; labels: Uint8Array } {
  checkLength(subject, "alignment", alignment, count);
  if (typeof cutoff !== "number") checkLength(subject, "cutoff", cutoff, count);
  const units: number[] = [],
    labels: number[] = [];
  for (let i = 0; i < count; i++) {
    const value = alignment[i],
      limit = typeof cutoff === "number" ? cutoff : cutoff[i]!;
    if (value === null) continue;
    if (typeof value !== "number" || Number.isNaN(value))
      throw new ConfigError(subject, "alignment", "numbers, or null where not measured", value, `index ${i}`);
    if (typeof limit !== "number" || Number.isNaN(limit)) throw new ConfigError(subject, "cutoff", "a number", limit, `index ${i}`);
    units.push(i);
    labels.push(value > limit ? 1 : 0);
  }
  return { units: Uint32Array.from(units), labels: Uint8Array.from(labels) };
}

function checkFeatures(subject: string, option: string, features: readonly ArrayLike<number>[], width?: number): Float64Array[] {
  return finish(featureSteps(subject, option, features, width));
}

/** Copies of the rows, checked. */
function* featureSteps(
  subject: string,
  option: string,
  features: readonly ArrayLike<number>[],
  width = features[0]?.length ?? 0,
): Steps<Float64Array<ArrayBuffer>[]> {
  const rows: Float64Array<ArrayBuffer>[] = [];
  for (const [i, row] of features.entries()) {
    if (i % 4096 === 4095) yield;
    checkLength(subject, `${option}[${i}]`, row, width);
    const x = new Float64Array(width);
    for (let f = 0; f < width; f++) {
      const value = row[f]!;
      if (!(typeof value === "number" && value - value === 0)) throw new ConfigError(subject, option, "finite numbers", value, `unit ${i}, feature ${f}`);
      x[f] = value;
    }
    rows.push(x);
  }
  return rows;
}
