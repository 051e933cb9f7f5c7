/** The selection rehearsed on units whose labels are known: the calibration set is split at random many times, one part calibrating and the other standing
 *  in for test units. What comes out is the spread of the false discovery proportion and an estimate of power, which the guarantee says nothing about. */

import { setImmediate } from "node:timers/promises";
import { Random } from "../util/random.js";
import { benjaminiHochberg } from "./bh.js";
import { alignmentPValues, type CalibrationKind, randomisedPValues } from "./p-values.js";

/** Over repetitions. */
export interface Spread {
  readonly mean: number;
  readonly sd: number;
  /** 5 % and 95 % of the repetitions lie at or below. */
  readonly low: number;
  readonly high: number;
}

export interface RehearsalRow {
  readonly alpha: number;
  /** Share of selected units that are not aligned, 0 where none is selected. */
  readonly fdp: Spread;
  /** Share of aligned units that are selected. */
  readonly power: Spread;
}

export interface Rehearsal {
  readonly repetitions: number;
  /** Units on each side; fewer than the real selection has, so its spread is smaller. */
  readonly calibration: number;
  readonly test: number;
  readonly rows: readonly RehearsalRow[];
}

/** Units of one repetition at most: beyond, the spread hardly changes and only time grows. */
const most = 10_000;

export interface RehearsalInput {
  readonly scores: Float64Array;
  readonly aligned: Uint8Array;
  /** Test units of the real selection; the rehearsal has no more, and no more than half of the calibration units. */
  readonly testUnits: number;
  readonly alphas: readonly number[];
  readonly randomTies: boolean;
  readonly kind: CalibrationKind;
  readonly repetitions: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
}

export async function rehearse({ scores, aligned, testUnits, alphas, randomTies, kind, repetitions, seed, signal }: RehearsalInput): Promise<Rehearsal> {
  const units = Math.min(most, scores.length),
    test = Math.min(testUnits, Math.floor(units / 2));
  const random = new Random(seed, "conformal rehearsal"),
    order = Uint32Array.from(scores.keys());
  const fdp = alphas.map(() => new Float64Array(repetitions)),
    power = alphas.map(() => new Float64Array(repetitions));
  for (let r = 0; r < repetitions; r++) {
    await setImmediate(); // a rehearsal of large sets takes seconds: others run between repetitions
    signal?.throwIfAborted();
    deal(order, units, random);
    const [a, b] = [order.subarray(0, test), order.subarray(test, units)];
    const calibration = { scores: gather(scores, b), aligned: Uint8Array.from(b, i => aligned[i]!) },
      testScores = gather(scores, a);
    const p = randomTies
      ? randomisedPValues(
          calibration,
          testScores,
          testScores.map(() => random.uniform()),
        )
      : alignmentPValues(calibration, testScores, kind);
    const total = a.reduce((sum, i) => sum + aligned[i]!, 0);
    for (const [at, alpha] of alphas.entries()) {
      const { selected, k } = benjaminiHochberg(p, alpha);
      const right = selected.reduce((sum, j) => sum + aligned[a[j]!]!, 0);
      fdp[at]![r] = (k - right) / Math.max(1, k);
      power[at]![r] = right / Math.max(1, total);
    }
  }
  const rows = alphas.map((alpha, at) => ({ alpha, fdp: spread(fdp[at]!), power: spread(power[at]!) }));
  return { repetitions, calibration: units - test, test, rows };
}

/** The first `count` places get a random choice of all. */
function deal(order: Uint32Array, count: number, random: Random): void {
  for (let i = 0; i < count; i++) {
    const j = i + random.integer(order.length - i);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
}

function gather(values: Float64Array, indices: Uint32Array): Float64Array {
  return Float64Array.from(indices, i => values[i]!);
}

function spread(values: Float64Array): Spread {
  const n = values.length,
    mean = values.reduce((a, b) => a + b, 0) / n,
    squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  const sorted = values.slice().sort();
  const at = (share: number): number => sorted[Math.min(n - 1, Math.floor(share * n))]!;
  return { mean, sd: Math.sqrt(squares / Math.max(1, n - 1)), low: at(0.05), high: at(0.95) };
}
