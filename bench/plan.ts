/** Full-size DSPO steps, built, differentiated and planned without a device: what a step launches and moves, how long building it takes, and every byte it
 *  needs. Steps in bf16 are planned for a backend with every fused kernel, too.
 *  `npm run plan`; `-- --filter sdxl` for some of them, `-- --json` for machines, `-- --export folder` writes the programs themselves. */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { noiseSchedule } from "../lib/diffusion/noise-schedule.js";
import { unetDenoiser } from "../lib/diffusion/unet-denoiser.js";
import { compileWithPlan } from "../lib/graph/compile.js";
import { opTable } from "../lib/graph/op.js";
import { programTraffic } from "../lib/graph/print.js";
import type { Program } from "../lib/graph/program.js";
import type { Target } from "../lib/graph/target.js";
import type { Graph } from "../lib/graph/tensor.js";
import { parseUNetConfig, type UNetConfig } from "../lib/models/unet-config.js";
import { adaptUNet, declareUNet } from "../lib/models/unet-parameters.js";
import { Params, storage } from "../lib/nn/params.js";
import { dspo } from "../lib/objectives/dspo.js";
import { adamW } from "../lib/train/optimizer.js";
import { microGraph, updateGraph } from "../lib/train/step.js";

interface Case {
  readonly model: "sd15" | "sdxl-base";
  readonly dtype: "f32" | "bf16";
  readonly pairs: number;
  /** LoRA rank, or undefined: all parameters are trained and a frozen copy is the reference. */
  readonly rank?: number;
  readonly recompute: "none" | "blocks";
  /** For a backend that has the kernels of all fused ops. */
  readonly fused?: true;
}

const shapes: readonly Omit<Case, "dtype">[] = [
  { model: "sd15", pairs: 1, recompute: "none" },
  { model: "sd15", pairs: 4, recompute: "none" },
  { model: "sd15", pairs: 4, recompute: "blocks" },
  { model: "sd15", pairs: 16, recompute: "none" },
  { model: "sd15", pairs: 16, recompute: "blocks" },
  { model: "sd15", pairs: 4, rank: 16, recompute: "none" },
  { model: "sd15", pairs: 4, rank: 16, recompute: "blocks" },
  { model: "sd15", pairs: 16, rank: 16, recompute: "blocks" },
  { model: "sdxl-base", pairs: 1, rank: 16, recompute: "blocks" },
  { model: "sdxl-base", pairs: 1, recompute: "blocks" },
];
const cases: readonly Case[] = [
  ...shapes.map(shape => ({ ...shape, dtype: "f32" as const })),
  ...shapes.flatMap(shape => [
    { ...shape, dtype: "bf16" as const },
    { ...shape, dtype: "bf16" as const, fused: true as const },
  ]),
];

const everyKernel: Target = { backend: "cuda", kernels: new Set(opTable.keys()) };

interface Report {
  readonly name: string;
  /** Instructions of the two programs of a step. */
  readonly micro: number;
  readonly update: number;
  /** Bytes that the instructions of a micro-batch read and write. */
  readonly traffic: number;
  readonly buildMs: number;
  readonly planMs: number;
  /** No order-preserving plan needs less scratch. */
  readonly livePeak: number;
  readonly scratch: number;
  /** Persistent arenas, bytes. */
  readonly arenas: Readonly<Record<string, number>>;
}

function plan(one: Case, folder?: string): Report {
  const { model, dtype, pairs, rank, recompute, fused } = one;
  const started = performance.now();
  const { micro, update } = buildStep(readConfig(model), one);
  const built = performance.now();
  const target = fused && { target: everyKernel };
  const compiled = compileWithPlan(micro, { name: "micro", ...target });
  const updated = compileWithPlan(update, { name: "update", ...target });
  if (folder) exportStep(folder, one, [compiled.program, updated.program]);
  const arenas = Object.fromEntries([...compiled.program.arenas, ...updated.program.arenas].filter(a => a.name !== "scratch").map(a => [a.name, a.bytes]));
  return {
    name: `${model} ${dtype}, ${pairs} pairs, ${rank ? `LoRA rank ${rank}` : "full"}${recompute === "blocks" ? ", recomputed" : ""}${fused ? ", fused" : ""}`,
    micro: compiled.program.instructions.length,
    update: updated.program.instructions.length,
    traffic: programTraffic(compiled.program),
    buildMs: built - started,
    planMs: performance.now() - built,
    livePeak: compiled.plan.lowerBound,
    scratch: compiled.program.arenas[0]!.bytes,
    arenas,
  };
}

/** For native/bench/replay.cc, which runs a step with random weights on a machine without Node. */
function exportStep(folder: string, { model, dtype, pairs, rank, recompute }: Case, programs: readonly Program[]): void {
  mkdirSync(folder, { recursive: true });
  const name = `${model}-${dtype}-${pairs}-${rank ? "lora" : "full"}${recompute === "blocks" ? "-recomputed" : ""}.json`;
  writeFileSync(join(folder, name), JSON.stringify({ programs }));
  console.log(join(folder, name));
}

function readConfig(model: Case["model"]): UNetConfig {
  const path = join(__dirname, "..", "..", "..", "bench", "configs", `${model}-unet.json`);
  return parseUNetConfig(JSON.parse(readFileSync(path, "utf8")), path);
}

function buildStep(config: UNetConfig, { dtype, pairs: batch, rank, recompute }: Case): { micro: Graph; update: Graph } {
  const store = declareUNet(config, dtype, { trainable: rank === undefined });
  const adapter = rank ? adaptUNet(config, store, { rank }) : undefined;
  const trainable = adapter?.store ?? store;
  const gradients = trainable.mirror("gradients");
  const optimizer = adamW({ learningRate: 1e-6 });
  const micro = microGraph({
    denoiser: unetDenoiser(config, { height: config.sampleSize!, width: config.sampleSize!, recompute }),
    objective: dspo({ beta: 0.01 }),
    schedule: noiseSchedule(),
    policy: new Params(store, { adapter }),
    reference: new Params(adapter ? store : store.mirror("reference", storage(dtype, false))),
    trainable,
    gradients,
    batch,
    accumulation: 1,
    noise: "drawn",
    conditionDropout: 0,
  });
  return { micro, update: updateGraph({ trainable, gradients, optimizer, state: optimizer.state(trainable), maxGradNorm: 1 }) };
}

function main(): void {
  const options = { filter: { type: "string", default: "" }, json: { type: "boolean", default: false }, export: { type: "string" } } as const;
  const { values } = parseArgs({ options });
  const chosen = cases.filter(c =>
    `${c.model} ${c.dtype} ${c.pairs} ${c.rank ? "lora" : "full"} ${c.recompute} ${c.fused ? "fused" : "plain"}`.includes(values.filter),
  );
  if (values.export !== undefined) for (const one of chosen) plan(one, values.export);
  else if (values.json)
    console.log(
      JSON.stringify(
        chosen.map(one => plan(one)),
        null,
        2,
      ),
    );
  else printTable(chosen);
}

function printTable(chosen: readonly Case[]): void {
  console.log("step".padEnd(57), "micro  update     traffic  build ms  plan ms  live peak    scratch   persistent arenas");
  for (const one of chosen) {
    const r = plan(one);
    const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
    const arenas = Object.entries(r.arenas).map(([name, bytes]) => `${name} ${gib(bytes)}`);
    const launches = [String(r.micro).padStart(5), String(r.update).padStart(7), gib(r.traffic).padStart(11)];
    const numbers = [...launches, r.buildMs.toFixed(0).padStart(9), r.planMs.toFixed(0).padStart(8)];
    console.log(r.name.padEnd(57), ...numbers, gib(r.livePeak).padStart(10), gib(r.scratch).padStart(10), " ", arenas.join(", "));
  }
}

main();
