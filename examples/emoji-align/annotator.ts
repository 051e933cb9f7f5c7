/** A synthetic annotator: of the two drawings of a concept it prefers the coloured one, and errs at a known rate. Everything is a function of the seed. */

import { Random } from "../../lib/util/random.js";

/** Share of concepts that never occur in a pair: all measuring happens on them. */
export const heldOutShare = 0.3;
/** Share of labels that the annotator gets wrong. */
export const flipShare = 0.1;

export interface Split {
  /** Concept indices, ascending. */
  readonly training: readonly number[];
  readonly heldOut: readonly number[];
}

/** Splits by concept, so no drawing, prompt or pair of a held-out concept is ever trained on in alignment. */
export function splitConcepts({ concepts, seed }: { concepts: number; seed: number }): Split {
  const order = new Random(seed, "split").shuffle(Array.from({ length: concepts }, (_, i) => i));
  const ascending = (a: number, b: number) => a - b;
  const cut = Math.round(concepts * heldOutShare);
  return { training: order.slice(cut).sort(ascending), heldOut: order.slice(0, cut).sort(ascending) };
}

export interface Label {
  readonly concept: number;
  readonly chosen: "colour" | "line";
  /** The annotator erred: `chosen` is not what it prefers. */
  readonly flipped: boolean;
}

/** One label per concept; exactly the rounded share `flip` of them is wrong. */
export function annotate({ concepts, seed, flip = flipShare }: { concepts: readonly number[]; seed: number; flip?: number }): Label[] {
  const wrong = new Set(new Random(seed, "flips").shuffle(concepts).slice(0, Math.round(concepts.length * flip)));
  return concepts.map(concept => ({ concept, chosen: wrong.has(concept) ? "line" : "colour", flipped: wrong.has(concept) }));
}
