/** A certificate: one object, and one JSON file, that holds a selection, what it promises, what it rests on and every input it was computed from, so that
 *  anyone can compute it again (verify.ts). It proves arithmetic, not honesty: compare `inputHash` with the hash of data you hold yourself. */

import { createHash } from "node:crypto";
import { writeAtomically, writeFully } from "../util/atomic-file.js";
import { type CertificateInput, type CertificateInputs, canonical, decoded, type Json } from "./certificate-inputs.js";
import { type CurveRow, finiteRange, type Histogram, histogram, selectionCurve } from "./curve.js";
import type { Guarantee } from "./guarantee.js";
import { type Rehearsal, rehearse } from "./rehearsal.js";
import { type Selection, select } from "./select.js";
import type { Warning } from "./warnings.js";

export const certificateFormat = "attune conformal certificate";

export interface Certificate {
  readonly format: typeof certificateFormat;
  readonly version: 1;
  readonly inputs: CertificateInputs;
  /** SHA-256 of the canonical JSON of `inputs`. */
  readonly inputHash: string;
  readonly units: Selection["units"];
  readonly guarantee: Guarantee;
  readonly result: {
    readonly k: number;
    /** Lowest selected score; null where nothing is selected. */
    readonly threshold: number | string | null;
    readonly selected: readonly { readonly index: number; readonly id: string; readonly score: number | string; readonly pValue: number }[];
    readonly minCalibration: number;
    readonly minSelectable: number;
  };
  /** Over a range of alpha, that of the selection among them; empty with weights. */
  readonly curve: readonly CurveRow[];
  /** Measured on calibration units; null with weights, or with fewer than eight units. */
  readonly rehearsal: Rehearsal | null;
  readonly pValues: Histogram;
  /** On common bins. */
  readonly scores: { readonly aligned: Histogram; readonly notAligned: Histogram; readonly test: Histogram };
  readonly warnings: readonly Warning[];
}

/** Selects, and states everything about the selection. Deterministic: same input, same certificate. Throws as `select` does. */
export async function certify(input: CertificateInput, { signal }: { readonly signal?: AbortSignal } = {}): Promise<Certificate> {
  const inputs = canonical(input);
  const { request, scores, calibration } = decoded(inputs);
  const selection = select(request);
  const { alpha, ties, seed, pValues } = selection;
  const alphas = [...new Set([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, alpha])].sort((a, b) => a - b);
  const rehearsable = !inputs.weights && calibration.scores.length >= 8 && inputs.repetitions > 1;
  const rehearsal = rehearsable
    ? await rehearse({
        ...{ ...calibration, testUnits: scores.length, alphas, randomTies: ties !== "deterministic", kind: inputs.kind, repetitions: inputs.repetitions, seed },
        ...(signal && { signal }),
      })
    : null;
  return {
    format: certificateFormat,
    version: 1,
    inputs,
    inputHash: hashOf(inputs),
    units: selection.units,
    guarantee: selection.guarantee,
    result: resultOf(selection, inputs),
    curve: inputs.weights ? [] : selectionCurve(calibration, scores, pValues, alphas),
    rehearsal,
    pValues: histogram(pValues.values, { low: 0, high: 1, bins: 20 }),
    scores: distributions(calibration, scores),
    warnings: selection.warnings,
  };
}

export function hashOf(inputs: CertificateInputs): string {
  return `sha256:${createHash("sha256").update(JSON.stringify(inputs)).digest("hex")}`;
}

/** Writes the certificate as JSON, whole or not at all. */
export async function writeCertificate(path: string, certificate: Certificate): Promise<void> {
  await writeAtomically(path, file => writeFully(file, Buffer.from(`${JSON.stringify(certificate)}\n`)));
}

function resultOf({ selected, k, threshold, pValues, minCalibration, minSelectable }: Selection, { test }: CertificateInputs): Certificate["result"] {
  return {
    k,
    threshold: k === 0 ? null : Number.isFinite(threshold) ? threshold : String(threshold),
    selected: Array.from(selected, index => ({
      index,
      id: test.ids?.[index] ?? String(index),
      score: test.scores[index] as Json,
      pValue: pValues.values[index]!,
    })),
    minCalibration,
    minSelectable,
  };
}

function distributions(calibration: { scores: Float64Array; aligned: Uint8Array }, test: Float64Array): Certificate["scores"] {
  const bins = { ...finiteRange(calibration.scores, test), bins: 24 };
  return {
    aligned: histogram(
      calibration.scores.filter((_, i) => calibration.aligned[i] === 1),
      bins,
    ),
    notAligned: histogram(
      calibration.scores.filter((_, i) => calibration.aligned[i] === 0),
      bins,
    ),
    test: histogram(test, bins),
  };
}
