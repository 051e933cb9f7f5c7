/** What can be said about a picture without knowing whether it is right: how well the model itself denoises it, with its prompt and without; how far it is from both drawing
 *  styles; how colourful it is; how much the model's other pictures of the prompt differ from it; and what the prompt looks like. */

import * as conformal from "../../lib/conformal/index.js";
import type { Image } from "../../lib/data/image.js";
import { noisePairs } from "../../lib/diffusion/noising.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { pairSums } from "../../lib/graph/ops/preference.js";
import { concat } from "../../lib/graph/ops/shape.js";
import { buildGraph, typed } from "../../lib/graph/tensor.js";
import { Params } from "../../lib/nn/params.js";
import { perSample } from "../../lib/objectives/objective.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import type { Drawing } from "./drawings.js";
import { colourfulness, halved, squaredDistance } from "./measures.js";
import { conditionOf, type EmojiModel } from "./model.js";
import { toTensor } from "./pixels.js";

export interface PicturesOfPrompts {
  readonly prompts: readonly string[];
  /** One picture of each prompt: the one that is to be trusted or not. */
  readonly pictures: readonly Image[];
  /** Further pictures of the same prompts from other noise, per seed. */
  readonly others: readonly (readonly Image[])[];
}

/** A row per picture. `style`: drawings whose concepts are not among the prompts. */
export async function trustFeatures(
  model: EmojiModel,
  { prompts, pictures, others }: PicturesOfPrompts,
  { style, seed, signal }: { readonly style: readonly Drawing[]; readonly seed: number; readonly signal?: AbortSignal | undefined },
): Promise<conformal.FeatureTable> {
  const errors = await denoisingErrors(model, pictures, prompts, seed, signal);
  const pixels = pictures.map(halved),
    spreads = pixels.map((own, i) => others.map(set => squaredDistance(own, halved(set[i]!))));
  const references = style.map(d => ({ style: d.style, pixels: halved(d.image) }));
  const distance = (own: Float64Array, name: Drawing["style"]): number =>
    references.reduce((least, r) => (r.style === name ? Math.min(least, squaredDistance(own, r.pixels)) : least), Infinity);
  const { columns, rows } = conformal.promptStatistics(prompts);
  const words = columns.indexOf("prompt.words"),
    characters = columns.indexOf("prompt.characters");
  return conformal.joinFeatures(
    conformal.denoisingErrorFeatures(errors),
    conformal.featureTable({
      "style.colour": pixels.map(own => Math.log(distance(own, "colour"))),
      "style.line": pixels.map(own => Math.log(distance(own, "line"))),
      colourfulness: pictures.map(colourfulness),
      spread: spreads.map(s => Math.log(1 + s.reduce((a, b) => a + b, 0) / s.length)),
      "prompt.words": rows.map(row => row[words]!),
      "prompt.characters": rows.map(row => row[characters]!),
    }),
  );
}

const timesteps = [100, 300, 500, 700, 900];
const draws = 1;
const batch = 32;
/** Philox stream of the noise, apart from those of training, validation and sampling. */
const noiseStream = 48;

/** Of each picture under its prompt and under the empty prompt, with the same noise; noise depends on (seed, timestep, draw, place of the picture) alone. */
async function denoisingErrors(
  { session, denoiser, store, schedule, vocabulary }: EmojiModel,
  pictures: readonly Image[],
  prompts: readonly string[],
  seed: number,
  signal: AbortSignal | undefined,
): Promise<conformal.DenoisingErrors> {
  const graph = buildGraph(g => {
    const [clean, timestep, condition] = [
      input("pictures", typed("f32", batch, ...denoiser.sampleShape), "bchw"),
      input("timestep", typed("i32", batch)),
      denoiser.condition(batch),
    ];
    const { noisy, target } = noisePairs(schedule, { winners: clean, timestep, stream: noiseStream });
    const empty = denoiser.uncondition!(condition);
    const twice = Object.fromEntries(Object.entries(condition).map(([name, t]) => [name, concat([t, empty[name]!], 0)]));
    const prediction = denoiser.predict(concat([noisy, noisy], 0), concat([timestep, timestep], 0), twice, new Params(store));
    g.output("E", perSample(pairSums({ prediction, target: concat([target, target], 0) })).E);
  });
  const program = session.compile(compileGraph(graph, { name: "denoising errors", target: session.target }));
  const conditional = pictures.map(() => new Float64Array(timesteps.length * draws)),
    unconditional = pictures.map(() => new Float64Array(timesteps.length * draws));
  for (let first = 0; first < pictures.length; first += batch) {
    const count = Math.min(batch, pictures.length - first);
    const at = Array.from({ length: batch }, (_, i) => (i < count ? first + i : first)); // a batch that is not full is filled up
    const inputs = {
      pictures: toTensor(at.map(i => pictures[i]!)),
      ...conditionOf(
        vocabulary,
        at.map(i => prompts[i]!),
      ),
    };
    for (let k = 0; k < timesteps.length * draws; k++) {
      const timestep = hostTensor("i32", [batch], new Int32Array(batch).fill(timesteps[Math.floor(k / draws)]!));
      const { E } = await session.run(program, { inputs: { ...inputs, timestep }, scalars: { seed, step: k, sampleOffset: first } }, signal ? { signal } : {});
      for (let i = 0; i < count; i++) {
        conditional[first + i]![k] = (E!.data as Float64Array)[i]!;
        unconditional[first + i]![k] = (E!.data as Float64Array)[batch + i]!;
      }
    }
  }
  return { timesteps: timesteps.length, conditional, unconditional };
}
