/** What the kernel benchmark runs: shapes of the Stable Diffusion UNet and of the demo model. A case builds one op, or its gradient, and counts its work. */

import { vjp } from "../lib/graph/grad.js";
import { attention } from "../lib/graph/ops/attention.js";
import { conv2d } from "../lib/graph/ops/conv.js";
import { add, square } from "../lib/graph/ops/elementwise.js";
import { geglu } from "../lib/graph/ops/gate.js";
import { parameter } from "../lib/graph/ops/leaf.js";
import { linear } from "../lib/graph/ops/matmul.js";
import { groupNorm, layerNorm } from "../lib/graph/ops/norm.js";
import { adamw, assign } from "../lib/graph/ops/optimizer.js";
import { pairSums } from "../lib/graph/ops/preference.js";
import { type DType, dtypeBytes, numel, type Tensor } from "../lib/graph/tensor.js";
import { preferenceLoss } from "../lib/kernels/index.js";
import { diffusionDpo } from "../lib/objectives/diffusion-dpo.js";

export interface BenchCase {
  readonly name: string;
  /** Inputs, filled with standard normal numbers times `scale`. */
  readonly inputs: readonly (readonly number[])[];
  readonly scale?: number;
  /** What is timed: instructions of these ops. */
  readonly ops: readonly string[];
  build(inputs: readonly Tensor[]): readonly Tensor[];
  /** Floating-point operations; 0: bound by memory. */
  readonly flops: number;
  /** Elements that have to be read and written at least once. */
  readonly elements: number;
  /** Length of the longest sum, for the error bound. */
  readonly terms: number;
  /** Masters and loss maps: f32 in a run of bf16, too. */
  readonly master?: true;
  /** With the backend's fused ops; the others measure single ones. */
  readonly fused?: true;
}

type Shape = readonly number[];

/** Leaves of one arena, laid out at 64-byte steps. */
export function leaves(shapes: readonly Shape[], dtype: DType): { tensors: Tensor[]; offsets: number[]; bytes: number } {
  const size = dtypeBytes[dtype],
    offsets: number[] = [];
  let bytes = 0;
  for (const shape of shapes) {
    offsets.push(bytes);
    bytes += Math.ceil((numel(shape) * size) / 64) * 64;
  }
  return { tensors: shapes.map((shape, i) => parameter({ arena: "inputs", name: `x${i}`, dtype, shape, offset: offsets[i]! })), offsets, bytes };
}

function conv(batch: number, size: number, inC: number, outC: number): BenchCase[] {
  const x: Shape = [batch, size, size, inC],
    w: Shape = [outC, 3, 3, inC],
    b: Shape = [outC],
    y: Shape = [batch, size, size, outC];
  const flops = 2 * numel(y) * 9 * inC,
    name = `conv3x3 ${batch}x${size}x${size}x${inC}->${outC}`;
  const elements = numel(x) + numel(w) + numel(y);
  const forward = (t: readonly Tensor[]): Tensor => conv2d(t[0]!, t[1]!, t[2]!, { padding: 1 });
  const scale = 1 / Math.sqrt(3 * Math.sqrt(inC));
  return [
    { name: `${name} forward`, inputs: [x, w, b], scale, ops: ["conv2d"], build: t => [forward(t)], flops, elements, terms: 9 * inC },
    {
      name: `${name} d input`,
      inputs: [x, w, b, y],
      scale,
      ops: ["conv2d_dx"],
      build: t => vjp([forward(t)], [t[3]!], [t[0]!]),
      flops,
      elements,
      terms: 9 * outC,
    },
    {
      name: `${name} d weight`,
      inputs: [x, w, b, y],
      scale,
      ops: ["conv2d_dw"],
      build: t => vjp([forward(t)], [t[3]!], [t[1]!]),
      flops,
      elements,
      terms: numel(y) / outC,
    },
  ];
}

function dense(rows: number, inC: number, outC: number): BenchCase[] {
  const x: Shape = [rows, inC],
    w: Shape = [outC, inC],
    b: Shape = [outC],
    y: Shape = [rows, outC];
  const flops = 2 * rows * inC * outC,
    elements = numel(x) + numel(w) + numel(y),
    name = `linear ${rows}x${inC}->${outC}`,
    scale = 1 / Math.sqrt(Math.sqrt(inC));
  const forward = (t: readonly Tensor[]): Tensor => linear(t[0]!, t[1]!, t[2]!);
  return [
    { name: `${name} forward`, inputs: [x, w, b], scale, ops: ["linear"], build: t => [forward(t)], flops, elements, terms: inC },
    { name: `${name} d input`, inputs: [x, w, b, y], scale, ops: ["linear_dx"], build: t => vjp([forward(t)], [t[3]!], [t[0]!]), flops, elements, terms: outC },
    {
      name: `${name} d weight`,
      inputs: [x, w, b, y],
      scale,
      ops: ["linear_dw"],
      build: t => vjp([forward(t)], [t[3]!], [t[1]!]),
      flops,
      elements,
      terms: rows,
    },
  ];
}

function attend(batch: number, queries: number, keys: number, heads: number, size: number): BenchCase[] {
  const q: Shape = [batch, queries, heads * size],
    k: Shape = [batch, keys, heads * size];
  const flops = 4 * batch * queries * keys * heads * size,
    name = `attention ${batch}x${queries}x${keys} ${heads}x${size}`;
  const forward = (t: readonly Tensor[]): Tensor => attention(t[0]!, t[1]!, t[2]!, { heads });
  const elements = 2 * numel(q) + 2 * numel(k);
  return [
    { name: `${name} forward`, inputs: [q, k, k], ops: ["attention"], build: t => [forward(t)], flops, elements, terms: keys },
    {
      name: `${name} backward`,
      inputs: [q, k, k, q],
      ops: ["attention_vjp"],
      build: t => vjp([forward(t)], [t[3]!], t.slice(0, 3)),
      flops: 2.5 * flops,
      elements: 2 * elements,
      terms: keys + queries,
    },
  ];
}

function norms(batch: number, size: number, channels: number, groups: number): BenchCase[] {
  const x: Shape = [batch, size, size, channels],
    c: Shape = [channels],
    rows: Shape = [batch, size * size, channels];
  const group = (t: readonly Tensor[]): Tensor => groupNorm(t[0]!, t[1]!, t[2]!, { groups, eps: 1e-5, silu: true });
  const layer = (t: readonly Tensor[]): Tensor => layerNorm(t[0]!, t[1]!, t[2]!, { eps: 1e-5 });
  const n = numel(x),
    at = `${batch}x${size}x${size}x${channels}`;
  return [
    {
      name: `group norm + SiLU ${at} forward`,
      inputs: [x, c, c],
      ops: ["group_norm"],
      build: t => [group(t)],
      flops: 0,
      elements: 2 * n,
      terms: n / batch / groups,
    },
    {
      name: `group norm + SiLU ${at} backward`,
      inputs: [x, c, c, x],
      ops: ["group_norm_vjp"],
      build: t => vjp([group(t)], [t[3]!], t.slice(0, 3)),
      flops: 0,
      elements: 3 * n,
      terms: n / channels,
    },
    { name: `layer norm ${at} forward`, inputs: [rows, c, c], ops: ["layer_norm"], build: t => [layer(t)], flops: 0, elements: 2 * n, terms: channels },
    {
      name: `layer norm ${at} backward`,
      inputs: [rows, c, c, rows],
      ops: ["layer_norm_vjp"],
      build: t => vjp([layer(t)], [t[3]!], t.slice(0, 3)),
      flops: 0,
      elements: 3 * n,
      terms: n / channels,
    },
  ];
}

function memoryBound(): BenchCase[] {
  const map: Shape = [64, 128, 128, 4],
    big: Shape = [1 << 24],
    gate: Shape = [8192, 2560],
    half: Shape = [8192, 1280];
  const sums = (t: readonly Tensor[]) => pairSums({ prediction: t[0]!, target: t[1]!, reference: t[2]! });
  const n = numel(map);
  const adam = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01 };
  return [
    { name: "add 16M", inputs: [big, big], ops: ["add"], build: t => [add(t[0]!, t[1]!)], flops: 0, elements: 3 * numel(big), terms: 1 },
    { name: "GEGLU 8192x2560 forward", inputs: [gate], ops: ["geglu"], build: t => [geglu(t[0]!)], flops: 0, elements: 1.5 * numel(gate), terms: 1 },
    {
      name: "GEGLU 8192x2560 backward",
      inputs: [gate, half],
      ops: ["geglu_vjp"],
      build: t => vjp([geglu(t[0]!)], [t[1]!], [t[0]!]),
      flops: 0,
      elements: 2.5 * numel(gate),
      terms: 1,
    },
    {
      name: "preference sums 64x128x128x4",
      master: true,
      inputs: [map, map, map],
      ops: ["pair_sums"],
      build: t => Object.values(sums(t)),
      flops: 0,
      elements: 3 * n,
      terms: 1,
    },
    {
      name: "preference gradient 64x128x128x4",
      master: true,
      inputs: [map, map, map],
      ops: ["pair_sums_vjp"],
      build: t => {
        const { E, D, P, C } = sums(t);
        return vjp([E, D, P, C], [E, D, P, C], [t[0]!]);
      },
      flops: 0,
      elements: 4 * n,
      terms: 1,
    },
    {
      name: "preference loss + gradient 64x128x128x4",
      master: true,
      fused: true,
      inputs: [map, map, map],
      ops: ["pair_sums", "preference_loss", "pair_sums_vjp", "tape"],
      build: t => Object.values(preferenceLoss.build({ prediction: t[0]!, target: t[1]!, reference: t[2]! }, { objective: diffusionDpo({ beta: 2000 }) })),
      flops: 0,
      elements: 7 * n,
      terms: numel(map) / map[0]!,
    },
    {
      name: "AdamW 16M",
      master: true,
      inputs: [big, big, big],
      scale: 0.01,
      ops: ["adamw"],
      build: t => {
        const v = assign(t[2]!, square(t[1]!)); // a second moment is not negative
        return [adamw({ param: t[0]!, grad: t[1]!, m: t[1]!, v }, adam).param];
      },
      flops: 0,
      elements: 7 * numel(big),
      terms: 1,
    },
  ];
}

export const benchCases: readonly BenchCase[] = [
  ...conv(2, 64, 320, 320),
  ...conv(2, 16, 1280, 1280),
  ...conv(32, 16, 32, 32),
  ...conv(32, 8, 64, 64),
  ...conv(32, 4, 96, 96),
  ...dense(8192, 320, 1280),
  ...dense(8192, 1280, 320),
  ...dense(512, 1280, 5120),
  ...attend(2, 4096, 4096, 8, 40),
  ...attend(2, 4096, 77, 8, 40),
  ...attend(2, 1024, 1024, 8, 80),
  ...attend(32, 64, 64, 4, 16),
  ...norms(2, 64, 320, 32),
  ...norms(32, 16, 32, 8),
  ...memoryBound(),
];
