/** Gradient checkpointing on the cpu backend: a network of convolutions, norms, attention and noise, with each block in a recomputation region. */

import { compileWithPlan } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { attention } from "../../lib/graph/ops/attention.js";
import { conv2d } from "../../lib/graph/ops/conv.js";
import { add, gelu, mean, mul, sigmoid, silu, square, sub } from "../../lib/graph/ops/elementwise.js";
import { input, parameter } from "../../lib/graph/ops/leaf.js";
import { linear } from "../../lib/graph/ops/matmul.js";
import { groupNorm, layerNorm } from "../../lib/graph/ops/norm.js";
import { randomNormal } from "../../lib/graph/ops/random.js";
import { reshape } from "../../lib/graph/ops/shape.js";
import { mergeCommon, optimize } from "../../lib/graph/passes.js";
import type { Program } from "../../lib/graph/program.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, numel, recomputed, scope, type Tensor } from "../../lib/graph/tensor.js";
import { hostTensor } from "../../lib/util/host-tensor.js";

const [batch, height, width, channels, heads] = [2, 8, 8, 16, 2] as const;
const blocks = 6;

/** Weights of one arena, laid out as they are asked for. */
class Weights {
  readonly tensors: Tensor[] = [];
  bytes = 0;
  take(...shape: number[]): Tensor {
    const tensor = parameter({ arena: "policy", name: `w${this.tensors.length}`, dtype: "f32", shape, offset: this.bytes });
    this.bytes += Math.ceil(numel(shape) / 16) * 64;
    this.tensors.push(tensor);
    return tensor;
  }
}

function block(x: Tensor, index: number, w: Weights): Tensor {
  const c = channels;
  let h = conv2d(groupNorm(x, w.take(c), w.take(c), { groups: 4, eps: 1e-5, silu: true }), w.take(c, 3, 3, c), w.take(c), { padding: 1 });
  h = mul(h, sigmoid(randomNormal(h.shape, { stream: index }))); // like dropout: the replay must draw the same numbers
  const map = add(x, silu(h));
  const tokens = reshape(map, [batch, height * width, c]);
  const normed = layerNorm(tokens, w.take(c), w.take(c), { eps: 1e-5 });
  const mixed = attention(linear(normed, w.take(c, c)), linear(normed, w.take(c, c)), linear(normed, w.take(c, c)), { heads });
  return reshape(add(tokens, linear(gelu(mixed), w.take(c, c), w.take(c))), map.shape);
}

function step({ recompute, fuse }: { recompute: boolean; fuse: boolean }) {
  const weights = new Weights();
  const graph = buildGraph(g => {
    const x = input("x", { dtype: "f32", shape: [batch, height, width, channels] }, "bchw");
    let h = x;
    for (let i = 0; i < blocks; i++) {
      const body = () => block(h, i, weights);
      h = scope(`block${i}`, () => (recompute ? recomputed(body) : body()));
    }
    const loss = mean(
      square(
        sub(
          h,
          scope("target", () => randomNormal(h.shape, { stream: 99 })),
        ),
      ),
    );
    g.output("loss", loss);
    for (const [i, dw] of grad(loss, [...weights.tensors, x]).entries()) g.output(`d${i}`, dw);
  });
  return { graph, weights, ...compileWithPlan(graph, { name: recompute ? "recomputed" : "kept", fuse }) };
}

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

async function run(program: Program, weights: Weights): Promise<Record<string, string>> {
  const executable = session.compile(program);
  const wave = (n: number, phase: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(1.3 * i + phase) * 0.3);
  session.write("policy", 0, wave(weights.bytes / 4, 0));
  const x = hostTensor("f32", [batch, channels, height, width], wave(batch * channels * height * width, 1));
  const outputs = await session.run(executable, { inputs: { x }, scalars: { seed: 3, step: 1, sampleOffset: 0 } });
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { data }]) => [name, Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64")]),
  );
}

test("recomputed and fused steps give the loss and all gradients of the plain step, bit for bit", async () => {
  const plain = step({ recompute: false, fuse: false });
  const expected = await run(plain.program, plain.weights);
  expect(Object.keys(expected).length).toBe(plain.weights.tensors.length + 2);
  for (const options of [
    { recompute: false, fuse: true },
    { recompute: true, fuse: false },
    { recompute: true, fuse: true },
  ]) {
    const other = step(options);
    expect(await run(other.program, other.weights)).toEqual(expected);
  }
});

test("recomputation lowers the planned memory, for some more instructions", () => {
  for (const fuse of [false, true]) {
    const kept = step({ recompute: false, fuse });
    const again = step({ recompute: true, fuse });
    expect(again.plan.lowerBound).toBeLessThan(0.6 * kept.plan.lowerBound);
    expect(again.plan.arenas[0]!.bytes).toBeLessThan(0.6 * kept.plan.arenas[0]!.bytes);
    expect(again.program.instructions.length).toBeGreaterThan(kept.program.instructions.length);
  }
});

test("a region is replayed once, only as far as gradients need it, and its replay is not merged with the forward pass", () => {
  const { graph } = step({ recompute: true, fuse: false });
  const optimized = optimize(graph, { fuse: false });
  const convs = optimized.nodes.filter(n => n.op.name === "conv2d");
  expect(convs.filter(n => n.replay === 0).length).toBe(blocks);
  expect(convs.filter(n => n.replay > 0).length).toBe(blocks); // the conv's output is read by the rule of mul
  // The last linear of a block is needed by no rule: 3 of the 4 are replayed.
  expect(optimized.nodes.filter(n => n.op.name === "linear" && n.replay > 0).length).toBe(3 * blocks);
  expect(mergeCommon(optimized).nodes.length).toBe(optimized.nodes.length);
});
