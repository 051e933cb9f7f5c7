/** Checks what a predictor is given and turns it into columns. Every predictor refuses the same things with the same errors, and answers training labels
 *  of one class alike. */

import { DataError, ShapeError } from "../../errors.js";
import type { FittedPredictor, TrainingData } from "./predictor.js";

/** Training rows as columns; rows of weight 0 are left out, as if they had not been given. */
export interface Columns {
  readonly rows: number;
  readonly width: number;
  /** [width] of [rows]. */
  readonly columns: readonly Float64Array[];
  readonly y: Float64Array;
  /** All > 0; undefined where every row counts once. */
  readonly weights: Float64Array | undefined;
  /** 0 or 1 where every label is that. */
  readonly single: 0 | 1 | undefined;
}

/** `fractions`: labels may be any number in [0, 1], not only 0 and 1. */
export function trainingColumns(subject: string, { x, y, weights }: TrainingData, { fractions = false } = {}): Columns {
  if (x.length === 0) throw new ShapeError(subject, "expected at least one training row, received none");
  if (y.length !== x.length) throw new ShapeError(subject, `expected one label per row (${x.length}), received ${y.length}`);
  if (weights && weights.length !== x.length) throw new ShapeError(subject, `expected one weight per row (${x.length}), received ${weights.length}`);
  const width = x[0]!.length;
  if (width === 0) throw new ShapeError(subject, "expected at least one feature, received rows of length 0");
  for (const [row, label] of y.entries())
    if (fractions ? !(label >= 0 && label <= 1) : label !== 0 && label !== 1)
      throw new DataError(subject, `expected a label ${fractions ? "in [0, 1]" : "0 or 1"}, received ${label}`, { row, field: "y" });
  for (const [row, weight] of (weights ?? []).entries())
    if (!(weight >= 0 && weight < Infinity)) throw new DataError(subject, `expected a finite weight >= 0, received ${weight}`, { row, field: "weights" });
  checkRows(subject, x, width);
  const kept = weights ? [...x.keys()].filter(row => weights[row]! > 0) : undefined;
  if (kept?.length === 0) throw new DataError(subject, "expected a positive weight, received none", { field: "weights" });
  return gather(x, y, weights, kept);
}

function gather(x: readonly Float64Array[], y: Float64Array, weights: Float64Array | undefined, kept: readonly number[] | undefined): Columns {
  const rows = kept?.length ?? x.length,
    width = x[0]!.length;
  const columns = Array.from({ length: width }, () => new Float64Array(rows));
  for (let i = 0; i < rows; i++) {
    const row = x[kept ? kept[i]! : i]!;
    for (let f = 0; f < width; f++) columns[f]![i] = row[f]!;
  }
  const labels = kept ? Float64Array.from(kept, row => y[row]!) : y;
  const single = labels.every(v => v === 0) ? 0 : labels.every(v => v === 1) ? 1 : undefined;
  return { rows, width, columns, y: labels, weights: weights && kept ? Float64Array.from(kept, row => weights[row]!) : undefined, single };
}

/** Throws unless every row has `width` finite numbers. */
export function checkRows(subject: string, x: readonly Float64Array[], width: number): void {
  for (let row = 0; row < x.length; row++) {
    const values = x[row]!;
    if (values.length !== width) throw new ShapeError(subject, `expected ${width} features in row ${row}, received ${values.length}`);
    for (let f = 0; f < width; f++)
      if (!(values[f]! - values[f]! === 0)) throw new DataError(subject, `expected a finite number, received ${values[f]}`, { row, column: String(f) });
  }
}

/** What training on one class gives: that class as everyone's score (0 or 1), as the released code of conformal alignment does. */
export function constantPredictor(subject: string, width: number, score: number): FittedPredictor {
  return {
    featureImportance: new Float64Array(width),
    predict(x) {
      checkRows(subject, x, width);
      return new Float64Array(x.length).fill(score);
    },
  };
}
