/** Reward models against our reference code in float64, on tiny models with the published names of tensors. Set: rewards. */

import { join } from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import type { Clip } from "../../lib/models/clip-model.js";
import { dotOf, rowsOf } from "../../lib/rewards/clip-backbone.js";
import type { ImageRewardModel } from "../../lib/rewards/image-reward-model.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { numbers } from "../support/gradients.js";
import { tinyHps, tinyImageReward } from "../support/reward-models.js";

/** As the set's README says of f32; f64 is held to rounding. */
const bounds = { f64: 1e-12, f32: 5e-6 } as const;

describeSets("rewards", folder => {
  describe.each(["f64", "f32"] as const)("HPSv2's layout in %s", dtype => {
    let clip: Clip, file: SafetensorsFile;
    beforeAll(async () => {
      clip = await tinyHps(folder, dtype);
      file = readSafetensors(join(folder, "hpsv2-tiny/case.safetensors"));
    });
    afterAll(async () => {
      file?.close();
      await clip?.close();
    });
    const close = (actual: ArrayLike<number>, name: string): void => expectClose(actual, numbers(file.tensor(name)), bounds[dtype], name);

    test("features, cosines, and the three ways to call them", async () => {
      const inputIds = file.tensor("in.input_ids");
      const pixels = file.tensor("in.pixel_values");
      const { textEmbeds, imageEmbeds, logitsPerText } = await clip.forward({ inputIds, pixels });
      const [texts, images] = [rowsOf(textEmbeds), rowsOf(imageEmbeds)];
      const unit = (name: string): Float64Array =>
        Float64Array.from(
          rowsOf(file.tensor(name)).flatMap(row => {
            const length = Math.sqrt(dotOf(row, row));
            return [...row].map(x => x / length);
          }),
        );
      expectClose(numbers(textEmbeds), unit("out.text_features"), bounds[dtype], "text features");
      expectClose(numbers(imageEmbeds), unit("out.image_features"), bounds[dtype], "image features");
      close(
        texts.map((t, i) => dotOf(t, images[i]!)),
        "out.hps_score",
      );
      close(
        texts.map((t, i) => 2.5 * Math.max(0, dotOf(t, images[i]!))),
        "out.clipscore_2p5",
      );
      const matrix = numbers(file.tensor("out.score_matrix"));
      expectClose(
        images.flatMap(i => texts.map(t => dotOf(t, i))),
        matrix,
        bounds[dtype],
        "cosines",
      );
      // The set multiplies by 100, the checkpoint by the exponential of ln 100 in float32.
      const factor = Math.exp(Math.fround(Math.log(100)));
      expectClose(
        numbers(logitsPerText),
        numbers(file.tensor("out.pickscore_matrix")).map(s => (s * factor) / 100),
        bounds[dtype],
        "PickScore",
      );
    });
  });

  describe.each(["f64", "f32"] as const)("ImageReward's layout in %s", dtype => {
    let model: ImageRewardModel, file: SafetensorsFile;
    const text = (): { inputIds: HostTensor; attentionMask: HostTensor } => ({
      inputIds: file.tensor("in.input_ids"),
      attentionMask: file.tensor("in.attention_mask"),
    });
    beforeAll(async () => {
      model = await tinyImageReward(folder, dtype);
      file = readSafetensors(join(folder, "imagereward-tiny/case.safetensors"));
    });
    afterAll(async () => {
      file?.close();
      await model?.close();
    });
    const close = (actual: HostTensor, name: string): void => {
      expect(actual.shape).toEqual(file.tensor(name).shape);
      expectClose(numbers(actual), numbers(file.tensor(name)), bounds[dtype], name);
    };

    test("picture states, rewards, BLIPScore", async () => {
      const states = await model.encodeImage(file.tensor("in.pixel_values"));
      close(states, "out.image_embeds");
      close(await model.rewardOf(states, text()), "out.reward");
      close(await model.blipScoreOf(states, text()), "out.blip_score");
    });

    test("the gradient of the pixels", async () => {
      const { rewards, pixels } = await model.rewardAndGradient({ pixels: file.tensor("in.pixel_values"), ...text() });
      close(rewards, "out.reward");
      close(pixels, "grad.pixel_values_of_sum_reward");
      expect(rewards.dtype).toBe(dtype);
    });

    test("recomputed, the gradient has the same bits", async () => {
      const inputs = { pixels: file.tensor("in.pixel_values"), ...text() };
      const [plain, again] = [await model.rewardAndGradient(inputs), await model.rewardAndGradient(inputs, { recompute: "blocks" })];
      expect(again.pixels.data).toEqual(plain.pixels.data);
    });

    test("padding changes nothing: fewer ids, the same reward", async () => {
      const { inputIds, attentionMask } = text();
      const states = await model.encodeImage(file.tensor("in.pixel_values"));
      const longest = Math.max(...rowsOf(attentionMask).map(row => row.reduce((a, b) => a + b, 0)));
      const cut = (t: HostTensor): HostTensor =>
        hostTensor(
          "i32",
          [3, longest],
          rowsOf(t).flatMap(row => [...row.slice(0, longest)]),
        );
      const short = await model.rewardOf(states, { inputIds: cut(inputIds), attentionMask: cut(attentionMask) });
      expectClose(numbers(short), numbers(file.tensor("out.reward")), bounds[dtype], "cut");
    });
  });
});
