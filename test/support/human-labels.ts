/** Two public sets of human judgement on generated images, as features and labels: TIA2 (Kim et al. 2024, 27,500 images, three labels each) and AGIQA-3K (Li et al.
 *  2023, 2,982 images with opinion scores). Read from ATTUNE_TEST_DATA, never committed; the columns are those of the stored reference results. */

import fs from "node:fs";
import path from "node:path";
import { parseCsv } from "../../lib/conformal/table-csv.js";

/** One row of features and a 0/1 label per image. */
export interface HumanLabels {
  readonly x: readonly Float64Array[];
  readonly y: readonly number[];
  /** Prompt of each image. */
  readonly prompt: readonly string[];
}

const root = process.env.ATTUNE_TEST_DATA;
const folder = (name: string): string => path.join(root ?? "", "data", name);

/** The title of the skipped test where the data are not there. */
export const whyNoHumanLabels = !root
  ? "TIA2 and AGIQA-3K: ATTUNE_TEST_DATA is not set"
  : ["tia2", "agiqa3k"].every(name => fs.existsSync(folder(name)))
    ? undefined
    : `TIA2 and AGIQA-3K: not under ${path.join(root, "data")}`;

/** Rows of a comma-separated file as objects. */
function csv(file: string): Record<string, string>[] {
  const { columns, rows } = parseCsv(fs.readFileSync(file, "utf8"), file);
  return rows.map(row => Object.fromEntries(row.map((value, c) => [columns[c]!, String(value)])));
}

const words = (prompt: string): number => prompt.trim().split(/\s+/).length;

export function tia2(): HumanLabels {
  const rows = csv(path.join(folder("tia2"), "tia2_labels.csv"));
  const prompts = JSON.parse(fs.readFileSync(path.join(folder("tia2"), "tia2_prompts.json"), "utf8")) as {
    id: number;
    prompt: string;
    contrastive: string[];
  }[];
  const byId = new Map(prompts.map(p => [String(p.id), p]));
  const votes = new Map(prompts.map(p => [String(p.id), { images: 0, first: 0 }]));
  for (const row of rows) {
    const count = votes.get(row.prompt_id!)!;
    count.images++;
    count.first += Number(row.h1 === "1");
  }
  const x = rows.map(row => {
    const { prompt, contrastive } = byId.get(row.prompt_id!)!,
      { images, first } = votes.get(row.prompt_id!)!,
      own = Number(row.h1 === "1");
    const others = (first - own) / (images - 1);
    return Float64Array.of(
      own,
      others,
      Number(row.set === "counting"),
      Number(row.set === "composition"),
      Math.log(1 + contrastive.length),
      words(prompt) / 10,
    );
  });
  return { x, y: rows.map(row => Number(row.h2 === "1" && row.h3 === "1")), prompt: rows.map(row => row.prompt_id!) };
}

export function agiqa3k(): HumanLabels {
  const rows = csv(path.join(folder("agiqa3k"), "agiqa3k.csv"));
  const x = rows.map(row => {
    const generator = row.name!.split("_")[0]!;
    const is = (value: string, names: readonly string[]): number[] => names.map(name => Number(value === name));
    return Float64Array.from([
      ...is(generator, ["DALLE2", "glide", "midjourney", "sd1.5", "xl2.2"]),
      ...[row.adj1, row.adj2].map(adjective => Number(adjective !== "")),
      ...is(row.style!, ["abstract style", "anime style", "baroque style", "realistic style", "sci-fi style"]),
      words(row.prompt!) / 10,
      Number(row.mos_quality),
    ]);
  });
  return { x, y: rows.map(row => Number(Number(row.mos_align) > 3)), prompt: rows.map(row => row.prompt!) };
}
