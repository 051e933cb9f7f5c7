/** Labels of a person: a file of pairs, or pairs of the base model's own pictures compared in the browser. */

import { join } from "node:path";
import type { Device } from "../../lib/device.js";
import { ConfigError } from "../../lib/errors.js";
import { Random } from "../../lib/util/random.js";
import { type Candidates, type Choice, startAnnotation } from "./annotation-server.js";
import { splitConcepts } from "./annotator.js";
import { type Drawings, side } from "./drawings.js";
import { loadModel } from "./model.js";
import { type PreferencePair, readPairs, writePairs } from "./preference-files.js";
import { samplePictures } from "./sample.js";
import type { Labels } from "./synthetic.js";

/** One prompt in this many is held out of training. */
const heldOutEvery = 5;
const fewest = 4;

/** Labels of a file. Pairs of one prompt are all trained on or all held out; measured are the prompts that occur in no pair at all. */
export function labelsOfFile({ file, drawings: { concepts }, seed }: { file: string; drawings: Drawings; seed: number }): Labels {
  const all = readPairs({ file, side });
  const prompts = [...new Set(all.map(pair => pair.prompt))];
  if (prompts.length < fewest) throw new ConfigError(`pairs file ${file}`, "its pairs", `of at least ${fewest} prompts`, prompts.length);
  const held = new Set(new Random(seed, "own split").shuffle(prompts).slice(0, Math.ceil(prompts.length / heldOutEvery)));
  const pairs = all.filter(pair => !held.has(pair.prompt));
  const heldOutPairs = all.filter(pair => held.has(pair.prompt));
  const { heldOut } = splitConcepts({ concepts: concepts.length, seed });
  return {
    annotator: `The preferences are those of ${file}: ${all.length} pairs of ${prompts.length} prompts, ${heldOutPairs.length} of the pairs held out.`,
    prefersColour: false,
    pairs,
    heldOutPairs,
    heldOut: heldOut.filter(c => !prompts.includes(concepts[c]!)),
  };
}

export interface AnnotateOptions {
  readonly drawings: Drawings;
  readonly base: string;
  readonly device: Device;
  /** Pairs to show. */
  readonly count: number;
  readonly seed: number;
  readonly output: string;
  readonly signal?: AbortSignal | undefined;
}

/** Shows pairs of the base model's pictures and returns the path of the file that the choices became. The file is written anew at every choice. */
export async function annotateInBrowser(options: AnnotateOptions): Promise<string> {
  const { output, signal } = options;
  const folder = join(output, "annotations");
  console.log(`drawing ${2 * options.count} pictures to choose from`);
  const candidates = await sampleCandidates(options);
  const save = (labels: readonly (Choice | undefined)[]) => writePairs({ folder, pairs: preferences(candidates, labels) });
  const annotation = await startAnnotation(candidates, { onChoice: save, ...(signal && { signal }) });
  try {
    console.log(`\nopen this page and choose: ${annotation.url}\n`);
    const labels = await annotation.result;
    const file = save(labels);
    const of = (choice: Choice) => labels.filter(label => label === choice).length;
    console.log(`${of("left") + of("right")} preferences in ${file}; ${of("tie")} ties and ${of("skip")} skipped pairs are left out`);
    return file;
  } finally {
    await annotation.close();
  }
}

/** Two pictures of each of `count` training concepts. */
async function sampleCandidates({ drawings: { concepts }, base, device, count, seed, signal }: AnnotateOptions): Promise<Candidates[]> {
  const { training } = splitConcepts({ concepts: concepts.length, seed });
  const prompts = new Random(seed, "candidates")
    .shuffle(training)
    .slice(0, count)
    .map(c => concepts[c]!);
  const model = await loadModel(base, device);
  try {
    const pictures = await samplePictures(model, { prompts: [...prompts, ...prompts], seed: seed + 2, signal });
    return prompts.map((prompt, i) => ({ prompt, left: pictures[i]!, right: pictures[prompts.length + i]! }));
  } finally {
    await model.close();
  }
}

/** Left and right choices as pairs; ties and skipped ones say nothing about an order. */
export function preferences(candidates: readonly Candidates[], labels: readonly (Choice | undefined)[]): PreferencePair[] {
  return candidates.flatMap(({ prompt, left, right }, i) => {
    if (labels[i] === "left") return [{ prompt, chosen: left, rejected: right }];
    return labels[i] === "right" ? [{ prompt, chosen: right, rejected: left }] : [];
  });
}
