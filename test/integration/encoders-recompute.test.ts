/** Encoders whose blocks are built again in the backward pass: the same bits, in less memory. */

import { compileWithPlan } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { sum } from "../../lib/graph/ops/reduce.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Tensor, typed } from "../../lib/graph/tensor.js";
import { clipImageFeatures } from "../../lib/models/clip.js";
import { parseClipConfig } from "../../lib/models/clip-config.js";
import { declareClip } from "../../lib/models/clip-parameters.js";
import { vaeDecode } from "../../lib/models/vae.js";
import { parseVaeConfig } from "../../lib/models/vae-config.js";
import { declareVae } from "../../lib/models/vae-parameters.js";
import { Params } from "../../lib/nn/params.js";
import { expectSame } from "../support/compare.js";
import { encoders } from "../support/encoders.js";
import { numbers } from "../support/gradients.js";
import { drawWeights, runGraph } from "../support/steps.js";

test.each(encoders)("%s has the same outputs and gradients, bit for bit", async (_, make) => {
  const model = make();
  const session = Session.open({ backend: "cpu", threads: 2 });
  try {
    const store = model.declare("f32");
    await drawWeights(session, { store, adapter: undefined, reference: store, arenas: store.arenas });
    const run = (recompute: "none" | "blocks") => runGraph(session, model.build(new Params(store), { recompute }), model.inputs, store.arenas);
    const [kept, again] = [await run("none"), await run("blocks")];
    expect(Object.keys(again)).toEqual(Object.keys(kept));
    for (const [name, value] of Object.entries(kept)) expectSame(numbers(again[name]!), numbers(value), name);
  } finally {
    await session.close();
  }
});

describe("memory of the gradient of a reward on pictures, at full size", () => {
  /** Bytes of scratch of d sum(output) / d input, kept and built again. */
  const scratch = (build: (options: { recompute: "none" | "blocks" }) => readonly [output: Tensor, input: Tensor]): number[] =>
    (["none", "blocks"] as const).map(recompute => {
      const graph = buildGraph(g => {
        const [output, x] = build({ recompute });
        g.output("gradient", grad(sum(output), [x])[0]!);
      });
      return compileWithPlan(graph, { name: "gradient" }).program.arenas[0]!.bytes;
    });

  test("through decoding 256 x 256 pixels", () => {
    const blocks = { down_block_types: Array(4).fill("DownEncoderBlock2D"), up_block_types: Array(4).fill("UpDecoderBlock2D") };
    const config = parseVaeConfig({ ...blocks, block_out_channels: [128, 256, 512, 512], layers_per_block: 2 }, "sd");
    const params = new Params(declareVae(config, "f32"));
    const [kept, again] = scratch(options => {
      const latents = input("latents", typed("f32", 1, 32, 32, 4));
      return [vaeDecode(config, params, latents, options), latents];
    });
    const map = (side: number, channels: number): number => side * side * channels * 4;
    const between = map(256, 256 + 3 * 128) + map(128, 512 + 3 * 256) + map(64, 4 * 512) + map(32, 7 * 512); // what blocks and upsamplers give
    const limit = between + 2 * map(256, 256);
    expect(again!).toBeLessThan(limit);
    expect(kept!).toBeGreaterThan(limit);
  });

  test("through the image tower of ViT-L/14: less than three layers of twenty-four", () => {
    const vision = { hidden_size: 1024, num_hidden_layers: 24, num_attention_heads: 16, intermediate_size: 4096, patch_size: 14 };
    const config = parseClipConfig({ vision_config: vision, projection_dim: 768 }, "L");
    const params = new Params(declareClip(config, "f32"));
    const [kept, again] = scratch(options => {
      const pixels = input("pixels", typed("f32", 8, 224, 224, 3));
      return [clipImageFeatures(config, params, pixels, options).imageEmbeds, pixels];
    });
    const between = 23 * 8 * 257 * 1024 * 4; // what is kept of every layer
    expect(again! - between).toBeLessThan((3 / 24) * kept!);
  });
});
