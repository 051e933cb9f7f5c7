/** The graphs that an autoencoder's handle runs. Only shapes and dtype matter here; ports speak [B, C, H, W]. */

import { input } from "../graph/ops/leaf.js";
import { randomNormal } from "../graph/ops/random.js";
import { buildGraph, type Graph, type NamedTensor, type Tensor, typed } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";
import { addGradients } from "./gradients.js";
import type { RecomputeOptions } from "./regions.js";
import { fromLatents, type Posterior, toLatents, vaeDecode, vaeEncode, vaeMoments, vaeSample } from "./vae.js";
import type { VaeConfig } from "./vae-config.js";

/** Philox stream of a posterior's noise, apart from those of training and sampling. */
const posteriorStream = 32;

export interface VaeGraphs {
  readonly config: VaeConfig;
  readonly params: Params;
}

type Shape = readonly number[];

export function encodeGraph({ config, params }: VaeGraphs, pixels: Shape): Graph {
  return buildGraph(g => outputPosterior(g, vaeEncode(config, params, map(params, "pixels", pixels))));
}

/** "moments", uncut: for tiles, which are joined before the logarithms of variances are cut. */
export function momentsGraph({ config, params }: VaeGraphs, pixels: Shape): Graph {
  return buildGraph(g => void g.output("moments", vaeMoments(config, params, map(params, "pixels", pixels)), "bchw"));
}

export function decodeGraph({ config, params }: VaeGraphs, latents: Shape): Graph {
  return buildGraph(g => void g.output("decoded", vaeDecode(config, params, map(params, "latents", latents)), "bchw"));
}

/** Noise is an input of that name, or drawn by seed and sample offset. */
export function sampleGraph({ params }: VaeGraphs, shape: Shape, noise: "given" | "drawn"): Graph {
  return buildGraph(g => {
    const posterior = { mean: map(params, "mean", shape), logvar: map(params, "logvar", shape) };
    const drawn = () => randomNormal(posterior.mean.shape, { stream: posteriorStream, dtype: plain(params) });
    g.output("sample", vaeSample(posterior, noise === "given" ? map(params, "noise", shape) : drawn()), "bchw");
  });
}

export function scalingGraph({ config, params }: VaeGraphs, shape: Shape, way: "to" | "from"): Graph {
  return buildGraph(g => void g.output("scaled", (way === "to" ? toLatents : fromLatents)(config, map(params, "x", shape)), "bchw"));
}

/** Gradients of both halves, or of the one that has a shape. Parameters of the other have gradient zero. */
export function vaeGradientGraph(
  { config, params }: VaeGraphs,
  { pixels, latents }: { pixels: Shape | undefined; latents: Shape | undefined },
  options: RecomputeOptions = {},
): Graph {
  return buildGraph(g => {
    const inputs: NamedTensor[] = [];
    const outputs: NamedTensor[] = [];
    const named = (name: string, tensor: Tensor): NamedTensor => ({ name, tensor, layout: "bchw" });
    if (pixels) {
      const x = map(params, "pixels", pixels);
      const { mean, logvar } = vaeEncode(config, params, x, options);
      outputPosterior(g, { mean, logvar });
      inputs.push(named("pixels", x));
      outputs.push(named("d mean", mean), named("d logvar", logvar));
    }
    if (latents) {
      const z = map(params, "latents", latents);
      const decoded = vaeDecode(config, params, z, options);
      g.output("decoded", decoded, "bchw");
      inputs.push(named("latents", z));
      outputs.push(named("d decoded", decoded));
    }
    addGradients({ outputs, inputs, stores: [params.store], unreachable: "zeros" });
  });
}

function outputPosterior(g: Graph, { mean, logvar }: Posterior): void {
  g.output("mean", mean, "bchw");
  g.output("logvar", logvar, "bchw");
}

function map(params: Params, name: string, [batch = 0, channels = 0, height = 0, width = 0]: Shape): Tensor {
  return input(name, typed(plain(params), batch, height, width, channels), "bchw");
}

function plain({ store }: Params): "f32" | "f64" {
  return store.computes === "f64" ? "f64" : "f32";
}
