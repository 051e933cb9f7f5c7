/** MCM-DPO, Fu et al. 2025, arXiv:2510.00647, for pictures: the right picture under the right condition against all seven ways in which context,
 *  guiding image and picture can be wrong, in one sigmoid: L = mean softplus(-sum_k (w_k / norm) (s_right - s_k)). The picture is the answer (winner or
 *  loser); context and image are the two halves of the condition, for instance the prompt and the picture that an image-conditioned model looks at. Weight
 *  on `answer` alone is Diffusion-DPO. The roles are ours; the arithmetic is that of the release. */

import { ConfigError } from "../errors.js";
import { add, neg, scale, softplus } from "../graph/ops/elementwise.js";
import type { Tensor } from "../graph/tensor.js";
import { checkErrorBeta, checkRange } from "./checks.js";
import { marginMetrics } from "./margin-metrics.js";
import { type Arm, byArm, errorMetrics, implicitMargin, meanLoss, type Objective, type ObjectiveContext, type ObjectiveResult } from "./objective.js";

/** What is wrong in each contrast, and the arm it is. */
const contrasts = {
  answer: { sample: "losers" },
  image: { sample: "winners", condition: "image" },
  imageAndAnswer: { sample: "losers", condition: "image" },
  context: { sample: "winners", condition: "context" },
  contextAndAnswer: { sample: "losers", condition: "context" },
  contextAndImage: { sample: "winners", condition: "both" },
  everything: { sample: "losers", condition: "both" },
} as const satisfies Record<string, Arm>;
export type Contrast = keyof typeof contrasts;

export interface McmDpoOptions {
  /** Weight of each contrast, >= 0 (default 1 for each single fault, 0.5 for each pair and for all three). Those of
   *  weight 0 are not run. */
  readonly weights?: Partial<Record<Contrast, number>>;
  /** Divides the weights (default: their sum). */
  readonly norm?: number;
  /** As diffusionDpo's, >= 10 (default 2000). */
  readonly beta?: number;
}

const usualWeights = { answer: 1, image: 1, context: 1, imageAndAnswer: 0.5, contextAndAnswer: 0.5, contextAndImage: 0.5, everything: 0.5 };

/** Batches bring `conditions.context`, `conditions.image` and `conditions.both`: the pair's condition with the context, the image, or both exchanged. Every
 *  contrast costs as much as a sample more. */
export function mcmDpo({ weights = usualWeights, norm, beta = 2000 }: McmDpoOptions = {}): Objective {
  checkErrorBeta("mcmDpo", beta);
  for (const [name, weight] of Object.entries(weights)) checkRange("mcmDpo", `weights.${name}`, weight, { least: 0 });
  const used = (Object.keys(contrasts) as Contrast[]).filter(name => (weights[name] ?? 0) > 0);
  if (!used.includes("answer")) throw new ConfigError("mcmDpo", "weights.answer", "above 0: pairs differ in it", weights.answer);
  const divisor = norm ?? used.reduce((sum, name) => sum + weights[name]!, 0);
  checkRange("mcmDpo", "norm", divisor, { above: 0 });
  const shares = used.map(name => weights[name]! / divisor);
  return {
    name: "mcm-dpo",
    batch: "pair",
    usesReference: true,
    arms: [{ sample: "winners" }, ...used.map(name => contrasts[name])],
    loss: ctx => mcmDpoLoss(ctx, { shares, beta }),
  };
}

/** The loss for any scale: the sums' first arm is right, each of the others counts its share; the second is the loser. */
export function mcmDpoLoss(ctx: ObjectiveContext, { shares, beta }: { shares: readonly number[]; beta: number }): ObjectiveResult {
  const [right, ...wrong] = byArm(ctx.sums, shares.length + 1);
  const parts = wrong.map((arm, k) => scale(implicitMargin(right!, arm, beta), shares[k]!));
  const s = parts.reduce((a: Tensor, b) => add(a, b));
  const margin = implicitMargin(right!, wrong[0]!, beta);
  return { loss: meanLoss(ctx, softplus(neg(s))), metrics: { ...marginMetrics(margin, right!, wrong[0]!), ...errorMetrics(ctx.sums) } };
}
