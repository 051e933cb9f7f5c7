/** Certificates for tables: answers to questions, radiology reports, pictures, anything with a row per output. Rows with a label calibrate (and train, where there are
 *  features in place of a score); rows whose label is empty are the outputs to certify. */

import { ConfigError, DataError } from "../errors.js";
import { fitAlignmentAsync } from "./alignment.js";
import { type Certificate, certify } from "./certificate.js";
import type { CertificateInput } from "./certificate-inputs.js";
import { logisticRegression } from "./predictors/logistic.js";
import type { Predictor } from "./predictors/predictor.js";
import { standardised } from "./predictors/standardised.js";
import type { SplitShares } from "./split.js";
import { columnIndex, isEmpty, labelOf, numberOf, readTable, type Table, tableOf } from "./table-file.js";

export interface TableInput extends Pick<CertificateInput, "title" | "alpha" | "ties" | "seed" | "kind" | "share" | "repetitions"> {
  /** A .csv, .jsonl or .ndjson file. One of `file` and `rows`. */
  readonly file?: string;
  /** Rows in memory, all with the same keys. */
  readonly rows?: readonly Readonly<Record<string, unknown>>[];
  /** Column of the human judgement; empty (or null) where there is none: those rows are to be certified. */
  readonly label: string;
  /** A row is aligned where its label exceeds this. Without it labels are 0, 1, true or false. */
  readonly cutoff?: number;
  /** Column of a score that no label entered, larger for better outputs. One of `score` and `features`. */
  readonly score?: string;
  /** Columns of numbers that a predictor learns to score by, on a random half of the labelled rows, which then do not calibrate. */
  readonly features?: readonly string[];
  /** Default: logistic regression on standardised features. With several, the one that ranks best on a fifth of the labelled rows. */
  readonly predictor?: Predictor | readonly Predictor[];
  readonly split?: Partial<SplitShares>;
  /** Column that names a row in the certificate. Default: "line 17". */
  readonly id?: string;
  readonly signal?: AbortSignal;
}

/** One certificate for the rows without a label. Deterministic: same table, same settings, same certificate. Throws DataError naming file, line and column for what
 *  cannot be used, ConfigError for columns that there are not. */
export async function certifyTable(input: TableInput): Promise<Certificate> {
  const { units, signal } = await scoredUnits(input);
  return certify(certificateInput(input, units), signal ? { signal } : {});
}

/** A certificate for each value of column `group`, in order of appearance: every group calibrates with its own rows alone, so the false discovery rate is at most alpha
 *  within each of them, which one selection over all rows does not promise. A predictor, where there is one, learns from all groups. Groups without a row to
 *  certify are left out. */
export async function certifyGroups(input: TableInput & { readonly group: string }): Promise<Map<string, Certificate>> {
  const { table, units, signal } = await scoredUnits(input);
  const at = columnIndex(table, input.group, subject, "group");
  const groups = new Map<string, Unit[]>();
  for (const unit of units) {
    const name = String(table.rows[unit.row]![at]);
    const group = groups.get(name);
    if (group) group.push(unit);
    else groups.set(name, [unit]);
  }
  const certificates = new Map<string, Certificate>();
  for (const [name, members] of groups) {
    if (!members.some(u => u.label === null)) continue;
    const title = `${input.title ? `${input.title}: ` : ""}${input.group} ${name}`;
    certificates.set(name, await certify(certificateInput({ ...input, title }, members), signal ? { signal } : {}));
  }
  return certificates;
}

const subject = "certifyTable";

/** A row that calibrates (with a label) or is to be certified (null). */
interface Unit {
  readonly row: number;
  readonly id: string;
  /** Measured alignment, or 0 and 1 where there is no cutoff. */
  readonly label: number | null;
  readonly score: number;
}

async function scoredUnits(input: TableInput): Promise<{ table: Table; units: Unit[]; signal: AbortSignal | undefined }> {
  const { file, rows, score, features, signal, cutoff } = input;
  if ((file === undefined) === (rows === undefined)) throw new ConfigError(subject, "file or rows", "one of them", file === undefined ? "neither" : "both");
  if ((score === undefined) === (features === undefined))
    throw new ConfigError(subject, "score or features", "one of them", score === undefined ? "neither" : "both");
  if (features?.length === 0) throw new ConfigError(subject, "features", "at least one column", "none");
  if (features?.includes(input.label)) throw new ConfigError(subject, "features", "columns that no label entered", input.label);
  const table = file === undefined ? tableOf(rows!) : await readTable(file);
  signal?.throwIfAborted();
  const at = columnIndex(table, input.label, subject, "label"),
    idAt = input.id === undefined ? -1 : columnIndex(table, input.id, subject, "id");
  const all = table.rows.map((cells, row) => ({
    row,
    id: idAt < 0 ? `line ${table.lines[row]}` : String(cells[idAt]),
    label: isEmpty(cells[at]!) ? null : cutoff === undefined ? labelOf(table, row, at) : numberOf(table, row, at),
  }));
  if (!all.some(u => u.label === null))
    throw new DataError(table.name, "expected rows without a label, the outputs to certify, received none", { column: input.label });
  if (!all.some(u => u.label !== null))
    throw new DataError(table.name, "expected rows with a label, to calibrate with, received none", { column: input.label });
  return { table, signal, units: score !== undefined ? byScore(table, all, score) : await byFeatures(table, all, input, features!) };
}

function byScore(table: Table, all: readonly Omit<Unit, "score">[], column: string): Unit[] {
  const at = columnIndex(table, column, subject, "score");
  return all.map(unit => ({ ...unit, score: numberOf(table, unit.row, at) }));
}

/** Rows that the predictor learnt from, or was chosen on, are not among them. */
async function byFeatures(table: Table, all: readonly Omit<Unit, "score">[], input: TableInput, features: readonly string[]): Promise<Unit[]> {
  const columns = features.map(name => columnIndex(table, name, subject, "features"));
  const x = all.map(({ row }) => Float64Array.from(columns, at => numberOf(table, row, at)));
  const { cutoff = 0.5, predictor = standardised(logisticRegression()), split, seed, signal } = input;
  const selector = await fitAlignmentAsync({
    ...{ features: x, alignment: all.map(u => u.label), cutoff, predictor },
    ...(split && { split }),
    ...(seed !== undefined && { seed }),
    ...(signal && { signal }),
  });
  const calibrated = Array.from(selector.split.calibration, (i, k) => ({ ...all[i]!, score: selector.calibration.scores[k]! }));
  const later = all.filter(u => u.label === null),
    scores = selector.score(later.map(u => x[u.row]!));
  return [...calibrated, ...later.map((unit, j) => ({ ...unit, score: scores[j]! }))];
}

function certificateInput({ title, alpha, ties, seed, kind, share, repetitions, cutoff }: TableInput, units: readonly Unit[]): CertificateInput {
  const [labelled, later] = [units.filter(u => u.label !== null), units.filter(u => u.label === null)];
  const scores = labelled.map(u => u.score);
  return {
    alpha,
    ...(title !== undefined && { title }),
    ...(ties && { ties }),
    ...(seed !== undefined && { seed }),
    ...(kind && { kind }),
    ...(share !== undefined && { share }),
    ...(repetitions !== undefined && { repetitions }),
    ...(cutoff !== undefined && { cutoff }),
    calibration: cutoff === undefined ? { scores, aligned: labelled.map(u => u.label as 0 | 1) } : { scores, alignment: labelled.map(u => u.label) },
    test: { scores: later.map(u => u.score), ids: later.map(u => u.id) },
  };
}
