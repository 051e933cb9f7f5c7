/** Not a tensor op: measures what the backend can do at most, for benchmarks to divide by. */

import { defineOp } from "../op.js";
import { type Tensor, typed } from "../tensor.js";

const fmaCeilingOp = defineOp({
  name: "fma_ceiling",
  infer: ({ dtype }: { tasks: number; iterations: number; dtype: "f32" | "f64" }) => [typed(dtype, 1)],
});

/** Runs tasks * iterations rounds of register-resident fused multiply-adds over all threads -> [1]: floating-point operations of one round. */
export function fmaCeiling(attrs: { tasks: number; iterations: number; dtype: "f32" | "f64" }): Tensor {
  return fmaCeilingOp(attrs)[0];
}
