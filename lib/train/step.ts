/** A training step as two programs. `micro`: noise, reference forward, policy forward, objective, backward, gradients += . `update`: global norm, clip,
 *  optimizer, gradients = 0. Both are built once; seed, step number, learning rate and bias corrections are slots. */

import type { Condition, Denoiser } from "../diffusion/denoiser.js";
import type { NoiseSchedule } from "../diffusion/noise-schedule.js";
import { addNoise, drawTimesteps, type NoiseDraw, type Noised, noisePairs, shareInPair, streams } from "../diffusion/noising.js";
import { ConfigError } from "../errors.js";
import { grad } from "../graph/grad.js";
import { add, cast, div, greater, minimum, mul, scale, select, shift, sqrt, sub } from "../graph/ops/elementwise.js";
import { full, input } from "../graph/ops/leaf.js";
import { accumulate, fill } from "../graph/ops/optimizer.js";
import { pairSums } from "../graph/ops/preference.js";
import { randomUniform } from "../graph/ops/random.js";
import { sumSquares } from "../graph/ops/reduce.js";
import { concat, reshape } from "../graph/ops/shape.js";
import { buildGraph, type Graph, scope, type Tensor } from "../graph/tensor.js";
import type { ParameterStore, Params } from "../nn/params.js";
import { type Objective, perSample } from "../objectives/objective.js";
import type { Optimizer, OptimizerState } from "./optimizer.js";
import { predictBoth } from "./predictions.js";

export interface MicroOptions {
  readonly denoiser: Denoiser;
  readonly objective: Objective;
  readonly schedule: NoiseSchedule;
  /** The parameters being trained, and the frozen ones they are compared with (needed where the objective uses a reference). */
  readonly policy: Params;
  readonly reference?: Params | undefined;
  /** Whether policy and reference run as one batch where they can (predictions.ts; default true). */
  readonly oneBatch?: boolean;
  /** What moves: the policy's store, or its adapter's. */
  readonly trainable: ParameterStore;
  /** Mirror of `trainable` that the gradients are added to. */
  readonly gradients: ParameterStore;
  /** Pairs (or single samples) per micro-batch. */
  readonly batch: number;
  /** Micro-batches per update: every gradient enters with weight 1 / accumulation. */
  readonly accumulation: number;
  /** "drawn": noise and timesteps follow from the slots seed, step and sampleOffset; "given": they are inputs `noise` and `timestep`. */
  readonly noise: "drawn" | "given";
  /** Probability in [0, 1) that a pair loses its condition, drawn once for winner and loser; above 0 it needs `denoiser.uncondition`. */
  readonly conditionDropout: number;
}

/** Inputs: `winners` and, for pairs, `losers` [B, C, H, W], the denoiser's condition of B pairs. Outputs: `loss` and the objective's metrics, f64 [1] each. */
export function microGraph(options: MicroOptions): Graph {
  const { objective, trainable, gradients, accumulation } = options;
  return buildGraph(graph => {
    const { noised, predict } = denoising(options);
    const { policy, oneBatch } = options;
    const predictions = objective.usesReference
      ? predictBoth({ policy, reference: referenceOf(options), oneBatch, predict })
      : { prediction: scope("policy", () => predict(policy, 1)) };
    const sums = perSample(pairSums({ ...predictions, target: noised.target }));
    const { loss, metrics } = scope("objective", () => objective.loss({ sums }));
    graph.output("loss", loss);
    for (const [name, metric] of Object.entries(metrics)) graph.output(name, metric);
    const names = [...trainable.entries.keys()];
    const flows = grad(
      scale(loss, 1 / accumulation),
      names.map(name => trainable.leaf(name)),
    );
    for (const [i, name] of names.entries()) accumulate(gradients.leaf(name), flows[i]!);
  });
}

/** Noised samples (winners first, then losers) and the prediction of any parameters on them, or on copies of them one after the other. */
function denoising(options: Pick<MicroOptions, "denoiser" | "objective" | "schedule" | "policy" | "batch" | "noise" | "conditionDropout">) {
  const { denoiser, batch } = options;
  const dtype = sampleDtype(options.policy.store);
  const shape = [batch, ...denoiser.sampleShape];
  const paired = options.objective.batch === "pair";
  const winners = input("winners", { dtype, shape }, "bchw");
  const losers = paired ? input("losers", { dtype, shape }, "bchw") : undefined;
  const noised = noisedBatch(options, winners, losers);
  const kept = dropped(denoiser, denoiser.condition(batch), batch, options.conditionDropout);
  const condition = paired ? mapValues(kept, t => repeated(t, 2)) : kept;
  const predict = (params: Params, copies: number): Tensor =>
    denoiser.predict(
      repeated(noised.noisy, copies),
      repeated(noised.timestep, copies),
      mapValues(condition, t => repeated(t, copies)),
      params,
    );
  return { noised, predict };
}

/** One noise and timestep a pair, drawn or given. */
function noisedBatch({ schedule, noise }: Pick<MicroOptions, "schedule" | "noise">, winners: Tensor, losers: Tensor | undefined): Noised {
  const batch = winners.shape[0]!;
  if (noise === "drawn") return noisePairs(schedule, { winners, ...(losers && { losers }), timestep: drawTimesteps(schedule, batch), stream: streams.noise });
  const draw = givenNoise(winners.shape, winners.dtype === "f64" ? "f64" : "f32");
  return losers ? addNoise(schedule, concat([winners, losers], 0), shareInPair(draw)) : addNoise(schedule, winners, draw);
}

/** A batch, several times one after the other. */
export function repeated(t: Tensor, times: number): Tensor {
  return concat(
    Array.from({ length: times }, () => t),
    0,
  );
}

function givenNoise(shape: readonly number[], dtype: "f32" | "f64"): NoiseDraw {
  return { noise: input("noise", { dtype, shape }, "bchw"), timestep: input("timestep", { dtype: "i32", shape: [shape[0]!] }) };
}

/** The condition with some rows replaced by the empty one, so that the model keeps its unconditional half for guidance. */
function dropped(denoiser: Denoiser, condition: Condition, batch: number, probability: number): Condition {
  if (probability === 0) return condition;
  if (!denoiser.uncondition) throw new ConfigError("train", "conditionDropout", "0 for a denoiser without `uncondition`", probability);
  const empty = denoiser.uncondition(condition);
  return scope("condition", () => {
    const drop = greater(full(probability, [batch], "f32"), randomUniform([batch], { stream: streams.conditionDropout }));
    return Object.fromEntries(Object.entries(condition).map(([name, t]) => [name, replaced(t, empty[name]!, drop)]));
  });
}

/** Row i of b where drop[i] is 1, else of a. */
function replaced(a: Tensor, b: Tensor, drop: Tensor): Tensor {
  const perRow = reshape(drop, [drop.shape[0]!, ...a.shape.slice(1).map(() => 1)]);
  if (a.dtype !== "i32") return select(cast(perRow, a.dtype), b, a);
  const chosen = cast(perRow, "i32"); // token ids: there is no integer select
  return add(a, mul(sub(b, a), chosen));
}

export interface UpdateOptions {
  readonly trainable: ParameterStore;
  readonly gradients: ParameterStore;
  readonly optimizer: Optimizer;
  readonly state: OptimizerState;
  /** Largest global L2 norm of the gradient; undefined: no clipping. */
  readonly maxGradNorm: number | undefined;
}

/** Clips by the global norm as torch.nn.utils.clip_grad_norm_, updates, and clears the gradients. Output: `gradNorm`, f64 [1], before clipping.
 *  A norm that is not finite leaves parameters and state as they were. */
export function updateGraph({ trainable, gradients, optimizer, state, maxGradNorm }: UpdateOptions): Graph {
  return buildGraph(graph => {
    const norm = sqrt(sumSquares(gradients.flat()));
    const one = full(1, [1], "f64");
    const coefficient = maxGradNorm === undefined ? one : minimum(one, div(full(maxGradNorm, [1], "f64"), shift(norm, 1e-6)));
    const finite = sub(norm, norm); // 0; NaN where the norm is NaN or infinite, and then the optimizer writes nothing
    optimizer.update({ parameters: trainable, gradients, state, gradScale: add(coefficient, finite) });
    trainable.refresh();
    fill(gradients.flat(), 0);
    graph.output("gradNorm", norm);
  });
}

/** Samples, noise, predictions and their sums: f32, also for a model of bf16; f64 for one of f64. */
export function sampleDtype(store: ParameterStore): "f32" | "f64" {
  return store.computes === "f64" ? "f64" : "f32";
}

function referenceOf({ reference, objective }: MicroOptions): Params {
  if (!reference) throw new ConfigError("train", "reference", `given for the objective ${objective.name}`, reference);
  return reference;
}

export function mapValues(condition: Condition, to: (t: Tensor) => Tensor): Condition {
  return Object.fromEntries(Object.entries(condition).map(([name, t]) => [name, to(t)]));
}
