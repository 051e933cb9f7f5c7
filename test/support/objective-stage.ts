/** An objective on maps, through the context that a training step would hand it. */

import { noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { input } from "../../lib/graph/ops/leaf.js";
import type { Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph, typed } from "../../lib/graph/tensor.js";
import { armsOf, type Objective } from "../../lib/objectives/objective.js";
import { extraInput, objectiveContext } from "../../lib/train/objective-context.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { Rng } from "./rng.js";

/** Of a sample, inside: [H, W, C]. */
const size = [6, 5, 4] as const;
const elements = size[0] * size[1] * size[2];

export type StageInputs = Readonly<Record<string, HostTensor>>;

/** Outputs: loss, its gradient by the prediction, and the metrics under "metric/". */
export function stageGraph(objective: Objective, batch: number, dtype: "f32" | "f64"): Graph {
  return buildGraph(graph => {
    const shape = [armsOf(objective).length * batch, ...size];
    const map = (name: string) => input(name, { dtype, shape });
    const [prediction, target] = [map("prediction"), map("target")];
    const context = objectiveContext({
      objective,
      schedule: noiseSchedule(),
      batch,
      index: input("index", typed("i32", batch)),
      prediction,
      target,
      ...(objective.usesReference && { reference: map("reference") }),
      ...(objective.uses?.includes("guide") && { guide: map("guide") }),
    });
    const { loss, metrics } = objective.loss(context);
    graph.output("loss", loss);
    graph.output("gradient", grad(loss, [prediction])[0]!);
    for (const [name, metric] of Object.entries(metrics)) graph.output(`metric/${name}`, metric);
  });
}

export interface InputOptions {
  readonly seed?: number;
  /** Distance of reference and guide from the prediction (default 0.02). */
  readonly gap?: number;
}

/** Random maps, timesteps, and numbers in the ranges that the objective declares; lengths are whole. */
export function stageInputs(objective: Objective, batch: number, { seed = 1, gap = 0.02 }: InputOptions = {}): StageInputs {
  const rows = armsOf(objective).length * batch;
  const rng = new Rng(seed);
  const normals = (): Float64Array => Float64Array.from({ length: rows * elements }, () => rng.normal());
  const map = (data: Float64Array): HostTensor => hostTensor("f64", [rows, ...size], data);
  const [prediction, target] = [normals(), normals()];
  const near = (): Float64Array => {
    const step = normals();
    return prediction.map((x, i) => x + gap * step[i]!);
  };
  const [reference, guide] = [near(), near()];
  const extras = Object.entries(objective.inputs ?? {}).map(([name, { size: width = 1, least, most }]) => {
    const whole = name.endsWith("Length") || name === "desirable" || name === "remembered";
    const draw = (i: number): number => {
      if (name === "desirable" || name === "remembered") return i % 2;
      const x = least === undefined ? rng.normal() : least + rng.uniform() * ((most ?? least + 2) - least);
      return whole ? Math.round(x) : x;
    };
    return [
      extraInput(name),
      hostTensor(
        "f64",
        width > 1 ? [batch, width] : [batch],
        Float64Array.from({ length: batch * width }, (_, i) => draw(i)),
      ),
    ] as const;
  });
  return {
    prediction: map(prediction),
    target: map(target),
    ...(objective.usesReference && { reference: map(reference) }),
    ...(objective.uses?.includes("guide") && { guide: map(guide) }),
    index: hostTensor(
      "i32",
      [batch],
      Int32Array.from({ length: batch }, () => rng.integer(1000)),
    ),
    ...Object.fromEntries(extras),
  };
}

export interface StageOutcome {
  readonly loss: number;
  readonly gradient: ArrayLike<number>;
  readonly metrics: Readonly<Record<string, number>>;
}

export interface StageOptions {
  readonly dtype?: "f32" | "f64";
  /** Whether the stage is fused as the session's backend would. */
  readonly fused?: boolean;
}

/** Runs it; inputs that this objective does not ask for are left out. */
export async function runObjective(
  session: Session,
  objective: Objective,
  inputs: StageInputs,
  { dtype = "f64", fused = false }: StageOptions = {},
): Promise<StageOutcome> {
  const batch = inputs.index!.shape[0]!;
  const program = compileGraph(stageGraph(objective, batch, dtype), { name: objective.name, ...(fused && { target: session.target }) });
  const asked = Object.fromEntries(program.inputs.map(({ name }) => [name, inputs[name]!]));
  const { loss, gradient, ...rest } = await session.run(session.compile(program), { inputs: asked });
  const metrics = Object.fromEntries(Object.entries(rest).map(([name, t]) => [name.slice(7), Number(t.data[0])]));
  return { loss: Number(loss!.data[0]), gradient: gradient!.data as Float64Array, metrics };
}
