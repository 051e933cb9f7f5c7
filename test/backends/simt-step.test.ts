/** Whole training steps of a tiny UNet by the CUDA kernels on the host machine: loss, every gradient and the updated weights against the cpu backend in f64. How far f32
 *  and bf16 may be off is measured, not chosen: a few times what the cpu's f32, and bf16 emulated on the cpu, are off themselves. */

import { compileGraph } from "../../lib/graph/compile.js";
import { Session } from "../../lib/graph/session.js";
import type { Graph } from "../../lib/graph/tensor.js";
import { native } from "../../lib/native.js";
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

/** Two steps, the second of which a device replays as a graph. */
async function outcome(backend: "cpu" | "simt", options: StepOptions, as: (graph: Graph) => Graph = itself): Promise<Outcome> {
  const session = Session.open({ backend });
  try {
    const step = tinyStep(options);
    await drawWeights(session, step, as);
    const { target } = session;
    const compile = (name: string, graph: Graph) => session.compile(compileGraph(as(graph), { name, arenas: step.arenas, target }));
    const micro = compile("micro", step.micro);
    const update = compile("update", step.update);
    const read = async (store: typeof step.gradients): Promise<Float64Array> => {
      const { arena, dtype, bytes } = store;
      return numbers(hostTensorFromBytes(dtype, [store.elements], await session.read(arena, 0, bytes)));
    };
    const losses: number[] = [];
    let gradients = new Float64Array();
    for (let n = 1; n <= 3; n++) {
      const scalars = { seed: 5, step: n, sampleOffset: 0, learningRate: 1e-2, correction1: 1 - 0.9 ** n, correction2: 1 - 0.999 ** n };
      const { loss } = await session.run(micro, { inputs: step.inputs, scalars });
      losses.push(Number(loss!.data[0]));
      if (n === 3) gradients = Float64Array.from(await read(step.gradients)) as typeof gradients;
      await session.run(update, { scalars });
    }
    return { losses, gradients, moved: await read(step.trainable) };
  } finally {
    await session.close();
  }
}

const cases: readonly (readonly [string, Omit<StepOptions, "dtype">])[] = [
  ["full", {}],
  ["full, recomputed, 10x6 latents", { recompute: "blocks", size: 6 }],
  ["LoRA", { lora: { rank: 2 } }],
  ["SDXL's layers", { set: "unet-sdxl-tiny", pairs: 1 }],
];

suite.each(cases)("a step on simt: %s", (_, options) => {
  let exact: Outcome;
  beforeAll(async () => {
    exact = await outcome("cpu", { ...options, dtype: "f64" });
  });
  const away = ({ losses, gradients, moved }: Outcome) => ({
    loss: Math.max(...losses.map((loss, i) => Math.abs(loss - exact.losses[i]!))),
    gradients: relL2(gradients, exact.gradients),
    moved: relL2(moved, exact.moved),
  });

  test.each([
    ["f32", itself, "f32"],
    ["bf16", emulated, "bf16"],
  ] as const)("%s", async (dtype, as, onCpu) => {
    const allowed = away(await outcome("cpu", { ...options, dtype: onCpu }, as));
    const actual = away(await outcome("simt", { ...options, dtype }));
    for (const what of ["loss", "gradients", "moved"] as const) expect(actual[what]).toBeLessThanOrEqual(3 * allowed[what] + 1e-12);
    expect(actual.gradients).toBeGreaterThan(0); // another order of sums
  });
});
