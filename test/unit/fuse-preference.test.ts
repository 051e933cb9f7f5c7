/** The scalar stage of every objective becomes one preference_loss, with the values of the plain ops; what a tape cannot say stays plain. */

import { compileGraph } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { add, mean, mul, scale, square } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { pairSums } from "../../lib/graph/ops/preference.js";
import { randomNormal } from "../../lib/graph/ops/random.js";
import { concat } from "../../lib/graph/ops/shape.js";
import { scalar } from "../../lib/graph/scalars.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph, type Tensor } from "../../lib/graph/tensor.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { dspo } from "../../lib/objectives/dspo.js";
import { dspoSdxl } from "../../lib/objectives/dspo-sdxl.js";
import { type Objective, perSample } from "../../lib/objectives/objective.js";
import { sft } from "../../lib/objectives/sft.js";
import { expectClose, type Values } from "../support/compare.js";
import { tinyStep } from "../support/steps.js";
import { pseudoRandom } from "../support/unet.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

const [height, width, channels] = [6, 5, 4];
type Dtype = "f32" | "f64";
type Leaves = { readonly prediction: Tensor; readonly target: Tensor; readonly reference: Tensor };

/** A stage over maps of `rows` samples; the target is an input, or drawn once for each of `lanes`. */
function stage(rows: number, lanes: number, dtype: Dtype, drawn: boolean, build: (graph: Graph, x: Leaves) => void): Graph {
  return buildGraph(graph => {
    const map = (name: string): Tensor => input(name, { dtype, shape: [rows, height, width, channels] });
    const noise = drawn ? randomNormal([lanes, height, width, channels], { stream: 3, dtype }) : undefined;
    const target = noise ? concat(Array(rows / lanes).fill(noise), 0) : map("target");
    build(graph, { prediction: map("prediction"), target, reference: map("reference") });
  });
}

function objectiveStage(objective: Objective, lanes: number, dtype: Dtype, drawn = false): Graph {
  const rows = lanes * (objective.batch === "pair" ? 2 : 1);
  return stage(rows, lanes, dtype, drawn, (graph, { prediction, target, reference }) => {
    const sums = perSample(pairSums({ prediction, target, ...(objective.usesReference && { reference }) }));
    const { loss, metrics } = objective.loss({ sums });
    graph.output("loss", loss);
    for (const [name, metric] of Object.entries(metrics)) graph.output(name, metric);
    graph.output("gradient", grad(scale(loss, 0.5), [prediction])[0]!);
  });
}

const kernels = new Set(["preference_loss"]);
const target = { backend: "cpu", kernels } as const;
const opsOf = (graph: Graph): string[] => compileGraph(graph, { name: "stage", target }).instructions.map(({ op }) => op);

async function run(graph: Graph, fused: boolean): Promise<Record<string, Values>> {
  const program = compileGraph(graph, { name: "stage", ...(fused && { target }) });
  const inputs = Object.fromEntries(program.inputs.map(({ name, tensor }, k) => [name, pseudoRandom(program.tensors[tensor]!.shape, k + 1)]));
  const scalars = { seed: 5, step: 2, sampleOffset: 3, weight: 0.25 };
  const results = await session.run(session.compile(program), { inputs, scalars });
  return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, data as unknown as Values]));
}

/** Both sums of a batch and sums over maps are formed in another order, and the margin of beta 5000 amplifies that. */
async function expectAlike(graph: Graph, label: string, bound: number): Promise<void> {
  const [actual, expected] = [await run(graph, true), await run(graph, false)];
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const [name, y] of Object.entries(expected)) expectClose(actual[name]!, y, bound, `${label}: ${name}`);
}

const objectives = [sft(), diffusionDpo({ beta: 5000 }), dspo({ beta: 0.5 }), dspoSdxl()];
const settings = objectives.flatMap(objective => [1, 2, 3].map(lanes => [objective.name, lanes, objective] as const));

describe.each(settings)("%s of %d", (_name, lanes, objective) => {
  test("is one instruction", () => {
    expect(opsOf(objectiveStage(objective, lanes, "f32"))).toEqual(["preference_loss"]);
  });

  test.each(["f32", "f64"] as const)("has the values of the plain ops in %s", async dtype => {
    const label = `${objective.name} of ${lanes}`;
    await expectAlike(objectiveStage(objective, lanes, dtype), label, dtype === "f32" ? 1e-6 : 1e-10);
    await expectAlike(objectiveStage(objective, lanes, dtype, true), `${label}, drawn`, dtype === "f32" ? 1e-6 : 1e-10);
  });

  test("makes a drawn target again", () => {
    const program = compileGraph(objectiveStage(objective, lanes, "f32", true), { name: "stage", target });
    expect(program.instructions.map(({ op }) => op)).toEqual(["preference_loss"]);
    expect(program.instructions[0]!.inputs[1]).toBe(-1);
  });
});

test("numbers of the step and of the samples are inputs of the tape", async () => {
  const graph = stage(4, 2, "f64", false, (g, { prediction, target: goal, reference }) => {
    const { E, P } = perSample(pairSums({ prediction, target: goal, reference }));
    const weights = input("weights", { dtype: "f64", shape: [4] });
    const loss = mean(mul(add(mul(E, scalar("weight")), square(P)), weights));
    g.output("loss", loss);
    g.output("gradient", grad(loss, [prediction])[0]!);
  });
  expect(opsOf(graph)).toEqual(["scalar", "preference_loss"]);
  await expectAlike(graph, "weighted", 1e-12);
});

test.each(objectives.map(objective => [objective.name, objective] as const))("a whole step of %s keeps nothing of its stage", (_name, objective) => {
  for (const lora of [undefined, { rank: 4 }]) {
    const { micro, arenas } = tinyStep({ dtype: "f32", objective, ...(lora && { lora }) });
    const { instructions } = compileGraph(micro, { name: "micro", arenas, target });
    expect(instructions.filter(({ op }) => op === "preference_loss").length).toBe(1);
    expect(instructions.filter(({ op, label }) => op.startsWith("pair_sums") || label.includes("objective"))).toEqual([]);
  }
});

type Refusal = (graph: Graph, leaves: Leaves) => void;
const refusals: Readonly<Record<string, Refusal>> = {
  "sums that are read by themselves, of both arms": (graph, x) => {
    const sums = perSample(pairSums(x));
    const { loss } = diffusionDpo().loss({ sums });
    graph.output("E", sums.E);
    graph.output("gradient", grad(loss, [x.prediction])[0]!);
  },
  "sums of segments": (graph, x) => {
    const loss = mean(square(pairSums({ ...x, segments: 2 }).E));
    graph.output("gradient", grad(loss, [x.prediction])[0]!);
  },
  "no gradient": (graph, x) => {
    for (const [name, y] of Object.entries(pairSums(x))) graph.output(name, y);
  },
  "a gradient that passes outside": (graph, x) => {
    const { E } = perSample(pairSums(x));
    graph.output("gradient", grad(mean(mul(E, mean(square(x.prediction.dtype === "f64" ? x.prediction : E)))), [x.prediction])[0]!);
  },
};

test.each(Object.entries(refusals))("stays plain: %s", async (name, build) => {
  const graph = stage(4, 2, "f64", false, build);
  expect(opsOf(graph)).not.toContain("preference_loss");
  await expectAlike(graph, name, 0);
});

test("more pairs than a block has threads stay plain", () => {
  expect(opsOf(objectiveStage(diffusionDpo(), 256, "f32"))).toEqual(["preference_loss"]);
  expect(opsOf(objectiveStage(diffusionDpo(), 257, "f32"))).toContain("pair_sums");
});

test("nothing is fused without a kernel", () => {
  const graph = objectiveStage(diffusionDpo(), 2, "f32");
  expect(compileGraph(graph, { name: "stage", target: { backend: "cpu", kernels: new Set() } }).instructions.map(({ op }) => op)).toContain("pair_sums");
});
