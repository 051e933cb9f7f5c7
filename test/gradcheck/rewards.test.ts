/** <u, J v> by central differences equals <J^T u, v> by the graph's rules, from standardised pixels to scores, f64: what learns through a reward depends on it. */

import { join } from "node:path";
import { vaeImages } from "../../lib/data/preprocess.js";
import { readSafetensors } from "../../lib/data/safetensors.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { vjp } from "../../lib/graph/grad.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Tensor, typed } from "../../lib/graph/tensor.js";
import type { Clip } from "../../lib/models/clip-model.js";
import { aestheticScore, clipRewardScore } from "../../lib/rewards/differentiable.js";
import { hpsImages } from "../../lib/rewards/hps-images.js";
import type { ImageRewardModel } from "../../lib/rewards/image-reward-model.js";
import { rewardPixels, rewardResize } from "../../lib/rewards/reward-pixels.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { numbers } from "../support/gradients.js";
import { pseudoImage, tinyHps, tinyImageReward } from "../support/reward-models.js";
import { pseudoRandom } from "../support/unet.js";

const h = 1e-5;

/** Scores, and the pixels' cotangent, of a graph function in a session that holds the model. */
function programs(
  session: Session,
  shape: readonly number[],
  arenas: Readonly<Record<string, number>>,
  others: Readonly<Record<string, HostTensor>>,
  score: (pixels: Tensor, t: Record<string, Tensor>) => Tensor,
) {
  const graph = buildGraph(g => {
    const [batch = 0, channels = 0, height = 0, width = 0] = shape;
    const pixels = input("pixels", typed("f64", batch, height, width, channels), "bchw");
    const t = Object.fromEntries(
      Object.entries(others).map(([name, { dtype, shape }]) => [name, input(name, typed(dtype === "i32" ? "i32" : "f64", ...shape))]),
    );
    const scores = score(pixels, t);
    const u = input("u", typed("f64", batch));
    g.output("scores", scores);
    g.output("gradient", vjp([scores], [u], [pixels])[0]!, "bchw");
  });
  const executable = session.compile(compileGraph(graph, { name: "reward", arenas, target: session.target }));
  return (pixels: HostTensor, u: HostTensor) => session.run(executable, { inputs: { pixels, u, ...others } });
}

async function expectAgreement(run: ReturnType<typeof programs>, pixels: HostTensor): Promise<void> {
  const u = pseudoRandom([pixels.shape[0]!], 7);
  const x = numbers(pixels);
  const { gradient } = await run(pixels, u);
  const at = async (v: Float64Array, step: number): Promise<Float64Array> =>
    numbers(
      (
        await run(
          hostTensor(
            "f64",
            pixels.shape,
            x.map((p, i) => p + step * v[i]!),
          ),
          u,
        )
      ).scores!,
    );
  const w = numbers(u);
  for (const salt of [11, 12, 13]) {
    const v = numbers(pseudoRandom(pixels.shape, salt));
    const [up, down] = [await at(v, h), await at(v, -h)];
    const differences = up.reduce((sum, s, i) => sum + (w[i]! * (s - down[i]!)) / (2 * h), 0);
    const rule = numbers(gradient!).reduce((sum, g, i) => sum + g * v[i]!, 0);
    // Central differences miss by h^2 f'''/6 and by rounding 1e-16/h; scores are of order 1 to 100.
    expect(Math.abs(differences - rule)).toBeLessThanOrEqual(1e-7 * Math.max(1, Math.abs(rule)));
    expect(Math.abs(rule)).toBeGreaterThan(1e-6); // a zero on both sides would prove nothing
  }
}

describeSets("rewards", folder => {
  describe("on CLIP", () => {
    let clip: Clip;
    const pixels = pseudoRandom([2, 3, 28, 28], 3);
    beforeAll(async () => {
      clip = await tinyHps(folder, "f64");
    });
    afterAll(() => clip?.close());

    test.each(["cosine", "hessel", "logits"] as const)("%s", async form => {
      // Texts that the pictures lean towards: at a cosine of 0, max(cosine, 0) has no derivative, and below none but 0.
      const { imageEmbeds } = await clip.encodeImage(pixels);
      const textEmbeds = hostTensor(
        "f64",
        imageEmbeds.shape,
        numbers(pseudoRandom(imageEmbeds.shape, 5)).map((r, i) => 0.2 * r + numbers(imageEmbeds)[i]!),
      );
      const run = programs(clip.session, pixels.shape, clip.store.arenas, { textEmbeds }, (x, t) =>
        clipRewardScore(clip.config, clip.params, { pixels: x, textEmbeds: t.textEmbeds! }, { form, recompute: form === "logits" ? "blocks" : "none" }),
      );
      await expectAgreement(run, pixels);
    });

    test("aesthetic", async () => {
      const head = { weight: numbers(pseudoRandom([clip.config.projection], 9)), bias: 5 };
      const run = programs(clip.session, pixels.shape, clip.store.arenas, {}, x => aestheticScore(clip.config, clip.params, head, x));
      await expectAgreement(run, pixels);
      const { scores } = await run(pixels, pseudoRandom([2], 7));
      const embeds = numbers((await clip.encodeImage(pixels)).imageEmbeds);
      const width = head.weight.length;
      for (const i of [0, 1])
        expect(numbers(scores!)[i]).toBeCloseTo(
          head.weight.reduce((sum, w, c) => sum + w * embeds[i * width + c]!, 5),
          12,
        );
    });
  });

  test("ImageReward", async () => {
    const model: ImageRewardModel = await tinyImageReward(folder, "f64");
    const file = readSafetensors(join(folder, "imagereward-tiny/case.safetensors"));
    const text = { inputIds: file.tensor("in.input_ids"), attentionMask: file.tensor("in.attention_mask") };
    file.close();
    const pixels = pseudoRandom([3, 3, 32, 32], 4);
    const x = numbers(pixels);
    const { pixels: gradient } = await model.rewardAndGradient({ pixels, ...text });
    const total = async (v: Float64Array, step: number): Promise<number> => {
      const moved = hostTensor(
        "f64",
        pixels.shape,
        x.map((p, i) => p + step * v[i]!),
      );
      return numbers(await model.rewardOf(await model.encodeImage(moved), text)).reduce((a, b) => a + b, 0);
    };
    const v = numbers(pseudoRandom(pixels.shape, 12));
    const differences = ((await total(v, h)) - (await total(v, -h))) / (2 * h);
    const rule = numbers(gradient).reduce((sum, g, i) => sum + g * v[i]!, 0);
    expect(Math.abs(differences - rule)).toBeLessThanOrEqual(1e-7 * Math.max(1, Math.abs(rule)));
    expect(Math.abs(rule)).toBeGreaterThan(1e-6);
    await model.close();
  });
});

describe("from a decoded picture to a model's pixels", () => {
  const sizes = { height: 20, width: 27 };
  const build = (session: Session, antialias: boolean) => {
    const { rows, columns } = rewardResize(sizes, { size: 12, antialias });
    const graph = buildGraph(g => {
      const decoded = input("decoded", typed("f64", 2, sizes.height, sizes.width, 3), "bchw");
      const resize = { rows: input("rows", typed("f64", 12, sizes.height)), columns: input("columns", typed("f64", 12, sizes.width)) };
      const u = input("u", typed("f64", 2, 12, 12, 3), "bchw");
      const pixels = rewardPixels(decoded, resize);
      g.output("pixels", pixels, "bchw");
      g.output("gradient", vjp([pixels], [u], [decoded])[0]!, "bchw");
    });
    const executable = session.compile(compileGraph(graph, { name: "pixels", target: session.target }));
    return (decoded: HostTensor, u: HostTensor) => session.run(executable, { inputs: { decoded, u, rows, columns } });
  };
  let session: Session;
  beforeAll(() => {
    session = Session.open({ backend: "cpu", threads: 1 });
  });
  afterAll(() => session.close());

  test.each([true, false])("it is HPSv2's preparation of the same picture, antialias %s", async antialias => {
    const pictures = [pseudoImage(1, sizes.width, sizes.height), pseudoImage(2, sizes.width, sizes.height)];
    const { pixels } = await build(session, antialias)(vaeImages(pictures), pseudoRandom([2, 3, 12, 12], 1));
    expectClose(numbers(pixels!), numbers(hpsImages(pictures, { size: 12, antialias })), 1e-6, "pixels"); // which are f32
  });

  test("its gradient, and none where the picture is out of range", async () => {
    const run = build(session, true);
    const shape = [2, 3, sizes.height, sizes.width];
    const x = numbers(pseudoRandom(shape, 5)).map((v, i) => (i % 7 === 0 ? 1.5 : 0.9 * v));
    const u = pseudoRandom([2, 3, 12, 12], 6);
    const v = numbers(pseudoRandom(shape, 8));
    const at = async (step: number): Promise<number> => {
      const { pixels } = await run(
        hostTensor(
          "f64",
          shape,
          x.map((p, i) => p + step * v[i]!),
        ),
        u,
      );
      return numbers(pixels!).reduce((sum, p, i) => sum + p * numbers(u)[i]!, 0);
    };
    const gradient = numbers((await run(hostTensor("f64", shape, x), u)).gradient!);
    expect(gradient.every((g, i) => (i % 7 === 0 ? g === 0 : true))).toBe(true);
    const rule = gradient.reduce((sum, g, i) => sum + g * v[i]!, 0);
    const differences = ((await at(h)) - (await at(-h))) / (2 * h);
    expect(Math.abs(differences - rule)).toBeLessThanOrEqual(1e-8 * Math.max(1, Math.abs(rule)));
    expect(Math.abs(rule)).toBeGreaterThan(0.01);
  });
});
