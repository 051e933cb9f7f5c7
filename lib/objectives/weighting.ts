/** Weights of pairs, worn over any objective: inside, where they scale the errors that the implicit reward is made of, or outside, where they scale each
 *  pair's loss. The two differ: a weight inside changes how sure the objective is of a pair, one outside how much it cares. */

import { ConfigError } from "../errors.js";
import { div, minimum, mul, shift } from "../graph/ops/elementwise.js";
import { concat } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { checkRange, given, givenInput } from "./checks.js";
import { armsOf, mapSums, type Objective, type ObjectiveContext, type PairInput } from "./objective.js";

export interface PairWeight {
  readonly name: string;
  readonly uses?: Objective["uses"];
  readonly inputs?: Readonly<Record<string, PairInput>>;
  /** f64 [B]. */
  of(ctx: ObjectiveContext): Tensor;
}

/** Multiplies every sum of a pair's samples by its weight, so also the margin. */
export function weightErrors(objective: Objective, weight: PairWeight): Objective {
  if (objective.segments !== undefined || objective.uses?.includes("cross"))
    throw new ConfigError("weightErrors", "objective", "one of whole samples' sums", objective.name, "weightLosses takes any");
  const arms = armsOf(objective).length;
  return {
    ...wearing(objective, weight),
    loss: ctx => {
      const perSample = concat(Array<Tensor>(arms).fill(weight.of(ctx)), 0);
      return objective.loss({ ...ctx, sums: mapSums(ctx.sums, t => mul(t, perSample)) });
    },
  };
}

/** Multiplies each pair's loss by its weight; the mean is still over all pairs. */
export function weightLosses(objective: Objective, weight: PairWeight): Objective {
  return {
    ...wearing(objective, weight),
    loss: ctx => {
      const w = weight.of(ctx);
      return objective.loss({ ...ctx, weights: ctx.weights ? mul(ctx.weights, w) : w });
    },
  };
}

function wearing(objective: Objective, { name, uses = [], inputs }: PairWeight): Omit<Objective, "loss"> {
  return {
    ...objective,
    name: `${objective.name}-${name}`,
    uses: [...new Set([...(objective.uses ?? []), ...uses])],
    ...((objective.inputs || inputs) && { inputs: { ...objective.inputs, ...inputs } }),
  };
}

/** min(SNR, gamma) / SNR of a model that predicts noise: Hang et al. 2023, arXiv:2303.09556, with gamma 5 as there. */
export function minSnr(gamma = 5): PairWeight {
  checkRange("minSnr", "gamma", gamma, { above: 0 });
  return { name: `min-snr-${gamma}`, uses: ["snr"], of: ctx => minimum(div(gamma, snrOf(ctx)), 1) }; // also where there is no signal
}

/** min(SNR, gamma) / (SNR + 1), of a model that predicts v. */
export function minSnrVelocity(gamma = 5): PairWeight {
  checkRange("minSnrVelocity", "gamma", gamma, { above: 0 });
  return { name: `min-snr-v-${gamma}`, uses: ["snr"], of: ctx => div(minimum(snrOf(ctx), gamma), shift(snrOf(ctx), 1)) };
}

/** A weight that the data give: `extras.weight`, [B], not negative. */
export const givenWeight: PairWeight = { name: "weighted", inputs: { weight: { least: 0 } }, of: ctx => givenInput(ctx, "givenWeight", "weight") };

const snrOf = (ctx: ObjectiveContext): Tensor => given(ctx, "minSnr", "snr");
