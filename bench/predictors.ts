/** `npm run bench:predictors -- --python <interpreter>`: training time and ranking of the tree predictors on 100,000 x 20, beside scikit-learn and LightGBM in the same run,
 *  one thread each. CPU seconds, because a shared machine's clock says little. Without --python the peers are left out. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { areaUnderRoc } from "../lib/conformal/metrics-ranking.js";
import { gradientBoosting } from "../lib/conformal/predictors/boosting.js";
import { randomForest } from "../lib/conformal/predictors/forest.js";
import type { Predictor } from "../lib/conformal/predictors/predictor.js";
import { sigmoid } from "../lib/conformal/predictors/vector.js";
import { Random } from "../lib/util/random.js";

interface Row {
  readonly model: string;
  readonly peer: string;
  /** CPU seconds of the fastest fit. */
  readonly seconds: number;
  /** On held-out rows, one per seed. */
  readonly aucs: readonly number[];
}

const width = 20,
  held = 50_000;

/** Standard normal features; labels follow a sigmoid with interactions, bends and a threshold in the first seven. */
function makeData(rows: number): { readonly x: Float32Array; readonly y: Uint8Array } {
  const random = new Random(1, "bench predictors");
  const x = Float32Array.from({ length: (rows + held) * width }, () => random.normal()),
    y = new Uint8Array(rows + held);
  for (let i = 0; i < y.length; i++) {
    const [a, b, c, d, e, f, g] = x.subarray(i * width, i * width + 7) as unknown as [number, number, number, number, number, number, number];
    const z = a + b * c + Math.sin(2 * d) + 0.5 * e * e - 0.5 + (g > 0 ? 0.7 * f : 0);
    y[i] = random.uniform() < sigmoid(1.5 * z) ? 1 : 0;
  }
  return { x, y };
}

function measure(model: string, predictor: Predictor, { x, y }: ReturnType<typeof makeData>, rows: number, repeats: number): Row {
  const row = (i: number): Float64Array => Float64Array.from(x.subarray(i * width, (i + 1) * width));
  const train = { x: Array.from({ length: rows }, (_, i) => row(i)), y: Float64Array.from(y.subarray(0, rows)) };
  const test = { x: Array.from({ length: held }, (_, i) => row(rows + i)), y: Float64Array.from(y.subarray(rows)) };
  let seconds = Infinity;
  const aucs = Array.from({ length: repeats }, (_, seed) => {
    const start = process.cpuUsage();
    const fitted = predictor.fit(train, { seed });
    const { user, system } = process.cpuUsage(start);
    seconds = Math.min(seconds, (user + system) / 1e6);
    return areaUnderRoc(fitted.predict(test.x), test.y);
  });
  return { model, peer: `attune (node ${process.versions.node})`, seconds, aucs };
}

function peers(python: string, data: ReturnType<typeof makeData>, settings: object): Row[] {
  const folder = mkdtempSync(path.join(tmpdir(), "predictors-"));
  try {
    writeFileSync(path.join(folder, "x.f32"), data.x);
    writeFileSync(path.join(folder, "y.u8"), data.y);
    const script = path.join(__dirname, "../../../bench/peers/predictors.py");
    const threads = { OMP_NUM_THREADS: "1", OPENBLAS_NUM_THREADS: "1" };
    const out = execFileSync(python, [script, folder, JSON.stringify({ ...settings, width })], {
      env: { ...process.env, ...threads },
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    });
    return out
      .trim()
      .split("\n")
      .map(line => JSON.parse(line) as Row);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function main(): void {
  const { values } = parseArgs({
    options: {
      python: { type: "string" },
      rows: { type: "string", default: "100000" },
      trees: { type: "string", default: "20" },
      rounds: { type: "string", default: "100" },
      depth: { type: "string", default: "6" },
      repeats: { type: "string", default: "3" },
      json: { type: "boolean", default: false },
    },
  });
  const [rows, trees, rounds, depth, repeats] = [values.rows, values.trees, values.rounds, values.depth, values.repeats].map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const data = makeData(rows);
  const ours = [
    measure("random forest", randomForest({ trees, maxDepth: 30 }), data, rows, repeats),
    measure("gradient boosting", gradientBoosting({ rounds, maxDepth: depth }), data, rows, repeats),
  ];
  const theirs = values.python ? peers(values.python, data, { rows, trees, rounds, depth, repeats }) : [];
  const machine = cpus()[0]?.model ?? "unknown";
  if (values.json) {
    console.log(JSON.stringify({ machine, rows, width, trees, rounds, depth, results: [...ours, ...theirs] }, null, 1));
    return;
  }
  console.log(`${machine}, ${rows} x ${width}, ${trees} trees, ${rounds} rounds of depth ${depth}, one thread, best of ${repeats}`);
  for (const row of [...ours, ...theirs]) {
    const own = ours.find(o => o.model === row.model)!,
      mean = row.aucs.reduce((a, b) => a + b, 0) / row.aucs.length;
    const ratio = row === own ? "" : `  attune takes ${(own.seconds / row.seconds).toFixed(2)} times as long`;
    console.log(`${row.model.padEnd(18)} ${row.peer.padEnd(32)} ${row.seconds.toFixed(2).padStart(7)} s CPU   AUC ${mean.toFixed(5)}${ratio}`);
  }
}

main();
