/** Fusion around products changes no value: a program whose fused ops are decomposed again gives the bits of the plain one, outputs and persistent memory. */

import fc from "fast-check";
import { compileGraph } from "../../lib/graph/compile.js";
import { fill } from "../../lib/graph/ops/optimizer.js";
import { decomposeFused, optimize } from "../../lib/graph/passes.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph } from "../../lib/graph/tensor.js";
import { type HostTensor, hostTensor, outsideShape } from "../../lib/util/host-tensor.js";
import { fusedKernels } from "../support/fused.js";
import { networkBytes, randomNetwork } from "../support/random-network.js";
import { drawWeights, runGraph, type StepOptions, tinyStep } from "../support/steps.js";

/** Fused, and each fused op replaced by what it stands for. */
const roundTrip = (graph: Graph): Graph => decomposeFused(optimize(graph, { fuse: false, kernels: fusedKernels }));

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

const wave = (n: number, phase: number): Float64Array => Float64Array.from({ length: n }, (_, i) => Math.sin(1.7 * i + phase) / 2);

const arenas = { weights: networkBytes, totals: networkBytes };

async function results(graph: Graph): Promise<Record<string, string>> {
  const executable = session.compile(compileGraph(graph, { name: "network", arenas }));
  for (const [i, name] of Object.keys(arenas).entries()) session.write(name, 0, wave(networkBytes / 8, i));
  const inputs: Record<string, HostTensor> = Object.fromEntries(
    graph.inputs.map(({ name, tensor, layout }, i) => {
      const shape = outsideShape(tensor.shape, layout);
      return [
        name,
        hostTensor(
          "f64",
          shape,
          wave(
            shape.reduce((a, b) => a * b, 1),
            5 + i,
          ),
        ),
      ];
    }),
  );
  const outputs = await session.run(executable, { inputs });
  const bytes = (data: ArrayBufferLike | ArrayBuffer): string => Buffer.from(data as ArrayBuffer).toString("base64");
  const memory = await Promise.all(Object.keys(arenas).map(async name => [name, bytes(await session.read(name, 0, networkBytes))] as const));
  return Object.fromEntries([...Object.entries(outputs).map(([name, { data }]) => [name, bytes(data.buffer)] as const), ...memory]);
}

test("random networks", async () => {
  const made = new Set<string>();
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(1000), { minLength: 3, maxLength: 36 }), async draws => {
      const graph = randomNetwork(draws);
      for (const { op } of optimize(graph, { kernels: fusedKernels }).nodes) if (op.fused) made.add(op.name);
      expect(await results(roundTrip(graph))).toEqual(await results(graph));
    }),
    { numRuns: 200 },
  );
  expect([...made].sort()).toEqual([...fusedKernels].sort());
});

test.each<[string, Omit<StepOptions, "dtype">]>([
  ["SD", { size: 16 }],
  ["SD, recomputed", { size: 16, recompute: "blocks" }],
  ["SD, LoRA", { size: 16, lora: { rank: 2 } }],
  ["SDXL", { set: "unet-sdxl-tiny", size: 16 }],
  ["SDXL, LoRA, recomputed", { set: "unet-sdxl-tiny", size: 16, lora: { rank: 2 }, recompute: "blocks" }],
])("a step of %s", async (_, options) => {
  const run = async (as: (graph: Graph) => Graph): Promise<unknown> => {
    const step = tinyStep({ dtype: "f64", ...options });
    await drawWeights(session, step);
    await runGraph(
      session,
      buildGraph(() => fill(step.gradients.flat(), 0)),
      {},
      step.arenas,
    );
    const outputs = await runGraph(session, as(step.micro), step.inputs, step.arenas);
    const gradients = Buffer.from(await session.read(step.gradients.arena, 0, step.gradients.bytes)).toString("base64");
    return [Object.entries(outputs).map(([name, { data }]) => [name, data[0]]), gradients];
  };
  expect(await run(roundTrip)).toEqual(await run(graph => graph));
});
