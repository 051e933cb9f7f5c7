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
  /** Numbers that the objective declares in its `inputs`: [B], or [B, size], of any float dtype. */
  readonly extras?: Readonly<Record<string, HostTensor>>;
  /** Further samples that the objective compares, like `winners`. */
  readonly samples?: Readonly<Record<string, HostTensor>>;
  /** Other conditions of the same pairs, each with the tensors of `condition`. */
  readonly conditions?: Readonly<Record<string, Readonly<Record<string, HostTensor>>>>;
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
  mapBatch(pairs, (t, name) => {
    if (t.shape[0] !== length) throw new ShapeError("tensorPairs", `${name} is [${t.shape}], expected ${length} rows as in winners`);
    return t;
  });
  return { length, batch: indices => mapBatch(pairs, t => rows(t, indices)) };
}

/** A batch of the same parts, each made of its namesake. */
function mapBatch({ winners, losers, condition, extras, samples, conditions }: PairBatch, to: (t: HostTensor, name: string) => HostTensor): PairBatch {
  const each = (tensors: Readonly<Record<string, HostTensor>>, prefix = ""): Record<string, HostTensor> =>
    Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, to(t, `${prefix}${name}`)]));
  return {
    winners: to(winners, "winners"),
    ...(losers && { losers: to(losers, "losers") }),
    condition: each(condition),
    ...(extras && { extras: each(extras, "extras.") }),
    ...(samples && { samples: each(samples, "samples.") }),
    ...(conditions && { conditions: Object.fromEntries(Object.entries(conditions).map(([name, set]) => [name, each(set, `conditions.${name}.`)])) }),
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
