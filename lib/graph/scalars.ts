/** Numbers that change from step to step. A program holds slots, never values: a replayed program would otherwise repeat stale numbers. */

import { defineOp } from "./op.js";
import { currentGraph, type Tensor, typed } from "./tensor.js";

const scalarOp = defineOp({
  name: "scalar",
  infer: ({ dtype }: { slot: number; dtype: "f32" | "f64" }) => [typed(dtype, 1)],
  vjp: () => [],
});

/** The per-step number `name` as a [1] tensor. */
export function scalar(name: string, dtype: "f32" | "f64" = "f64"): Tensor {
  return scalarOp({ slot: currentGraph().scalarSlot(name), dtype })[0];
}

/** The number of a slot that is known by its index: for ops that name slots among their attributes. */
export function slotValue(slot: number, dtype: "f32" | "f64"): Tensor {
  return scalarOp({ slot, dtype })[0];
}

/** Slots that random ops read: a draw is a function of (seed, step, stream, element). `sampleOffset` is the index of the first sample of this
 *  micro-batch within the step, so that n micro-batches of one draw the noise of one batch of n. */
export const randomSlots = { seed: "seed", step: "step", offset: "sampleOffset" } as const;
