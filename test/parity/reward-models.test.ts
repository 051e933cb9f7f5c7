/** Reward models against our reference code in float64, on tiny models with the published names of tensors. Set: rewards. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, type SafetensorsFile, writeSafetensors } from "../../lib/data/safetensors.js";
import { WordPieceTokenizer } from "../../lib/data/wordpiece.js";
import { openDevice } from "../../lib/device.js";
import { ConfigError, WeightsError } from "../../lib/errors.js";
import { blipLargeVision, parseMedConfig } from "../../lib/models/blip-config.js";
import type { Clip } from "../../lib/models/clip-model.js";
import { declareClip } from "../../lib/models/clip-parameters.js";
import { openClipVitH14, openClipVitL14, openClipWeights, parseOpenClipConfig } from "../../lib/models/open-clip.js";
import { dotOf, rowsOf } from "../../lib/rewards/clip-backbone.js";
import { declareImageReward, type ImageRewardModel, imageRewardConfig } from "../../lib/rewards/image-reward-model.js";
import { loadClipBackbone, loadImageReward } from "../../lib/rewards/load.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { numbers } from "../support/gradients.js";
import { letterTokenizer, tinyHps, tinyImageReward, tinyImageRewardConfig } from "../support/reward-models.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();

/** As the set's README says of f32; f64 is held to rounding. */
const bounds = { f64: 1e-12, f32: 5e-6 } as const;

describeSets("rewards", folder => {
  describe("published checkpoints, as torch stores them", () => {
    test("HPS_v2_compressed.pt's layout: half precision, q, k and v as one, projections turned", async () => {
      const { act: _, ln_eps: __, ...architecture } = JSON.parse(readFileSync(join(folder, "hpsv2-tiny/config.json"), "utf8")) as Record<string, unknown>;
      const backbone = await loadClipBackbone(join(folder, "hpsv2-tiny/HPS_compressed_f16.pt"), {
        ...{ architecture, tokenizer: letterTokenizer, device: await openDevice("cpu"), dtype: "f64" as const },
      });
      const file = readSafetensors(join(folder, "hpsv2-tiny/case.safetensors"));
      const texts = rowsOf(await backbone.clip.encodeText({ inputIds: file.tensor("in.input_ids") }));
      const images = rowsOf((await backbone.clip.encodeImage(file.tensor("in.pixel_values"))).imageEmbeds);
      await backbone.clip.close();
      const expected = numbers(file.tensor("out.hps_score_f16_weights_f64_math"));
      file.close();
      expectClose(
        texts.map((t, i) => dotOf(t, images[i]!)),
        expected,
        1e-12,
        "scores",
      );
    });

    test("ImageReward.pt and med_config.json", async () => {
      const { text, ...config } = tinyImageRewardConfig(folder);
      const med = { model_type: "bert", hidden_act: "gelu", add_cross_attention: true, encoder_width: 768, type_vocab_size: 2 };
      const sizes = { hidden_size: text.width, num_hidden_layers: text.layers, num_attention_heads: text.heads, intermediate_size: text.hidden };
      const rest = { vocab_size: text.vocabulary, max_position_embeddings: text.positions, layer_norm_eps: text.eps };
      writeFileSync(at("med_config.json"), JSON.stringify({ ...med, ...sizes, ...rest }));
      const { reward, model } = await loadImageReward(join(folder, "imagereward-tiny/ImageReward.pt"), {
        ...{ medConfig: at("med_config.json"), tokenizer: new WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]), config },
        ...{ device: await openDevice("cpu"), dtype: "f64" as const },
      });
      expect(reward.scale.logits).toBe(config.std);
      const file = readSafetensors(join(folder, "imagereward-tiny/case.safetensors"));
      const states = await model.encodeImage(file.tensor("in.pixel_values"));
      const rewards = await model.rewardOf(states, { inputIds: file.tensor("in.input_ids"), attentionMask: file.tensor("in.attention_mask") });
      await model.close();
      expectClose(numbers(rewards), numbers(file.tensor("out.reward")), 1e-12, "rewards");
      file.close();
    });

    test("full sizes have as many parameters as the published models", () => {
      const count = (json: unknown): number => declareClip(parseOpenClipConfig(json, "architecture"), "f32").count;
      expect([count(openClipVitH14), count(openClipVitL14)]).toEqual([986_109_441, 427_616_513]);
      // med_config.json as BLIP publishes it, the fields of its other uses included
      const med = { architectures: ["BertModel"], hidden_act: "gelu", hidden_size: 768, intermediate_size: 3072, layer_norm_eps: 1e-12, vocab_size: 30524 };
      const more = {
        max_position_embeddings: 512,
        num_attention_heads: 12,
        num_hidden_layers: 12,
        type_vocab_size: 2,
        encoder_width: 768,
        add_cross_attention: true,
      };
      const ignored = {
        attention_probs_dropout_prob: 0.1,
        hidden_dropout_prob: 0.1,
        initializer_range: 0.02,
        pad_token_id: 0,
        reduction_factor: 16,
        scale_factor: 1.5,
      };
      const text = parseMedConfig({ model_type: "bert", ...med, ...more, ...ignored }, "med_config.json");
      const config = imageRewardConfig({ vision: blipLargeVision, text });
      expect(Math.round(declareImageReward(config, "f32").count / 1e6)).toBe(447);
      expect(() => parseMedConfig({ ...med, hidden_act: "relu", odd: 1 }, "med_config.json")).toThrow(/hidden_act.*odd|odd.*hidden_act/);
    });

    test("a file of open_clip whose matrices do not fit is refused by name", async () => {
      const matrix = (...shape: number[]) => hostTensor("f32", shape);
      const view = async (tensors: Record<string, HostTensor>): Promise<void> => {
        await writeSafetensors(at("odd.safetensors"), tensors);
        const file = readSafetensors(at("odd.safetensors"));
        try {
          openClipWeights(file);
        } finally {
          file.close();
        }
      };
      await expect(view({ "transformer.resblocks.0.attn.in_proj_weight": matrix(7, 4) })).rejects.toThrow(/in_proj_weight.*q, k and v/);
      await expect(view({ "visual.proj": matrix(7) })).rejects.toThrow(/visual.proj.*matrix/);
      await expect(view({ "visual.proj": matrix(7, 3), "visual_projection.weight": matrix(3, 7) })).rejects.toThrow(/one tensor for visual_projection.weight/);
      for (const json of [undefined, 3, { embed_dim: 8 }, { vision_cfg: [], text_cfg: {} }])
        expect(() => parseOpenClipConfig(json, "json")).toThrow(ConfigError);
    });

    test("a tensor of the view is what the session reads: thirds, and turned", () => {
      const file = readSafetensors(join(folder, "hpsv2-tiny/model.safetensors"));
      const view = openClipWeights(file);
      const [stored, turned] = [file.tensor("visual.proj"), view.tensor("visual_projection.weight")];
      const [rows = 0, columns = 0] = stored.shape;
      expect(turned.shape).toEqual([columns, rows]);
      for (const [r, c] of [
        [0, 0],
        [3, 1],
        [rows - 1, columns - 2],
      ] as const)
        expect(turned.data[c * rows + r]).toBe(stored.data[r * columns + c]);
      const joint = numbers(file.tensor("transformer.resblocks.1.attn.in_proj_weight"));
      const parts = ["q", "k", "v"].flatMap(x => [...numbers(view.tensor(`text_model.encoder.layers.1.self_attn.${x}_proj.weight`))]);
      expect(parts).toEqual([...joint]);
      view.close();
    });

    test("weights that are another model's are listed by name, and nothing is opened", async () => {
      const device = await openDevice("cpu");
      const wrong = loadClipBackbone(join(folder, "imagereward-tiny/ImageReward.pt"), { architecture: openClipVitL14, tokenizer: letterTokenizer, device });
      await expect(wrong).rejects.toThrow(WeightsError);
      await expect(loadClipBackbone(join(folder, "absent"), { tokenizer: letterTokenizer, device })).rejects.toThrow(/neither/);
      const file = join(folder, "hpsv2-tiny/HPS_compressed_f16.pt");
      await expect(loadClipBackbone(file, { tokenizer: letterTokenizer, device })).rejects.toThrow(/architecture/);
      await expect(
        loadClipBackbone(file, { architecture: { embed_dim: 24, vision_cfg: {}, text_cfg: {}, odd: 1 }, tokenizer: letterTokenizer, device }),
      ).rejects.toThrow(/odd/);
    });
  });

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
