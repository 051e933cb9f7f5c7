/** The inputs of a certificate in one canonical form: plain JSON in a fixed order, infinities as words, defaults written out, so that equal inputs have
 *  equal hashes and a file says everything that a recomputation needs. */

import { ConfigError } from "../errors.js";
import { checkLength, checkScores } from "./check.js";
import type { CalibrationKind } from "./p-values.js";
import type { Pruning } from "./pruning.js";
import type { SelectInput, Ties } from "./select.js";

export interface CertificateInput extends Omit<SelectInput, "calibration"> {
  /** What is selected, in a line. */
  readonly title?: string;
  /** The alignment above which a unit counts as aligned. */
  readonly cutoff?: number;
  /** Labels, or measured alignment (null: not measured), from which labels follow by the cutoff. */
  readonly calibration:
    | SelectInput["calibration"]
    | { readonly scores: ArrayLike<number>; readonly alignment: ArrayLike<number | null>; readonly unlabelled?: number };
  /** Of the rehearsal; 0 leaves it out. Default 200. */
  readonly repetitions?: number;
}

/** A number of JSON, or "Infinity" and "-Infinity". */
export type Json = number | "Infinity" | "-Infinity";

export interface CertificateInputs {
  readonly title: string;
  readonly cutoff: number | null;
  readonly alpha: number;
  readonly ties: Ties;
  readonly seed: number;
  readonly kind: CalibrationKind;
  readonly pruning: Pruning;
  readonly share: number;
  readonly repetitions: number;
  readonly calibration: {
    readonly scores: readonly Json[];
    readonly alignment: readonly (Json | null)[] | null;
    readonly aligned: readonly (0 | 1 | null)[];
    readonly unlabelled: number;
  };
  readonly test: { readonly scores: readonly Json[]; readonly ids: readonly string[] | null };
  readonly weights: { readonly calibration: readonly number[]; readonly test: readonly number[]; readonly estimated: boolean } | null;
}

export function canonical(input: CertificateInput): CertificateInputs {
  const { title = "", cutoff, alpha, ties = "deterministic", seed = 0, kind = "alignment", pruning = "homo", share = 0.1, repetitions = 200 } = input;
  if (cutoff !== undefined && !Number.isFinite(cutoff)) throw new ConfigError("certify", "cutoff", "a finite number", cutoff);
  if (!(Number.isInteger(repetitions) && repetitions >= 0 && repetitions <= 100_000)) {
    throw new ConfigError("certify", "repetitions", "an integer in [0, 100000]", repetitions);
  }
  const { weights, test } = input;
  return {
    ...{ title, cutoff: cutoff ?? null, alpha, ties, seed, kind, pruning, share, repetitions },
    calibration: canonicalCalibration(input.calibration, cutoff),
    test: { scores: encoded(checkScores("certify", "test.scores", test.scores)), ids: test.ids ? [...test.ids] : null },
    weights: weights ? { calibration: Array.from(weights.calibration), test: Array.from(weights.test), estimated: weights.estimated === true } : null,
  };
}

function canonicalCalibration(calibration: CertificateInput["calibration"], cutoff: number | undefined): CertificateInputs["calibration"] {
  const scores = checkScores("certify", "calibration.scores", calibration.scores),
    unlabelled = calibration.unlabelled ?? 0;
  if (!(Number.isSafeInteger(unlabelled) && unlabelled >= 0)) throw new ConfigError("certify", "calibration.unlabelled", "a count", unlabelled);
  if ("alignment" in calibration) {
    if (cutoff === undefined) throw new ConfigError("certify", "cutoff", "the number that measured alignment is compared with", cutoff);
    checkLength("certify", "calibration.alignment", calibration.alignment, scores.length);
    const alignment = Array.from(calibration.alignment, (value, i) => {
      if (value === null || (typeof value === "number" && !Number.isNaN(value))) return value;
      throw new ConfigError("certify", "calibration.alignment", "numbers, or null where not measured", value, `index ${i}`);
    });
    const aligned = alignment.map(value => (value === null ? null : value > cutoff ? 1 : 0));
    return { scores: encoded(scores), alignment: alignment.map(value => (value === null ? null : encode(value))), aligned, unlabelled };
  }
  checkLength("certify", "calibration.aligned", calibration.aligned, scores.length);
  const aligned = Array.from(calibration.aligned, label => (typeof label === "boolean" ? (label ? 1 : 0) : (label as 0 | 1 | null))); // select checks them
  return { scores: encoded(scores), alignment: null, aligned, unlabelled };
}

/** What `select` is given, and the labelled calibration units. */
export function decoded(inputs: CertificateInputs): {
  request: SelectInput;
  scores: Float64Array;
  calibration: { scores: Float64Array; aligned: Uint8Array };
} {
  const { calibration, test, weights, alpha, ties, seed, kind, pruning, share } = inputs;
  const scores = Float64Array.from(test.scores, Number),
    all = Float64Array.from(calibration.scores, Number);
  return {
    request: {
      ...{ alpha, ties, seed, kind, pruning, share },
      calibration: { scores: all, aligned: calibration.aligned, unlabelled: calibration.unlabelled },
      test: { scores, ...(test.ids && { ids: test.ids }) },
      ...(weights && { weights }),
    },
    scores,
    calibration: {
      scores: all.filter((_, i) => calibration.aligned[i] !== null),
      aligned: Uint8Array.from(calibration.aligned.filter(label => label !== null)),
    },
  };
}

function encoded(values: Float64Array): Json[] {
  return Array.from(values, encode);
}

/** -0 becomes 0: JSON has one zero. */
function encode(value: number): Json {
  return Number.isFinite(value) ? value + 0 : value > 0 ? "Infinity" : "-Infinity";
}
