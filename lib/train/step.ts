/** A training step as two programs. `micro`: noise, reference forward, policy forward, objective, backward, gradients += . `update`: global norm, clip,
 *  optimizer, gradients = 0. Both are built once; seed, step number, learning rate and bias corrections are slots. */

import type { Denoiser } from "../diffusion/denoiser.js";
import type { NoiseSchedule } from "../diffusion/noise-schedule.js";
import { ConfigError } from "../errors.js";
import { grad } from "../graph/grad.js";
import { add, div, minimum, scale, shift, sqrt, sub } from "../graph/ops/elementwise.js";
import { full } from "../graph/ops/leaf.js";
import { accumulate, fill } from "../graph/ops/optimizer.js";
import { sumSquares } from "../graph/ops/reduce.js";
import { concat, stopGradient } from "../graph/ops/shape.js";
import { buildGraph, type Graph, scope, type Tensor } from "../graph/tensor.js";
import type { ParameterStore, Params } from "../nn/params.js";
import type { Objective } from "../objectives/objective.js";
import { mapValues, noisedArms } from "./arms.js";
import { objectiveContext } from "./objective-context.js";
import type { Optimizer, OptimizerState } from "./optimizer.js";
import { predictBoth } from "./predictions.js";

export interface MicroOptions {
  readonly denoiser: Denoiser;
  readonly objective: Objective;
  readonly schedule: NoiseSchedule;
  /** The parameters being trained, and the frozen ones they are compared with (needed where the objective uses a reference). */
  readonly policy: Params;
  readonly reference?: Params | undefined;
  /** Frozen parameters whose sums the objective asks for beside its own. */
  readonly guide?: Params | undefined;
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

/** Inputs: the samples of the objective's arms [B, C, H, W], the conditions of B pairs, and the numbers that it declares (run-inputs.ts names them).
 *  Outputs: `loss` and the objective's metrics, f64 [1] each. */
export function microGraph(options: MicroOptions): Graph {
  const { objective, schedule, batch, trainable, gradients, accumulation } = options;
  return buildGraph(graph => {
    const { index, target, predict } = denoising(options);
    const { policy, oneBatch, guide } = options;
    const guided = objective.uses?.includes("guide") && guide ? scope("guide", () => stopGradient(predict(guide, 1))) : undefined;
    const predictions = objective.usesReference
      ? predictBoth({ policy, reference: referenceOf(options), oneBatch, predict })
      : { prediction: scope("policy", () => predict(policy, 1)) };
    const context = objectiveContext({ objective, schedule, batch, index, target, guide: guided, ...predictions });
    const { loss, metrics } = scope("objective", () => objective.loss(context));
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

/** Noised samples, arm by arm, and the prediction of any parameters on them, or on copies of them one after the other. */
function denoising(options: MicroOptions) {
  const { denoiser } = options;
  const { noisy, timestep, condition, ...rest } = noisedArms({ ...options, dtype: sampleDtype(options.policy.store) });
  const predict = (params: Params, copies: number): Tensor =>
    denoiser.predict(
      repeated(noisy, copies),
      repeated(timestep, copies),
      mapValues(condition, t => repeated(t, copies)),
      params,
    );
  return { ...rest, predict };
}

/** A batch, several times one after the other. */
export function repeated(t: Tensor, times: number): Tensor {
  return concat(
    Array.from({ length: times }, () => t),
    0,
  );
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
