/** Feature rows with named columns: what feature functions make and predictors eat. NaN means "missing" here and nowhere later: a transform must decide about
 *  it before a predictor, which refuses NaN, sees the rows. */

import { ConfigError, DataError, ShapeError } from "../../errors.js";

export interface FeatureTable {
  readonly columns: readonly string[];
  /** One array of columns.length numbers per output. */
  readonly rows: readonly Float64Array[];
}

/** From one array of numbers per column. Throws where lengths differ, or a number is infinite. */
export function featureTable(columns: Readonly<Record<string, ArrayLike<number>>>): FeatureTable {
  const names = Object.keys(columns),
    values = Object.values(columns);
  if (names.length === 0) throw new ShapeError("featureTable", "expected at least one column, received none");
  const count = values[0]!.length;
  for (const [c, column] of values.entries()) {
    if (column.length !== count) throw new ShapeError("featureTable", `expected ${count} values in column ${names[c]}, received ${column.length}`);
    for (let row = 0; row < count; row++)
      if (Math.abs(column[row]!) === Infinity || typeof column[row] !== "number")
        throw new DataError("featureTable", `expected a finite number or NaN, received ${column[row]}`, { row, column: names[c]! });
  }
  return { columns: names, rows: Array.from({ length: count }, (_, row) => Float64Array.from(values, column => column[row]!)) };
}

/** Columns of several tables side by side. Throws where row counts differ or a name comes twice. */
export function joinFeatures(...tables: readonly FeatureTable[]): FeatureTable {
  const columns = tables.flatMap(t => t.columns),
    count = tables[0]?.rows.length ?? 0;
  const twice = columns.find((name, i) => columns.indexOf(name) !== i);
  if (twice !== undefined) throw new ConfigError("joinFeatures", "columns", "of different names", twice);
  for (const [i, { rows }] of tables.entries())
    if (rows.length !== count) throw new ShapeError("joinFeatures", `expected ${count} rows in table ${i}, received ${rows.length}`);
  return { columns, rows: Array.from({ length: count }, (_, row) => Float64Array.from(tables.flatMap(t => [...t.rows[row]!]))) };
}

/** The rows at `indices`, in that order: a split's part of a table. */
export function takeRows({ columns, rows }: FeatureTable, indices: ArrayLike<number>): FeatureTable {
  return {
    columns,
    rows: Array.from(indices, index => {
      const row = rows[index];
      if (!row) throw new ConfigError("takeRows", "indices", `in {0, ..., ${rows.length - 1}}`, index);
      return row;
    }),
  };
}

/** One column's values. */
export function columnOf({ columns, rows }: FeatureTable, name: string): Float64Array {
  const at = columns.indexOf(name);
  if (at < 0) throw new ConfigError("columnOf", "name", `one of ${columns.join(", ")}`, name);
  return Float64Array.from(rows, row => row[at]!);
}
