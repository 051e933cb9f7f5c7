/** `npm run bench:rewards -- [vit-l|vit-h]`: scoring with a reward at full size and random weights, from decoded pictures of 512 x 512 to numbers: what a picture costs, what a prompt costs, and
 *  what TextNorm's 32 near misses add once the backbone remembers. ViT-H/14, PickScore's and HPSv2's, needs 5 GiB. */

import type { Image } from "../lib/data/image.js";
import { clipImages } from "../lib/data/preprocess.js";
import { openDevice } from "../lib/device.js";
import { Clip } from "../lib/models/clip-model.js";
import { openClipVitH14, openClipVitL14, parseOpenClipConfig } from "../lib/models/open-clip.js";
import { clipBackbone } from "../lib/rewards/clip-backbone.js";
import { pickScore } from "../lib/rewards/clip-rewards.js";
import { type Reward, type RewardItem, scoreItems } from "../lib/rewards/reward.js";
import { textNorm } from "../lib/rewards/text-norm.js";
import { hostTensor } from "../lib/util/host-tensor.js";

const nearMisses = 32;

/** What a text says does not change what it costs. */
const tokenizer = {
  encode(texts: readonly string[], { maxLength = 77 }: { readonly maxLength?: number } = {}) {
    const ids = texts.flatMap(text =>
      Array.from({ length: maxLength }, (_, i) => (i === 0 ? 49406 : i <= text.length ? text.charCodeAt(i - 1) % 49406 : 49407)),
    );
    const shape = [texts.length, maxLength];
    return { ids: hostTensor("i32", shape, Int32Array.from(ids)), attentionMask: hostTensor("i32", shape), truncated: [] };
  },
};

function picture(salt: number): Image {
  const side = 512;
  return {
    width: side,
    height: side,
    channels: 3,
    data: Uint8Array.from({ length: 3 * side * side }, (_, i) => (Math.imul(i + salt, 2654435761) >>> 24) & 255),
  };
}

async function seconds(work: () => unknown): Promise<number> {
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1e3;
}

function row(what: string, value: number): void {
  console.log(`${what.padEnd(58)} ${value.toFixed(3).padStart(9)} s`);
}

async function main(): Promise<void> {
  const large = process.argv[2] === "vit-h";
  const config = parseOpenClipConfig(large ? openClipVitH14 : openClipVitL14, "architecture");
  const device = await openDevice("cpu");
  const clip = await Clip.create(config.json, { device, seed: 1 });
  console.log(`${large ? "ViT-H/14" : "ViT-L/14"}, ${clip.store.count} parameters, f32, ${device.description}`);
  const batch = 2;
  const fresh = (): Reward => pickScore(clipBackbone(clip, { tokenizer, batchSize: batch }));
  const items = (salt: number): RewardItem[] => Array.from({ length: batch }, (_, i) => ({ prompt: "a red cube", image: picture(salt + i) }));
  await scoreItems(fresh(), items(0)); // compiles, and touches the memory for the first time
  row("preparing a picture", await seconds(() => clipImages(picture(1))));
  const reward = fresh();
  const first = await seconds(() => scoreItems(reward, items(10)));
  const again = await seconds(() => scoreItems(reward, items(20)));
  row(`a picture, in batches of ${batch}, its prompt known`, again / batch);
  row("a prompt that is not known", first - again);
  const normed = textNorm(reward, { contrast: prompt => Array.from({ length: nearMisses }, (_, k) => `${prompt} ${k}`) });
  await scoreItems(normed, items(10).slice(0, 1));
  row(`TextNorm over ${nearMisses} near misses: the next picture of the prompt`, await seconds(() => scoreItems(normed, items(40).slice(0, 1))));
  await clip.close();
}

void main();
