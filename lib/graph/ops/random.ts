/** Random tensors. There is no hidden state: element i is a function of the seed, the step, the stream and i (Philox4x32-10, Salmon et al. 2011),
 *  with i counted from sample `sampleOffset`, so that n micro-batches draw what one batch of n would. Draws of different meaning take different streams. */

import { defineOp } from "../op.js";
import { randomSlots } from "../scalars.js";
import { currentGraph, type Tensor, type TensorType, typed } from "../tensor.js";
import { check } from "./check.js";

/** Attributes by which an op draws: the slots of seed, step and sample offset, and the stream. */
export type DrawSlots = { seed: number; step: number; offset: number; stream: number };
type Draw = DrawSlots & { shape: readonly number[] };
type FloatDraw = Draw & { dtype: "f32" | "f64" };
type FloatOptions = { stream: number; dtype?: "f32" | "f64" };

/** Standard normals. Axis 0 counts samples; stream in [0, 2^32). */
export function randomNormal(shape: readonly number[], { stream, dtype = "f32" }: FloatOptions): Tensor {
  return randomNormalOp({ ...draw(shape, stream), dtype })[0];
}
const randomNormalOp = defineOp({
  name: "random_normal",
  infer: ({ dtype, shape, stream }: FloatDraw) => [drawn("random_normal", typed(dtype, ...shape), stream)],
  vjp: () => [],
});

/** What an op that draws `slots` for itself means by its noise. */
export function drawnNormal(slots: DrawSlots, shape: readonly number[], dtype: "f32" | "f64"): Tensor {
  const { seed, step, offset, stream } = slots;
  return randomNormalOp({ seed, step, offset, stream, shape, dtype })[0];
}

/** Uniform in [0, 1), multiples of 2^-24. Axis 0 counts samples; stream in [0, 2^32). */
export function randomUniform(shape: readonly number[], { stream, dtype = "f32" }: FloatOptions): Tensor {
  return randomUniformOp({ ...draw(shape, stream), dtype })[0];
}
const randomUniformOp = defineOp({
  name: "random_uniform",
  infer: ({ dtype, shape, stream }: FloatDraw) => [drawn("random_uniform", typed(dtype, ...shape), stream)],
  vjp: () => [],
});

/** Integers (i32) uniform in [low, high). Axis 0 counts samples; stream in [0, 2^32). */
export function randomInt(shape: readonly number[], { low, high, stream }: { low: number; high: number; stream: number }): Tensor {
  return randomIntOp({ ...draw(shape, stream), low, high })[0];
}
const randomIntOp = defineOp({
  name: "random_int",
  infer({ shape, stream, low, high }: Draw & { low: number; high: number }) {
    const fits = Number.isInteger(low) && Number.isInteger(high) && low < high && low >= -(2 ** 31) && high <= 2 ** 31;
    check("random_int", fits, `expected 32-bit integers low < high, received ${low} and ${high}`);
    return [drawn("random_int", typed("i32", ...shape), stream)];
  },
  vjp: () => [],
});

function draw(shape: readonly number[], stream: number): Draw {
  return { ...drawSlots(stream), shape };
}

/** The slots that every draw of this graph reads. */
export function drawSlots(stream: number): DrawSlots {
  const graph = currentGraph();
  const { seed, step, offset } = randomSlots;
  return { seed: graph.scalarSlot(seed), step: graph.scalarSlot(step), offset: graph.scalarSlot(offset), stream };
}

function drawn(op: string, type: TensorType, stream: number): TensorType {
  check(op, Number.isInteger(stream) && stream >= 0 && stream < 2 ** 32, `expected stream in [0, 2^32), received ${stream}`);
  check(op, type.shape.length >= 1, "expected a shape with at least one axis, received []");
  return type;
}
