/** The report of a demo run: one page that says in plain words what was done, shows it, and shows what it cost. */

import type { Image } from "../../lib/data/image.js";
import { type Content, figure, type Html, markup, notice, page, paragraph, section, columns as sideBySide, table } from "../../lib/report/html.js";
import type { Estimate } from "../../lib/report/metrics.js";
import { barChart, type ChartPoint, lineChart } from "../../lib/report/svg.js";
import { type Alignment, methodSettings, training } from "./align.js";
import type { Column } from "./evaluation.js";
import { colourThreshold, fidelityRank } from "./measures.js";
import type { TrustedModel } from "./trust-run.js";
import { trustSection } from "./trust-section.js";

export interface ReportContent {
  /** Where the labels come from, as the first sentence says it. */
  readonly annotator: string;
  /** Whether the annotator prefers colour by construction, so that a win rate can be computed without a person. */
  readonly prefersColour: boolean;
  readonly pairs: number;
  readonly heldOutPairs: number;
  readonly heldOutPrompts: number;
  /** Share of the held-out concepts' own colour drawings that count as coloured: what a perfect model would reach. */
  readonly colourCeiling: number;
  /** Base model first, then one per alignment. */
  readonly columns: readonly { readonly name: string; readonly column: Column; readonly alignment?: Alignment }[];
  /** The same prompts and seeds for every model. */
  readonly grids: readonly Image[];
  readonly gridCaption: string;
  readonly trust?: readonly TrustedModel[];
  readonly seed: number;
  readonly device: string;
}

/** The base model's place in the palette: grey. */
const baseColour = 5;

export function reportPage(content: ReportContent): string {
  const { annotator, columns, grids, gridCaption } = content;
  const warnings = columns.flatMap(({ name, alignment }) =>
    (alignment?.warnings ?? []).slice(-1).map(w => notice("warning", markup`<strong>${w.code}</strong> in ${name}, step ${w.step}: ${w.message}.`)),
  );
  return page({
    title: "Teaching an emoji model a preference",
    lead: annotator,
    body: [
      ...warnings,
      paragraph(story(content)),
      section(
        "Same prompt, same noise, before and after",
        sideBySide(...grids.map(grid => figure({ content: grid, description: gridCaption }))),
        paragraph(gridCaption),
      ),
      section("What it gained and what it cost", results(content), tradeOff(content), paragraph(reading(content))),
      ...(content.trust ? [trustSection(content.trust)] : []),
      section("Denoising error against the base model", ...bandSection(content)),
      section("While it trained", ...curves(content)),
      section("How it was made", ...method(content)),
    ],
  });
}

function story({ columns, heldOutPrompts }: ReportContent): Content {
  const base = columns[0]!;
  const last = columns.at(-1)!;
  const seconds = last.alignment?.seconds ?? 0;
  const steps = last.alignment?.steps.length ?? 0;
  return markup`A small diffusion model draws each concept in one of two styles, flat colour or black lines. After ${steps} steps of ${last.name} (${Math.round(seconds)} seconds on this machine),
    coloured pictures went from <strong>${percent(base.column.coloured.value)}</strong> to <strong>${percent(last.column.coloured.value)}</strong> on ${heldOutPrompts} prompts that never had a
    preference label, and pictures that still show what was asked for from <strong>${percent(base.column.faithful.value)}</strong> to <strong>${percent(last.column.faithful.value)}</strong>.`;
}

function results({ columns, prefersColour }: ReportContent): Html {
  const row = (name: Content, cell: (c: ReportContent["columns"][number]) => Content | undefined) => ({ cells: [name, ...columns.map(c => cell(c) ?? "")] });
  const rows = [
    row("coloured pictures", c => interval(c.column.coloured)),
    row("show their concept", c => interval(c.column.faithful)),
    row("change of that", c => c.column.fidelityChange && interval(c.column.fidelityChange, signed)),
    ...(prefersColour ? [row("more colourful than base", c => c.column.wins && interval(c.column.wins))] : []),
    row("held-out implicit accuracy", c => c.alignment && percent(c.alignment.validations.at(-1)?.implicitAccuracy ?? Number.NaN)),
    row("seconds of training", c => c.alignment && Math.round(c.alignment.seconds)),
  ];
  return table({ columns: ["", ...columns.map(c => c.name)], rows, caption: "With 95 % intervals; same prompts and same noise in every column." });
}

/** Both shares as bars: a method is good when the first rises and the second stays. */
function tradeOff({ columns }: ReportContent): Html {
  const chart = barChart({
    title: "shares of coloured pictures and of pictures that show their concept, per model",
    groups: [
      { label: "coloured", bars: columns.map(c => c.column.coloured) },
      { label: "show their concept", bars: columns.map(c => c.column.faithful) },
    ],
    series: columns.map(({ name }, i) => ({ name, colour: i === 0 ? baseColour : i - 1 })),
    y: { label: "share of held-out prompts", min: 0, max: 1, format: percent },
  });
  return figure({ content: chart, caption: "Gain on the left, cost on the right." });
}

function reading({ colourCeiling, heldOutPrompts, prefersColour }: ReportContent): Content {
  return markup`A picture counts as coloured when its channels differ by more than ${colourThreshold} on average, values in [-1, 1]; ${percent(colourCeiling)} of the ${heldOutPrompts} concepts' own
    colour drawings do. It shows its concept when one of the concept's two drawings is among the ${fidelityRank} nearest of all drawings, both at half size. ${
      prefersColour
        ? "Win rate asks for the preferred style alone, so it must be read together with the second row: a model that smears colour over everything wins every comparison."
        : ""
    } SFT, plain training on the preferred pictures, is the baseline that a preference method has to beat.`;
}

function bandSection({ columns, heldOutPairs }: ReportContent): Content[] {
  const aligned = columns.flatMap(({ name, alignment }) => (alignment?.validations.at(-1) ? [{ name, bands: alignment.validations.at(-1)!.bands }] : []));
  const series = aligned.flatMap(({ name, bands }, i) => [
    { name: `${name} preferred`, colour: i, points: bands.map(b => ({ x: b.timestep, y: b.winnerRatio })) },
    { name: "other", colour: i, dashed: true, points: bands.map(b => ({ x: b.timestep, y: b.loserRatio })) },
  ]);
  const chart = lineChart({
    title: "denoising error of the aligned model divided by the base model's, per timestep",
    series,
    x: { label: "timestep" },
    y: { label: "error / base" },
    marks: [{ y: 1, label: "base" }],
  });
  const rows = aligned.flatMap(({ name, bands }) => [
    { cells: [`${name}, preferred pictures`, ...bands.map(b => b.winnerRatio.toFixed(2))] },
    { cells: [`${name}, other pictures`, ...bands.map(b => b.loserRatio.toFixed(2))] },
  ]);
  return [
    paragraph(
      `How well noise is removed from the ${heldOutPairs} held-out pairs, divided by what the base model manages, with fixed noise. Healthy: the preferred pictures stay near or below 1 while the others rise. `,
      "When both rise together, the model has found a way to prefer without drawing: that is reward hacking, and implicit accuracy does not show it.",
    ),
    sideBySide(
      figure({ content: chart, caption: "Solid: preferred pictures. Dashed: the others." }),
      table({ columns: ["t", ...(aligned[0]?.bands ?? []).map(b => b.timestep)], rows }),
    ),
  ];
}

function curves({ columns }: ReportContent): Content[] {
  const runs = columns.flatMap(({ name, alignment }) => (alignment ? [{ name, alignment }] : []));
  const accuracy = lineChart({
    title: "held-out implicit accuracy over the steps",
    series: runs.map(({ name, alignment }) => ({
      name,
      points: [{ x: 0, y: 0.5 }, ...alignment.validations.map(v => ({ x: v.step, y: v.implicitAccuracy }))],
    })),
    x: { label: "step" },
    y: { label: "implicit accuracy", max: 1, format: percent },
    marks: [{ y: 0.5, label: "chance" }],
  });
  const loss = lineChart({
    title: "training loss over the steps, running mean",
    series: runs.map(({ name, alignment }) => ({ name, points: smoothed(alignment.steps.map(s => ({ x: s.step, y: s.loss }))) })),
    x: { label: "step" },
    y: { label: "training loss" },
  });
  return [
    sideBySide(
      figure({
        content: accuracy,
        caption: "Share of held-out pairs and timesteps where the model improved more on the preferred picture than on the other one.",
      }),
      figure({
        content: loss,
        caption: "Training loss, mean of 20 steps. It depends on the timesteps drawn and says little: do not judge a preference run by it.",
      }),
    ),
  ];
}

function method({ columns, pairs, seed, device }: ReportContent): Content[] {
  const runs = columns.flatMap(({ alignment }) => (alignment ? [alignment] : []));
  const rows = runs.map(({ method: name, learningRate, steps }) => ({
    cells: [methodSettings[name].label, methodSettings[name].setting, learningRate.toExponential(0), steps.length],
  }));
  return [
    paragraph(
      `${pairs} preference pairs, ${training.batchSize} a step, AdamW, warm-up of ${training.warmup} steps, ${percent(training.conditionDropout)} of prompts dropped; every weight of the UNet is trained, the word vectors are not. `,
      `Pictures: DDIM, 20 steps, guidance 2. Seed ${seed}. ${device}.`,
    ),
    table({ columns: ["method", "setting", "learning rate", "steps"], rows }),
    notice(
      "note",
      "A toy: 16 x 16 pixels, two drawing styles, a preference that one sentence describes. It shows that the machinery works and what to watch, not how a method will do on a large model.",
    ),
    paragraph("Drawings: Fluent Emoji by Microsoft, MIT licence."),
  ];
}

/** Mean of the last 20 points. */
function smoothed(points: readonly ChartPoint[]): ChartPoint[] {
  return points.map(({ x }, i) => {
    const window = points.slice(Math.max(0, i - 19), i + 1);
    return { x, y: window.reduce((sum, p) => sum + p.y, 0) / window.length };
  });
}

/** "58 % 50 to 66". */
function interval({ value, low, high }: Estimate, format: (value: number) => string = percent): Html {
  return markup`${format(value)} <small>${format(low).replace(" %", "")} to ${format(high).replace(" %", "")}</small>`;
}

function percent(value: number): string {
  return `${(100 * value).toFixed(0)} %`;
}

function signed(value: number): string {
  return `${value > 0 ? "+" : ""}${(100 * value).toFixed(0)}`;
}
