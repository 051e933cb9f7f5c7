/** `node build/ts/bench/methods.js [--filter ipo,kto] [--steps 200]`: every objective on the demo's task, one after the other, from the same base model, pairs,
 *  order, noise and number of steps. Prints a row per method: held-out implicit accuracy and error ratios, and what 137 prompts without any label look like
 *  afterwards. A comparison of settings on a toy, not a ranking of methods: learning rates are round numbers, not tuned. */

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { training } from "../examples/emoji-align/align.js";
import { type Drawings, loadDrawings } from "../examples/emoji-align/drawings.js";
import { scorePictures } from "../examples/emoji-align/evaluation.js";
import { ConceptFidelity } from "../examples/emoji-align/measures.js";
import { conditionOf, type EmojiModel, loadModel } from "../examples/emoji-align/model.js";
import { toTensor } from "../examples/emoji-align/pixels.js";
import type { PreferencePair } from "../examples/emoji-align/preference-files.js";
import { samplePictures } from "../examples/emoji-align/sample.js";
import { type Labels, syntheticLabels } from "../examples/emoji-align/synthetic.js";
import type { Image } from "../lib/data/image.js";
import { type Device, openDevice } from "../lib/device.js";
import { ConfigError } from "../lib/errors.js";
import type { TrainEvent } from "../lib/train/events.js";
import { constantWithWarmup } from "../lib/train/lr-schedule.js";
import { type PairBatch, tensorPairs } from "../lib/train/pair-data.js";
import { PreferenceTrainer } from "../lib/train/trainer.js";
import { hostTensor } from "../lib/util/host-tensor.js";
import { type MethodRow, methodRows } from "./method-rows.js";

const settings = { seed: 0, sampleSeed: 1 } as const;

interface Result {
  readonly method: string;
  readonly learningRate: number;
  readonly steps: number;
  readonly accuracy: number;
  /** Mean over the timestep bands of held-out error over the reference's. */
  readonly winnerRatio: number;
  readonly loserRatio: number;
  readonly coloured: number;
  readonly faithful: number;
  readonly secondsPerStep: number;
}

interface Bench {
  readonly base: string;
  readonly device: Device;
  readonly drawings: Drawings;
  readonly labels: Labels;
  readonly steps: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { filter: { type: "string", default: "" }, steps: { type: "string", default: "200" } } });
  const example = join(packageRoot(__dirname), "examples", "emoji-align");
  const drawings = await loadDrawings({ cache: join(example, ".cache") });
  const labels = syntheticLabels({ drawings, seed: settings.seed, output: join(packageRoot(__dirname), "runs", "methods") });
  const bench: Bench = { base: join(example, "base"), device: await openDevice("cpu"), drawings, labels, steps: Number(values.steps) };
  console.log(heading);
  const wanted = values.filter === "" ? methodRows : values.filter.split(",").map(rowOf);
  if (values.filter === "") console.log(line(await baseResult(bench)));
  for (const row of wanted) console.log(line(await alignWith(row, bench)));
}

function rowOf(name: string): MethodRow {
  const row = methodRows.find(one => one.name === name);
  if (!row) throw new ConfigError("bench", "--filter", `names of ${methodRows.map(one => one.name).join(", ")}`, name);
  return row;
}

const heading = [
  "| method | learning rate | held-out accuracy | winners' error | losers' error | coloured | show their concept | ms a step |",
  "|---|---|---|---|---|---|---|---|",
].join("\n");

function line(r: Result): string {
  const percent = (x: number): string => `${(100 * x).toFixed(0)} %`;
  const cells = [
    r.method,
    r.learningRate === 0 ? "" : r.learningRate.toExponential(),
    r.accuracy.toFixed(3),
    r.winnerRatio.toFixed(3),
    r.loserRatio.toFixed(3),
    percent(r.coloured),
    percent(r.faithful),
    r.secondsPerStep === 0 ? "" : (1000 * r.secondsPerStep).toFixed(0),
  ];
  return `| ${cells.join(" | ")} |`;
}

async function baseResult({ base, device, ...rest }: Bench): Promise<Result> {
  const model = await loadModel(base, device);
  try {
    const none = { method: "base model", learningRate: 0, steps: 0, accuracy: 0.5, winnerRatio: 1, loserRatio: 1, secondsPerStep: 0 };
    return { ...none, ...(await pictureScores(model, rest)) };
  } finally {
    await model.close();
  }
}

async function alignWith({ name, objective, learningRate, batchSize, data }: MethodRow, bench: Bench): Promise<Result> {
  const { base, device, labels, steps } = bench;
  const model = await loadModel(base, device);
  try {
    const trainer = new PreferenceTrainer({
      model,
      objective: objective(),
      data: tensorPairs((data ?? (batch => batch))(batchOf(labels.pairs, model))),
      schedule: model.schedule,
      optimizer: { learningRate },
      learningRateSchedule: constantWithWarmup({ warmup: training.warmup }),
      conditionDropout: training.conditionDropout,
      batchSize: batchSize ?? training.batchSize,
      steps,
      seed: settings.seed,
      validation: { data: tensorPairs(batchOf(labels.heldOutPairs, model)), every: steps },
    });
    const began = performance.now();
    let seconds = 0;
    const events: TrainEvent[] = [];
    for await (const event of trainer.run()) {
      if (event.type === "step") seconds = (performance.now() - began) / 1000;
      events.push(event);
    }
    const { bands, implicitAccuracy } = events.find(event => event.type === "validation")!;
    const mean = (of: "winnerRatio" | "loserRatio"): number => bands.reduce((sum, band) => sum + band[of], 0) / bands.length;
    return {
      method: name,
      learningRate,
      steps,
      accuracy: implicitAccuracy,
      winnerRatio: mean("winnerRatio"),
      loserRatio: mean("loserRatio"),
      secondsPerStep: seconds / steps,
      ...(await pictureScores(model, bench)),
    };
  } finally {
    await model.close();
  }
}

async function pictureScores(model: EmojiModel, { drawings, labels }: Pick<Bench, "drawings" | "labels">): Promise<Pick<Result, "coloured" | "faithful">> {
  const concepts = labels.heldOut;
  const pictures: Image[] = await samplePictures(model, { prompts: concepts.map(c => drawings.concepts[c]!), seed: settings.sampleSeed });
  const { coloured, faithful } = scorePictures({ pictures, concepts, fidelity: new ConceptFidelity(drawings.drawings) });
  const share = (flags: readonly boolean[]): number => flags.filter(Boolean).length / flags.length;
  return { coloured: share(coloured), faithful: share(faithful) };
}

/** Pairs with the numbers that any of the methods may ask for: what is known of the synthetic annotator. */
function batchOf(pairs: readonly PreferencePair[], { vocabulary }: EmojiModel): PairBatch {
  const winners = toTensor(pairs.map(pair => pair.chosen));
  const losers = toTensor(pairs.map(pair => pair.rejected));
  const prompts = pairs.map(pair => pair.prompt);
  const others = prompts.map((_, i) => prompts[(i + 1) % prompts.length]!);
  const numbers = (at: number) => hostTensor("f32", [pairs.length], new Float32Array(pairs.length).fill(at));
  return {
    winners,
    losers,
    condition: conditionOf(vocabulary, prompts),
    conditions: { contrast: conditionOf(vocabulary, others) },
    extras: { preference: numbers(0.9), reward: numbers(1) },
  };
}

/** The nearest folder above with a package.json. */
function packageRoot(folder: string): string {
  return existsSync(join(folder, "package.json")) ? folder : packageRoot(dirname(folder));
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
