/** The numbers of one column of the report: what a model draws for held-out prompts, compared with the base model picture by picture. */

import type { Image } from "../../lib/data/image.js";
import { type Estimate, pairedBootstrap, wilsonInterval, winRate } from "../../lib/report/metrics.js";
import { type ConceptFidelity, colourfulness, isColoured, winMargin } from "./measures.js";

export interface PictureScores {
  readonly colourfulness: readonly number[];
  readonly coloured: readonly boolean[];
  /** Whether each picture shows what its prompt asked for. */
  readonly faithful: readonly boolean[];
}

/** Scores pictures of these concepts, one each. */
export function scorePictures({
  pictures,
  concepts,
  fidelity,
}: {
  pictures: readonly Image[];
  concepts: readonly number[];
  fidelity: ConceptFidelity;
}): PictureScores {
  return {
    colourfulness: pictures.map(colourfulness),
    coloured: pictures.map(isColoured),
    faithful: pictures.map((picture, i) => fidelity.shows(picture, concepts[i]!)),
  };
}

export interface Column {
  readonly coloured: Estimate;
  readonly faithful: Estimate;
  /** Against the base model: share of prompts whose picture is more colourful, and the change of fidelity. Absent for the base model itself. */
  readonly wins?: Estimate;
  readonly fidelityChange?: Estimate;
}

/** A column of the table; intervals are at 95 %. `seed` is that of the bootstrap. */
export function columnOf(scores: PictureScores, { base, seed }: { base?: PictureScores; seed: number }): Column {
  const own = { coloured: share(scores.coloured), faithful: share(scores.faithful) };
  if (!base) return own;
  return {
    ...own,
    wins: winRate({ a: scores.colourfulness, b: base.colourfulness, margin: winMargin }),
    fidelityChange: pairedBootstrap({ a: scores.faithful.map(Number), b: base.faithful.map(Number), seed }),
  };
}

function share(flags: readonly boolean[]): Estimate {
  return wilsonInterval({ successes: flags.filter(Boolean).length, trials: flags.length });
}
