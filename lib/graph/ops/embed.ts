/** From indices to vectors: tables of tokens, sinusoids of timesteps. */

import { defineOp } from "../op.js";
import { type Tensor, typed } from "../tensor.js";
import { check, checkCount, checkFloats, checkShape, isFloat, show } from "./check.js";

/** Rows of table [V, ..] named by ids (i32, any shape, in [0, V)) -> [ids.., ..]. A run with an id outside throws ERR_DATA. */
export function embedding(table: Tensor, ids: Tensor): Tensor {
  return embeddingOp({}, table, ids)[0];
}
const embeddingOp = defineOp({
  name: "embedding",
  infer(_: Record<never, never>, table: Tensor, ids: Tensor) {
    checkFloats("embedding", { table });
    check("embedding", ids.dtype === "i32", `expected ids in i32, received ${show(ids)}`);
    return [typed(table.dtype, ...ids.shape, ...table.shape.slice(1))];
  },
  batchwise: () => [1],
  vjp: ({ inputs: [table, ids], grads: [dy] }) => [embeddingVjpOp({ rows: table.shape[0]! }, dy, ids)[0], null],
});

/** dy [ids.., ..] added up by id -> [rows, ..]. */
const embeddingVjpOp = defineOp({
  name: "embedding_vjp",
  infer: ({ rows }: { rows: number }, dy: Tensor, ids: Tensor) => [typed(dy.dtype, rows, ...dy.shape.slice(ids.shape.length))],
});

type TimestepOptions = { dim: number; flipSinToCos: boolean; shift: number; maxPeriod?: number; dtype?: "f32" | "f64" };

/** Sinusoidal embedding of t [B] (float or i32) -> [B, dim]: sin and cos of t * maxPeriod^(-i / (dim / 2 - shift)), i = 0 .. dim / 2 - 1; cosines
 *  first if flipSinToCos, a zero at the end if dim is odd. Frequency and angle are formed in f32 whatever the dtype, as diffusers does: an angle near 1000
 *  carries a rounding of 3e-5, and with another one the embedding would be another. No gradient flows to t. Ho et al. 2020, arXiv:2006.11239, as `get_timestep_embedding` of diffusers. */
export function timestepEmbedding(t: Tensor, { dim, flipSinToCos, shift, maxPeriod = 10000, dtype }: TimestepOptions): Tensor {
  return timestepEmbeddingOp({ dim, flipSinToCos, shift, maxPeriod, dtype: dtype ?? (t.dtype === "f64" ? "f64" : "f32") }, t)[0];
}
const timestepEmbeddingOp = defineOp({
  name: "timestep_embedding",
  infer({ dim, shift, maxPeriod, dtype }: Required<TimestepOptions>, t: Tensor) {
    checkShape("timestep_embedding", "t", t, [null]);
    check("timestep_embedding", t.dtype === "i32" || isFloat(t.dtype), `expected t in floating point or i32, received ${show(t)}`);
    checkCount("timestep_embedding", "dim", dim);
    check("timestep_embedding", dim >= 2, `expected dim >= 2, received ${dim}`);
    check("timestep_embedding", Math.floor(dim / 2) !== shift, `shift ${shift} leaves no frequency of dim ${dim}`);
    check("timestep_embedding", maxPeriod > 0 && Number.isFinite(maxPeriod), `expected maxPeriod > 0, received ${maxPeriod}`);
    return [typed(dtype, t.shape[0]!, dim)];
  },
  batchwise: () => [0],
  vjp: () => [null],
});
