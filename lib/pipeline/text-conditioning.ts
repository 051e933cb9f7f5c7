/** Prompts to what a UNet is conditioned on: token ids, text states and, for SDXL, pooled text and sizes; as diffusers' encode_prompt does it. */

import type { ClipTokenizer, Truncation } from "../data/tokenizer.js";
import { ConfigError } from "../errors.js";
import type { ClipText } from "../models/clip-text-model.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";
import { joined } from "./tensors.js";

export interface TextEncoder {
  readonly tokenizer: ClipTokenizer;
  readonly model: ClipText;
}

/** Features of B prompts. */
export interface PromptFeatures {
  /** [B, tokens, width]; of several encoders side by side. */
  readonly encoderHiddenStates: HostTensor;
  /** SDXL: [B, E], of the last encoder. */
  readonly textEmbeds?: HostTensor;
  /** Prompts that did not fit, by encoder. */
  readonly truncated: readonly Truncation[];
}

export interface EncodePromptOptions {
  /** Layers of the text encoder that are left out at the end, as diffusers counts them: 0 (or undefined) is what the model was trained with. */
  readonly clipSkip?: number;
  readonly signal?: AbortSignal;
}

/** Stable Diffusion 1 and 2: the last state, normalised. clipSkip n: the state n layers before, normalised. */
export async function encodeForSd(
  { tokenizer, model }: TextEncoder,
  prompts: readonly string[],
  { clipSkip = 0, signal }: EncodePromptOptions,
): Promise<PromptFeatures> {
  const { ids, attentionMask, truncated } = tokenizer.encode(prompts, { maxLength: model.config.positions });
  const inputs = { inputIds: ids, ...(model.config.usesAttentionMask && { attentionMask }) };
  const { lastHiddenState } = await model.forward(inputs, { clipSkip, ...(signal && { signal }) });
  return { encoderHiddenStates: lastHiddenState, truncated };
}

/** SDXL: the state before the last layer of each encoder, not normalised, side by side; pooled text of the last encoder. clipSkip n: n layers before that. */
export async function encodeForSdxl(
  encoders: readonly TextEncoder[],
  promptsOf: readonly (readonly string[])[],
  { clipSkip = 0, signal }: EncodePromptOptions,
): Promise<PromptFeatures> {
  const states: HostTensor[] = [],
    truncated: Truncation[] = [];
  let textEmbeds: HostTensor | undefined;
  for (const [i, { tokenizer, model }] of encoders.entries()) {
    const batch = tokenizer.encode(promptsOf[i]!, { maxLength: model.config.positions });
    truncated.push(...batch.truncated);
    const features = await model.forward({ inputIds: batch.ids }, { hiddenStates: [-2 - clipSkip], ...(signal && { signal }) });
    states.push(features.hiddenStates[0]!);
    textEmbeds = features.textEmbeds;
  }
  if (!textEmbeds) throw new ConfigError("DiffusionPipeline", "text_encoder_2", "a CLIPTextModelWithProjection", "a model without projection");
  return { encoderHiddenStates: joined(states, states[0]!.shape.length - 1), textEmbeds, truncated };
}

/** Zeros of the same shape: what SDXL takes for a negative prompt that is not given. */
export function zerosLike({ encoderHiddenStates, textEmbeds }: PromptFeatures): PromptFeatures {
  const zeros = ({ dtype, shape }: HostTensor): HostTensor => hostTensor(dtype, shape);
  return { encoderHiddenStates: zeros(encoderHiddenStates), ...(textEmbeds && { textEmbeds: zeros(textEmbeds) }), truncated: [] };
}

/** The numbers that SDXL adds to its time embedding, [B, 6] or, of the refiner, [B, 5]. */
export function timeIds(batch: number, row: readonly number[]): HostTensor {
  return hostTensor(
    "f32",
    [batch, row.length],
    Float32Array.from({ length: batch * row.length }, (_, i) => row[i % row.length]!),
  );
}
