/** Whole training steps of a tiny UNet by the CUDA kernels on the host machine: loss, every gradient and the updated weights against the cpu backend in f64. How far f32
 *  and bf16 may be off is measured, not chosen: a few times what the cpu's f32, and bf16 emulated on the cpu, are off themselves. */

import { compileGraph } from "../../lib/graph/compile.js";
import { Session } from "../../lib/graph/session.js";
import type { Graph } from "../../lib/graph/tensor.js";
import { native } from "../../lib/native.js";
import { dspo } from "../../lib/objectives/dspo.js";
import { convert, type HostTensor, hostTensorFromBytes } from "../../lib/util/host-tensor.js";
import { emulated } from "../support/bf16.js";
import { relL2 } from "../support/compare.js";
import { drawWeights, type StepOptions, tinyStep } from "../support/steps.js";

const found = native().kernels("simt");
const suite = found.built ? describe : describe.skip;

const itself = (graph: Graph): Graph => graph;
const numbers = (t: HostTensor): Float64Array => convert(t, "f64").data as Float64Array;

interface Outcome {
  readonly losses: readonly number[];
  readonly gradients: Float64Array;
  readonly moved: Float64Array;
}

/** A step, and the gradients of the next, which a device replays as a graph. */
async function outcome(backend: "cpu" | "simt", options: StepOptions, as: (graph: Graph) => Graph = itself): Promise<Outcome> {
  const session = Session.open({ backend });
  try {
    const step = tinyStep(options);
    await drawWeights(session, step, { as });
    const { target } = session;
    const compile = (name: string, graph: Graph) => session.compile(compileGraph(as(graph), { name, arenas: step.arenas, target }));
    const micro = compile("micro", step.micro);
    const update = compile("update", step.update);
    const read = async (store: typeof step.gradients): Promise<Float64Array> => {
      const { arena, dtype, bytes } = store;
      return numbers(hostTensorFromBytes(dtype, [store.elements], await session.read(arena, 0, bytes)));
    };
    const losses: number[] = [];
    const run = async (n: number): Promise<void> => {
      const { loss } = await session.run(micro, { inputs: step.inputs, scalars: scalarsAt(n) });
      losses.push(Number(loss!.data[0]));
    };
    await run(1);
    await session.run(update, { scalars: scalarsAt(1) });
    const moved = await read(step.trainable);
    await run(2);
    return { losses, gradients: await read(step.gradients), moved };
  } finally {
    await session.close();
  }
}

const scalarsAt = (n: number) => ({ seed: 5, step: n, sampleOffset: 0, learningRate: 1e-2, correction1: 1 - 0.9 ** n, correction2: 1 - 0.999 ** n });

const cases: readonly (readonly [string, StepOptions])[] = [
  ["full, f32", { dtype: "f32" }],
  ["full, bf16", { dtype: "bf16" }],
  ["recomputed, bf16", { dtype: "bf16", recompute: "blocks" }],
  ["LoRA, bf16", { dtype: "bf16", lora: { rank: 2 } }],
  ["SDXL's layers, bf16", { dtype: "bf16", set: "unet-sdxl-tiny" }],
];

suite("a step on simt", () => {
  test.each(cases)(
    "%s",
    async (_, given) => {
      const options: StepOptions = { ...given, objective: dspo({ beta: 0.5 }), pairs: 1 };
      const exact = await outcome("cpu", { ...options, dtype: "f64" });
      const allowed = away(await outcome("cpu", options, options.dtype === "bf16" ? emulated : itself), exact);
      const actual = away(await outcome("simt", options), exact);
      expect(actual.gradients).toBeLessThanOrEqual(3 * allowed.gradients);
      expect(actual.moved).toBeLessThanOrEqual(3 * allowed.moved);
      expect(actual.loss).toBeLessThanOrEqual(10 * allowed.loss + 1e-7); // one number, which may be right by chance
      expect(actual.gradients).toBeGreaterThan(0); // another order of sums
    },
    600_000,
  );
});

suite("at the start, on simt", () => {
  test.each<[string, StepOptions]>([
    ["a reference of its own", { dtype: "bf16" }],
    ["policy and reference in one batch", { dtype: "bf16", lora: { rank: 2 } }],
  ])(
    "the kernels give a policy and its reference the same bits: %s",
    async (_, options) => {
      const session = Session.open({ backend: "simt" });
      try {
        const step = tinyStep({ ...options, pairs: 1 });
        await drawWeights(session, step);
        const micro = session.compile(compileGraph(step.micro, { name: "micro", arenas: step.arenas, target: session.target }));
        const { loss, winnerDrift } = await session.run(micro, { inputs: step.inputs, scalars: scalarsAt(1) });
        expect([loss!.data[0], winnerDrift!.data[0]]).toEqual([Math.LN2, 0]);
      } finally {
        await session.close();
      }
    },
    600_000,
  );
});

function away({ losses, gradients, moved }: Outcome, exact: Outcome) {
  return {
    loss: Math.max(...losses.map((loss, i) => Math.abs(loss - exact.losses[i]!))),
    gradients: relL2(gradients, exact.gradients),
    moved: relL2(moved, exact.moved),
  };
}
