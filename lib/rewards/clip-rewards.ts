/** Rewards on a CLIP backbone: cosines of prompt and picture, and the aesthetic head on the picture alone. Cosines are formed in f64 of the model's unit vectors. */

import { ConfigError } from "../errors.js";
import { type ClipBackbone, dotOf } from "./clip-backbone.js";
import type { AffineHead } from "./head.js";
import type { Reward, RewardItem, RewardOptions } from "./reward.js";

async function cosines(backbone: ClipBackbone, items: readonly RewardItem[], options: RewardOptions = {}): Promise<Float64Array> {
  const texts = await backbone.textFeatures(
    items.map(item => item.prompt),
    options,
  );
  const images = await backbone.imageFeatures(
    items.map(item => item.image),
    options,
  );
  return Float64Array.from(texts, (text, i) => dotOf(text, images[i]!));
}

export interface ClipScoreOptions {
  /** "cosine" is OpenAI's similarity, as ImageReward's tables have it; "hessel" is 2.5 max(cosine, 0) of Hessel et al. 2021, arXiv:2104.08718, there of ViT-B/32. */
  readonly form?: "cosine" | "hessel";
  readonly version?: string;
}

/** CLIPScore. Choices are not what CLIP was trained on: there is no `scale.logits`. */
export function clipScore(backbone: ClipBackbone, { form = "cosine", version = "ViT-L/14" }: ClipScoreOptions = {}): Reward {
  if (form !== "cosine" && form !== "hessel") throw new ConfigError("clipScore", "form", '"cosine" or "hessel"', form);
  const hessel = form === "hessel";
  return {
    name: "CLIPScore",
    version: `${version}, ${form}`,
    scale: hessel ? { unit: "2.5 max(cosine, 0)", typical: [0.375, 0.875] } : { unit: "cosine", typical: [0.15, 0.35] },
    score: async (items, options) => (await cosines(backbone, items, options)).map(c => (hessel ? 2.5 * Math.max(c, 0) : c)),
  };
}

/** PickScore (Kirstain et al. 2023, arXiv:2305.01569): exp(logit_scale) * cosine, which are logits of the choice between pictures of one prompt. */
export function pickScore(backbone: ClipBackbone, { version = "v1" }: { readonly version?: string } = {}): Reward {
  let factor: Promise<number> | undefined;
  return {
    name: "PickScore",
    version,
    scale: { unit: "100 x cosine", typical: [17, 24], logits: 1 },
    async score(items, options) {
      factor ??= backbone.clip.logitScale();
      const scale = await factor;
      return (await cosines(backbone, items, options)).map(c => scale * c);
    },
  };
}

/** HPSv2 and v2.1 (Wu et al. 2023, arXiv:2306.09341): the plain cosine. The two versions' numbers do not compare; benchmark tables print 100 times this. */
export function hps(backbone: ClipBackbone, { version }: { readonly version: "v2" | "v2.1" }): Reward {
  if (version !== "v2" && version !== "v2.1") throw new ConfigError("hps", "version", '"v2" or "v2.1"', version);
  return {
    name: "HPS",
    version,
    scale: { unit: "cosine", typical: [0.2, 0.34], logits: 100 }, // it was trained on 100 x cosine
    score: (items, options) => cosines(backbone, items, options),
  };
}

/** LAION's aesthetic predictor on the unit picture vector of ViT-L/14: about a mean rating of 1 to 10. It does not read the prompt. Throws ConfigError for a head of another width. */
export function aesthetic(backbone: ClipBackbone, head: AffineHead, { version = "sac+logos+ava1-l14-linearMSE" }: { readonly version?: string } = {}): Reward {
  const { projection } = backbone.clip.config;
  if (head.weight.length !== projection) throw new ConfigError("aesthetic", "the width of the head", `the backbone's, ${projection}`, head.weight.length);
  return {
    name: "aesthetic",
    version,
    scale: { unit: "rating", typical: [3, 7.5] },
    async score(items, options) {
      const images = await backbone.imageFeatures(
        items.map(item => item.image),
        options,
      );
      return Float64Array.from(images, x => dotOf(x, head.weight) + head.bias);
    },
  };
}
