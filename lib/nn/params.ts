/** Parameters of a model: named tensors laid one after another in one arena, so that gradients, moments and averages are arenas of the same
 *  shape and an optimizer is one launch. A model function asks for a parameter by its checkpoint name and declares it by asking: there is no
 *  second list of names to keep in step. Nothing here knows models, files or devices. */

import { ConfigError, ShapeError } from "../errors.js";
import { parameter } from "../graph/ops/leaf.js";
import { currentGraph, type DType, dtypeBytes, type Graph, type Layout, numel, sameShape, scope, type Tensor } from "../graph/tensor.js";
import type { LoraAdapter } from "./lora.js";

/** How a parameter begins in a model that is not loaded: a number, or uniform in [-bound, bound). */
export type Init = { readonly value: number } | { readonly bound: number };

export interface ParameterOptions {
  readonly layout?: Layout;
  readonly init: Init;
}

export interface ParameterEntry {
  readonly name: string;
  /** Inside: conv weights are [O, kh, kw, I]. */
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly init: Init;
  /** First element, counted in elements: the same in every mirror, whatever its dtype. */
  readonly start: number;
  /** First byte in the arena of this store. */
  readonly offset: number;
}

export interface ParameterStoreOptions {
  /** Name of the persistent arena. */
  readonly arena: string;
  readonly dtype: DType;
  /** Whether an optimizer may move them; a frozen store has no gradients and no moments. */
  readonly trainable: boolean;
}

/** Entries begin at multiples of 64 elements, so at multiples of 64 bytes in a mirror of any dtype; the elements between are zero and stay zero. */
const alignment = 64;

export class ParameterStore {
  readonly arena: string;
  readonly dtype: DType;
  readonly trainable: boolean;
  readonly #entries: Map<string, ParameterEntry>;
  readonly #leaves = new WeakMap<Graph, Map<string, Tensor>>();
  #elements: number;
  #sealed: boolean;

  constructor({ arena, dtype, trainable }: ParameterStoreOptions, from?: ParameterStore) {
    this.arena = arena;
    this.dtype = dtype;
    this.trainable = trainable;
    this.#entries = new Map([...(from?.entries ?? [])].map(([name, e]) => [name, { ...e, offset: e.start * dtypeBytes[dtype] }]));
    this.#elements = from?.elements ?? 0;
    this.#sealed = from !== undefined;
  }

  get entries(): ReadonlyMap<string, ParameterEntry> {
    return this.#entries;
  }

  /** Elements of the arena, alignment included. */
  get elements(): number {
    return this.#elements;
  }

  get bytes(): number {
    return this.#elements * dtypeBytes[this.dtype];
  }

  /** Elements of the parameters themselves. */
  get count(): number {
    return [...this.#entries.values()].reduce((n, e) => n + numel(e.shape), 0);
  }

  /** The parameter as a leaf of the current graph: declared if it is new, else checked against its declaration. Throws ShapeError. */
  tensor(name: string, shape: readonly number[], options: ParameterOptions): Tensor {
    const entry = this.#entries.get(name);
    if (!entry) this.#declare(name, shape, options);
    else if (!sameShape(entry.shape, shape) || entry.layout !== (options.layout ?? "plain"))
      throw new ShapeError("parameter", `${name} is [${entry.shape}] ${entry.layout}, asked for as [${shape}] ${options.layout ?? "plain"}`);
    return this.leaf(name);
  }

  #declare(name: string, shape: readonly number[], { layout = "plain", init }: ParameterOptions): void {
    if (this.#sealed) throw new ShapeError("parameter", `${name} is not a parameter of "${this.arena}", which is complete`);
    const start = this.#elements;
    this.#entries.set(name, { name, shape: [...shape], layout, init, start, offset: start * dtypeBytes[this.dtype] });
    this.#elements = start + Math.ceil(numel(shape) / alignment) * alignment;
  }

  /** A declared parameter as a leaf of the current graph; one graph has one leaf per parameter. */
  leaf(name: string): Tensor {
    const entry = this.#entries.get(name);
    if (!entry) throw new ShapeError("parameter", `"${this.arena}" has no parameter ${name}`);
    return this.#leafOf(name, entry.shape, entry.offset);
  }

  /** The whole arena as [elements], for work that treats every parameter alike. */
  flat(): Tensor {
    return this.#leafOf("*", [this.#elements], 0);
  }

  #leafOf(name: string, shape: readonly number[], offset: number): Tensor {
    const graph = currentGraph();
    const leaves = this.#leaves.get(graph) ?? new Map<string, Tensor>();
    this.#leaves.set(graph, leaves);
    const known = leaves.get(name);
    if (known) return known;
    const leaf = parameter({ arena: this.arena, name, dtype: this.dtype, shape, offset });
    leaves.set(name, leaf);
    return leaf;
  }

  /** A store of the same entries in another arena: gradients, moments, averages, a reference. It is sealed. */
  mirror(arena: string, options: { dtype?: DType; trainable?: boolean } = {}): ParameterStore {
    if (arena === this.arena) throw new ConfigError("ParameterStore.mirror", "arena", "another arena", arena);
    return new ParameterStore({ arena, dtype: options.dtype ?? this.dtype, trainable: options.trainable ?? false }, this);
  }

  /** No parameter can be declared from here on: a name that is asked for and missing is an error. */
  seal(): void {
    this.#sealed = true;
  }
}

/** A place in a model's tree of names, and the store and adapter that its parameters come from. */
export class Params {
  readonly prefix: string;
  readonly adapter: LoraAdapter | undefined;
  readonly #name: string;

  constructor(
    readonly store: ParameterStore,
    options: { prefix?: string; adapter?: LoraAdapter | undefined; name?: string } = {},
  ) {
    this.prefix = options.prefix ?? "";
    this.adapter = options.adapter;
    this.#name = options.name ?? this.prefix;
  }

  /** The subtree `name`, which may have dots: at("resnets.0"). */
  at(name: string): Params {
    return new Params(this.store, { prefix: this.#join(name), adapter: this.adapter, name });
  }

  /** The parameter `name` of this place. */
  tensor(name: string, shape: readonly number[], options: ParameterOptions): Tensor {
    return this.store.tensor(this.#join(name), shape, options);
  }

  /** Runs `body` with this place's name in the label of what it builds: ".../down_blocks.1/resnets.0/conv1". */
  scope<T>(body: () => T): T {
    return this.#name === "" ? body() : scope(this.#name, body);
  }

  #join(name: string): string {
    return this.prefix === "" ? name : `${this.prefix}.${name}`;
  }
}
