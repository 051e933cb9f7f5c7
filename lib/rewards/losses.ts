/** Losses that reward models are trained with, as graph functions of scores; every one is differentiated by the graph. Scores are [B], in f32 or f64. */

import { ConfigError, ShapeError } from "../errors.js";
import { add, affine, div, exp, log, maximum, mean, minimum, mul, neg, relu, scale, softplus, square, sub } from "../graph/ops/elementwise.js";
import { l2Normalize, softmax } from "../graph/ops/norm.js";
import { sum } from "../graph/ops/reduce.js";
import { reshape, slice } from "../graph/ops/shape.js";
import { sameShape, type Tensor } from "../graph/tensor.js";

/** Two pictures of one prompt each: scores as logits, and how much of the choice each has: (1, 0), (0, 1), or (0.5, 0.5) for a tie. */
export interface ScoredChoices {
  /** [B] */
  readonly first: Tensor;
  readonly second: Tensor;
  readonly firstLabel: Tensor;
  readonly secondLabel: Tensor;
}

function checkVectors(subject: string, tensors: Readonly<Record<string, Tensor>>): void {
  const [[, reference] = [], ...others] = Object.entries(tensors);
  if (reference?.shape.length !== 1) throw new ShapeError(subject, `expected scores [B], received [${reference?.shape}]`);
  for (const [name, { shape }] of others)
    if (!sameShape(shape, reference.shape)) throw new ShapeError(subject, `expected ${name} [${reference.shape}], received [${shape}]`);
}

/** -sum_k label_k log softmax_k of two scores, of each example [B]: HPSv2's. */
export function choiceEntropies({ first, second, firstLabel, secondLabel }: ScoredChoices): Tensor {
  const margin = sub(first, second);
  return add(mul(firstLabel, softplus(neg(margin))), mul(secondLabel, softplus(margin)));
}

/** KL(label || model) of each example [B] where labels are 0, 1 or 1/2: a tie that the model calls a tie costs nothing. PickScore's. */
export function choiceDivergences(choices: ScoredChoices): Tensor {
  const tied = scale(minimum(choices.firstLabel, choices.secondLabel), 2); // 1 of a tie, 0 of a choice
  return sub(choiceEntropies(choices), scale(tied, Math.LN2));
}

/** PickScore (Kirstain et al. 2023, arXiv:2305.01569, as released): the divergences' weighted mean over the batch. `weights` [B]: one over the number of
 *  examples of the prompt, by default all 1. */
export function pickScoreLoss(choices: ScoredChoices, weights?: Tensor): Tensor {
  checkVectors("pickScoreLoss", { ...choices, ...(weights && { weights }) });
  const each = choiceDivergences(choices);
  return weights ? div(sum(mul(weights, each)), sum(weights)) : mean(each);
}

/** HPSv2 (Wu et al. 2023, arXiv:2306.09341, as released): cross-entropy, summed over the batch; no weights, and a tie costs ln 2 at the least. */
export function hpsLoss(choices: ScoredChoices): Tensor {
  checkVectors("hpsLoss", { ...choices });
  return sum(choiceEntropies(choices));
}

/** ImageReward (Xu et al. 2023, arXiv:2304.05977): mean of -log sigmoid(better - worse) over all pairs of unequal rank; Bradley and Terry 1952. */
export function bradleyTerryLoss(better: Tensor, worse: Tensor): Tensor {
  checkVectors("bradleyTerryLoss", { better, worse });
  return mean(softplus(sub(worse, better)));
}

/** ReFL (same paper, algorithm 1, as released): weight * mean relu(2 - r) of ImageReward's rewards. */
export function reflLoss(rewards: Tensor, { weight = 1e-3, target = 2 }: { readonly weight?: number; readonly target?: number } = {}): Tensor {
  checkVectors("reflLoss", { rewards });
  return scale(mean(relu(affine(rewards, { scale: -1, shift: target }))), weight);
}

/** exp(logScale) * cosine of each row of a with the same row of b: [B, D], [B, D], [] or [1] -> [B]. */
export function scaledCosine(a: Tensor, b: Tensor, logScale: Tensor): Tensor {
  if (a.shape.length !== 2 || !sameShape(a.shape, b.shape)) throw new ShapeError("scaledCosine", `expected two [B, D], received [${a.shape}] and [${b.shape}]`);
  const cosine = reshape(sum(mul(l2Normalize(a), l2Normalize(b)), [1]), [a.shape[0]!]);
  return mul(cosine, reshape(exp(logScale), [1]));
}

export interface LeeRewards {
  /** r(x, z) of each picture with its own prompt first, then with its perturbed prompts: [B, 1 + N]. */
  readonly rewards: Tensor;
  /** [B], 1 where people found the picture good, else 0. */
  readonly labels: Tensor;
}

/** Lee et al. 2023, arXiv:2302.12192, section 4.2: mean (y - r)^2 plus lambda times, over the good pictures, the cross-entropy of telling the prompt from its
 *  perturbations, softmax(r / temperature). What TextNorm divides by at inference is trained here. */
export function promptClassificationLoss(
  { rewards, labels }: LeeRewards,
  { lambda, temperature }: { readonly lambda: number; readonly temperature: number },
): Tensor {
  const [batch = 0, prompts = 0] = rewards.shape;
  if (rewards.shape.length !== 2 || prompts < 2) throw new ShapeError("promptClassificationLoss", `expected rewards [B, 1 + N], received [${rewards.shape}]`);
  if (labels.shape.length !== 1 || labels.shape[0] !== batch)
    throw new ShapeError("promptClassificationLoss", `expected labels [${batch}], received [${labels.shape}]`);
  if (!(temperature > 0)) throw new ConfigError("promptClassificationLoss", "temperature", "a number > 0", temperature);
  if (!(lambda >= 0)) throw new ConfigError("promptClassificationLoss", "lambda", "a number >= 0", lambda);
  const own = reshape(slice(rewards, { axis: 1, start: 0, length: 1 }), [batch]);
  const told = reshape(slice(softmax(scale(rewards, 1 / temperature)), { axis: 1, start: 0, length: 1 }), [batch]);
  const surprise = neg(log(maximum(told, 1e-30)));
  const classification = div(sum(mul(labels, surprise)), maximum(sum(labels), 1));
  return add(mean(square(sub(own, labels))), scale(classification, lambda));
}
