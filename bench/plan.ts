/** Full-size DSPO steps, built, differentiated and planned without a device: what a step launches and moves, how long building it takes, and every byte it
 *  needs. Steps in bf16 are planned for a backend with every fused kernel, too.
 *  `npm run plan`; `-- --filter sdxl` for some of them, `-- --json` for machines, `-- --export folder` writes the programs themselves. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Program } from "../lib/graph/program.js";
import { type Case, planStep } from "./full-step.js";

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

interface Report {
  readonly name: string;
  /** Instructions of the two programs of a step. */
  readonly micro: number;
  readonly update: number;
  /** Bytes that the instructions of a micro-batch read and write. */
  readonly traffic: number;
  /** To build, differentiate and plan both programs. */
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
  const planned = planStep(one);
  const { micro, update } = planned.programs;
  if (folder) exportStep(folder, one, [micro, update]);
  return {
    name: `${model} ${dtype}, ${pairs} pairs, ${rank ? `LoRA rank ${rank}` : "full"}${recompute === "blocks" ? ", recomputed" : ""}${fused ? ", fused" : ""}`,
    micro: micro.instructions.length,
    update: update.instructions.length,
    traffic: planned.traffic,
    planMs: performance.now() - started,
    livePeak: planned.lowerBound,
    scratch: micro.arenas[0]!.bytes,
    arenas: Object.fromEntries(planned.arenas.filter(a => a.name !== "scratch").map(a => [a.name, a.bytes])),
  };
}

/** For native/bench/replay.cc, which runs a step with random weights on a machine without Node. */
function exportStep(folder: string, { model, dtype, pairs, rank, recompute }: Case, programs: readonly Program[]): void {
  mkdirSync(folder, { recursive: true });
  const name = `${model}-${dtype}-${pairs}-${rank ? "lora" : "full"}${recompute === "blocks" ? "-recomputed" : ""}.json`;
  writeFileSync(join(folder, name), JSON.stringify({ programs }));
  console.log(join(folder, name));
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
  console.log("step".padEnd(57), "micro  update     traffic  plan ms  live peak    scratch   persistent arenas");
  for (const one of chosen) {
    const r = plan(one);
    const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
    const arenas = Object.entries(r.arenas).map(([name, bytes]) => `${name} ${gib(bytes)}`);
    const launches = [String(r.micro).padStart(5), String(r.update).padStart(7), gib(r.traffic).padStart(11)];
    const numbers = [...launches, r.planMs.toFixed(0).padStart(8)];
    console.log(r.name.padEnd(57), ...numbers, gib(r.livePeak).padStart(10), gib(r.scratch).padStart(10), " ", arenas.join(", "));
  }
}

main();
