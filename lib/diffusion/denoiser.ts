/** The contract between a model and everything that noises, trains or samples: a function from a noisy sample, its timestep and a condition to a prediction.
 *  What the condition holds (text states, token ids, size embeddings) is the denoiser's business. */

import type { Tensor } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";

export type Condition = Readonly<Record<string, Tensor>>;

export interface Denoiser {
  /** [H, W, C] of one sample. */
  readonly sampleShape: readonly [number, number, number];
  /** Declares the condition of `batch` samples as inputs of the current graph; the names are those of `run`'s inputs. */
  condition(batch: number): Condition;
  /** The condition of empty prompts, of the same names and shapes as `condition`; with it, training may drop conditions. */
  uncondition?(condition: Condition): Condition;
  /** sample [B, H, W, C], timestep [B] -> prediction [B, H, W, C], with the given parameters (policy, reference, ...). Timesteps are i32 in training, and
   *  floating point in sampling, where they may lie between two of training. A model may predict fewer channels than it sees (inpainting). */
  predict(sample: Tensor, timestep: Tensor, condition: Condition, params: Params): Tensor;
}
