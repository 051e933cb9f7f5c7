/** Features that were computed once: of texts by their text, the least recently used forgotten first, and of pictures as long as the picture lives. */

import type { Image } from "../data/image.js";

export type Feature = Float64Array;

/** Keeps at most `entries` texts: 2^14 of 1024 numbers are 128 MiB. */
export class TextCache {
  readonly #features = new Map<string, Feature>();

  constructor(readonly entries = 1 << 14) {}

  get(text: string): Feature | undefined {
    const known = this.#features.get(text);
    if (known) {
      this.#features.delete(text); // to the end of the order
      this.#features.set(text, known);
    }
    return known;
  }

  set(text: string, feature: Feature): void {
    this.#features.delete(text);
    this.#features.set(text, feature);
    while (this.#features.size > this.entries) this.#features.delete(this.#features.keys().next().value!);
  }
}

/** By identity: a picture that is scored with many prompts, or by several rewards of one backbone, is encoded once. Its pixels must not change. */
export type ImageCache = WeakMap<Image, Feature>;

/** One feature for every key, in their order: from `get` where it knows them, the others made by `make` together, each once. */
export async function through<K>(
  keys: readonly K[],
  get: (key: K) => Feature | undefined,
  make: (missing: readonly K[]) => Promise<readonly Feature[]>,
  set: (key: K, feature: Feature) => void,
): Promise<Feature[]> {
  const found = new Map<K, Feature>();
  const missing = [...new Set(keys)].filter(key => {
    const known = get(key);
    if (known) found.set(key, known);
    return !known;
  });
  if (missing.length > 0)
    for (const [i, feature] of (await make(missing)).entries()) {
      found.set(missing[i]!, feature);
      set(missing[i]!, feature);
    }
  return keys.map(key => found.get(key)!);
}
