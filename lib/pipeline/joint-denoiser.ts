/** The denoiser of a UNet and its text encoders together: conditioned on token ids, so that gradients reach the text encoders. */

import type { Condition, Denoiser } from "../diffusion/denoiser.js";
import { add } from "../graph/ops/elementwise.js";
import { constant, input } from "../graph/ops/leaf.js";
import { concat } from "../graph/ops/shape.js";
import { type Tensor, typed } from "../graph/tensor.js";
import type { ClipTextConfig } from "../models/clip-config.js";
import { type ClipTextOutputs, clipText } from "../models/clip-text.js";
import { type UNetOptions, unet } from "../models/unet.js";
import type { UNetConfig } from "../models/unet-config.js";
import type { Params } from "../nn/params.js";
import type { PipelineFamily } from "./model-index.js";

export interface TextPart {
  readonly name: "text_encoder" | "text_encoder_2";
  readonly config: ClipTextConfig;
}

export interface JointConfig {
  readonly unet: UNetConfig;
  readonly texts: readonly TextPart[];
  readonly family: PipelineFamily;
  /** SDXL: numbers in timeIds. */
  readonly sizes: number;
  /** Ids of the empty prompt, of each text encoder. */
  readonly emptyIds: readonly Int32Array[];
}

export interface JointDenoiser extends Denoiser {
  /** Builds a forward pass of one sample, for what it declares. */
  build(params: Params): void;
}

/** Condition of B samples: `<text encoder>.ids` i32 [B, N]; SDXL also `pooledAt` i32 [B], the token at which a text is pooled, and `timeIds` [B, sizes]. */
export function jointDenoiser(
  config: JointConfig,
  { height, width, dtype = "f32", recompute = "none" }: { height: number; width: number; dtype?: "f32" | "f64" } & UNetOptions,
): JointDenoiser {
  const { texts, family, sizes, emptyIds } = config;
  const xl = family === "sdxl";
  const condition = (batch: number): Condition => ({
    ...Object.fromEntries(texts.map(t => [`${t.name}.ids`, input(`${t.name}.ids`, typed("i32", batch, t.config.positions))])),
    ...(xl && { pooledAt: input("pooledAt", typed("i32", batch)), timeIds: input("timeIds", typed(dtype, batch, sizes)) }),
  });
  const predict: Denoiser["predict"] = (sample, timestep, given, params) => {
    const encoded = texts.map(({ name, config: text }) => encode(text, params.at(name), given[`${name}.ids`]!, given.pooledAt));
    const encoderHiddenStates = xl
      ? concat(
          encoded.map(e => e.hiddenStates.at(-2)!),
          2,
        )
      : encoded[0]!.lastHiddenState;
    const added = xl ? { addedText: { textEmbeds: encoded.at(-1)!.textEmbeds!, timeIds: given.timeIds! } } : {};
    return unet(config.unet, params.at("unet"), { sample, timestep, encoderHiddenStates, ...added }, { recompute });
  };
  return {
    sampleShape: [height, width, config.unet.inChannels],
    condition,
    uncondition: given => ({ ...given, ...Object.fromEntries(texts.map(({ name }, i) => [`${name}.ids`, repeatedRow(emptyIds[i]!, given[`${name}.ids`]!)])) }),
    predict,
    build(params) {
      const sample = input("sample", typed(dtype, 1, height, width, config.unet.inChannels));
      predict(sample, input("timestep", typed(dtype, 1)), condition(1), params);
    },
  };
}

function encode(config: ClipTextConfig, p: Params, ids: Tensor, pooledAt: Tensor | undefined): ClipTextOutputs {
  const [batch, tokens] = ids.shape as [number, number];
  const firsts = constant(
    Array.from({ length: batch }, (_, b) => b * tokens),
    [batch],
    "i32",
  );
  return clipText(config, p, { inputIds: ids, pooledRows: pooledAt ? add(firsts, pooledAt) : firsts });
}

function repeatedRow(row: Int32Array, { shape: [batch = 0, tokens = 0] }: Tensor): Tensor {
  return constant(
    Array.from({ length: batch * tokens }, (_, i) => row[i % tokens]!),
    [batch, tokens],
    "i32",
  );
}
