/** CLIP against transformers in float64: every hidden state, features, logits, gradients of pictures and of every parameter. Sets: clip-*, of kind "text" and
 *  "proj" (text encoders) and "full" (both towers). */

import { copyFileSync, existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { type Device, openDevice } from "../../lib/device.js";
import { Clip, type ClipGradients, type ClipImageFeatures } from "../../lib/models/clip-model.js";
import { clipParameterOf } from "../../lib/models/clip-parameters.js";
import { ClipText, type ClipTextFeatures } from "../../lib/models/clip-text-model.js";
import type { ModelGradients } from "../../lib/models/gradients.js";
import type { HostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, norm } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { compareGradient, numbers, storedUnder, tolerance } from "../support/gradients.js";
import { scratchFolder } from "../support/scratch.js";

interface CaseMeta {
  readonly file: string;
  readonly torch_fp32: { readonly out: Readonly<Record<string, number>>; readonly grad_in: Readonly<Record<string, number>>; readonly param_worst: number };
}
interface Meta {
  readonly kind: "text" | "proj" | "full";
  readonly cases: readonly CaseMeta[];
}
type Float = "f64" | "f32";

const at = scratchFolder();

/** The one folder of a set, which holds the model. */
function modelFolder(set: string): string {
  return join(set, readdirSync(set, { withFileTypes: true }).find(entry => entry.isDirectory())!.name);
}

describeSets("clip-", folder => {
  const meta = JSON.parse(readFileSync(join(folder, "meta.json"), "utf8")) as Meta;
  const describeKind = meta.kind === "full" ? describeFull : describeText;
  describe.each(["f64", "f32"] as const)("%s", dtype => describeKind(folder, meta.cases, dtype));
});

/** Compares by the names of the file, each once. */
function comparison(file: () => SafetensorsFile, dtype: Float, { out, grad_in: gradIn }: CaseMeta["torch_fp32"]) {
  return (actual: HostTensor, name: string): void => {
    const truth = file().tensor(name);
    expect(actual.shape).toEqual(truth.shape);
    const reached = name.startsWith("out.") ? out[name.slice("out.".length)] : gradIn[name.slice("grad_in.".length)];
    expectClose(numbers(actual), numbers(truth), tolerance(dtype, truth, reached!), name);
  };
}

function testParameters(path: string, dtype: Float, torch: number, grads: () => ModelGradients["grads"]): void {
  const stored = storedUnder(path, "grad."); // a set may hold a part of them, or none beside its later cases
  if (stored.length === 0) return;
  test("gradients of every parameter", () => {
    const file = readSafetensors(path);
    const truth = new Map(stored.map(key => [clipParameterOf(key)!, file.tensor(`grad.${key}`)]));
    file.close();
    expect(Object.keys(grads())).toEqual(expect.arrayContaining([...truth.keys()]));
    const floor = (dtype === "f32" ? 1e-5 : 1e-12) * Math.max(...[...truth.values()].map(t => norm(numbers(t)))); // d key bias is 0 in theory
    for (const [name, expected] of truth) compareGradient(numbers(grads()[name]!), numbers(expected), tolerance(dtype, expected, torch, 2e-5), floor, name);
  });
}

function describeText(folder: string, cases: readonly CaseMeta[], dtype: Float): void {
  let model: ClipText, device: Device;
  beforeAll(async () => {
    device = await openDevice("cpu");
    model = await ClipText.load(modelFolder(folder), { device, dtype });
  });
  afterAll(() => model?.close());

  describe.each(cases)("$file", ({ file: name, torch_fp32: torch }) => {
    let file: SafetensorsFile, grads: ModelGradients["grads"], features: ClipTextFeatures, loss: number;
    const inputsOf = () => {
      const attentionMask = file.tensors.has("in.attention_mask") ? file.tensor("in.attention_mask") : undefined;
      return { inputIds: file.tensor("in.input_ids"), attentionMask };
    };
    const states = (): number[] => Array.from({ length: model.config.layers + 1 }, (_, i) => i);
    const expectTruth = comparison(() => file, dtype, torch);
    const expectFeatures = ({ lastHiddenState, pooled, textEmbeds, hiddenStates }: ClipTextFeatures): void => {
      expectTruth(lastHiddenState, "out.last_hidden_state");
      for (const [i, state] of hiddenStates.entries()) expectTruth(state, `out.hidden_states.${i}`);
      if (file.tensors.has("out.pooler_output")) expectTruth(pooled, "out.pooler_output");
      expect(textEmbeds !== undefined).toBe(file.tensors.has("out.text_embeds"));
      if (textEmbeds) expectTruth(textEmbeds, "out.text_embeds");
    };
    beforeAll(async () => {
      file = readSafetensors(join(folder, name));
      const given = (tensor: string, key: string) => (file.tensors.has(tensor) ? { [key]: file.tensor(tensor) } : {});
      const cotangents = {
        lastHiddenState: file.tensor("cotangent.last_hidden_state"),
        hiddenStates: [file.tensor("cotangent.penultimate")],
        ...given("cotangent.pooler_output", "pooled"),
        ...given("cotangent.text_embeds", "textEmbeds"),
      };
      ({ loss, grads, features } = await model.lossAndGrads({ ...inputsOf(), cotangents }, { hiddenStates: [-2] }));
    });
    afterAll(() => file?.close());

    test("every hidden state, pooled and projected", async () => {
      const result = await model.forward(inputsOf(), { hiddenStates: states() });
      expect(result.hiddenStates).toHaveLength(model.config.layers + 1);
      expectFeatures(result);
      expectFeatures({ ...features, hiddenStates: [] });
    });

    test("clipSkip 1 is the normalised penultimate state; pooled and projected stay", async () => {
      const result = await model.forward(inputsOf(), { clipSkip: 1 });
      expectTruth(result.lastHiddenState, "out.penultimate_ln");
      expectFeatures({ ...result, lastHiddenState: features.lastHiddenState });
    });

    test("the loss is the sum of features times cotangents", () => {
      const { lastHiddenState, pooled, textEmbeds, hiddenStates } = features;
      const last = textEmbeds ? ([textEmbeds, "text_embeds"] as const) : ([pooled, "pooler_output"] as const);
      let [total, scale] = [0, 0];
      for (const [y, key] of [[lastHiddenState, "last_hidden_state"], [hiddenStates[0]!, "penultimate"], last] as const) {
        const [a, b] = [numbers(y), numbers(file.tensor(`cotangent.${key}`))];
        total += a.reduce((sum, v, i) => sum + v * b[i]!, 0);
        scale += norm(a) * norm(b);
      }
      expect(Math.abs(loss - total)).toBeLessThanOrEqual((dtype === "f64" ? 1e-13 : 1e-6) * scale);
    });

    testParameters(join(folder, name), dtype, torch.param_worst, () => grads);

    const renamed = `${modelFolder(folder)}_v5keys.safetensors`;
    if (existsSync(renamed))
      test("the names of transformers 5 mean the same model", async () => {
        copyFileSync(join(modelFolder(folder), "config.json"), at("config.json"));
        copyFileSync(renamed, at("model.safetensors"));
        const other = await ClipText.load(at(), { device, dtype });
        expectFeatures(await other.forward(inputsOf(), { hiddenStates: states() }).finally(() => other.close()));
      });
  });
}

function describeFull(folder: string, cases: readonly CaseMeta[], dtype: Float): void {
  let model: Clip;
  beforeAll(async () => {
    model = await Clip.load(modelFolder(folder), { device: await openDevice("cpu"), dtype });
  });
  afterAll(() => model?.close());

  describe.each(cases)("$file", ({ file: name, torch_fp32: torch }) => {
    let file: SafetensorsFile, result: ClipGradients;
    const inputsOf = () => {
      const attentionMask = file.tensors.has("in.attention_mask") ? file.tensor("in.attention_mask") : undefined;
      return { inputIds: file.tensor("in.input_ids"), attentionMask, pixels: file.tensor("in.pixel_values") };
    };
    const expectTruth = comparison(() => file, dtype, torch);
    beforeAll(async () => {
      file = readSafetensors(join(folder, name));
      result = await model.lossAndGrads({ ...inputsOf(), cotangents: { logitsPerImage: file.tensor("cotangent.logits_per_image") } });
    });
    afterAll(() => file?.close());

    test("embeddings and logits", async () => {
      for (const { logitsPerImage, logitsPerText, textEmbeds, imageEmbeds } of [await model.forward(inputsOf()), result.results]) {
        expectTruth(logitsPerImage, "out.logits_per_image");
        expectTruth(logitsPerText, "out.logits_per_text");
        expectTruth(textEmbeds, "out.text_embeds");
        expectTruth(imageEmbeds, "out.image_embeds");
      }
    });

    test("each tower alone, and every state of the image tower", async () => {
      const { pixels, ...text } = inputsOf();
      expectTruth(await model.encodeText(text), "out.text_embeds");
      const hiddenStates = Array.from({ length: model.config.vision.layers + 1 }, (_, i) => i);
      const image: ClipImageFeatures = await model.encodeImage(pixels, { hiddenStates });
      expectTruth(image.imageEmbeds, "out.image_embeds");
      expectTruth(image.pooled, "out.vision_pooler_output");
      expectTruth(image.hiddenStates.at(-1)!, "out.vision_last_hidden_state");
      for (const [i, state] of image.hiddenStates.entries()) expectTruth(state, `out.vision_hidden_states.${i}`);
    });

    test("logits are cosines times logitScale", async () => {
      const [scale, embeds] = [await model.logitScale(), result.results];
      const [text, image] = [numbers(embeds.textEmbeds), numbers(embeds.imageEmbeds)];
      const [texts = 0, width = 0] = embeds.textEmbeds.shape;
      const cosine = (i: number, t: number): number => text.subarray(t * width, (t + 1) * width).reduce((sum, v, k) => sum + v * image[i * width + k]!, 0);
      const logits = numbers(embeds.logitsPerImage);
      expectClose(
        logits.map((_, k) => scale * cosine(Math.floor(k / texts), k % texts)),
        logits,
        dtype === "f64" ? 1e-13 : 1e-5,
        "logits",
      );
    });

    if (storedUnder(join(folder, name), "grad_in.").length > 0)
      // a set may leave it out of some cases
      test("the gradient of the pictures", () => expectTruth(result.inputGrads.pixels, "grad_in.pixel_values"));

    testParameters(join(folder, name), dtype, torch.param_worst, () => result.grads);
  });
}
