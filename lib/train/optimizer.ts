/** Optimizers as values: what state they keep, what they append to the `update` program, and which per-step numbers they read. */

import { ConfigError } from "../errors.js";
import { adamw } from "../graph/ops/optimizer.js";
import type { Tensor } from "../graph/tensor.js";
import type { ParameterStore } from "../nn/params.js";

/** The arenas of an optimizer's state, by the name they have in checkpoints. */
export type OptimizerState = Readonly<Record<string, ParameterStore>>;

export interface UpdateContext {
  readonly parameters: ParameterStore;
  readonly gradients: ParameterStore;
  readonly state: OptimizerState;
  /** f64 [1], multiplies the gradient; not finite: nothing may be written. */
  readonly gradScale: Tensor;
}

export interface Optimizer {
  readonly name: string;
  /** Base learning rate; the schedule's factor multiplies it. */
  readonly learningRate: number;
  /** Declares the state of these parameters; it starts as zeros. */
  state(parameters: ParameterStore): OptimizerState;
  /** Appends the update to the current graph. */
  update(ctx: UpdateContext): void;
  /** The slots that `update` reads, at update number `t` (from 1; skipped updates do not count) with this learning rate. */
  scalars(t: number, learningRate: number): Readonly<Record<string, number>>;
}

export interface AdamWOptions {
  /** Step size, > 0. Preference runs use 1e-6 to 1e-4; the published 1e-8 is multiplied there by batch x accumulation x ranks (2.05e-5 in effect). */
  readonly learningRate: number;
  /** Decay rates of the two moments, each in [0, 1) (default 0.9, 0.999). */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment, > 0 (default 1e-8). */
  readonly eps?: number;
  /** Decoupled decay of every parameter, biases and norms too, as in the published runs; >= 0 (default 0.01). */
  readonly weightDecay?: number;
}

/** AdamW, Loshchilov & Hutter 2019, arXiv:1711.05101, in the form of torch.optim.AdamW. One launch over the whole parameter arena. */
export function adamW({ learningRate, betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 }: AdamWOptions): Optimizer {
  if (!(learningRate > 0 && Number.isFinite(learningRate))) throw new ConfigError("adamW", "learningRate", "a finite number > 0", learningRate);
  for (const beta of [beta1, beta2]) if (!(beta >= 0 && beta < 1)) throw new ConfigError("adamW", "betas", "two numbers in [0, 1)", [beta1, beta2]);
  if (!(eps > 0)) throw new ConfigError("adamW", "eps", "> 0", eps);
  if (!(weightDecay >= 0)) throw new ConfigError("adamW", "weightDecay", ">= 0", weightDecay);
  const slots = { lr: "learningRate", correction1: "correction1", correction2: "correction2" };
  return {
    name: "adamw",
    learningRate,
    state: parameters => ({
      exp_avg: parameters.mirror(`${parameters.arena}/exp_avg`),
      exp_avg_sq: parameters.mirror(`${parameters.arena}/exp_avg_sq`),
    }),
    update({ parameters, gradients, state, gradScale }) {
      const [m, v] = [state.exp_avg!.flat(), state.exp_avg_sq!.flat()];
      adamw({ param: parameters.flat(), grad: gradients.flat(), m, v, gradScale }, { beta1, beta2, eps, weightDecay, ...slots });
    },
    scalars: (t, rate) => ({ learningRate: rate, correction1: 1 - beta1 ** t, correction2: 1 - beta2 ** t }),
  };
}
