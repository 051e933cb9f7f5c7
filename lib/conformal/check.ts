/** Input checks of this room. Each message names the function, the field, what was expected and the first value that was not. */

import { ConfigError } from "../errors.js";

/** Units with a score and a known label. Larger scores mean "more likely aligned"; a label is 0/1 or a boolean. */
export interface LabelledScores {
  readonly scores: ArrayLike<number>;
  readonly aligned: ArrayLike<number | boolean>;
}

/** Slack of every comparison p_(k) <= alpha k / m, so that mathematical equality rejects whatever the rounding. */
export const slack = 1 + 1e-12;

/** Scores as doubles: infinities order as numbers do, NaN has no order and is refused. */
export function checkScores(subject: string, option: string, values: ArrayLike<number>): Float64Array {
  const out = values instanceof Float64Array ? values : Float64Array.from(checkArray(subject, option, values));
  for (let i = 0; i < out.length; i++) {
    if (Number.isNaN(out[i]!)) throw new ConfigError(subject, option, "numbers, none of them NaN", values[i], `index ${i}`);
  }
  return out;
}

/** Numbers in [low, high]. */
export function checkRange(subject: string, option: string, values: ArrayLike<number>, low: number, high: number): Float64Array {
  const out = values instanceof Float64Array ? values : Float64Array.from(checkArray(subject, option, values));
  for (let i = 0; i < out.length; i++) {
    if (!(out[i]! >= low && out[i]! <= high)) throw new ConfigError(subject, option, `numbers in [${low}, ${high}]`, values[i], `index ${i}`);
  }
  return out;
}

/** Finite weights, zero or more. */
export function checkWeights(subject: string, option: string, values: ArrayLike<number>, length: number): Float64Array {
  checkLength(subject, option, values, length);
  return checkRange(subject, option, values, 0, Number.MAX_VALUE);
}

/** Labels as 0 and 1. */
export function checkLabels(subject: string, option: string, labels: ArrayLike<number | boolean>): Uint8Array {
  checkArray(subject, option, labels);
  const out = new Uint8Array(labels.length);
  for (let i = 0; i < out.length; i++) {
    const label = labels[i];
    if (label === 1 || label === true) out[i] = 1;
    else if (label !== 0 && label !== false) throw new ConfigError(subject, option, "labels 0, 1, false or true", label, `index ${i}`);
  }
  return out;
}

/** Scores and labels of one length. */
export function checkLabelled(subject: string, { scores, aligned }: LabelledScores): { scores: Float64Array; aligned: Uint8Array } {
  const checked = checkScores(subject, "calibration.scores", scores);
  checkLength(subject, "calibration.aligned", aligned, checked.length);
  return { scores: checked, aligned: checkLabels(subject, "calibration.aligned", aligned) };
}

export function checkLength(subject: string, option: string, values: ArrayLike<unknown>, length: number): void {
  checkArray(subject, option, values);
  if (values.length !== length) throw new ConfigError(subject, `${option}.length`, `${length}, one entry per unit`, values.length);
}

/** A level strictly between 0 and 1. */
export function checkLevel(subject: string, option: string, value: number): number {
  if (!(typeof value === "number" && value > 0 && value < 1)) throw new ConfigError(subject, option, "a number in (0, 1)", value);
  return value;
}

/** A seed that Philox takes whole: an integer in [0, 2^53). */
export function checkSeed(subject: string, seed: number): number {
  if (!(Number.isSafeInteger(seed) && seed >= 0)) throw new ConfigError(subject, "seed", "an integer in [0, 2^53)", seed);
  return seed;
}

function checkArray<T extends ArrayLike<unknown>>(subject: string, option: string, values: T): T {
  if (typeof values !== "object" || values === null || !Number.isSafeInteger(values.length)) {
    throw new ConfigError(subject, option, "an array or a typed array", typeof values);
  }
  return values;
}
