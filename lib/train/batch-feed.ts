/** Batches of pairs in order, each asked for while the one before is being trained on. */

import type { PairBatch, PairData } from "./pair-data.js";
import type { PairOrder } from "./sampler.js";

export interface BatchFeedOptions {
  readonly data: PairData;
  readonly order: PairOrder;
  /** Pairs per batch. */
  readonly size: number;
  /** Draws from `first` on, up to but not including `end`. */
  readonly first: number;
  readonly end: number;
  readonly signal: AbortSignal | undefined;
}

export class BatchFeed {
  readonly #options: BatchFeedOptions;
  #position: number;
  #ahead: Promise<PairBatch> | undefined;

  constructor(options: BatchFeedOptions) {
    this.#options = options;
    this.#position = options.first;
  }

  /** The next batch; the one after it is begun. */
  async next(): Promise<PairBatch> {
    const batch = await (this.#ahead ?? this.#load());
    this.#ahead = this.#position < this.#options.end ? this.#load() : undefined;
    return batch;
  }

  #load(): Promise<PairBatch> {
    const { data, order, size, signal } = this.#options;
    const position = this.#position;
    this.#position += size;
    const batch = (async () => data.batch(order.at(position, size), { position, signal }))();
    batch.catch(() => {}); // reported when it is taken, not as an unhandled rejection
    return batch;
  }
}
