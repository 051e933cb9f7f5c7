/** Models of bf16 on the cpu, with every value rounded as its dtype says (support/bf16.ts): what a GPU computes, but for the order of its sums. */

import { launches } from "../../lib/graph/alias.js";
import { Session } from "../../lib/graph/session.js";
import type { Graph, Tensor } from "../../lib/graph/tensor.js";
import { parseUNetConfig } from "../../lib/models/unet-config.js";
import { feedOf, gradientGraph } from "../../lib/models/unet-graphs.js";
import { declareUNet } from "../../lib/models/unet-parameters.js";
import { Params } from "../../lib/nn/params.js";
import { fromBf16, toBf16 } from "../../lib/util/half.js";
import { convert, type HostTensor } from "../../lib/util/host-tensor.js";
import { emulated } from "../support/bf16.js";
import { relL2 } from "../support/compare.js";
import { drawWeights, runGraph, tinyStep } from "../support/steps.js";
import { goldenConfig, pseudoRandom, smallInputs } from "../support/unet.js";

let session: Session;
beforeEach(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterEach(() => session.close());

const numbers = (t: HostTensor): Float64Array => convert(t, "f64").data as Float64Array;
const itself = (graph: Graph): Graph => graph;

test("a bf16 UNet gives the prediction and the gradients of f64, up to its roundings", async () => {
  const config = parseUNetConfig(goldenConfig("unet-sd-tiny"), "unet-sd-tiny");
  const results: Record<string, HostTensor>[] = [];
  let roundings = 0;
  for (const dtype of ["f64", "bf16"] as const) {
    const store = declareUNet(config, dtype);
    const as = dtype === "bf16" ? emulated : itself;
    await drawWeights(session, { store, adapter: undefined, reference: store, arenas: store.arenas }, { as });
    const inputs = smallInputs();
    const graph = gradientGraph(config, new Params(store), inputs, "none");
    roundings = longestChain(graph);
    results.push(await runGraph(session, as(graph), { ...feedOf(inputs), cotangent: pseudoRandom([2, 4, 8, 8], 7) }, store.arenas));
  }
  const bound = 2 ** -9 * Math.sqrt(roundings); // a random walk of roundings, each of up to 2^-9
  const whole = (result: Record<string, HostTensor>): number[] =>
    Object.entries(result).flatMap(([name, t]) => (name.startsWith("d parameter") ? [...numbers(t)] : []));
  const [exact, rounded] = results as [Record<string, HostTensor>, Record<string, HostTensor>];
  expect(relL2(numbers(rounded.output!), numbers(exact.output!))).toBeLessThan(bound);
  expect(relL2(numbers(rounded["d input sample"]!), numbers(exact["d input sample"]!))).toBeLessThan(bound);
  expect(relL2(whole(rounded), whole(exact))).toBeLessThan(bound);
  expect(relL2(numbers(rounded.output!), numbers(exact.output!))).toBeGreaterThan(2 ** -9); // it did round
});

/** The most results in bf16 that depend on one another. */
function longestChain(graph: Graph): number {
  const length = new Map<Tensor, number>();
  for (const node of graph.nodes) {
    const before = Math.max(0, ...node.inputs.map(x => (x && length.get(x)) ?? 0));
    for (const y of node.outputs) length.set(y, before + Number(y.dtype === "bf16" && launches(node)));
  }
  return Math.max(...length.values());
}

describe.each([
  ["full", undefined, "none"],
  ["full, recomputed", undefined, "blocks"],
  ["LoRA", { rank: 2 }, "none"],
] as const)("a step in bf16: %s", (_, lora, recompute) => {
  const open = async () => {
    const step = tinyStep({ dtype: "bf16", recompute, ...(lora && { lora }) });
    await drawWeights(session, step, { as: emulated });
    return step;
  };

  test("a policy that is its reference has the loss ln 2, to the last bit", async () => {
    const { micro, inputs, arenas } = await open();
    const { loss, winnerDrift, loserDrift } = await runGraph(session, emulated(micro), inputs, arenas);
    expect([loss!.data[0], winnerDrift!.data[0], loserDrift!.data[0]]).toEqual([Math.LN2, 0, 0]);
  });

  test("after an update the bf16 weights are the f32 weights rounded, and both have moved", async () => {
    const { micro, update, inputs, arenas, trainable } = await open();
    const read = async () => ({
      kept: new Float32Array(await session.read(trainable.arena, 0, trainable.bytes)),
      rounded: new Uint16Array(await session.read(`${trainable.arena}/bf16`, 0, trainable.bytes / 2)),
    });
    const before = await read();
    await runGraph(session, emulated(micro), inputs, arenas);
    await runGraph(session, emulated(update), {}, arenas);
    const after = await read();
    expect([...after.rounded]).toEqual(Array.from(after.kept, toBf16));
    expect(relL2(after.kept, before.kept)).toBeGreaterThan(1e-3);
    expect(relL2(Array.from(after.rounded, fromBf16), Array.from(before.rounded, fromBf16))).toBeGreaterThan(1e-3);
  });
});
