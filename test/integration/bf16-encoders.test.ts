/** Autoencoders and CLIP frozen in bf16, on the cpu with every value rounded as its dtype says (support/bf16.ts): what a GPU computes, but for the order of
 *  its sums. */

import { Session } from "../../lib/graph/session.js";
import type { Graph } from "../../lib/graph/tensor.js";
import { parseClipConfig, parseClipTextConfig } from "../../lib/models/clip-config.js";
import { clipGraph, textFeed, textGradientGraph } from "../../lib/models/clip-graphs.js";
import { declareClip, declareClipText } from "../../lib/models/clip-parameters.js";
import { readParameter, writeParameter } from "../../lib/models/load.js";
import { parseVaeConfig } from "../../lib/models/vae-config.js";
import { vaeGradientGraph } from "../../lib/models/vae-graphs.js";
import { declareVae } from "../../lib/models/vae-parameters.js";
import { type ModelDType, type ParameterStore, Params } from "../../lib/nn/params.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { emulated } from "../support/bf16.js";
import { relL2 } from "../support/compare.js";
import { numbers } from "../support/gradients.js";
import { drawWeights, runGraph } from "../support/steps.js";
import { pseudoRandom } from "../support/unet.js";

let session: Session;
beforeEach(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterEach(() => session.close());

interface Model {
  declare(dtype: ModelDType): ParameterStore;
  build(params: Params): Graph;
  readonly inputs: Readonly<Record<string, HostTensor>>;
  readonly outputs: readonly string[];
}

const tower = { hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4 };
const textConfig = { ...tower, vocab_size: 50, max_position_embeddings: 9 };
const inputIds = hostTensor(
  "i32",
  [2, 9],
  Int32Array.from({ length: 18 }, (_, i) => (i * 7) % 50),
);
const attentionMask = hostTensor(
  "u8",
  [2, 9],
  Uint8Array.from({ length: 18 }, (_, i) => Number(i % 9 < 7)),
);

function autoencoder(): Model {
  const blocks = { down_block_types: Array(2).fill("DownEncoderBlock2D"), up_block_types: Array(2).fill("UpDecoderBlock2D") };
  const config = parseVaeConfig({ block_out_channels: [8, 16], norm_num_groups: 4, ...blocks }, "vae");
  const [pixels, latents] = [pseudoRandom([2, 3, 8, 8], 1), pseudoRandom([2, 4, 4, 4], 2)];
  const cotangents = { "d mean": pseudoRandom([2, 4, 4, 4], 3), "d logvar": pseudoRandom([2, 4, 4, 4], 4), "d decoded": pseudoRandom([2, 3, 8, 8], 5) };
  return {
    declare: dtype => declareVae(config, dtype),
    build: params => vaeGradientGraph({ config, params }, { pixels: pixels.shape, latents: latents.shape }),
    inputs: { pixels, latents, ...cotangents },
    outputs: ["mean", "logvar", "decoded", "d input pixels", "d input latents"],
  };
}

function textEncoder(): Model {
  const config = parseClipTextConfig({ ...textConfig, projection_dim: 12 }, "text", { projection: true });
  return {
    declare: dtype => declareClipText(config, dtype),
    build: params => textGradientGraph(config, params, { inputIds, attentionMask }, { hiddenStates: [-2], cotangents: ["textEmbeds"] }),
    inputs: { ...textFeed(config, { inputIds, attentionMask }), "d textEmbeds": pseudoRandom([2, 12]) },
    outputs: ["lastHiddenState", "hiddenStates.0", "textEmbeds"],
  };
}

function bothTowers(): Model {
  const config = parseClipConfig({ text_config: textConfig, vision_config: { ...tower, image_size: 16, patch_size: 4 }, projection_dim: 12 }, "clip");
  const pixels = pseudoRandom([3, 3, 16, 16]);
  return {
    declare: dtype => declareClip(config, dtype),
    build: params => clipGraph(config, params, { inputIds, pixels }, ["logitsPerImage"]),
    inputs: { ...textFeed(config.text, { inputIds }), pixels, "d logitsPerImage": pseudoRandom([3, 2]) },
    outputs: ["textEmbeds", "imageEmbeds", "d input pixels"],
  };
}

test.each([
  ["an autoencoder", autoencoder],
  ["a text encoder", textEncoder],
  ["both towers of CLIP", bothTowers],
])("%s gives the outputs and the gradients of f64, up to its roundings", async (_, make) => {
  const model = make();
  const run = async (dtype: ModelDType, weights: "drawn" | "rounded" = "drawn"): Promise<Record<string, HostTensor>> => {
    const store = model.declare(dtype);
    const as = dtype === "bf16" ? emulated : (graph: Graph) => graph;
    await drawWeights(session, { store, adapter: undefined, reference: store, arenas: store.arenas }, { as });
    if (weights === "rounded") await roundMatrices(store);
    return runGraph(session, as(model.build(new Params(store))), model.inputs, store.arenas);
  };
  const [exact, shaken, rounded] = [await run("f64"), await run("f64", "rounded"), await run("bf16")];
  const whole = (result: Record<string, HostTensor>): number[] =>
    Object.entries(result).flatMap(([name, t]) => (name.startsWith("d parameter") ? [...numbers(t)] : []));
  // How much a rounding costs is the model's own condition: what f64 strays by when every matrix is rounded once. Around each product some four results
  // are rounded besides (norm, product, activation, sum), at random: sqrt(1 + 4) times that, doubled.
  const bound = (of: (result: Record<string, HostTensor>) => ArrayLike<number>): number => 2 * Math.sqrt(5) * relL2(of(shaken), of(exact));
  for (const name of model.outputs) {
    const of = (result: Record<string, HostTensor>): Float64Array => numbers(result[name]!);
    expect(rounded[name]!.dtype).toBe("f32"); // whatever the model computes in
    const error = relL2(of(rounded), of(exact));
    expect([name, error, error < bound(of)]).toEqual([name, error, true]);
    expect(error).toBeGreaterThan(2 ** -11); // it did round
  }
  expect(relL2(whole(rounded), whole(exact))).toBeLessThan(bound(whole));
});

async function roundMatrices(store: ParameterStore): Promise<void> {
  for (const entry of store.entries.values())
    if (entry.shape.length > 1) writeParameter(session, store, entry, convert(await readParameter(session, store, entry), "bf16"));
}
