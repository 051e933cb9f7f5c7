/** Checks a certificate from its file alone: everything in it is computed again from the inputs it holds, and each difference is named. */

import { readFile } from "node:fs/promises";
import { AttuneError, DataError } from "../errors.js";
import { parseStrictJson } from "../util/strict-json.js";
import { type Certificate, certificateFormat, certify } from "./certificate.js";
import type { CertificateInput, CertificateInputs } from "./certificate-inputs.js";

export interface Mismatch {
  /** Path in the certificate, as "result.selected[3].pValue". */
  readonly field: string;
  readonly expected: unknown;
  readonly found: unknown;
}

export interface Verification {
  readonly valid: boolean;
  /** At most a hundred. */
  readonly mismatches: readonly Mismatch[];
}

/** Numbers that come from exp and log may differ in the last digits between machines; everything else is compared exactly. */
const tolerance = 1e-9;

/** `certificate`: a path or the object. `inputHash`: the hash of inputs known from elsewhere. Throws DataError where it is no certificate at all. */
export async function verifyCertificate(
  certificate: string | Certificate,
  { inputHash, signal }: { readonly inputHash?: string; readonly signal?: AbortSignal } = {},
): Promise<Verification> {
  const name = typeof certificate === "string" ? certificate : "certificate";
  const found =
    typeof certificate === "string" ? parseStrictJson(await bytesOf(certificate), certificate) : (JSON.parse(JSON.stringify(certificate)) as unknown);
  const inputs = inputsOf(found, name);
  const expected = await recomputed(inputs, name, signal);
  const mismatches: Mismatch[] = [];
  compare(JSON.parse(JSON.stringify(expected)), found, "", mismatches);
  if (inputHash !== undefined && inputHash !== expected.inputHash) mismatches.unshift({ field: "inputHash", expected: inputHash, found: expected.inputHash });
  return { valid: mismatches.length === 0, mismatches: mismatches.slice(0, 100) };
}

async function bytesOf(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
}

/** The inputs, once their shape is known; their values are checked when they are used. */
function inputsOf(found: unknown, file: string): CertificateInputs {
  const certificate = object(found, file, "certificate");
  if (certificate.format !== certificateFormat) throw new DataError(file, `expected "${certificateFormat}"`, { field: "format" });
  if (certificate.version !== 1) throw new DataError(file, `expected version 1, received ${String(certificate.version)}`, { field: "version" });
  const inputs = object(certificate.inputs, file, "inputs");
  const calibration = object(inputs.calibration, file, "inputs.calibration"),
    test = object(inputs.test, file, "inputs.test");
  scoreList(calibration.scores, file, "inputs.calibration.scores");
  list(calibration.aligned, file, "inputs.calibration.aligned");
  if (calibration.alignment !== null) scoreList(calibration.alignment, file, "inputs.calibration.alignment", true);
  scoreList(test.scores, file, "inputs.test.scores");
  if (test.ids !== null) list(test.ids, file, "inputs.test.ids");
  if (inputs.weights !== null) {
    const weights = object(inputs.weights, file, "inputs.weights");
    scoreList(weights.calibration, file, "inputs.weights.calibration");
    scoreList(weights.test, file, "inputs.weights.test");
  }
  return inputs as unknown as CertificateInputs;
}

async function recomputed(inputs: CertificateInputs, file: string, signal?: AbortSignal): Promise<Certificate> {
  const { calibration, test, weights, cutoff, ...settings } = inputs;
  const scores = Float64Array.from(calibration.scores, Number),
    { unlabelled } = calibration;
  const input: CertificateInput = {
    ...settings,
    ...(cutoff !== null && { cutoff }),
    calibration: calibration.alignment
      ? { scores, alignment: calibration.alignment.map(value => (value === null ? null : Number(value))), unlabelled }
      : { scores, aligned: calibration.aligned, unlabelled },
    test: { scores: Float64Array.from(test.scores, Number), ...(test.ids && { ids: test.ids }) },
    ...(weights && { weights }),
  };
  try {
    return await certify(input, signal ? { signal } : {});
  } catch (cause) {
    if (!(cause instanceof AttuneError)) throw cause;
    throw new DataError(file, `its inputs do not make a selection: ${cause.message}`, { field: "inputs" }, { cause });
  }
}

function compare(expected: unknown, found: unknown, field: string, out: Mismatch[]): void {
  if (out.length >= 100 || Object.is(expected, found)) return;
  if (typeof expected === "number" && typeof found === "number") {
    if (Math.abs(expected - found) <= tolerance * Math.abs(expected) && !Number.isInteger(expected)) return;
  } else if (Array.isArray(expected) && Array.isArray(found)) {
    if (expected.length !== found.length) out.push({ field: `${field}.length`, expected: expected.length, found: found.length });
    for (let i = 0; i < Math.min(expected.length, found.length); i++) compare(expected[i], found[i], `${field}[${i}]`, out);
    return;
  } else if (isObject(expected) && isObject(found)) {
    for (const key of new Set([...Object.keys(expected), ...Object.keys(found)]))
      compare(expected[key], found[key], field === "" ? key : `${field}.${key}`, out);
    return;
  }
  out.push({ field, expected, found });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function object(value: unknown, file: string, field: string): Record<string, unknown> {
  if (!isObject(value)) throw new DataError(file, "expected an object", { field });
  return value;
}

function list(value: unknown, file: string, field: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new DataError(file, "expected a list", { field });
  return value as readonly unknown[];
}

function scoreList(value: unknown, file: string, field: string, nullable = false): void {
  for (const [i, one] of list(value, file, field).entries()) {
    const good = typeof one === "number" || one === "Infinity" || one === "-Infinity" || (nullable && one === null);
    if (!good) throw new DataError(file, `expected numbers, received ${JSON.stringify(one)?.slice(0, 40)} at ${i}`, { field });
  }
}
