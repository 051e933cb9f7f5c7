/** What a training step needs at least: operations and bytes of every instruction, counted from the programs themselves, as time on an H100's data sheet; and how
 *  the device kernels cut that work, from their own plans (native/bench/launches.cc), which run nowhere for it. Nothing here is a measurement.
 *  `npm run floors` writes native/cuda/FLOORS.md; `-- --check` fails where the committed one is another. Needs the targets attune_simt and launches. */

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { opTable } from "../lib/graph/op.js";
import { programTraffic } from "../lib/graph/print.js";
import type { Instruction, Program, ProgramTensor } from "../lib/graph/program.js";
import { numel } from "../lib/graph/tensor.js";
import { type Case, planStep } from "./full-step.js";

interface Ceilings {
  readonly flops: number;
  readonly bytes: number;
}
/** NVIDIA's data sheet of the H100 SXM: dense bf16, HBM3. */
const dataSheet: Ceilings = { flops: 989e12, bytes: 3.35e12 };
/** What others have published of real ones: a bf16 product of 8192 x 8192 x 8192, a copy. */
const published: Ceilings = { flops: 790e12, bytes: 3.0e12 };

/** By hand, layer by layer, at the published ceilings and before there was a program: what a step was expected to need. ms */
const byHand: Readonly<Record<string, number>> = {
  "sd15 4 full": 47.4,
  "sd15 8 full": 85.9,
  "sd15 16 full": 163,
  "sd15 4 LoRA": 31.6,
  "sd15 8 LoRA": 63.2,
  "sd15 16 LoRA": 126,
  "sdxl-base 1 full": 104,
  "sdxl-base 4 full": 336,
  "sdxl-base 1 LoRA": 63,
  "sdxl-base 4 LoRA": 250,
};

const steps: readonly Case[] = (
  [
    ["sd15", [4, 8, 16]],
    ["sdxl-base", [1, 4]],
  ] as const
).flatMap(([model, sizes]) =>
  [undefined, 16].flatMap(rank =>
    sizes.map(pairs => ({ model, pairs, dtype: "bf16" as const, recompute: "none" as const, fused: true as const, ...(rank && { rank }) })),
  ),
);

interface Work {
  readonly flops: number;
  readonly bytes: number;
}

function workOf({ tensors }: Program, instruction: Instruction): Work {
  const inputs = instruction.inputs.map(id => tensors[id]);
  return {
    flops: opTable.get(instruction.op)?.flops?.(instruction.attrs, ...inputs) ?? 0,
    bytes: programTraffic({ instructions: [instruction.op === "fill" ? { ...instruction, inputs: [] } : instruction], tensors }), // it reads nothing
  };
}

const milliseconds = ({ flops, bytes }: Work, on: Ceilings): number => 1e3 * Math.max(flops / on.flops, bytes / on.bytes);
const floor = (work: readonly Work[], on: Ceilings): number => work.reduce((sum, w) => sum + milliseconds(w, on), 0);

function compileStep(one: Case): Program[] {
  const { micro, update } = planStep({ ...one, fused: true }).programs;
  return [micro, update];
}

const training = ({ rank }: Case): string => (rank ? "LoRA" : "full");
const fixed = (x: number, digits = 1): string => x.toFixed(digits);

function stepRow(one: Case, programs: readonly Program[]): string {
  const work = programs.flatMap(p => p.instructions.map(i => workOf(p, i)));
  const total = (pick: (w: Work) => number): number => work.reduce((sum, w) => sum + pick(w), 0);
  const cells = [
    one.model,
    one.pairs,
    training(one),
    work.length,
    fixed(total(w => w.flops) / 1e12),
    fixed(total(w => w.bytes) / 1e9),
    fixed(floor(work, dataSheet)),
    fixed(floor(work, published)),
    byHand[`${one.model} ${one.pairs} ${training(one)}`] ?? "",
  ];
  return `| ${cells.join(" | ")} |`;
}

// ---- how kernels cut the work

interface Launched {
  readonly program: number;
  readonly instruction: number;
  readonly op: string;
  readonly count: number;
  readonly launches: readonly { readonly kernel: string; readonly threads: number; readonly shared: number; readonly blocks: number; readonly times: number }[];
}

function launchesOf(programs: readonly Program[], arch: number, build: string): Launched[] {
  const folder = mkdtempSync(join(tmpdir(), "attune-floors-"));
  try {
    const file = join(folder, "step.json");
    writeFileSync(file, JSON.stringify({ programs }));
    const args = [join(build, "Release", "attune_simt.so"), file, "--arch", String(arch)];
    const text = execFileSync(join(build, "native-benches", "launches"), args, { encoding: "utf8", maxBuffer: 1 << 28 });
    return text
      .trim()
      .split("\n")
      .map(line => JSON.parse(line) as Launched);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A tile of a product kernel, by the kernel's name: rows, columns, depth, and the tensor-core instructions for one depth of it. */
interface Tile {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly instructions: string;
}

function tileOf(kernel: string): Tile | undefined {
  const [first = 0, second = 0, third = 0] = [...kernel.replace(/\(\w+\)/g, "").matchAll(/\d+/g)].slice(kernel.startsWith("gemm_bf16") ? 1 : 0).map(Number);
  if (kernel.startsWith("gemm_bf16_kernel")) return { rows: first, columns: second, depth: 32, instructions: `${((first / 16) * second) / 4} mma` };
  if (kernel.startsWith("hopper_gemm_kernel"))
    return { rows: 128 * second, columns: third, depth: 64, instructions: `${2 * second * Math.ceil(third / 256) * 4} wgmma` };
  return undefined;
}

const up = (n: number, unit: number): number => Math.ceil(n / unit) * unit;

/** The product m x n x k behind an instruction. Columns under different taps of a weight's gradient lie in different tiles. */
function productOf(op: string, out: ProgramTensor, flops: number, geglu: boolean): { m: number; n: number; k: number; parts: number } {
  const weights = op.includes("_dw");
  const m = weights ? out.shape[0]! : numel(out.shape) / out.shape.at(-1)!;
  const n = (numel(out.shape) / m) * (geglu ? 2 : 1);
  return { m, n, k: flops / (2 * m * n), parts: weights ? n / out.shape.at(-1)! : 1 };
}

/** Channels of a head as attention's products see them: k in 16s, columns in 8s of the size that was compiled (warpgroups: both in 16s, whole swizzle spans). Forward q k^T and p v; backward two passes, in
 *  which q k^T and dy v^T are made twice. */
function attentionShare(op: string, kernel: string, head: number): number {
  const compiled = Number(/<(\d+)/.exec(kernel)?.[1] ?? head);
  const deep = up(compiled, 16);
  const wide = kernel.startsWith("hopper") ? deep : up(compiled, 8);
  return op === "attention" ? (deep + wide) / (2 * head) : (4 * deep + 3 * wide) / (5 * head);
}

interface Row {
  op: string;
  kernel: string;
  count: number;
  flops: number;
  computed: number;
  bytes: number;
  moved: number;
  tileReads: number;
  instructions: string;
  waves: number[];
  floor: number;
}

/** More bytes than each operand once: maps that one block cannot hold are read again (group_norm.cu, group_norm_vjp.cu). */
function rereads(kernels: readonly string[]): number {
  if (kernels.some(k => k.startsWith("group_gradient_sums_kernel"))) return 5 / 3;
  return kernels.some(k => k.startsWith("group_moments_kernel")) ? 3 / 2 : 1;
}

const multiprocessors = 132;

function addLaunched(rows: Map<string, Row>, program: Program, launched: Launched): void {
  const instruction = program.instructions[launched.instruction]!;
  const { op, count, launches } = launched;
  const work = workOf(program, instruction);
  const main = launches.find(l => /gemm_bf16|hopper_gemm|gemm_f32|attention_(forward|short|keys)|hopper_attention/.test(l.kernel)) ?? launches.at(-1);
  if (!main) return;
  const key = `${op} ${main.kernel}`;
  const zero = { count: 0, flops: 0, computed: 0, bytes: 0, moved: 0, tileReads: 0, floor: 0 };
  const row = rows.get(key) ?? { op, kernel: main.kernel, ...zero, instructions: "", waves: [] };
  rows.set(key, row);
  const tile = tileOf(main.kernel);
  let computed = work.flops;
  let blocks = main.blocks;
  if (tile && work.flops > 0) {
    const { m, n, k, parts } = productOf(op, program.tensors[instruction.outputs[0]!]!, work.flops, instruction.attrs.activation === "geglu");
    const tiles = Math.ceil(m / tile.rows) * parts * Math.ceil(n / parts / tile.columns);
    const depth = up(Math.round(k), tile.depth);
    computed = 2 * tiles * tile.rows * tile.columns * depth;
    row.tileReads += count * tiles * (tile.rows + tile.columns) * depth * 2;
    row.instructions = tile.instructions;
    if (main.kernel.startsWith("hopper")) blocks = tiles; // its blocks stay, and take tiles in turn
  } else if (op.startsWith("attention")) {
    const q = program.tensors[instruction.inputs[op === "attention" ? 0 : 1]!]!;
    computed = work.flops * attentionShare(op, main.kernel, q.shape[2]! / Number(instruction.attrs.heads));
  }
  row.count += count;
  row.flops += count * work.flops;
  row.computed += count * computed;
  row.bytes += count * work.bytes;
  row.moved += count * work.bytes * rereads(launches.map(l => l.kernel));
  row.waves.push(blocks / multiprocessors);
  row.floor += count * milliseconds(work, dataSheet);
}

function kernelTable(programs: readonly Program[], arch: number, build: string): string[] {
  const rows = new Map<string, Row>();
  for (const launched of launchesOf(programs, arch, build)) addLaunched(rows, programs[launched.program]!, launched);
  const all = [...rows.values()].sort((a, b) => b.floor - a.floor);
  const total = all.reduce((sum, r) => sum + r.floor, 0);
  const shown = all.filter(r => r.floor > total / 250);
  const line = (r: Row): string => {
    const waves = `${fixed(Math.min(...r.waves))} - ${fixed(Math.max(...r.waves))}`;
    const ratio = r.flops > 0 ? fixed(r.computed / r.flops, 2) : "";
    const tiles = r.tileReads > 0 ? fixed(r.tileReads / 1e9) : "";
    const cells = [r.op, `\`${r.kernel}\``, r.count, fixed(r.flops / 1e12, 2), ratio, fixed(r.bytes / 1e9, 2), fixed(r.moved / r.bytes, 2), tiles];
    return `| ${[...cells, r.instructions, waves, fixed(r.floor, 2)].join(" | ")} |`;
  };
  const rest = all.slice(shown.length);
  const left = rest.reduce((sum, r) => ({ count: sum.count + r.count, floor: sum.floor + r.floor }), { count: 0, floor: 0 });
  return [
    "| op | kernel | times | TFLOP | computes | GB | moves | GB by tiles | a step of k | waves | floor ms |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
    ...shown.map(line),
    `| ${rest.length} more kinds | | ${left.count} | | | | | | | | ${fixed(left.floor, 2)} |`,
  ];
}

function main(): void {
  const root = join(__dirname, "..", "..", "..");
  const { values } = parseArgs({ options: { check: { type: "boolean", default: false }, build: { type: "string", default: join(root, "build") } } });
  if (!existsSync(join(values.build, "native-benches", "launches"))) throw new Error(`${values.build}: build the targets attune_simt and launches there first`);
  const compiled = new Map(steps.map(one => [one, compileStep(one)]));
  const table = (model: Case["model"], arch: number): string[] => {
    const one = steps.find(s => s.model === model && s.pairs === 4 && !s.rank)!;
    return kernelTable(compiled.get(one)!, arch, values.build);
  };
  const text = `# Floors

Made by \`npm run floors\`. **Nothing here was measured**: a floor is what no kernel can go below, counted from a step's instructions, and says nothing about what kernels reach.

## Steps

DSPO steps in bf16 with f32 masters and f32 AdamW moments, all fused kernels, nothing recomputed: winners and losers through policy and reference, the
policy's gradient, clipping and the update. An instruction's floor is the longer of its operations (products, convolutions, attention) at the rate of the tensor cores and its bytes (each operand
once) at the rate of the memory; a step's is their sum. "data sheet": 989 TFLOP/s and 3.35 TB/s, an H100 SXM's; "published": 790 TFLOP/s and 3.0 TB/s, which others have
measured on products and copies of the best size; "by hand": the same ceilings over the layers of the model with norms, activations and sums fused as well as one could
wish, from before there was a program.

| model | pairs | training | instructions | TFLOP | GB | data sheet ms | published ms | by hand ms |
|---|---|---|---|---|---|---|---|---|
${steps.map(one => stepRow(one, compiled.get(one)!)).join("\n")}

## Kernels

Of the full step on 4 pairs, as ops plan it for 132 multiprocessors: 8 samples through the policy and back, 8 through the reference. TFLOP and GB are what the op needs, each
operand once; "computes" is the kernel's share of multiplies over that, tiles, depths and heads filled up with zeros and attention's backward products made twice; "moves"
its bytes over those, where maps are read again. "GB by tiles" is what tiles ask for, mostly of the L2 cache; "a step of k" the tensor-core instructions of a tile for 32
(mma) or 64 (wgmma) terms. "waves": blocks over 132, or tiles where a kernel's blocks stay and take tiles in turn (\`hopper\`; its split k not counted); how many
blocks a multiprocessor holds at once is in KERNELS.md. "floor" is the data sheet's.

### SD 1.5, latents of 64 x 64, sm_90a

${table("sd15", 90).join("\n")}

### SD 1.5, latents of 64 x 64, sm_80's kernels

${table("sd15", 80).join("\n")}

### SDXL, latents of 128 x 128, sm_90a

${table("sdxl-base", 90).join("\n")}
`;
  const target = join(root, "native", "cuda", "FLOORS.md");
  const before = existsSync(target) ? readFileSync(target, "utf8") : "";
  if (before === text) return;
  writeFileSync(target, text);
  console.log("native/cuda/FLOORS.md: written anew");
  if (values.check) throw new Error("native/cuda/FLOORS.md was not up to date: commit the new one");
}

main();
