/** The demo's model and runs, small: what is saved is what is loaded, a picture depends on its own seed alone, and a few steps prefer the preferred style. */

import { mkdtempSync, readdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Alignment, alignModel } from "../../examples/emoji-align/align.js";
import { loadDrawings } from "../../examples/emoji-align/drawings.js";
import { createModel, loadModel, saveModel } from "../../examples/emoji-align/model.js";
import { toImages, toTensor } from "../../examples/emoji-align/pixels.js";
import { samplePictures } from "../../examples/emoji-align/sample.js";
import { type Labels, syntheticLabels } from "../../examples/emoji-align/synthetic.js";
import { trustFeatures } from "../../examples/emoji-align/trust-features.js";
import { Vocabulary } from "../../examples/emoji-align/vocabulary.js";
import * as conformal from "../../lib/conformal/index.js";
import { type Device, openDevice } from "../../lib/device.js";
import { storedWeights } from "../../lib/models/load.js";
import type { TrainEvent } from "../../lib/train/events.js";
import { convert, type HostTensor } from "../../lib/util/host-tensor.js";
import { projectRoot } from "../support/goldens.js";

const base = join(projectRoot, "examples", "emoji-align", "base");
const folder = () => mkdtempSync(join(tmpdir(), "attune-emoji-"));
const bytes = ({ data }: HostTensor) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
let device: Device;
beforeAll(async () => {
  device = await openDevice("cpu");
});

test("pictures survive the way to a tensor and back", async () => {
  const { drawings } = await loadDrawings({ cache: folder() });
  const some = drawings.slice(0, 6).map(d => d.image);
  expect(toImages(toTensor(some))).toEqual(some);
});

test("a saved model is loaded as it was, rounded to half precision", async () => {
  const vocabulary = Vocabulary.of(["red apple", "green apple"]);
  const made = await createModel({ vocabulary, device, seed: 3 });
  const path = folder();
  await saveModel(made, path);
  expect(readdirSync(path).sort()).toEqual(["scheduler", "unet", "words"]);
  const loaded = await loadModel(path, device);
  expect(loaded.vocabulary.words).toEqual(vocabulary.words);
  expect([...loaded.store.entries.keys(), "words.weight"].sort()).toEqual([...made.store.entries.keys()].sort());
  const saved = storedWeights(made.session, made.store);
  for (const [name, weight] of storedWeights(loaded.session, loaded.store)) {
    const rounded = convert(convert(await saved.get(name)!.read(), "f16"), "f32");
    expect([name, Buffer.compare(bytes(await weight.read()), bytes(rounded))]).toEqual([name, 0]);
  }
  await made.close();
  await loaded.close();
});

describe("with the committed base model", () => {
  let labels: Labels;
  let alignment: Alignment;
  const events: TrainEvent[] = [];
  beforeAll(async () => {
    const drawings = await loadDrawings({ cache: folder() });
    labels = syntheticLabels({ drawings, seed: 0, output: folder() });
    const prompts = labels.heldOut.slice(0, 4).map(c => drawings.concepts[c]!);
    const options = { base, device, pairs: labels.pairs, heldOutPairs: labels.heldOutPairs.slice(0, 16), prompts, steps: 12, seed: 0, sampleSeed: 1 };
    alignment = await alignModel({ ...options, method: "dspo", onEvent: event => events.push(event) });
  });

  test("it is small enough to be committed", () => {
    const size = (path: string): number =>
      statSync(path).isDirectory() ? readdirSync(path).reduce((sum, name) => sum + size(join(path, name)), 0) : statSync(path).size;
    expect(size(base)).toBeLessThan(6e6);
  });

  test("a picture depends on its prompt, its place and the seed, not on its batch", async () => {
    const model = await loadModel(base, device);
    const many = Array.from({ length: 40 }, () => labels.pairs[0]!.prompt);
    const all = await samplePictures(model, { prompts: many, seed: 5 });
    const few = await samplePictures(model, { prompts: many.slice(0, 3), seed: 5 });
    expect(few.map(p => [...p.data])).toEqual(all.slice(0, 3).map(p => [...p.data]));
    expect(new Set(all.map(p => p.data.join())).size).toBe(40); // the second batch goes on where the first one ended
    await model.close();
  });

  test("what is known about a picture depends on it, its prompt and its place, not on its batch", async () => {
    const model = await loadModel(base, device),
      { drawings } = await loadDrawings({ cache: folder() });
    const pictures = drawings.slice(0, 34).map(d => d.image),
      prompts = pictures.map(() => labels.pairs[0]!.prompt),
      others = [pictures.toReversed()],
      settings = { style: drawings.slice(40, 50), seed: 2 };
    const all = await trustFeatures(model, { prompts, pictures, others }, settings);
    const few = await trustFeatures(model, { prompts: prompts.slice(0, 3), pictures: pictures.slice(0, 3), others: [others[0]!.slice(0, 3)] }, settings);
    expect(few).toEqual({ columns: all.columns, rows: all.rows.slice(0, 3) });
    expect(conformal.columnOf(all, "spread")[0]).toBeCloseTo(conformal.columnOf(all, "spread")[33]!, 12); // each is the other's other
    expect(all.rows.every(row => row.every(Number.isFinite))).toBe(true);
    await model.close();
  });

  test("a dozen steps are finite, prefer the colour drawings of held-out concepts, and draw", () => {
    expect(alignment.steps.every(s => Number.isFinite(s.loss) && !s.skipped)).toBe(true);
    expect(alignment.validations.at(-1)!.implicitAccuracy).toBeGreaterThan(0.6);
    expect(alignment.pictures).toHaveLength(4);
    expect(events.filter(e => e.type === "step")).toHaveLength(12);
  });
});
