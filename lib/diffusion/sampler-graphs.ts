/** The programs of sampling: noise, and one step of any plan. Every number that a scheduler computes is a slot of the program. State stays in inside order
 *  [B, H, W, C] from step to step; only the result is turned. */

import { add, div, maximum, mean, minimum, mul, scale, sqrt, square, sub } from "../graph/ops/elementwise.js";
import { input } from "../graph/ops/leaf.js";
import { randomNormal } from "../graph/ops/random.js";
import { broadcast } from "../graph/ops/reduce.js";
import { concat, slice } from "../graph/ops/shape.js";
import { scalar } from "../graph/scalars.js";
import { buildGraph, type Graph, type Tensor } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";
import type { SchedulerStep } from "../schedulers/scheduler.js";
import type { Denoiser } from "./denoiser.js";
import { coefficient, memoryIndex, type PlanTerms, savedBy, type Term } from "./plan-terms.js";

/** Philox streams of sampling, apart from those of training. */
export const streams = { start: 16, step: 17 } as const;

export interface SampledModel {
  readonly denoiser: Denoiser;
  readonly params: Params;
  readonly dtype: "f32" | "f64";
}

export interface StepVariant {
  readonly batch: number;
  /** Whether an unconditional half runs beside the conditional one. */
  readonly guided: boolean;
  /** Whether guidance is rescaled. */
  readonly rescaled: boolean;
  /** Channels that the model sees beside those of the sample. */
  readonly extraChannels: number;
  readonly terms: PlanTerms;
}

/** Output "noise": standard normal [B, H, W, C]. */
export function noiseGraph(shape: readonly number[], stream: number, dtype: "f32" | "f64"): Graph {
  return buildGraph(graph => graph.output("noise", randomNormal(shape, { stream, dtype })));
}

/** Inputs: x, the condition, and what the terms name. Outputs: x after the step, its clean estimate "denoised", and "saved0", ... */
export function stepGraph(model: SampledModel, variant: StepVariant): Graph {
  const { denoiser, dtype } = model,
    { batch, extraChannels, terms } = variant;
  const [height, width, channels] = denoiser.sampleShape;
  const type = { dtype, shape: [batch, height, width, channels - extraChannels] };
  const slot = (name: string): Tensor => scalar(name, dtype);
  return buildGraph(graph => {
    const x = input("x", type);
    const seen = terms.inputScale ? mul(x, slot("inputScale")) : x;
    const output = predict(model, variant, extraChannels > 0 ? concat([seen, input("extra", { dtype, shape: type.shape.with(3, extraChannels) })], 3) : seen);
    const free = add(mul(x, slot("clean.sample")), mul(output, slot("clean.output")));
    const denoised = terms.clip ? maximum(minimum(free, slot("clip")), scale(slot("clip"), -1)) : free;
    const inputs = new Map<Term, Tensor>([
      ["state", x],
      ["denoised", denoised],
      ["output", output],
    ]);
    const tensorOf = (term: Term): Tensor => {
      const known = inputs.get(term) ?? input(term, type); // noise and memory come from outside
      inputs.set(term, known);
      return known;
    };
    const combine = (name: string, used: readonly Term[]): Tensor => used.map(term => mul(tensorOf(term), slot(`${name}.${term}`))).reduce((a, b) => add(a, b));
    graph.output("x", combine("update", terms.update));
    graph.output("denoised", denoised);
    for (const [j, used] of terms.saved.entries()) graph.output(`saved${j}`, combine(`saved${j}`, used));
  });
}

/** The slots of one step but for those of guidance. */
export function stepScalars(step: SchedulerStep, terms: PlanTerms): Record<string, number> {
  const scalars: Record<string, number> = {
    timestep: step.timestep,
    inputScale: step.inputScale ?? 1,
    "clean.sample": step.denoised.sample,
    "clean.output": step.denoised.output,
    clip: step.clip ?? 3e38,
  };
  for (const term of terms.update) scalars[`update.${term}`] = coefficient(step.update, term);
  const saved = savedBy(step);
  for (const [j, used] of terms.saved.entries()) for (const term of used) scalars[`saved${j}.${term}`] = coefficient(saved[j], term);
  return scalars;
}

/** How many entries of the memory the program reads. */
export function memoryRead({ update, saved }: PlanTerms): number {
  return Math.max(0, ...[...update, ...saved.flat()].map(term => (memoryIndex(term) ?? -1) + 1));
}

function predict({ denoiser, params, dtype }: SampledModel, { batch, guided, rescaled }: StepVariant, seen: Tensor): Tensor {
  const timestep = (n: number): Tensor => broadcast(scalar("timestep", dtype), [n]);
  const condition = denoiser.condition(batch);
  if (!guided) return denoiser.predict(seen, timestep(batch), condition, params);
  const both: Record<string, Tensor> = {};
  for (const [name, t] of Object.entries(condition)) both[name] = concat([input(`uncond/${name}`, { dtype: t.dtype, shape: t.shape }), t], 0);
  const predicted = denoiser.predict(concat([seen, seen], 0), timestep(2 * batch), both, params);
  const half = (start: number): Tensor => slice(predicted, { axis: 0, start, length: batch });
  const [uncond, cond] = [half(0), half(batch)];
  const mixed = add(uncond, mul(sub(cond, uncond), scalar("guidanceScale", dtype)));
  return rescaled ? rescale(mixed, cond, scalar("guidanceRescale", dtype)) : mixed;
}

/** Brings the standard deviation of a guided prediction towards that of the conditional one: phi std(cond) / std(mixed) mixed + (1 - phi) mixed.
 *  Lin et al. 2023, arXiv:2305.08891, eq. 15-16. */
function rescale(mixed: Tensor, cond: Tensor, phi: Tensor): Tensor {
  const ratio = sqrt(div(variance(cond), variance(mixed)));
  return mul(mixed, add(mul(phi, sub(ratio, 1)), 1));
}

/** Of each sample, [B, 1, 1, 1]. The mean goes first: a square of what is left keeps its digits. */
function variance(x: Tensor): Tensor {
  return mean(square(sub(x, mean(x, [1, 2, 3]))), [1, 2, 3]);
}
