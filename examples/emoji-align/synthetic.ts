/** The demo's default labels: made by the synthetic annotator, written as files that anyone can look at, and read back like anybody's. */

import { join } from "node:path";
import { annotate, splitConcepts } from "./annotator.js";
import { type Drawings, side } from "./drawings.js";
import { type PreferencePair, readPairs, writePairs } from "./preference-files.js";

export interface Labels {
  readonly annotator: string;
  readonly prefersColour: boolean;
  readonly pairs: readonly PreferencePair[];
  readonly heldOutPairs: readonly PreferencePair[];
  readonly heldOut: readonly number[];
}

/** Held-out pairs that are measured on: enough for two digits, few enough to evaluate often. */
const heldOutPairCount = 64;

export function syntheticLabels({ drawings: { concepts, drawings }, seed, output }: { drawings: Drawings; seed: number; output: string }): Labels {
  const { training, heldOut } = splitConcepts({ concepts: concepts.length, seed });
  const labels = annotate({ concepts: training, seed });
  const pair = (concept: number, chosen: "colour" | "line"): PreferencePair => {
    const [colour, line] = [drawings[2 * concept]!.image, drawings[2 * concept + 1]!.image];
    return { prompt: concepts[concept]!, chosen: chosen === "colour" ? colour : line, rejected: chosen === "colour" ? line : colour };
  };
  const file = writePairs({ folder: join(output, "pairs"), pairs: labels.map(label => pair(label.concept, label.chosen)) });
  const flipped = labels.filter(label => label.flipped).length;
  return {
    annotator: `The annotator of this demo is synthetic: it prefers the colour drawing of a concept to its line drawing, and ${flipped} of its ${labels.length} labels are wrong on purpose.`,
    prefersColour: true,
    pairs: readPairs({ file, side }),
    heldOutPairs: heldOut.slice(0, heldOutPairCount).map(concept => pair(concept, "colour")),
    heldOut,
  };
}
