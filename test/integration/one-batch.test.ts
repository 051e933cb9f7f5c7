/** Policy and reference as one batch: the loss and the gradients of two passes, with less to launch. */

import type { Denoiser } from "../../lib/diffusion/denoiser.js";
import { mean, sub } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { fill } from "../../lib/graph/ops/optimizer.js";
import { reshape, transpose } from "../../lib/graph/ops/shape.js";
import { optimize } from "../../lib/graph/passes.js";
import { planGraph } from "../../lib/graph/plan.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph, type Tensor, typed } from "../../lib/graph/tensor.js";
import { linear } from "../../lib/nn/layers.js";
import { LoraAdapter } from "../../lib/nn/lora.js";
import { ParameterStore, Params } from "../../lib/nn/params.js";
import { predictBoth } from "../../lib/train/predictions.js";
import { emulated } from "../support/bf16.js";
import { expectClose } from "../support/compare.js";
import { fusedKernels } from "../support/fused.js";
import { drawWeights, runGraph, type StepOptions, tinyStep } from "../support/steps.js";

let session: Session;
beforeEach(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterEach(() => session.close());

const lora = { rank: 2, alpha: 3 };
const everyLayer = { rank: 2, targets: ["to_q", "to_v", "to_out.0", "conv1", "conv_in", "conv_out", "proj_in", "time_emb_proj", "net.2", "linear_1"] };

/** Loss, metrics and gradients of one micro-batch. */
async function results(options: StepOptions, { as = (graph: Graph): Graph => graph, trained = true } = {}) {
  const step = tinyStep(options);
  await drawWeights(session, step, { as, trained });
  await runGraph(
    session,
    buildGraph(() => fill(step.gradients.flat(), 0)),
    {},
    step.arenas,
  );
  const outputs = await runGraph(session, as(step.micro), step.inputs, step.arenas);
  const bytes = await session.read(step.gradients.arena, 0, step.gradients.bytes);
  const metrics = Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, Number(data[0])]));
  return { metrics, gradients: options.dtype === "f64" ? new Float64Array(bytes) : new Float32Array(bytes) };
}

test.each<[string, Omit<StepOptions, "dtype">]>([
  ["SD", { lora }],
  ["SD, recomputed", { lora, recompute: "blocks" }],
  ["SD, every kind of layer adapted, recomputed", { lora: everyLayer, recompute: "blocks" }],
  ["SDXL", { lora, set: "unet-sdxl-tiny" }],
  ["SDXL, every kind of layer adapted, recomputed", { lora: everyLayer, set: "unet-sdxl-tiny", recompute: "blocks" }],
])("loss, metrics and gradients are those of two passes: %s", async (_, options) => {
  const together = await results({ ...options, dtype: "f64" });
  const apart = await results({ ...options, dtype: "f64", oneBatch: false });
  expect(Object.keys(together.metrics)).toEqual(Object.keys(apart.metrics));
  for (const [name, value] of Object.entries(apart.metrics)) expectClose([together.metrics[name]!], [value], 1e-9, name); // differences of errors cancel
  expectClose(together.gradients, apart.gradients, 1e-12, "gradients");
});

test.each([
  ["f64", "none"],
  ["f32", "none"],
  ["f32", "blocks"],
  ["bf16", "none"],
  ["bf16", "blocks"],
] as const)("an adapter of zeros changes no bit of the prediction: the loss is ln 2 and nothing drifts, in %s, recomputation %s", async (dtype, recompute) => {
  const as = dtype === "bf16" ? emulated : (graph: Graph): Graph => graph;
  const { metrics } = await results({ dtype, recompute, lora: everyLayer }, { as, trained: false });
  expect([metrics.loss, metrics.winnerDrift, metrics.loserDrift]).toEqual([Math.LN2, 0, 0]);
});

test.each(["none", "blocks"] as const)("fewer instructions for about the same memory, recomputation %s", recompute => {
  const measure = (oneBatch: boolean) => {
    const { micro } = tinyStep({ dtype: "bf16", lora, size: 16, pairs: 4, recompute, oneBatch });
    const graph = optimize(micro, { kernels: fusedKernels });
    const { instructions, lowerBound, arenas } = planGraph(graph);
    return { instructions: instructions.length, live: lowerBound, scratch: arenas[0]!.bytes };
  };
  const [apart, together] = [measure(false), measure(true)];
  console.log({ apart, together });
  expect(together.instructions).toBeLessThan(0.95 * apart.instructions);
  expect(together.live).toBeLessThan(1.25 * apart.live);
});

test("backward sees no row of the reference", () => {
  const { micro } = tinyStep({ dtype: "f32", lora, pairs: 3, recompute: "blocks" });
  const backward = optimize(micro, { fuse: false }).nodes.filter(({ op, label }) => !op.view && label.startsWith("grad/policy and reference/"));
  const batches = backward.flatMap(({ outputs }) => outputs.filter(y => y.shape.length > 2).map(y => y.shape[0]));
  expect([...new Set(batches)]).toEqual([6]); // 3 pairs; the reference's are rows 6 to 11
  const replayed = optimize(micro, { fuse: false }).nodes.filter(({ op, label }) => !op.view && label.startsWith("again/"));
  expect([...new Set(replayed.flatMap(({ outputs }) => outputs.filter(y => y.shape.length > 2).map(y => y.shape[0])))]).toEqual([6]);
});

/** Predictions of a model of one adapted layer, which lays out its samples as `between` says. */
function predicted(between: (x: Tensor, layer: (x: Tensor) => Tensor) => Tensor): string[] {
  const store = new ParameterStore({ arena: "p", dtype: "f32", trainable: false });
  const adapter = new LoraAdapter(new ParameterStore({ arena: "l", dtype: "f32", trainable: true }), { rank: 1, targets: ["to_q"] });
  const denoiser: Pick<Denoiser, "predict"> = {
    predict: (x, _t, _c, p) => between(x, rows => linear(rows, p.at("to_q"), { features: rows.shape.at(-1)! })),
  };
  const graph = buildGraph(g => {
    const samples = (copies: number): Tensor => input(`x${g.nodes.length}`, typed("f32", 4 * copies, 4, 4, 4));
    const { prediction, reference } = predictBoth({
      policy: new Params(store, { adapter }),
      reference: new Params(store),
      predict: (params, copies) => denoiser.predict(samples(copies), input(`t${g.nodes.length}`, typed("i32", 4 * copies)), {}, params),
    });
    g.output("prediction", prediction);
    g.output("reference", reference);
  });
  const labels = optimize(graph).nodes.flatMap(({ op, label }) => (op.leaf || label === "" ? [] : [label.split("/")[0]!]));
  return [...new Set(labels)];
}

test("a model in which the halves of a batch cannot be told apart is run twice", () => {
  const together = ["policy and reference"];
  const apart = ["reference", "policy"];
  expect(predicted((x, layer) => layer(x))).toEqual(together);
  expect(predicted((x, layer) => layer(reshape(x, [x.shape[0]!, 16, 4])))).toEqual(together);
  expect(predicted((x, layer) => sub(layer(x), mean(layer(x), [0])))).toEqual(apart); // mixes samples
  expect(predicted((x, layer) => transpose(layer(transpose(x, [1, 0, 2, 3])), [1, 0, 2, 3]))).toEqual(apart); // the layer's axis 0 is not the batch
  expect(predicted((x, layer) => reshape(layer(reshape(x, [-1, 4])), x.shape))).toEqual(apart); // it is, but not so that ops could tell
});
