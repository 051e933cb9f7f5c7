/** `npm run bench:clip`: forward passes of the encoders at full size with random weights: CLIP ViT-H/14 on pictures, CLIP ViT-L/14 on texts, the decoder of
 *  Stable Diffusion. Each as GFLOP/s and as a share of the multiply-add rate measured in the same run. Needs about 4 GiB, and two minutes on two cores. */

import { compileGraph } from "../lib/graph/compile.js";
import { input } from "../lib/graph/ops/leaf.js";
import { programFlops } from "../lib/graph/print.js";
import { Session } from "../lib/graph/session.js";
import { buildGraph, type Graph, typed } from "../lib/graph/tensor.js";
import { clipImageFeatures } from "../lib/models/clip.js";
import { parseClipConfig, parseClipTextConfig } from "../lib/models/clip-config.js";
import { textFeed, textGraph } from "../lib/models/clip-graphs.js";
import { declareClipText } from "../lib/models/clip-parameters.js";
import { parseVaeConfig } from "../lib/models/vae-config.js";
import { decodeGraph } from "../lib/models/vae-graphs.js";
import { declareVae } from "../lib/models/vae-parameters.js";
import { initialise, reserve } from "../lib/nn/init.js";
import { ParameterStore, Params } from "../lib/nn/params.js";
import { type HostTensor, hostTensor } from "../lib/util/host-tensor.js";
import { ceilings } from "./ops.js";

interface Row {
  readonly name: string;
  /** Samples of one pass. */
  readonly batch: number;
  readonly store: ParameterStore;
  readonly graph: Graph;
  readonly inputs: Readonly<Record<string, HostTensor>>;
}

/** Numbers of about unit variance; only their size matters here. */
function waves(...shape: number[]): HostTensor {
  const size = shape.reduce((n, d) => n * d, 1);
  return hostTensor(
    "f32",
    shape,
    Float32Array.from({ length: size }, (_, i) => Math.SQRT2 * Math.sin(12.9898 * i)),
  );
}

/** The image tower alone: no text weights are kept. */
function imageTower(batch: number): Row {
  const vision = { hidden_size: 1280, num_hidden_layers: 32, num_attention_heads: 16, intermediate_size: 5120, patch_size: 14, hidden_act: "gelu" };
  const config = parseClipConfig({ vision_config: vision, projection_dim: 1024 }, "ViT-H/14");
  const store = new ParameterStore({ arena: "clip", dtype: "f32", trainable: false });
  const graph = buildGraph(g => {
    const pixels = input("pixels", typed("f32", batch, 224, 224, 3), "bchw");
    g.output("imageEmbeds", clipImageFeatures(config, new Params(store), pixels).imageEmbeds);
  });
  return { name: "CLIP ViT-H/14, pictures of 224 x 224", batch, store, graph, inputs: { pixels: waves(batch, 3, 224, 224) } };
}

function textEncoder(batch: number): Row {
  const sizes = { hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, intermediate_size: 3072 };
  const config = parseClipTextConfig(sizes, "ViT-L/14");
  const store = declareClipText(config, "f32");
  const text = { inputIds: hostTensor("i32", [batch, 77], new Int32Array(batch * 77).fill(49407)) };
  return { name: "CLIP ViT-L/14, texts of 77 tokens", batch, store, graph: textGraph(config, new Params(store), text, {}), inputs: textFeed(config, text) };
}

function decoder(size: number): Row {
  const blocks = { down_block_types: Array(4).fill("DownEncoderBlock2D"), up_block_types: Array(4).fill("UpDecoderBlock2D") };
  const config = parseVaeConfig({ ...blocks, block_out_channels: [128, 256, 512, 512], layers_per_block: 2 }, "decoder");
  const store = declareVae(config, "f32");
  const latents = waves(1, 4, size / 8, size / 8);
  const graph = decodeGraph({ config, params: new Params(store) }, latents.shape);
  return { name: `AutoencoderKL, decoding ${size} x ${size}`, batch: 1, store, graph, inputs: { latents } };
}

async function measure({ name, batch, store, graph, inputs }: Row, ceiling: number): Promise<void> {
  const session = Session.open({ backend: "cpu" });
  try {
    reserve(session, store);
    await initialise(session, store, { seed: 1, stream: 0 });
    const executable = session.compile(compileGraph(graph, { name, arenas: store.arenas, target: session.target }));
    const seconds: number[] = [];
    for (let run = 0; run < 4; run++) {
      const began = performance.now();
      await session.run(executable, { inputs });
      seconds.push((performance.now() - began) / 1e3);
    }
    const median = seconds.slice(1).sort((a, b) => a - b)[1]!; // the first run touches the memory for the first time
    const flops = programFlops(executable.program);
    const rate = flops / median / 1e9;
    const share = `${rate.toFixed(0).padStart(5)} GFLOP/s ${(100 * (rate / ceiling)).toFixed(0).padStart(4)} %`;
    console.log(`${name.padEnd(38)} x ${batch}  ${(flops / batch / 1e9).toFixed(1).padStart(7)} GFLOP each  ${median.toFixed(2).padStart(6)} s  ${share}`);
  } finally {
    await session.close();
  }
}

async function main(): Promise<void> {
  const session = Session.open({ backend: "cpu" });
  const { gflops } = await ceilings(session);
  await session.close();
  console.log(`${gflops.toFixed(0)} GFLOP/s multiply-add in f32`);
  for (const row of [() => textEncoder(2), () => imageTower(1), () => decoder(256)]) await measure(row(), gflops);
}

void main();
