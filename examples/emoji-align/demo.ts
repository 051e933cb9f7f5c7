/** The demo from labels to report: aligns a copy of the base model with SFT and one with the chosen method, and measures both beside the base model
 *  on prompts that never had a label. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { encodePng, type Image } from "../../lib/data/image.js";
import type { Device } from "../../lib/device.js";
import { imageGrid } from "../../lib/report/grid.js";
import { JsonLines } from "../../lib/report/jsonl.js";
import type { Estimate } from "../../lib/report/metrics.js";
import { type Alignment, alignModel, methodSettings } from "./align.js";
import type { Method } from "./cli.js";
import type { Drawings } from "./drawings.js";
import { columnOf, scorePictures } from "./evaluation.js";
import { ConceptFidelity, isColoured } from "./measures.js";
import { type EmojiModel, loadModel } from "./model.js";
import type { PreferencePair } from "./preference-files.js";
import { reportPage } from "./report-page.js";
import { samplePictures } from "./sample.js";
import { type TrustedModel, TrustInquiry } from "./trust-run.js";

export interface DemoRun {
  /** One sentence: who made the labels. It is the first line of the output and of the report. */
  readonly annotator: string;
  /** Whether the labels prefer colour by construction. */
  readonly prefersColour: boolean;
  readonly pairs: readonly PreferencePair[];
  /** Pairs that are measured on and never trained on. */
  readonly heldOutPairs: readonly PreferencePair[];
  /** Concepts that occur in no pair. */
  readonly heldOut: readonly number[];
  readonly drawings: Drawings;
  readonly base: string;
  readonly device: Device;
  readonly method: Method;
  readonly steps: number;
  /** Of the chosen method; the baseline keeps its own. Default: the method's. */
  readonly learningRate: number | undefined;
  readonly seed: number;
  readonly output: string;
  /** Whether pictures are certified; with the synthetic annotator, beside those of an over-optimised model. */
  readonly certify: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Rows of each picture grid, and how many grids. */
const gridRows = 8;
const gridCount = 2;

export async function runDemo(run: DemoRun): Promise<void> {
  const { drawings, heldOut, output, method, seed } = run;
  mkdirSync(output, { recursive: true });
  const prompts = heldOut.map(c => drawings.concepts[c]!);
  const sampleSeed = seed + 1;
  console.log(
    `${run.device.description}\n${run.pairs.length} pairs to train on, ${run.heldOutPairs.length} held out; ${prompts.length} prompts without any label`,
  );

  console.log("drawing with the base model");
  const inquiry = run.certify ? new TrustInquiry(run) : undefined;
  const before = await basePictures(run, prompts, sampleSeed, inquiry);
  using log = new JsonLines(freshLog(output));
  const alignments: Alignment[] = [];
  for (const name of method === "sft" ? (["sft"] as const) : (["sft", method] as const)) {
    console.log(`aligning with ${methodSettings[name].label} (${methodSettings[name].setting})`);
    alignments.push(
      await alignModel({
        ...run,
        method: name,
        learningRate: name === method ? run.learningRate : undefined,
        prompts,
        sampleSeed,
        onEvent: event => log.append({ method: name, ...event }),
        ...(inquiry && name === method && { inspect: (model, pictures) => inquiry.look(methodSettings[name].label, model, pictures) }),
      }),
    );
  }
  if (inquiry && run.prefersColour) await lookAtOverOptimised(run, inquiry, prompts, sampleSeed);
  const trust = await inquiry?.answers();

  const fidelity = new ConceptFidelity(drawings.drawings);
  const scores = [before, ...alignments.map(a => a.pictures)].map(pictures => scorePictures({ pictures, concepts: heldOut, fidelity }));
  const columns = scores.map((score, i) => {
    const alignment = alignments[i - 1];
    return {
      name: alignment ? methodSettings[alignment.method].label : "base model",
      column: columnOf(score, { ...(i > 0 && { base: scores[0]! }), seed }),
      ...(alignment && { alignment }),
    };
  });
  for (const { name, column } of columns) log.append({ type: "result", model: name, ...column });
  for (const { certified: _, refused: __, ...answers } of trust ?? []) log.append({ type: "trust", ...answers });
  log.sync();

  const shown = chosenRows(heldOut.length);
  const grids = shown.map(rows =>
    grid(
      rows,
      run,
      [before, ...alignments.map(a => a.pictures)],
      columns.map(c => c.name),
    ),
  );
  writeFileSync(join(output, "grid.png"), encodePng(grids[0]!));
  const colourCeiling = heldOut.filter(c => isColoured(drawings.drawings[2 * c]!.image)).length / heldOut.length;
  const gridCaption = `Prompts without any label. The first two columns are the designer's drawings; in the others every row starts from the same noise.`;
  const html = reportPage({
    ...run,
    pairs: run.pairs.length,
    heldOutPairs: run.heldOutPairs.length,
    heldOutPrompts: heldOut.length,
    colourCeiling,
    columns,
    grids,
    gridCaption,
    ...(trust && { trust }),
    device: run.device.description,
  });
  writeFileSync(join(output, "report.html"), html);
  console.log(
    `\n${summary(columns, run.prefersColour)}\n${trust ? `\n${trustSummary(trust)}\n` : ""}\nreport: ${join(output, "report.html")}\npictures: ${join(output, "grid.png")}`,
  );
}

async function basePictures({ base, device, signal }: DemoRun, prompts: readonly string[], seed: number, inquiry: TrustInquiry | undefined): Promise<Image[]> {
  const model = await loadModel(base, device);
  try {
    const pictures = await samplePictures(model, { prompts, seed, signal });
    await inquiry?.look("base model", model, pictures);
    return pictures;
  } finally {
    await model.close();
  }
}

/** Diffusion-DPO at five times its learning rate, which wins nearly every comparison and ruins the pictures. */
async function lookAtOverOptimised(run: DemoRun, inquiry: TrustInquiry, prompts: readonly string[], sampleSeed: number): Promise<void> {
  const learningRate = 1e-4,
    name = "Diffusion-DPO, over-optimised";
  if (run.method === "dpo" && run.learningRate !== undefined && run.learningRate >= learningRate) return;
  console.log(`${name} (learning rate ${learningRate.toExponential(0)})`);
  const inspect = (model: EmojiModel, pictures: readonly Image[]) => inquiry.look(name, model, pictures);
  await alignModel({ ...run, method: "dpo", learningRate, prompts, sampleSeed, inspect });
}

/** A new metrics file: rows of an earlier run would be mixed with these. */
function freshLog(output: string): string {
  const path = join(output, "metrics.jsonl");
  writeFileSync(path, "");
  return path;
}

/** Indices of evenly spread held-out prompts, for each grid. */
function chosenRows(count: number): number[][] {
  const total = Math.min(gridRows * gridCount, count);
  const all = Array.from({ length: total }, (_, i) => Math.floor(((i + 0.5) * count) / total));
  return Array.from({ length: Math.ceil(total / gridRows) }, (_, g) => all.slice(g * gridRows, (g + 1) * gridRows));
}

function grid(rows: readonly number[], { drawings, heldOut }: DemoRun, models: readonly (readonly Image[])[], names: readonly string[]): Image {
  return imageGrid({
    rows: rows.map(r => [...[0, 1].map(style => drawings.drawings[2 * heldOut[r]! + style]!.image), ...models.map(pictures => pictures[r])]),
    rowCaptions: rows.map(r => drawings.concepts[heldOut[r]!]!),
    columnCaptions: ["colour", "line", ...names.map(name => name.replace("Diffusion-", ""))],
  });
}

function summary(columns: Parameters<typeof reportPage>[0]["columns"], prefersColour: boolean): string {
  const cell = ({ value, low, high }: Estimate) => `${(100 * value).toFixed(0)} % (${(100 * low).toFixed(0)}-${(100 * high).toFixed(0)})`;
  const rows: string[][] = [
    ["", ...columns.map(c => c.name)],
    ["coloured", ...columns.map(c => cell(c.column.coloured))],
    ["show their concept", ...columns.map(c => cell(c.column.faithful))],
    ...(prefersColour ? [["wins over base", ...columns.map(c => (c.column.wins ? cell(c.column.wins) : ""))]] : []),
    ["implicit accuracy", ...columns.map(c => percent(c.alignment?.validations.at(-1)?.implicitAccuracy))],
    ["largest winner error / base", ...columns.map(c => largest(c.alignment))],
  ];
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map(row => row[i]!.length)));
  return rows.map(row => row.map((text, i) => (i === 0 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!))).join("  ")).join("\n");
}

function trustSummary(trust: readonly TrustedModel[]): string {
  const line = ({ model, levels, test }: TrustedModel): string =>
    `${model}: ${levels.map(l => `${l.certified.toFixed(0)} of ${test} at ${l.alpha} (${percent(l.wrong)} of them wrong)`).join(", ")}`;
  return `pictures that can be certified to show their concept\n${trust.map(line).join("\n")}`;
}

function percent(value: number | undefined): string {
  return value === undefined ? "" : `${(100 * value).toFixed(0)} %`;
}

function largest(alignment: Alignment | undefined): string {
  const bands = alignment?.validations.at(-1)?.bands;
  return bands ? Math.max(...bands.map(b => b.winnerRatio)).toFixed(2) : "";
}
