/** What a trainer asks of its data: so many pairs, and any of them by index. Decoding, tokenizing and encoding are the data set's business. */

import { ShapeError } from "../errors.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";

export interface PairBatch {
  /** [B, C, H, W] clean samples: latents, or pixels in [-1, 1] for a model without VAE. */
  readonly winners: HostTensor;
  /** Like `winners`; single objectives do without. */
  readonly losers?: HostTensor;
  /** The denoiser's condition tensors, B rows each: one per pair, shared by winner and loser. */
  readonly condition: Readonly<Record<string, HostTensor>>;
}

export interface PairData {
  readonly length: number;
  /** The pairs of these indices, in this order. `position` is the number of the first draw since the start of the run: what an augmentation may draw from,
   *  so that a resumed run repeats it. */
  batch(indices: readonly number[], options: { readonly position: number; readonly signal?: AbortSignal | undefined }): PairBatch | Promise<PairBatch>;
}

/** Pairs that lie in memory: tensors whose leading dimension is the pair. */
export function tensorPairs(pairs: PairBatch): PairData {
  const length = pairs.winners.shape[0] ?? 0;
  for (const [name, t] of Object.entries({ ...pairs.condition, winners: pairs.winners, ...(pairs.losers && { losers: pairs.losers }) }))
    if (t.shape[0] !== length) throw new ShapeError("tensorPairs", `${name} is [${t.shape}], expected ${length} rows as in winners`);
  return {
    length,
    batch: indices => ({
      winners: rows(pairs.winners, indices),
      ...(pairs.losers && { losers: rows(pairs.losers, indices) }),
      condition: Object.fromEntries(Object.entries(pairs.condition).map(([name, t]) => [name, rows(t, indices)])),
    }),
  };
}

/** x[indices] along the first axis. */
function rows(x: HostTensor, indices: readonly number[]): HostTensor {
  const size = x.data.length / x.shape[0]!;
  const out = hostTensor(x.dtype, [indices.length, ...x.shape.slice(1)]);
  const target = out.data as Float64Array; // any typed array: both have the dtype's
  for (const [i, index] of indices.entries()) target.set((x.data as Float64Array).subarray(index * size, (index + 1) * size), i * size);
  return out;
}
