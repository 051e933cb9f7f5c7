/** Tensors that come from outside or from nowhere: inputs, parameters, constants. */

import { defineOp } from "../op.js";
import { currentGraph, type DType, type Layout, numel, type Tensor, type TensorType } from "../tensor.js";
import { check, isFloat } from "./check.js";

/** A tensor handed in with every run. `type.shape` is the inside shape: [B,H,W,C] for a map that comes as "bchw". */
export function input(name: string, type: TensorType, layout: Layout = "plain"): Tensor {
  const graph = currentGraph();
  check("input", !graph.inputs.some(i => i.name === name), `the name "${name}" is taken`);
  const tensor = inputOp({ name, layout, dtype: type.dtype, shape: type.shape })[0];
  graph.inputs.push({ name, tensor, layout });
  return tensor;
}
const inputOp = defineOp({
  name: "input",
  leaf: true,
  infer: ({ dtype, shape }: { name: string; layout: Layout; dtype: DType; shape: readonly number[] }) => [{ dtype, shape }],
  vjp: () => [],
});

/** A tensor of a persistent arena, `offset` bytes into it. `shape` is the inside shape: [O,kh,kw,I] for a conv weight. */
export function parameter({ arena, name, dtype, shape, offset }: ParameterAttrs): Tensor {
  return parameterOp({ arena, name, dtype, shape, offset })[0];
}
type ParameterAttrs = { arena: string; name: string; dtype: DType; shape: readonly number[]; offset: number };
const parameterOp = defineOp({
  name: "parameter",
  leaf: true,
  infer({ name, dtype, shape, offset }: ParameterAttrs) {
    check("parameter", Number.isSafeInteger(offset) && offset >= 0, `expected the offset of "${name}" to be a count of bytes, received ${offset}`);
    return [{ dtype, shape }];
  },
  vjp: () => [],
});

/** Numbers inlined in the program, row-major; floating point or i32. */
export function constant(values: readonly number[], shape: readonly number[], dtype: DType = "f32"): Tensor {
  return constantOp({ values, shape, dtype })[0];
}
const constantOp = defineOp({
  name: "constant",
  infer({ values, shape, dtype }: { values: readonly number[]; shape: readonly number[]; dtype: DType }) {
    check("constant", values.length === numel(shape), `expected ${numel(shape)} values for [${shape}], received ${values.length}`);
    for (const value of values) checkNumber("constant", value, dtype);
    return [{ dtype, shape }];
  },
  vjp: () => [],
});

/** One number everywhere; floating point or i32. */
export function full(value: number, shape: readonly number[], dtype: DType = "f32"): Tensor {
  return fullOp({ value, shape, dtype })[0];
}
const fullOp = defineOp({
  name: "full",
  infer({ value, shape, dtype }: { value: number; shape: readonly number[]; dtype: DType }) {
    checkNumber("full", value, dtype);
    return [{ dtype, shape }];
  },
  vjp: () => [],
});

// A program is JSON, which has no NaN and no infinity.
function checkNumber(op: string, value: number, dtype: DType): void {
  check(op, isFloat(dtype) || dtype === "i32", `expected a floating-point dtype or i32, received ${dtype}`);
  const fits = dtype === "i32" ? Number.isInteger(value) && Math.abs(value) < 2 ** 31 : Number.isFinite(value);
  check(op, fits, `expected a ${dtype === "i32" ? "32-bit integer" : "finite number"}, received ${value}`);
}
