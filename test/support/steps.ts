/** Training steps of a tiny UNet, as graphs and in a session, for laws about what passes and dtypes do to a whole step. */

import { noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { unetDenoiser } from "../../lib/diffusion/unet-denoiser.js";
import { compileGraph } from "../../lib/graph/compile.js";
import type { Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph } from "../../lib/graph/tensor.js";
import { parseUNetConfig } from "../../lib/models/unet-config.js";
import { adaptUNet, declareUNet } from "../../lib/models/unet-parameters.js";
import { initialise, reserve } from "../../lib/nn/init.js";
import type { LoraOptions } from "../../lib/nn/lora.js";
import { type ModelDType, Params, storage } from "../../lib/nn/params.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import type { Objective } from "../../lib/objectives/objective.js";
import { adamW } from "../../lib/train/optimizer.js";
import { microGraph, updateGraph } from "../../lib/train/step.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { goldenConfig, pseudoRandom } from "./unet.js";

export interface StepOptions {
  readonly dtype: ModelDType;
  readonly lora?: LoraOptions;
  readonly recompute?: "none" | "blocks";
  readonly objective?: Objective;
  readonly set?: string;
  /** Height and width of the latents. */
  readonly size?: number;
  readonly pairs?: number;
  readonly oneBatch?: boolean;
}

/** A step, its stores, and what its programs are fed with. */
export function tinyStep(options: StepOptions) {
  const { dtype, lora, recompute = "none", objective = diffusionDpo(), set = "unet-sd-tiny", size = 8, pairs = 2, oneBatch = true } = options;
  const config = parseUNetConfig(goldenConfig(set), set);
  const store = declareUNet(config, dtype, { trainable: lora === undefined });
  const adapter = lora && adaptUNet(config, store, lora);
  const reference = adapter ? store : store.mirror("reference", storage(dtype, false));
  const trainable = adapter?.store ?? store;
  const gradients = trainable.mirror("gradients");
  const optimizer = adamW({ learningRate: 1e-2 });
  const state = optimizer.state(trainable);
  const micro = microGraph({
    denoiser: unetDenoiser(config, { height: size, width: size, tokens: 5, recompute, dtype: dtype === "f64" ? "f64" : "f32" }),
    objective,
    schedule: noiseSchedule(),
    policy: new Params(store, { adapter }),
    reference: new Params(reference),
    oneBatch,
    trainable,
    gradients,
    batch: pairs,
    accumulation: 1,
    noise: "drawn",
    conditionDropout: 0,
  });
  const inputs: Record<string, HostTensor> = {
    winners: pseudoRandom([pairs, 4, size, size], 1),
    losers: pseudoRandom([pairs, 4, size, size], 2),
    encoderHiddenStates: pseudoRandom([pairs, 5, config.crossAttentionDim], 3),
    ...(config.addedText && {
      textEmbeds: pseudoRandom([pairs, config.addedText.inputs - 6 * config.addedText.dim], 4),
      timeIds: hostTensor("f32", [pairs, 6], new Float32Array(pairs * 6).fill(64)),
    }),
  };
  const stores = [store, ...(adapter ? [adapter.store] : [reference]), gradients, ...Object.values(state)];
  const arenas: Record<string, number> = Object.assign({}, ...stores.map(s => s.arenas));
  return {
    store,
    adapter,
    reference,
    trainable,
    gradients,
    micro,
    update: updateGraph({ trainable, gradients, optimizer, state, maxGradNorm: 1 }),
    inputs,
    arenas,
  };
}

export type TinyStep = ReturnType<typeof tinyStep>;

/** Draws the weights of a step, the same in every dtype: an adapter's too, up to those that are 0 at first, unless it is `trained`. The reference is a copy.
 *  `as` changes every graph before it runs. */
export async function drawWeights(
  session: Session,
  { store, adapter, reference, arenas }: Pick<TinyStep, "store" | "adapter" | "reference" | "arenas">,
  { as = graph => graph, trained = false }: { as?: (graph: Graph) => Graph; trained?: boolean } = {},
): Promise<void> {
  const run = (body: () => void): Promise<unknown> => runGraph(session, as(buildGraph(body)), {}, arenas);
  for (const [s, stream] of [[store, 1000] as const, ...(adapter ? [[adapter.store, 9000] as const] : [])]) {
    const plain = s.mirror(`${s.arena}/drawn`, { dtype: s.computes === "f64" ? "f64" : "f32" });
    reserve(session, plain);
    await initialise(session, plain, { seed: 11, stream });
    for (const { init, shape, offset, dtype } of plain.entries.values())
      if (trained && s === adapter?.store && "value" in init) session.write(plain.arena, offset, convert(pseudoRandom(shape, offset), dtype).data);
    await run(() => {
      s.copy(plain);
      s.refresh();
    });
  }
  if (reference !== store) await run(() => reference.copy(store));
}

/** Runs a graph with these inputs at one draw of noise and one learning rate. */
export async function runGraph(session: Session, graph: Graph, inputs: Readonly<Record<string, HostTensor>>, arenas: Readonly<Record<string, number>>) {
  const executable = session.compile(compileGraph(graph, { name: "test", arenas }));
  const scalars = { seed: 5, step: 2, sampleOffset: 0, learningRate: 1e-2, correction1: 0.1, correction2: 0.001 };
  return session.run(executable, { inputs, scalars });
}
