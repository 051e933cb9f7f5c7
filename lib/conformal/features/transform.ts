/** Transforms that learn from the training split and are then applied to calibration and test rows alike: a number taken from those would break their
 *  exchangeability, and with it the guarantee. */

import { ShapeError } from "../../errors.js";
import type { FeatureTable } from "./table.js";

export interface FeatureTransform {
  readonly name: string;
  /** Learns from training rows; the rest of the data must not be among them. */
  fit(training: FeatureTable): FittedTransform;
}

/** Throws ShapeError for a table whose columns are not those of training. */
export type FittedTransform = (table: FeatureTable) => FeatureTable;

/** One after the other; each learns from what those before made of the training rows. */
export function chainTransforms(...transforms: readonly FeatureTransform[]): FeatureTransform {
  return {
    name: transforms.map(t => t.name).join(", "),
    fit(training) {
      const fitted: FittedTransform[] = [];
      let table = training;
      for (const transform of transforms) {
        const next = transform.fit(table);
        fitted.push(next);
        table = next(table);
      }
      return input => fitted.reduce((rows, apply) => apply(rows), input);
    },
  };
}

/** To mean 0 and standard deviation 1 (divisor n) on the training rows; a column that is constant there is only shifted. Missing values stay missing and are
 *  not counted. */
export const standardise: FeatureTransform = {
  name: "standardise",
  fit({ columns, rows }) {
    const moments = columns.map((_, c) => moment(rows.map(row => row[c]!).filter(v => !Number.isNaN(v))));
    return table => {
      checkColumns("standardise", columns, table);
      return { columns, rows: table.rows.map(row => row.map((v, c) => (v - moments[c]!.mean) / moments[c]!.deviation)) };
    };
  },
};

/** Deviation 1 for a constant: below n roundings of the mean, spread is noise. */
function moment(values: readonly number[]): { readonly mean: number; readonly deviation: number } {
  if (values.length === 0) return { mean: 0, deviation: 1 };
  const mean = values.reduce((a, b) => a + b / values.length, 0);
  const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2 / values.length, 0));
  return { mean, deviation: deviation > 1e-12 * Math.abs(mean) ? deviation : 1 };
}

export function checkColumns(subject: string, columns: readonly string[], table: FeatureTable): void {
  if (table.columns.length !== columns.length || columns.some((name, c) => table.columns[c] !== name))
    throw new ShapeError(subject, `expected the columns of training (${columns.join(", ")}), received (${table.columns.join(", ")})`);
}
