/** A latent UNet as a denoiser: the condition is text features and, for SDXL, the pooled text and the sizes. */

import { input } from "../graph/ops/leaf.js";
import { typed } from "../graph/tensor.js";
import { type UNetOptions, unet } from "../models/unet.js";
import type { UNetConfig } from "../models/unet-config.js";
import type { Denoiser } from "./denoiser.js";

export interface UNetDenoiserOptions extends UNetOptions {
  /** Size of the latents: image size / 8 for Stable Diffusion. */
  readonly height: number;
  readonly width: number;
  /** Text tokens (default 77). */
  readonly tokens?: number;
  /** SDXL: numbers in `timeIds` (default 6; 5 for the refiner, whose score stands in place of the target size). */
  readonly sizes?: number;
  /** Dtype of the condition, that of the parameters (default "f32"). */
  readonly dtype?: "f32" | "f64";
}

/** Condition of B samples: `encoderHiddenStates` [B, tokens, D]; SDXL also `textEmbeds` [B, E] and `timeIds` [B, sizes]. */
export function unetDenoiser(config: UNetConfig, { height, width, tokens = 77, sizes = 6, dtype = "f32", recompute = "none" }: UNetDenoiserOptions): Denoiser {
  const { addedText } = config;
  return {
    sampleShape: [height, width, config.inChannels],
    condition: batch => ({
      encoderHiddenStates: input("encoderHiddenStates", typed(dtype, batch, tokens, config.crossAttentionDim)),
      ...(addedText && {
        textEmbeds: input("textEmbeds", typed(dtype, batch, addedText.inputs - sizes * addedText.dim)),
        timeIds: input("timeIds", typed(dtype, batch, sizes)),
      }),
    }),
    predict(sample, timestep, { encoderHiddenStates, textEmbeds, timeIds }, params) {
      const added = textEmbeds && timeIds ? { addedText: { textEmbeds, timeIds } } : {};
      return unet(config, params, { sample, timestep, encoderHiddenStates: encoderHiddenStates!, ...added }, { recompute });
    },
  };
}
