/** Questions about the tensors of one part of a checkpoint, by names behind its prefix. */

import type { TensorFile } from "../../data/safetensors.js";
import { DataError } from "../../errors.js";

/** Levels of names that are looked at: the deepest of a model has nine, and a name may be as long as its file. */
const maxLevels = 16;

export class Shapes {
  /** Distinct names one level below each prefix: "input_blocks" -> {"0", "1", ..}. */
  readonly #children = new Map<string, Set<string>>();

  constructor(
    readonly file: TensorFile,
    readonly prefix: string,
  ) {
    for (const name of file.tensors.keys()) {
      if (!name.startsWith(prefix)) continue;
      const parts = name.slice(prefix.length).split(".", maxLevels);
      for (let i = 1; i < parts.length; i++) {
        const parent = parts.slice(0, i).join(".");
        const known = this.#children.get(parent) ?? new Set();
        this.#children.set(parent, known.add(parts[i]!));
      }
    }
  }

  has(name: string): boolean {
    return this.file.tensors.has(this.prefix + name);
  }

  /** How many different names stand directly below `name`; 0 if there is none. */
  count(name: string): number {
    return this.#children.get(name)?.size ?? 0;
  }

  /** Throws DataError if there is no such tensor. */
  of(name: string): readonly number[] {
    const entry = this.file.tensors.get(this.prefix + name);
    if (!entry) throw new DataError(this.file.source, "expected a tensor of this name, received none", { field: this.prefix + name });
    return entry.shape;
  }
}
