/** Conformal selection at a million calibration and a million test units: `npm run bench:conformal`, with numpy on the same data where
 *  `--peers` finds Python. A time is the best of several; "sorts" is processor time in units of one Float64Array.sort of the test scores. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { conformal } from "../lib/index.js";

export interface ConformalRow {
  readonly name: string;
  readonly milliseconds: number;
  /** Processor time: what the work costs where others share the machine. */
  readonly cpuMilliseconds: number;
  /** Processor time in units of one native sort of the test scores. */
  readonly sorts: number;
  /** Units selected, where the method selects. */
  readonly k?: number;
}

interface Data {
  readonly scores: Float64Array;
  readonly aligned: Uint8Array;
  readonly test: Float64Array;
}

const alpha = 0.1;

export function benchConformal(size = 1e6): { rows: ConformalRow[]; data: Data; sort: number } {
  const data = makeData(size),
    { test } = data,
    calibration = { scores: data.scores, aligned: data.aligned };
  const random = numbers(7),
    uniforms = Float64Array.from({ length: size }, random),
    keys = { calibration: Float64Array.from({ length: size }, random), test: uniforms };
  const coarse = { scores: data.scores.map(s => Math.round(10 * s) / 10), aligned: data.aligned },
    coarseTest = test.map(s => Math.round(10 * s) / 10);
  const steep = (s: number): number => 1 / (1 + Math.exp(40 - 80 * s)); // two thirds of all scores within 10^-5 of 0 or 1
  const extreme = { scores: data.scores.map(steep), aligned: data.aligned },
    extremeTest = test.map(steep);
  const p = conformal.alignmentPValues(calibration, test);
  const small = { scores: data.scores.subarray(0, 10_000), aligned: data.aligned.subarray(0, 10_000) },
    smallTest = test.subarray(0, 10_000),
    weights = { calibration: data.scores.map(s => 0.5 + s), test: test.map(s => 0.5 + s) },
    smallWeights = { calibration: weights.calibration.subarray(0, 10_000), test: weights.test.subarray(0, 10_000) };
  const sort = time("sort", () => test.slice().sort(), 1);
  const row = (name: string, work: () => { k?: number } | unknown): ConformalRow => time(name, work, sort.cpuMilliseconds);
  const rows = [
    row("p-values and Benjamini-Hochberg", () => conformal.benjaminiHochberg(conformal.alignmentPValues(calibration, test), alpha)),
    row("  p-values, deterministic", () => conformal.alignmentPValues(calibration, test)),
    row("  Benjamini-Hochberg", () => conformal.benjaminiHochberg(p, alpha)),
    row("both, eleven distinct scores", () => conformal.benjaminiHochberg(conformal.alignmentPValues(coarse, coarseTest), alpha)),
    row("both, scores crowded at 0 and 1", () => conformal.benjaminiHochberg(conformal.alignmentPValues(extreme, extremeTest), alpha)),
    row("threshold form", () => conformal.scoreThreshold(calibration, test, alpha)),
    row("p-values, random ties", () => conformal.randomisedPValues(calibration, test, uniforms)),
    row("p-values, lexicographic", () => conformal.lexicographicPValues(calibration, test, keys)),
    row("p-values, weighted", () => conformal.weightedPValues(calibration, test, weights)),
    row("adjusted p-values", () => conformal.adjustedPValues(p)),
    row("front door: select", () => conformal.select({ calibration, test: { scores: test }, alpha })),
    row("weighted conformal selection, 10^4", () =>
      conformal.weightedConformalSelection({ calibration: small, test: smallTest, weights: smallWeights, alpha, xi: [0.5] }),
    ),
    row("choice among 5 scores, 10^4", () =>
      conformal.optCs({
        calibration: { scores: new Array(5).fill(small.scores), aligned: small.aligned },
        test: { scores: new Array(5).fill(smallTest) },
        ...{ alpha, xi: [0.5] },
      }),
    ),
  ];
  return { rows, data, sort: sort.cpuMilliseconds };
}

export function describeConformal({ name, milliseconds, cpuMilliseconds, sorts, k }: ConformalRow): string {
  const selected = k === undefined ? "" : `  k = ${k}`;
  return `${name.padEnd(36)} ${milliseconds.toFixed(1).padStart(8)} ms ${cpuMilliseconds.toFixed(1).padStart(8)} ms cpu ${sorts.toFixed(2).padStart(6)} sorts${selected}`;
}

function makeData(size: number): Data {
  const random = numbers(1);
  const scores = Float64Array.from({ length: size }, random);
  return { scores, aligned: Uint8Array.from(scores, s => Number(random() < s)), test: Float64Array.from({ length: size }, random) };
}

/** Uniform with all 53 bits: mulberry32 twice. */
function numbers(seed: number): () => number {
  let state = seed | 0;
  const bits = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
  return () => (bits() * 2 ** 21 + (bits() >>> 11)) * 2 ** -53;
}

function time(name: string, work: () => unknown, sort: number, repeats = 7): ConformalRow {
  let best = Infinity,
    cpu = Infinity,
    result: unknown;
  for (let r = 0; r < repeats; r++) {
    const before = process.cpuUsage(),
      start = performance.now();
    result = work();
    best = Math.min(best, performance.now() - start);
    const { user, system } = process.cpuUsage(before);
    cpu = Math.min(cpu, (user + system) / 1000);
  }
  const k = (result as { k?: number }).k;
  return { name, milliseconds: best, cpuMilliseconds: cpu, sorts: cpu / sort, ...(k !== undefined && { k }) };
}

/** The same data through numpy, in a process of its own. */
function peers({ scores, aligned, test }: Data, sort: number): ConformalRow[] {
  const folder = mkdtempSync(path.join(tmpdir(), "conformal-"));
  try {
    for (const [name, values] of Object.entries({ scores, aligned, test })) writeFileSync(path.join(folder, name), values);
    const script = path.join(process.cwd(), "bench/peers/conformal_numpy.py");
    const { status, stdout, stderr } = spawnSync("python3", [script, folder, String(alpha)], {
      encoding: "utf8",
      env: { ...process.env, OMP_NUM_THREADS: "1" },
    });
    if (status !== 0) throw new Error(`numpy could not be measured: ${stderr}`);
    return (JSON.parse(stdout) as Omit<ConformalRow, "sorts">[]).map(row => ({ ...row, sorts: row.cpuMilliseconds / sort }));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function main(): void {
  const { values } = parseArgs({
    options: { peers: { type: "boolean", default: false }, json: { type: "boolean", default: false }, size: { type: "string", default: "1e6" } },
  });
  const { rows, data, sort } = benchConformal(Number(values.size));
  const others = values.peers ? peers(data, sort) : [];
  if (values.json) console.log(JSON.stringify({ node: process.version, rows, peers: others }, null, 1));
  else for (const row of [...rows, ...others]) console.log(describeConformal(row));
  const wrong = others.some(row => row.k !== undefined && row.k !== rows[0]!.k);
  if (wrong) throw new Error("numpy selects another number of units");
}

if (require.main === module) main();
