/** Which parts of a model a backward pass builds again, so that only the tensors between them are kept. */

import { recomputed } from "../graph/tensor.js";

/** "blocks": every ResNet block, upsampler, attention of a map, layer of a transformer. */
export type Recompute = "none" | "blocks";

export interface RecomputeOptions {
  readonly recompute?: Recompute | undefined;
}

/** Runs a body as one such part, or as it is. */
export type Region = <T>(body: () => T) => T;

export function regionOf({ recompute = "none" }: RecomputeOptions): Region {
  return recompute === "blocks" ? recomputed : body => body();
}
