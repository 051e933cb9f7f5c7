/** The front door: scores and labels in, a selection with its guarantee and everything a reader should be warned of out. */

import { ConfigError } from "../errors.js";
import { Random } from "../util/random.js";
import { adjustedPValues, benjaminiHochberg } from "./bh.js";
import { checkLabels, checkLength, checkLevel, checkScores, checkSeed, checkWeights } from "./check.js";
import { type Guarantee, guaranteeOf } from "./guarantee.js";
import type { PValues } from "./p-value-kinds.js";
import { alignmentPValues, type CalibrationKind, lexicographicPValues, NullScores, randomisedPValues } from "./p-values.js";
import type { Pruning } from "./pruning.js";
import { calibrationWarning, minCalibration, minSelectable, shiftWarning, tieWarning, unlabelledWarning, type Warning, weightWarnings } from "./warnings.js";
import { weightedConformalSelection } from "./wcs.js";
import type { ShiftWeights } from "./weighted.js";

/** "deterministic": ties count against a unit. "random": split by one uniform number per unit. "lexicographic": broken once by a random key. */
export type Ties = "deterministic" | "random" | "lexicographic";

export interface SelectInput {
  /** `aligned`: 0/1 or booleans; null where a unit has no label, which leaves it out. `unlabelled`: units left out before. */
  readonly calibration: { readonly scores: ArrayLike<number>; readonly aligned: ArrayLike<number | boolean | null>; readonly unlabelled?: number };
  readonly test: { readonly scores: ArrayLike<number>; readonly ids?: readonly string[] };
  /** The bound on the false discovery rate, in (0, 1). */
  readonly alpha: number;
  /** Default "deterministic". */
  readonly ties?: Ties;
  /** Of everything random; default 0. Same input and seed, same selection. */
  readonly seed?: number;
  /** Default "alignment". "null-only" is valid given the labels, and selects less. */
  readonly kind?: CalibrationKind;
  /** Density ratios under covariate shift: weighted conformal selection takes the place of Benjamini-Hochberg. */
  readonly weights?: ShiftWeights & { readonly estimated?: boolean };
  /** Of weighted conformal selection; default "homo". */
  readonly pruning?: Pruning;
  /** The share of test units that one wants to be able to select; decides `minCalibration`. Default 0.1. */
  readonly share?: number;
}

export interface Selection {
  /** Indices of the selected test units, ascending. */
  readonly selected: Uint32Array;
  readonly ids: readonly string[] | undefined;
  readonly k: number;
  readonly pValues: PValues;
  /** A unit is selected exactly where this is at most alpha. Undefined with weights, where the rule is another. */
  readonly adjusted: Float64Array | undefined;
  /** Lowest selected score, Infinity where nothing is selected. Without weights and random ties everything at or above is selected. */
  readonly threshold: number;
  /** Labelled calibration units, those among them that are not aligned, and test units. */
  readonly units: { readonly calibration: number; readonly nulls: number; readonly test: number; readonly unlabelled: number };
  readonly alpha: number;
  readonly ties: Ties;
  readonly seed: number;
  readonly guarantee: Guarantee;
  /** Calibration units needed to select a share `share` of the test units, and the least number selectable with those at hand. */
  readonly minCalibration: number;
  readonly minSelectable: number;
  readonly warnings: readonly Warning[];
}

/** Selects test units so that the expected share of units that are not aligned among them is at most alpha (Gui, Jin & Ren 2024, arXiv:2405.10301).
 *  Throws ConfigError on empty or one-class calibration, NaN, mismatched lengths and levels outside (0, 1). */
export function select(input: SelectInput): Selection {
  const { alpha, ties = "deterministic", seed = 0, kind = "alignment", share = 0.1 } = input;
  checkSettings(input);
  const { calibration, weights, unlabelled } = labelled(input);
  const scores = checkScores("select", "test.scores", input.test.scores);
  if (scores.length === 0) throw new ConfigError("select", "test.scores.length", "at least 1", 0);
  const ids = input.test.ids && checkIds(input.test.ids, scores.length);
  const checked: Checked = { calibration, scores, alpha, ties, seed, kind, share };
  const result = weights ? selectWeighted(checked, weights, input) : selectPlain(checked);
  const { selected } = result;
  const units = { calibration: calibration.scores.length, nulls: calibration.aligned.reduce((sum, a) => sum + 1 - a, 0), test: scores.length, unlabelled };
  return {
    ...result,
    ids: ids && Array.from(selected, j => ids[j]!),
    k: selected.length,
    threshold: selected.reduce((least, j) => Math.min(least, scores[j]!), Infinity),
    units,
    ...{ alpha, ties, seed },
    guarantee: guaranteeOf({ alpha, ties, kind, weighted: weights !== undefined, estimated: input.weights?.estimated === true }),
    minCalibration: minCalibration(alpha, share),
    minSelectable: minSelectable(alpha, kind === "null-only" ? units.nulls : units.calibration, scores.length),
    warnings: [...unlabelledWarning(unlabelled, units.calibration), ...result.warnings],
  };
}

interface Checked {
  readonly calibration: { readonly scores: Float64Array; readonly aligned: Uint8Array };
  readonly scores: Float64Array;
  readonly alpha: number;
  readonly ties: Ties;
  readonly seed: number;
  readonly kind: CalibrationKind;
  readonly share: number;
}

type Decided = Pick<Selection, "selected" | "pValues" | "adjusted" | "warnings">;

function selectPlain({ calibration, scores, alpha, ties, seed, kind, share }: Checked): Decided {
  const pValues =
    ties === "deterministic"
      ? alignmentPValues(calibration, scores, kind)
      : ties === "random"
        ? randomisedPValues(calibration, scores, uniforms(seed, "ties", scores.length), kind)
        : lexicographicPValues(calibration, scores, tieKeys(seed, calibration.scores.length, scores.length), kind);
  const { selected } = benjaminiHochberg(pValues, alpha);
  const nulls = NullScores.of(calibration, kind, "select");
  const warnings = [
    ...calibrationWarning({ n: nulls.count, m: scores.length, alpha, share }),
    ...(ties === "deterministic" ? tieWarning(nulls, scores) : []),
    ...shiftWarning(calibration.scores, scores),
  ];
  return { selected, pValues, adjusted: adjustedPValues(pValues), warnings };
}

function selectWeighted(
  { calibration, scores, alpha, ties, seed, share }: Checked,
  weights: ShiftWeights,
  { pruning = "homo", weights: given }: SelectInput,
): Decided {
  const { selected, pValues } = weightedConformalSelection({
    ...{ calibration, test: scores, weights, alpha, pruning },
    xi: uniforms(seed, "pruning", pruning === "hete" ? scores.length : 1),
    ...(ties === "random" && { uniforms: uniforms(seed, "ties", scores.length) }),
  });
  const w = Float64Array.from(weights.calibration);
  return { selected, pValues, adjusted: undefined, warnings: weightWarnings({ weights: w, estimated: given?.estimated === true, alpha, share }) };
}

function uniforms(seed: number, stream: string, count: number): Float64Array {
  const random = new Random(seed, `conformal ${stream}`);
  return Float64Array.from({ length: count }, () => random.uniform());
}

function tieKeys(seed: number, n: number, m: number): { calibration: Float64Array; test: Float64Array } {
  return { calibration: uniforms(seed, "calibration keys", n), test: uniforms(seed, "test keys", m) };
}

function checkSettings({ calibration, test, alpha, ties = "deterministic", seed = 0, kind, weights, share = 0.1 }: SelectInput): void {
  if (typeof calibration !== "object" || calibration === null) throw new ConfigError("select", "calibration", "{ scores, aligned }", calibration);
  if (typeof test !== "object" || test === null) throw new ConfigError("select", "test", "{ scores }", test);
  checkLevel("select", "alpha", alpha);
  checkSeed("select", seed);
  if (share !== 1) checkLevel("select", "share", share);
  if (!["deterministic", "random", "lexicographic"].includes(ties))
    throw new ConfigError("select", "ties", '"deterministic", "random" or "lexicographic"', ties);
  if (weights && ties === "lexicographic") throw new ConfigError("select", "ties", '"deterministic" or "random" with weights', ties);
  if (weights && kind === "null-only") throw new ConfigError("select", "kind", '"alignment" with weights', kind);
}

/** The calibration units that have a label, and their weights. */
function labelled({ calibration: { scores, aligned, unlabelled = 0 }, weights, test }: SelectInput): {
  calibration: { scores: Float64Array; aligned: Uint8Array };
  weights: ShiftWeights | undefined;
  unlabelled: number;
} {
  const all = checkScores("select", "calibration.scores", scores);
  checkLength("select", "calibration.aligned", aligned, all.length);
  const w = weights && checkWeights("select", "weights.calibration", weights.calibration, all.length);
  const has = labelMask(aligned);
  const kept = has ? { scores: all.filter((_, i) => has[i]), labels: Array.from(aligned).filter(label => label !== null) } : { scores: all, labels: aligned };
  if (kept.labels.length === 0) throw new ConfigError("select", "calibration", "labelled units", `${all.length} units, none of them labelled`);
  const labels = checkLabels("select", "calibration.aligned", kept.labels as ArrayLike<number | boolean>);
  if (!labels.includes(0) || !labels.includes(1)) {
    const hint = "a cutoff that all units are on one side of is usually a mistake; alignmentPValues takes such sets";
    throw new ConfigError("select", "calibration.aligned", "labels of both classes", `${labels.length} labels, all of them ${labels[0]}`, hint);
  }
  const test_ = weights && checkWeights("select", "weights.test", weights.test, test.scores.length);
  return {
    calibration: { scores: kept.scores, aligned: labels },
    weights: w && test_ && { calibration: has ? w.filter((_, i) => has[i]) : w, test: test_ },
    unlabelled: unlabelled + all.length - labels.length,
  };
}

/** 1 where a unit has a label; undefined where all have. */
function labelMask(aligned: ArrayLike<number | boolean | null>): Uint8Array | undefined {
  const mask = new Uint8Array(aligned.length);
  let missing = 0;
  for (let i = 0; i < mask.length; i++) {
    if (aligned[i] === null) missing++;
    else mask[i] = 1;
  }
  return missing > 0 ? mask : undefined;
}

function checkIds(ids: readonly string[], count: number): readonly string[] {
  checkLength("select", "test.ids", ids, count);
  const seen = new Set<string>();
  for (const [j, id] of ids.entries()) {
    if (typeof id !== "string") throw new ConfigError("select", "test.ids", "strings", id, `index ${j}`);
    if (seen.has(id)) throw new ConfigError("select", "test.ids", "distinct names", id, `index ${j} repeats it`);
    seen.add(id);
  }
  return ids;
}
