/** Trains the base model on all drawings of both styles, without telling it the style: a prompt then samples either. The result is committed; alignment starts there.
 *  Training is that of the library: a preference run whose objective is the plain denoising error. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { encodePng } from "../../lib/data/image.js";
import type { Device } from "../../lib/device.js";
import { sft } from "../../lib/objectives/sft.js";
import { imageGrid } from "../../lib/report/grid.js";
import { cosine } from "../../lib/train/lr-schedule.js";
import { tensorPairs } from "../../lib/train/pair-data.js";
import { describeEvent, describeStep } from "../../lib/train/progress.js";
import { PreferenceTrainer } from "../../lib/train/trainer.js";
import type { Drawings } from "./drawings.js";
import { ConceptFidelity, isColoured } from "./measures.js";
import { conditionOf, createModel, type EmojiModel, saveModel } from "./model.js";
import { toTensor } from "./pixels.js";
import { samplePictures } from "./sample.js";
import { Vocabulary } from "./vocabulary.js";

export interface PretrainOptions {
  readonly drawings: Drawings;
  readonly device: Device;
  readonly seed: number;
  readonly steps: number;
  /** Folder of the model, its log and a sheet of samples. */
  readonly output: string;
  readonly signal?: AbortSignal;
}

const settings = { batchSize: 64, learningRate: 1e-3, warmup: 100, conditionDropout: 0.1, emaDecay: 0.999, logEvery: 50 };

/** Trains, saves the moving average of the weights, samples from it, and writes everything said to `output`/pretrain.log too. */
export async function pretrain({ drawings: { concepts, drawings }, device, seed, steps, output, signal }: PretrainOptions): Promise<void> {
  mkdirSync(output, { recursive: true });
  const lines: string[] = [];
  const say = (line: string) => {
    console.log(line);
    lines.push(`${line}\n`);
    writeFileSync(join(output, "pretrain.log"), lines.join(""));
  };
  const vocabulary = Vocabulary.of(concepts);
  const model = await createModel({ vocabulary, device, seed });
  try {
    say(device.description);
    say(`${drawings.length} drawings of ${concepts.length} concepts, ${vocabulary.words.length} words, seed ${seed}, ${JSON.stringify(settings)}`);
    const prompts = drawings.map(d => concepts[d.concept]!);
    const trainer = new PreferenceTrainer({
      model,
      data: tensorPairs({ winners: toTensor(drawings.map(d => d.image)), condition: conditionOf(vocabulary, prompts) }),
      objective: sft(),
      schedule: model.schedule,
      optimizer: { learningRate: settings.learningRate },
      learningRateSchedule: cosine({ warmup: Math.min(settings.warmup, steps), total: steps }),
      ema: { decay: settings.emaDecay },
      conditionDropout: settings.conditionDropout,
      batchSize: settings.batchSize,
      steps,
      seed,
    });
    let mean = Number.NaN; // of the loss: a single step depends mostly on the timesteps it drew
    for await (const event of trainer.run(signal ? { signal } : {})) {
      if (event.type !== "step") say(describeEvent(event));
      else {
        mean = event.step === 1 ? event.loss : mean + (event.loss - mean) / Math.min(event.step, settings.logEvery);
        if (event.step % settings.logEvery === 0 || event.step === steps) say(`${describeStep({ ...event, loss: mean })}`);
      }
    }
    await trainer.applyEma();
    await saveModel(model, output);
    say(await sheet(model, concepts, drawings, seed, output));
  } finally {
    await model.close();
  }
}

/** Samples every concept once, draws the first of them beside each other, and says how many are coloured and how many can be recognised. */
async function sheet(model: EmojiModel, concepts: readonly string[], drawings: Drawings["drawings"], seed: number, output: string): Promise<string> {
  const pictures = await samplePictures(model, { prompts: concepts, seed });
  const across = 20;
  const shown = 200;
  const rows = Array.from({ length: shown / across }, (_, r) =>
    Array.from({ length: across }, (_, c) => pictures[Math.floor(((r * across + c) * concepts.length) / shown)]),
  );
  writeFileSync(join(output, "samples.png"), encodePng(imageGrid({ rows, zoom: 2, gap: 2 })));
  const fidelity = new ConceptFidelity(drawings);
  const share = (n: number) => `${((100 * n) / pictures.length).toFixed(1)} %`;
  const coloured = pictures.filter(isColoured).length;
  const shows = pictures.filter((picture, i) => fidelity.shows(picture, i)).length;
  return `${pictures.length} samples of the base model: ${share(coloured)} coloured, ${share(shows)} show their concept`;
}
