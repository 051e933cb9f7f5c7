/** BLIP's text that looks at a picture, frozen in bf16, on the cpu with every value rounded as its dtype says (support/bf16.ts): what ImageReward reads on a GPU. */

import { cast } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph, typed } from "../../lib/graph/tensor.js";
import { blipText, blipVision } from "../../lib/models/blip.js";
import { addGradients } from "../../lib/models/gradients.js";
import { readParameter, writeParameter } from "../../lib/models/load.js";
import { type ModelDType, type ParameterStore, Params } from "../../lib/nn/params.js";
import { declareImageReward, imageRewardConfig } from "../../lib/rewards/image-reward-model.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { emulated } from "../support/bf16.js";
import { relL2 } from "../support/compare.js";
import { numbers } from "../support/gradients.js";
import { drawWeights, runGraph } from "../support/steps.js";
import { pseudoRandom } from "../support/unet.js";

const config = imageRewardConfig({
  vision: { imageSize: 16, patch: 4, width: 32, layers: 2, heads: 4, hidden: 64, eps: 1e-6 },
  text: { width: 24, layers: 2, heads: 3, hidden: 48, vocabulary: 50, positions: 9, eps: 1e-12 },
});
const inputs = {
  pixels: pseudoRandom([2, 3, 16, 16]),
  inputIds: hostTensor(
    "i32",
    [2, 9],
    Int32Array.from({ length: 18 }, (_, i) => (i * 7) % 50),
  ),
  attentionMask: hostTensor(
    "u8",
    [2, 9],
    Uint8Array.from({ length: 18 }, (_, i) => Number(i % 9 < 7)),
  ),
  "d states": pseudoRandom([2, 9, 24], 3),
};

function build(params: Params): Graph {
  return buildGraph(g => {
    const wide = params.store.computes === "f64" ? "f64" : "f32";
    const pixels = input("pixels", typed(wide, 2, 16, 16, 3), "bchw");
    const text = { inputIds: input("inputIds", typed("i32", 2, 9)), attentionMask: input("attentionMask", typed(wide, 2, 9)) };
    const image = blipVision(config.vision, params.at("blip.visual_encoder"), pixels);
    const states = cast(blipText(config.text, params.at("blip.text_encoder"), { ...text, image }).at(-1)!, wide);
    g.output("states", states);
    addGradients({
      outputs: [{ name: "d states", tensor: states, layout: "plain" }],
      inputs: [{ name: "pixels", tensor: pixels, layout: "bchw" }],
      stores: [],
    });
  });
}

let session: Session;
beforeEach(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterEach(() => session.close());

test("states and the gradient of the picture are those of f64, up to its roundings", async () => {
  const run = async (dtype: ModelDType, weights: "drawn" | "rounded" = "drawn"): Promise<Record<string, HostTensor>> => {
    const store = declareImageReward(config, dtype);
    const as = dtype === "bf16" ? emulated : (graph: Graph) => graph;
    await drawWeights(session, { store, adapter: undefined, reference: store, arenas: store.arenas }, { as });
    if (weights === "rounded") await roundMatrices(store);
    return runGraph(session, as(build(new Params(store))), inputs, store.arenas);
  };
  const [exact, shaken, rounded] = [await run("f64"), await run("f64", "rounded"), await run("bf16")];
  for (const name of ["states", "d input pixels"]) {
    const [truth, other, own] = [exact, shaken, rounded].map(result => numbers(result[name]!));
    const error = relL2(own!, truth!);
    expect([name, error < 2 * Math.sqrt(5) * relL2(other!, truth!)]).toEqual([name, true]); // the bound of bf16-encoders.test.ts, for its reason
    expect(error).toBeGreaterThan(2 ** -11); // it did round
  }
});

async function roundMatrices(store: ParameterStore): Promise<void> {
  for (const entry of store.entries.values())
    if (entry.shape.length > 1) writeParameter(session, store, entry, convert(await readParameter(session, store, entry), "bf16"));
}
