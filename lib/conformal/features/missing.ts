/** What to do about missing values (NaN): refuse them, or fill them with a number learnt from training rows and say so in a column of its own. There is no
 *  default, because whether "missing" carries meaning is the data's to say. */

import { DataError } from "../../errors.js";
import type { FeatureTable } from "./table.js";
import { checkColumns, type FeatureTransform } from "./transform.js";

/** The number that stands in for missing values, from those of the training rows that are there (ascending; may be empty). */
export type Fill = (present: Float64Array) => number;

export const fillMean: Fill = present => (present.length === 0 ? 0 : present.reduce((a, b) => a + b, 0) / present.length);

export const fillMedian: Fill = present => {
  const middle = present.length >> 1;
  if (present.length === 0) return 0;
  return present.length % 2 === 1 ? present[middle]! : (present[middle - 1]! + present[middle]!) / 2;
};

export const fillConstant =
  (value: number): Fill =>
  () =>
    value;

/** DataError for the first missing value, naming row and column. */
export const refuseMissing: FeatureTransform = {
  name: "refuseMissing",
  fit(training) {
    const apply = (table: FeatureTable): FeatureTable => {
      checkColumns("refuseMissing", training.columns, table);
      for (const [row, values] of table.rows.entries()) {
        const at = values.findIndex(Number.isNaN);
        if (at >= 0) throw new DataError("refuseMissing", "a value is missing", { row, column: table.columns[at]! });
      }
      return table;
    };
    apply(training);
    return apply;
  },
};

/** `indicator` (default true): each column with a value missing in training gets a second one, `<name> missing`, of 0 and 1. A value that is missing later in
 *  a column without such a partner is filled all the same. */
export function fillMissing({ fill, indicator = true }: { readonly fill: Fill; readonly indicator?: boolean }): FeatureTransform {
  return {
    name: "fillMissing",
    fit({ columns, rows }) {
      const present = columns.map((_, c) => Float64Array.from(rows.map(row => row[c]!).filter(v => !Number.isNaN(v))).sort());
      const fills = present.map(fill);
      const marked = indicator ? [...columns.keys()].filter(c => present[c]!.length < rows.length) : [];
      return table => {
        checkColumns("fillMissing", columns, table);
        return {
          columns: [...columns, ...marked.map(c => `${columns[c]} missing`)],
          rows: table.rows.map(row =>
            Float64Array.of(...row.map((v, c) => (Number.isNaN(v) ? fills[c]! : v)), ...marked.map(c => (Number.isNaN(row[c]!) ? 1 : 0))),
          ),
        };
      };
    },
  };
}
