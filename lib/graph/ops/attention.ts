/** Scaled dot-product attention of token matrices: heads lie side by side in the last axis, so no transpose is needed around it. */

import { defineOp } from "../op.js";
import { type Tensor, typed } from "../tensor.js";
import { check, checkCount, checkFloats, checkShape, wide, width } from "./check.js";
import { add, cast, div, exp, greater, log, scale as scaled, select, sub } from "./elementwise.js";
import { constant } from "./leaf.js";
import { matmul } from "./matmul.js";
import { max, sum } from "./reduce.js";
import { reshape, stopGradient, transpose } from "./shape.js";

type AttentionAttrs = { heads: number; causal: boolean; scale: number };

/** q [B,N,heads*d], k and v [B,M,heads*d] -> [B,N,heads*d]: softmax(scale * q k^T + mask) v in each head. `scale` defaults to d^(-1/2).
 *  `mask` [B,1,1,M] or [1,1,1,M] is added to the logits (large and negative: ignore this token; no gradient flows to it); causal: token i sees
 *  tokens up to i. Saves the log-sum-exp of the logits [B,heads,N], from which the gradient recomputes the probabilities: Dao et al. 2022,
 *  arXiv:2205.14135, section 3.1. */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { heads, causal = false, scale = (width(q) / heads) ** -0.5 }: { heads: number; causal?: boolean; scale?: number },
  mask?: Tensor,
): Tensor {
  return attentionOp({ heads, causal, scale }, q, k, v, mask)[0];
}
const attentionOp = defineOp({
  name: "attention",
  infer({ heads, scale }: AttentionAttrs, q: Tensor, k: Tensor, v: Tensor, mask?: Tensor) {
    checkFloats("attention", { q, k, v, mask });
    checkShape("attention", "q", q, [null, null, null]);
    const [batch = 0, queries = 0, channels = 0] = q.shape;
    checkShape("attention", "k", k, [batch, null, channels]);
    checkShape("attention", "v", v, [batch, k.shape[1]!, channels]);
    checkCount("attention", "heads", heads);
    check("attention", channels % heads === 0, `${channels} channels do not split into ${heads} heads`);
    check("attention", Number.isFinite(scale), `expected a finite scale, received ${scale}`);
    if (mask) checkShape("attention", "mask", mask, [mask.shape[0] === 1 ? 1 : batch, 1, 1, k.shape[1]!]);
    return [q, typed(wide(q.dtype), batch, heads, queries)]; // y, lse
  },
  batchwise: () => [0, 1, 2, 3],
  vjp({ attrs, inputs: [q, k, v, mask], outputs: [y, lse], grads: [dy] }) {
    const [dq, dk, dv] = attentionVjpOp(attrs, dy, q, k, v, y, lse, mask);
    return [dq, dk, dv, null];
  },
  decompose: (attrs, q, k, v, mask) => composed(attrs, q, k, v, mask),
  flops: (attrs, q, k) => 4 * visiblePairs(attrs, q, k) * width(q), // q k^T and p v
});

const attentionVjpOp = defineOp({
  name: "attention_vjp",
  infer: (_: AttentionAttrs, _dy: Tensor, q: Tensor, k: Tensor, v: Tensor, _y: Tensor, _lse: Tensor, _mask?: Tensor) => [q, k, v], // dq, dk, dv
  flops: (attrs, _dy, q, k) => 10 * visiblePairs(attrs, q, k) * width(q), // q k^T again, then dv, dp, dq, dk
});

function composed({ heads, causal, scale }: AttentionAttrs, q: Tensor, k: Tensor, v: Tensor, mask?: Tensor): readonly [Tensor, Tensor] {
  const [batch = 0, queries = 0, channels = 0] = q.shape;
  const type = wide(q.dtype);
  const byHead = (x: Tensor): Tensor => transpose(reshape(cast(x, type), [batch, -1, heads, channels / heads]), [0, 2, 1, 3]); // [B, heads, N, d]
  let logits = scaled(matmul(byHead(q), byHead(k), { transposeB: true }), scale); //                              [B, heads, N, M]
  if (mask) logits = add(logits, cast(mask, type));
  if (causal) logits = select(futureMask(logits), -1e30, logits);
  const largest = stopGradient(max(logits, [-1]));
  const powers = exp(sub(logits, largest));
  const total = sum(powers, [-1]); //                                                                             [B, heads, N, 1]
  const y = transpose(matmul(div(powers, total), byHead(v)), [0, 2, 1, 3]); //                                    [B, N, heads, d]
  return [cast(reshape(y, q.shape), q.dtype), reshape(add(log(total), largest), [batch, heads, queries])];
}

/** 1 where the key comes after the query: [1, 1, N, M]. */
function futureMask(logits: Tensor): Tensor {
  const [queries = 0, keys = 0] = logits.shape.slice(2);
  const count = (n: number, shape: readonly number[]): Tensor => constant([...Array(n).keys()], shape, logits.dtype);
  return greater(count(keys, [1, 1, 1, keys]), count(queries, [1, 1, queries, 1]));
}

/** Query-key pairs of one head, over the batch. */
function visiblePairs({ causal }: AttentionAttrs, q: Tensor, k: Tensor): number {
  const [batch = 0, queries = 0] = q.shape;
  const keys = k.shape[1]!;
  const square = Math.min(queries, keys);
  return batch * (causal ? (square * (square + 1)) / 2 + (queries - square) * keys : queries * keys);
}
