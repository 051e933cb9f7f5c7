/** Matrix products. Accumulation is in at least f32. */

import { defineOp } from "../op.js";
import { type DType, numel, sameShape, type Tensor, typed } from "../tensor.js";
import { besideLastAxis, check, checkBesideVectors, checkFloats, checkShape, productType, rows, show, wide, width } from "./check.js";
import { add, cast } from "./elementwise.js";
import { sumRows } from "./reduce.js";
import { reshape } from "./shape.js";

/** `dtype` is that of the result: as the operands if not given, or f32 from bf16 operands, which spares the sum its last rounding. */
export type ProductOptions = { readonly dtype?: DType | undefined };
type MatmulAttrs = { transposeA: boolean; transposeB: boolean; dtype?: DType };

/** a [.., m, k] times b [.., k, n] -> [.., m, n], with the same leading axes on both; a transposed operand is stored [.., k, m] or [.., n, k]. */
export function matmul(
  a: Tensor,
  b: Tensor,
  { transposeA = false, transposeB = false, dtype }: { transposeA?: boolean; transposeB?: boolean } & ProductOptions = {},
): Tensor {
  return matmulOp({ transposeA, transposeB, ...otherType(a, dtype) }, a, b)[0];
}
const matmulOp = defineOp({
  name: "matmul",
  infer(attrs: MatmulAttrs, a: Tensor, b: Tensor) {
    checkFloats("matmul", { a, b });
    const { m, k, n, innerB } = matmulSizes(attrs, a, b);
    const batched = a.shape.length >= 2 && sameShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
    check("matmul", batched, `expected matrices with equal leading axes, received ${show(a)} and ${show(b)}`);
    check("matmul", k === innerB, `expected equal inner lengths, received ${k} of ${show(a)} and ${innerB} of ${show(b)}`);
    return [typed(productType("matmul", a, attrs.dtype), ...a.shape.slice(0, -2), m, n)];
  },
  batchwise: ({ transposeA }, a) => (a.shape.length > 2 ? [0, 1] : transposeA ? undefined : [0]),
  vjp({ attrs: { transposeA: ta, transposeB: tb }, inputs: [a, b], grads: [cotangent] }) {
    const dy = cast(cotangent, a.dtype);
    return [
      ta ? matmul(b, dy, { transposeA: tb, transposeB: true }) : matmul(dy, b, { transposeB: !tb }),
      tb ? matmul(dy, a, { transposeA: true, transposeB: ta }) : matmul(a, dy, { transposeA: !ta }),
    ];
  },
  flops(attrs, a, b) {
    const { m, k, n } = matmulSizes(attrs, a, b);
    return 2 * numel(a.shape.slice(0, -2)) * m * k * n;
  },
});

/** The attribute of a product whose dtype is not that of its operands. */
export function otherType(x: Tensor, dtype: DType | undefined): { dtype?: DType } {
  return dtype === undefined || dtype === x.dtype ? {} : { dtype };
}

function matmulSizes({ transposeA, transposeB }: MatmulAttrs, a: Tensor, b: Tensor): { m: number; k: number; n: number; innerB: number } {
  const [aRows = 0, aColumns = 0] = a.shape.slice(-2);
  const [bRows = 0, bColumns = 0] = b.shape.slice(-2);
  const [m, k] = transposeA ? [aColumns, aRows] : [aRows, aColumns];
  const [innerB, n] = transposeB ? [bColumns, bRows] : [bRows, bColumns];
  return { m, k, n, innerB };
}

/** x [.., K] times weight [N, K] transposed, plus bias [N] if given -> [.., N]. The bias may be f32 beside bf16. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor, { dtype }: ProductOptions = {}): Tensor {
  return linearOp(otherType(x, dtype), x, weight, bias)[0];
}
const linearOp = defineOp({
  name: "linear",
  infer({ dtype }: { dtype?: DType }, x: Tensor, weight: Tensor, bias?: Tensor) {
    checkFloats("linear", { x, weight });
    checkBesideVectors("linear", { x }, { bias });
    checkShape("linear", "weight", weight, [null, width(x)]);
    if (bias) checkShape("linear", "bias", bias, [weight.shape[0]!]);
    return [typed(productType("linear", x, dtype), ...x.shape.slice(0, -1), weight.shape[0]!)];
  },
  batchwise: (_, x) => besideLastAxis(x),
  vjp({ inputs: [x, weight, bias], grads: [cotangent] }) {
    const dy = cast(cotangent, x.dtype);
    return [linearDxOp({}, dy, weight)[0], linearDw(dy, x), bias ? sumRows(cotangent) : null];
  },
  decompose({ dtype }, x, weight, bias) {
    const y = matmul(reshape(x, [rows(x), width(x)]), weight, { transposeB: true, dtype: wide(x.dtype) });
    const biased = bias ? add(y, cast(bias, y.dtype)) : y;
    return [reshape(cast(biased, dtype ?? x.dtype), [...x.shape.slice(0, -1), weight.shape[0]!])];
  },
  flops: (_, x, weight) => 2 * rows(x) * numel(weight.shape),
});

/** dy [.., N] times weight [N, K] -> dx [.., K]. */
const linearDxOp = defineOp({
  name: "linear_dx",
  infer(_: Record<never, never>, dy: Tensor, weight: Tensor) {
    checkFloats("linear_dx", { dy, weight });
    checkShape("linear_dx", "weight", weight, [width(dy), null]);
    return [typed(dy.dtype, ...dy.shape.slice(0, -1), width(weight))];
  },
  flops: (_, dy, weight) => 2 * rows(dy) * numel(weight.shape),
});

/** dy [.., N] transposed times x [.., K], summed over rows -> dweight [N, K], in f32 from bf16. */
export function linearDw(dy: Tensor, x: Tensor): Tensor {
  return linearDwOp({}, dy, x)[0];
}
const linearDwOp = defineOp({
  name: "linear_dw",
  infer(_: Record<never, never>, dy: Tensor, x: Tensor) {
    checkFloats("linear_dw", { dy, x });
    check("linear_dw", rows(dy) === rows(x), `expected as many rows in both, received dy ${show(dy)} and x ${show(x)}`);
    return [typed(wide(dy.dtype), width(dy), width(x))];
  },
  flops: (_, dy, x) => 2 * rows(x) * width(dy) * width(x),
});
