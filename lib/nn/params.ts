/** Parameters of a model: named tensors laid one after another in one arena, so that gradients, moments and averages are arenas of the same
 *  shape and an optimizer is one launch. A model function asks for a parameter by its checkpoint name and declares it by asking: there is no
 *  second list of names to keep in step. Nothing here knows models, files or devices. */

import { ConfigError, ShapeError } from "../errors.js";
import { wide } from "../graph/ops/check.js";
import { parameter } from "../graph/ops/leaf.js";
import { assign } from "../graph/ops/optimizer.js";
import { currentGraph, type DType, dtypeBytes, type Graph, type Layout, numel, sameShape, scope, type Tensor } from "../graph/tensor.js";
import type { Adapter } from "./lora.js";

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
  /** What it is kept in: the store's dtype, or f32 for a vector or single number of a frozen store that computes in bf16. */
  readonly dtype: DType;
  /** First byte in the arena of this store. */
  readonly offset: number;
}

export interface ParameterStoreOptions {
  /** Name of the persistent arena. */
  readonly arena: string;
  readonly dtype: DType;
  /** Whether an optimizer may move them; a frozen store has no gradients and no moments. */
  readonly trainable: boolean;
  /** "bf16": models read matrices and kernels in bf16, and vectors (biases, norms) in f32: there are few, and a sum is rounded once. A store of f32 then keeps a
   *  second arena `<arena>/bf16`, rounded from the first, which `refresh` brings up to date; one of bf16 keeps its own vectors in f32. By default models
   *  read what is kept. */
  readonly compute?: "bf16" | undefined;
}

/** Entries begin at multiples of 64 elements, so at multiples of 64 bytes in a mirror of any dtype; the elements between are zero and stay zero. */
const alignment = 64;

/** What a model computes in. */
export type ModelDType = "f32" | "f64" | "bf16";

/** How a model that computes in `dtype` keeps its weights: trained in bf16, they are f32, for an update is mostly smaller than a rounding of bf16. */
export function storage(dtype: ModelDType, trainable: boolean): Pick<ParameterStoreOptions, "dtype" | "compute" | "trainable"> {
  if (dtype !== "bf16") return { dtype, trainable };
  return { dtype: trainable ? "f32" : "bf16", compute: "bf16", trainable };
}

export class ParameterStore {
  readonly arena: string;
  readonly dtype: DType;
  readonly trainable: boolean;
  readonly compute: "bf16" | undefined;
  readonly #entries = new Map<string, ParameterEntry>();
  readonly #leaves = new WeakMap<Graph, Map<string, Tensor>>();
  #elements = 0;
  #bytes = 0;
  #sealed = false;

  constructor({ arena, dtype, trainable, compute }: ParameterStoreOptions, from?: ParameterStore) {
    if (compute && dtype !== "f32" && dtype !== "bf16") throw new ConfigError("ParameterStore", "compute", "none for a store that is not f32 or bf16", compute);
    this.arena = arena;
    this.dtype = dtype;
    this.trainable = trainable;
    this.compute = compute;
    for (const entry of from?.entries.values() ?? []) this.#add(entry);
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
    return this.#bytes;
  }

  /** Bytes of each of its arenas, by name. */
  get arenas(): Record<string, number> {
    return { [this.arena]: this.#bytes, ...(this.#rounded && { [this.#rounded]: this.#elements * dtypeBytes.bf16 }) };
  }

  /** What a model that reads these parameters computes in. */
  get computes(): ModelDType {
    return this.compute ?? (this.dtype === "f64" ? "f64" : "f32");
  }

  /** The arena with the bf16 copy of f32 weights, if there is one. */
  get #rounded(): string | undefined {
    return this.compute && this.dtype !== this.compute ? `${this.arena}/${this.compute}` : undefined;
  }

  /** Elements of the parameters themselves. */
  get count(): number {
    return [...this.#entries.values()].reduce((n, e) => n + numel(e.shape), 0);
  }

  /** The parameter as models read it: declared if it is new, else checked against its declaration. Throws ShapeError. */
  tensor(name: string, shape: readonly number[], options: ParameterOptions): Tensor {
    const entry = this.#entries.get(name);
    if (!entry) this.#declare(name, shape, options);
    else if (!sameShape(entry.shape, shape) || entry.layout !== (options.layout ?? "plain"))
      throw new ShapeError("parameter", `${name} is [${entry.shape}] ${entry.layout}, asked for as [${shape}] ${options.layout ?? "plain"}`);
    return this.leaf(name);
  }

  #declare(name: string, shape: readonly number[], { layout = "plain", init }: ParameterOptions): void {
    if (this.#sealed) throw new ShapeError("parameter", `${name} is not a parameter of "${this.arena}", which is complete`);
    this.#add({ name, shape: [...shape], layout, init });
  }

  #add({ name, shape, layout, init }: Pick<ParameterEntry, "name" | "shape" | "layout" | "init">): void {
    const dtype = this.compute && shape.length <= 1 ? wide(this.dtype) : this.dtype;
    const elements = Math.ceil(numel(shape) / alignment) * alignment;
    this.#entries.set(name, { name, shape, layout, init, start: this.#elements, dtype, offset: this.#bytes });
    this.#elements += elements;
    this.#bytes += elements * dtypeBytes[dtype];
  }

  /** A declared parameter as models read it; one graph has one leaf per parameter. */
  leaf(name: string): Tensor {
    const { shape, start } = this.#entry(name);
    if (!this.#rounded || shape.length <= 1) return this.kept(name);
    return this.#leafOf({ arena: this.#rounded, name, dtype: "bf16", shape, offset: start * dtypeBytes.bf16 });
  }

  /** A declared parameter as it is kept: what files are read into, what an optimizer moves. */
  kept(name: string): Tensor {
    const { dtype, shape, offset } = this.#entry(name);
    return this.#leafOf({ arena: this.arena, name, dtype, shape, offset });
  }

  /** The whole arena as [elements], for work that treats every parameter alike. */
  flat(): Tensor {
    if (this.#bytes !== this.#elements * dtypeBytes[this.dtype]) throw new ShapeError("parameter", `"${this.arena}" holds vectors of another dtype`);
    return this.#leafOf({ arena: this.arena, name: "*", dtype: this.dtype, shape: [this.#elements], offset: 0 });
  }

  /** Appends to the current graph what brings the bf16 copy up to date, for a store that has one: after every write to its arena. */
  refresh(): void {
    if (this.#rounded) assign(this.#leafOf({ arena: this.#rounded, name: "*", dtype: "bf16", shape: [this.#elements], offset: 0 }), this.flat());
  }

  /** Appends to the current graph: every parameter takes the value of its namesake in `from`, one by one, since the two may be kept in different dtypes. */
  copy(from: ParameterStore): void {
    for (const name of this.#entries.keys()) assign(this.kept(name), from.kept(name));
  }

  #entry(name: string): ParameterEntry {
    const entry = this.#entries.get(name);
    if (!entry) throw new ShapeError("parameter", `"${this.arena}" has no parameter ${name}`);
    return entry;
  }

  #leafOf(leaf: Parameters<typeof parameter>[0]): Tensor {
    const graph = currentGraph();
    const leaves = this.#leaves.get(graph) ?? new Map<string, Tensor>();
    this.#leaves.set(graph, leaves);
    const key = `${leaf.arena} ${leaf.name}`;
    const known = leaves.get(key) ?? parameter(leaf);
    leaves.set(key, known);
    return known;
  }

  /** A store of the same entries in another arena: gradients, moments, averages, a reference. It is sealed. */
  mirror(arena: string, options: Partial<Pick<ParameterStoreOptions, "dtype" | "trainable" | "compute">> = {}): ParameterStore {
    if (arena === this.arena) throw new ConfigError("ParameterStore.mirror", "arena", "another arena", arena);
    const { dtype = this.dtype, trainable = false, compute } = options;
    return new ParameterStore({ arena, dtype, trainable, compute }, this);
  }

  /** No parameter can be declared from here on: a name that is asked for and missing is an error. */
  seal(): void {
    this.#sealed = true;
  }
}

/** A place in a model's tree of names, and the store and adapter that its parameters come from. */
export class Params {
  readonly prefix: string;
  readonly adapter: Adapter | undefined;
  /** The part of every batch, from its first row on, that the adapter is applied to: 1, or less where the rest is the model without it. */
  readonly share: number;
  readonly #name: string;

  constructor(
    readonly store: ParameterStore,
    options: { prefix?: string; adapter?: Adapter | undefined; share?: number; name?: string } = {},
  ) {
    this.prefix = options.prefix ?? "";
    this.adapter = options.adapter;
    this.share = options.share ?? 1;
    this.#name = options.name ?? this.prefix;
  }

  /** The subtree `name`, which may have dots: at("resnets.0"). */
  at(name: string): Params {
    return new Params(this.store, { prefix: this.#join(name), adapter: this.adapter, share: this.share, name });
  }

  /** These parameters with the adapter on a part of every batch. */
  sharing(share: number): Params {
    return new Params(this.store, { prefix: this.prefix, adapter: this.adapter, share, name: this.#name });
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
