/** Single ops and their gradients against PyTorch. Truth was computed in float64 and stored in float32: our f64 must agree to that rounding, our f32
 *  to ten times what float32 PyTorch reaches. */

import fs from "node:fs";
import path from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { vjp } from "../../lib/graph/grad.js";
import { attention } from "../../lib/graph/ops/attention.js";
import { conv2d } from "../../lib/graph/ops/conv.js";
import * as elementwise from "../../lib/graph/ops/elementwise.js";
import { timestepEmbedding } from "../../lib/graph/ops/embed.js";
import { geglu } from "../../lib/graph/ops/gate.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { linear } from "../../lib/graph/ops/matmul.js";
import { groupNorm, l2Normalize, layerNorm, softmax } from "../../lib/graph/ops/norm.js";
import { avgPool2d, upsampleNearest } from "../../lib/graph/ops/resample.js";
import { reshape, transpose } from "../../lib/graph/ops/shape.js";
import { Session } from "../../lib/graph/session.js";
import type { Layout, Tensor } from "../../lib/graph/tensor.js";
import { type HostTensor, insideShape } from "../../lib/util/host-tensor.js";
import { expectClose, norm, type Values } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { runOnce } from "../support/run.js";

interface Parameters {
  readonly file: string;
  readonly f32_out: number;
  readonly f32_grad: Readonly<Record<string, number>>;
  readonly stride: number;
  readonly padding_lrtb: readonly [number, number, number, number];
  readonly groups: number;
  readonly eps: number;
  readonly heads: number;
  readonly causal: boolean;
  readonly scale: number | null;
  readonly size: readonly [number, number] | null;
  readonly kernel: number;
}

interface TimestepParameters {
  readonly file: string;
  readonly dim: number;
  readonly flip_sin_to_cos: boolean;
  readonly downscale_freq_shift: number;
  readonly max_period: number;
}

type Build = (x: Readonly<Record<string, Tensor>>, p: Parameters) => Tensor;
/** How the tensors of a family lie outside; those not named are plain. */
type Layouts = Readonly<Record<string, Layout>>;

const maps: Layouts = { x: "bchw", out: "bchw" };

const families: Readonly<Record<string, readonly [build: Build, layouts?: Layouts]>> = {
  attention: [attended],
  avg_pool2d: [({ x }, { kernel, stride }) => avgPool2d(x!, { kernel, stride }), maps],
  conv2d: [convolved, { ...maps, weight: "oihw" }],
  geglu: [({ x, weight, bias }) => geglu(linear(x!, weight!, bias))],
  group_norm: [({ x, weight, bias }, { groups, eps }) => groupNorm(x!, weight!, bias!, { groups, eps }), maps],
  group_norm_silu: [({ x, weight, bias }, { groups, eps }) => groupNorm(x!, weight!, bias!, { groups, eps, silu: true }), maps],
  l2_normalize: [({ x }) => l2Normalize(x!)],
  layer_norm: [({ x, weight, bias }, { eps }) => layerNorm(x!, weight!, bias!, { eps })],
  linear: [({ x, weight, bias }) => linear(x!, weight!, bias)],
  mse: [({ x, y }) => reshape(elementwise.mean(elementwise.square(elementwise.sub(x!, y!)), [1, 2, 3]), [x!.shape[0]!])],
  softmax: [({ x }) => softmax(x!)],
  upsample_nearest: [upsampled, maps],
};

/** The cases of the family "activation" are named by their op. */
const activations: typeof families = {
  silu: [({ x }) => elementwise.silu(x!)],
  gelu: [({ x }) => elementwise.gelu(x!)],
  gelu_tanh: [({ x }) => elementwise.geluTanh(x!)],
  quick_gelu: [({ x }) => elementwise.quickGelu(x!)],
};

/** q, k, v and the result are [B, heads, N, d] in the goldens. */
function attended({ q, k, v, mask }: Readonly<Record<string, Tensor>>, { heads, causal }: Parameters): Tensor {
  const tokens = (x: Tensor): Tensor => reshape(transpose(x, [0, 2, 1, 3]), [x.shape[0]!, x.shape[2]!, x.shape[1]! * x.shape[3]!]);
  const y = attention(tokens(q!), tokens(k!), tokens(v!), { heads, causal }, mask);
  return transpose(reshape(y, [q!.shape[0]!, q!.shape[2]!, heads, q!.shape[3]!]), [0, 2, 1, 3]);
}

function convolved({ x, weight, bias }: Readonly<Record<string, Tensor>>, { stride, padding_lrtb: [left, right, top, bottom] }: Parameters): Tensor {
  return conv2d(x!, weight!, bias, { stride, padding: [top, bottom, left, right] });
}

function upsampled({ x }: Readonly<Record<string, Tensor>>, { scale, size }: Parameters): Tensor {
  const [height, width] = size ?? [x!.shape[1]! * scale!, x!.shape[2]! * scale!];
  return upsampleNearest(x!, { height, width });
}

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

describeSets("ops", folder => {
  const { cases } = JSON.parse(fs.readFileSync(path.join(folder, "meta.json"), "utf8")) as { cases: Record<string, Parameters & TimestepParameters> };
  const files = new Map<string, SafetensorsFile>();
  const open = (name: string): SafetensorsFile => {
    const file = files.get(name) ?? readSafetensors(path.join(folder, name));
    files.set(name, file);
    return file;
  };
  afterAll(() => {
    for (const file of files.values()) file.close();
  });
  const timesteps = "timestep_embedding.safetensors";
  const names = Object.keys(cases);

  describe.each(["f32", "f64"] as const)("%s", dtype => {
    test.each(names.filter(name => cases[name]!.file !== timesteps))("%s", async name => {
      const p = cases[name]!;
      const [build, layouts = {}] = activations[name] ?? families[path.parse(p.file).name]!;
      const golden = open(p.file);
      const results = await evaluate(golden, name, dtype, build, layouts, p);
      const bound = (f32: number): number => (dtype === "f64" ? 2 ** -24 : Math.max(10 * f32, 2e-6));
      const parts = [...golden.tensors.keys()].filter(key => key.startsWith(`${name}|`) && !/\|(cot|in\..*)$/.test(key)).map(key => key.split("|")[1]!);
      const truth = (part: string): Values => golden.tensor(`${name}|${part}`).data as unknown as Values;
      const largest = Math.max(...parts.map(part => norm(truth(part))));
      for (const part of parts) {
        const f32 = part === "out" ? p.f32_out : p.f32_grad[part.slice("grad.".length)]!;
        const scale = norm(truth(part)) === 0 ? largest : 1; // attention to one key has no gradient in q and k: terms of the size of the others cancel
        expectClose(results[part]!.data as unknown as Values, truth(part), bound(f32) * scale, `${name}|${part} in ${dtype}`);
      }
    });

    test.each(names.filter(name => cases[name]!.file === timesteps))("%s", async name => {
      const { dim, flip_sin_to_cos, downscale_freq_shift, max_period } = cases[name]!;
      const golden = open(timesteps);
      const t = golden.tensor(`${name}|t`);
      const options = { dim, flipSinToCos: flip_sin_to_cos, shift: downscale_freq_shift, maxPeriod: max_period };
      const body = () => timestepEmbedding(input("t", { dtype, shape: t.shape }), options);
      const { y } = await runOnce(session, graph => graph.output("y", body()), { inputs: { t } });
      // PyTorch's float32 exp is not always rounded correctly: 2 of 160 frequencies are one ulp off, and with them every angle.
      const half = Math.floor(dim / 2);
      const angle = (i: number): number => Number(t.data[Math.floor(i / dim)]) * max_period ** -(((i % dim) % half) / (half - downscale_freq_shift));
      expectWithin(y!.data as unknown as Values, golden.tensor(`${name}|out_f32`).data as unknown as Values, i => 1e-6 + 2 ** -23 * angle(i), name);
      expectWithin(y!.data as unknown as Values, golden.tensor(`${name}|out_f64`).data as unknown as Values, () => 1e-4, name);
    });
  });

  test("every file is read", () => {
    const read = new Set(names.map(name => cases[name]!.file));
    expect(fs.readdirSync(folder).filter(name => name.endsWith(".safetensors") && !read.has(name))).toEqual([]);
  });
});

/** "out" and "grad.<input>" of a case. */
async function evaluate(
  golden: SafetensorsFile,
  name: string,
  dtype: "f32" | "f64",
  build: Build,
  layouts: Layouts,
  p: Parameters,
): Promise<Record<string, HostTensor>> {
  const prefix = `${name}|in.`;
  const inputs: Record<string, HostTensor> = { cot: golden.tensor(`${name}|cot`) };
  for (const key of golden.tensors.keys()) if (key.startsWith(prefix)) inputs[key.slice(prefix.length)] = golden.tensor(key);
  const layoutOf = (part: string): Layout => layouts[part] ?? "plain";
  const graph = (g: { output(name: string, tensor: Tensor, layout: Layout): void }): void => {
    const leaf = (part: string, layout: Layout): Tensor => input(part, { dtype, shape: insideShape(inputs[part]!.shape, layout) }, layout);
    const x = Object.fromEntries(
      Object.keys(inputs)
        .filter(part => part !== "cot")
        .map(part => [part, leaf(part, layoutOf(part))]),
    );
    const out = build(x, p);
    g.output("out", out, layoutOf("out"));
    const wanted = Object.keys(x).filter(part => golden.tensors.has(`${name}|grad.${part}`));
    const gradients = vjp(
      [out],
      [leaf("cot", layoutOf("out"))],
      wanted.map(part => x[part]!),
    );
    for (const [i, part] of wanted.entries()) g.output(`grad.${part}`, gradients[i]!, layoutOf(part));
  };
  return runOnce(session, graph, { inputs });
}

function expectWithin(actual: Values, expected: Values, distance: (i: number) => number, label: string): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++)
    if (!(Math.abs(actual[i]! - expected[i]!) <= distance(i)))
      throw new Error(`${label}: at [${i}] expected ${expected[i]} +- ${distance(i)}, received ${actual[i]}`);
}
