/** ImageReward and rewards of its format as Reward values: pictures are encoded once, each prompt of a picture is one pass of the cross-encoder. */

import type { Image } from "../data/image.js";
import { clipImages } from "../data/preprocess.js";
import type { TokenBatch } from "../data/tokenizer.js";
import { ConfigError } from "../errors.js";
import { convert, type HostTensor, hostTensor } from "../util/host-tensor.js";
import { inBatches } from "./batches.js";
import type { ImageRewardModel } from "./image-reward-model.js";
import { pixelsOf } from "./pixels.js";
import type { Reward, RewardItem, RewardOptions } from "./reward.js";

export interface ImageRewardOptions {
  /** Text to ids: BLIP's WordPiece tokenizer (`WordPieceTokenizer`). */
  readonly tokenizer: { encode(texts: readonly string[], options?: { readonly maxLength?: number }): Pick<TokenBatch, "ids" | "attentionMask"> };
  /** Pictures to standardised pixels [B, 3, S, S]; by default clipImages at the model's size, cropped as torchvision crops. */
  readonly preprocess?: (images: readonly Image[]) => HostTensor;
  /** Pairs of one run of the model: 16 by default. */
  readonly batchSize?: number;
  /** Whose weights they are: "ImageReward" and "v1.0" by default. */
  readonly name?: string;
  readonly version?: string;
}

/** (MLP(first token) - mean) / std: standard normal over the authors' test set, mostly in [-2, 2]. Differences times std are logits of a choice (Bradley and Terry). */
export function imageReward(model: ImageRewardModel, options: ImageRewardOptions): Reward {
  return {
    name: options.name ?? "ImageReward",
    version: options.version ?? "v1.0",
    scale: { unit: "standard deviations of the authors' test set", typical: [-2.3, 2], logits: model.config.std },
    score: pairScorer(model, options, (states, text, control) => model.rewardOf(states, text, control)),
  };
}

/** BLIPScore of the same model's own towers: a cosine. */
export function blipScoreReward(model: ImageRewardModel, options: ImageRewardOptions): Reward {
  return {
    name: options.name ?? "BLIPScore",
    version: options.version ?? "v1.0",
    scale: { unit: "cosine", typical: [0, 0.6] },
    score: pairScorer(model, options, (states, text, control) => model.blipScoreOf(states, text, control)),
  };
}

type Run = (states: HostTensor, text: { readonly inputIds: HostTensor; readonly attentionMask: HostTensor }, options: RewardOptions) => Promise<HostTensor>;

function pairScorer(model: ImageRewardModel, { tokenizer, preprocess, batchSize = 16 }: ImageRewardOptions, run: Run): Reward["score"] {
  if (!(Number.isSafeInteger(batchSize) && batchSize >= 1)) throw new ConfigError("imageReward", "batchSize", "a whole number >= 1", batchSize);
  const { imageSize: size } = model.config.vision;
  const pixels = preprocess ?? ((images: readonly Image[]) => clipImages(images, { size, centre: "torchvision" }));
  return async (items, { signal } = {}) => {
    let known = new Map<Image, Float64Array>(); // states of the batch at hand and the one before: 0.8 MB a picture
    return inBatches(items, { batchSize, signal }, async (batch: readonly RewardItem[]) => {
      const current = new Map<Image, Float64Array>();
      for (const { image } of batch) if (known.has(image)) current.set(image, known.get(image)!);
      const fresh = [...new Set(batch.map(item => item.image))].filter(image => !current.has(image));
      let shape: readonly number[] = [0, 1 + (size / model.config.vision.patch) ** 2, model.config.vision.width];
      const encoded = await inBatches(fresh, { batchSize, signal }, async images => {
        const states = await model.encodeImage(await pixelsOf(images, pixels, signal), { signal });
        shape = states.shape;
        return parts(states);
      });
      for (const [i, states] of encoded.entries()) current.set(fresh[i]!, states);
      known = current;
      const joined = hostTensor("f64", [batch.length, ...shape.slice(1)], joinedData(batch.map(item => current.get(item.image)!)));
      const { ids, attentionMask } = tokenizer.encode(
        batch.map(item => item.prompt),
        { maxLength: model.config.maxLength },
      );
      return Array.from(convert(await run(joined, { inputIds: ids, attentionMask }, { signal }), "f64").data as Float64Array);
    });
  };
}

/** Each picture's share of states [B, M, C]. */
function parts(states: HostTensor): Float64Array[] {
  const data = convert(states, "f64").data as Float64Array;
  const size = data.length / states.shape[0]!;
  return Array.from({ length: states.shape[0]! }, (_, i) => data.slice(i * size, (i + 1) * size));
}

function joinedData(rows: readonly Float64Array[]): Float64Array {
  const size = rows[0]!.length;
  const out = new Float64Array(rows.length * size);
  for (const [i, row] of rows.entries()) out.set(row, i * size);
  return out;
}
