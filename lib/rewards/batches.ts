/** How items are cut into batches. A program is compiled for each batch size, so sizes are few: full batches, then powers of two that add up to the rest. */

import { ConfigError } from "../errors.js";

/** Sizes, largest first, that add up to n: at most `most` each, and at most 1 + log2(most) different ones whatever n is. */
export function batchSizes(n: number, most: number): number[] {
  if (!Number.isSafeInteger(most) || most < 1) throw new ConfigError("batches", "batchSize", "a whole number >= 1", most);
  const sizes: number[] = Array(Math.floor(n / most)).fill(most);
  for (let rest = n % most; rest > 0; ) {
    const size = 2 ** Math.floor(Math.log2(rest));
    sizes.push(size);
    rest -= size;
  }
  return sizes;
}

/** What `run` makes of each batch of `items`, one result for each item, in their order. Between batches the event loop is free and the signal is heard. */
export async function inBatches<T, R>(
  items: readonly T[],
  { batchSize, signal }: { readonly batchSize: number; readonly signal?: AbortSignal | undefined },
  run: (batch: readonly T[]) => Promise<readonly R[]>,
): Promise<R[]> {
  const results: R[] = [];
  for (const size of batchSizes(items.length, batchSize)) {
    signal?.throwIfAborted();
    results.push(...(await run(items.slice(results.length, results.length + size))));
    await new Promise<void>(resolve => setImmediate(resolve));
  }
  return results;
}
