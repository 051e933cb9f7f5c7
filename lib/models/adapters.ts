/** The adapters of a model: put on, weighted, written, folded into the weights and taken out again. What they need of the model are its modules' names and a way
 *  to declare an adapter, so that UNets and text encoders have the same. */

import { ConfigError, DataError } from "../errors.js";
import { compileGraph } from "../graph/compile.js";
import { add, cast } from "../graph/ops/elementwise.js";
import { assign } from "../graph/ops/optimizer.js";
import type { Session } from "../graph/session.js";
import { buildGraph } from "../graph/tensor.js";
import { initialise, initialStreams, reserve } from "../nn/init.js";
import { type Adapter, type LoraAdapter, type LoraOptions, LoraStack } from "../nn/lora.js";
import { type ParameterEntry, ParameterStore } from "../nn/params.js";
import { type LoadControl, loadWeights, storedWeights } from "./load.js";
import { readLora } from "./lora-file.js";
import type { ComponentName, LoraComponent } from "./lora-names.js";
import { type WriteLoraOptions, type WrittenAdapter, writeLora } from "./lora-write.js";

export interface AdapterHost {
  /** What errors call the model. */
  readonly subject: string;
  readonly store: ParameterStore;
  readonly session: Session;
  readonly component: LoraComponent;
  /** Declares an adapter of the model in an arena of this name. Throws ConfigError where the targets name no module. */
  declare(options: LoraOptions, arena: string): LoraAdapter;
  /** After every change of what the model computes. */
  changed(): void;
}

export interface LoadLoraOptions extends LoadControl {
  /** By which the adapter is known later ("default"): several adapters need several names. */
  readonly name?: string;
  /** At which it is applied at once (1). */
  readonly strength?: number;
  /** Parts of the file that are for other models. Without it they are an error that lists them. */
  readonly skip?: readonly ComponentName[];
}

export interface SaveLoraOptions extends WriteLoraOptions {
  /** Which adapter: the only one, if not given. */
  readonly name?: string;
}

const defaultName = "default";

export class ModelAdapters {
  /** All that are there, at the strengths that they were last applied at. */
  readonly #all = new Map<string, LoraAdapter>();
  readonly #active = new Set<string>();
  /** Weights as they were before adapters were folded in, and the adapters that were. */
  #fused: { readonly kept: ParameterStore; readonly names: readonly string[] } | undefined;
  #busy = false;
  #revision = 0;

  constructor(readonly host: AdapterHost) {}

  /** Counts changes of what the model computes: programs that others built of it are for one revision. */
  get revision(): number {
    return this.#revision;
  }

  /** Adapters by name, applied or not. */
  get all(): ReadonlyMap<string, LoraAdapter> {
    return this.#all;
  }

  /** Those that are applied: what layers ask. */
  get active(): Adapter | undefined {
    const adapters = [...this.#active].map(name => this.#all.get(name)!);
    return adapters.length > 1 ? new LoraStack(adapters) : adapters[0];
  }

  /** Whether adapters are folded into the weights. */
  get fused(): boolean {
    return this.#fused !== undefined;
  }

  /** The first that is applied. */
  get first(): LoraAdapter | undefined {
    const [name] = this.#active;
    return name === undefined ? undefined : this.#all.get(name);
  }

  get arenas(): Record<string, number> {
    return Object.assign({}, ...(this.active?.stores ?? []).map(store => store.arenas));
  }

  /** A fresh adapter: random A, zero B, so that the output stays what it was. */
  async add(options: LoraOptions, { seed, name = defaultName }: { readonly seed: number; readonly name?: string }): Promise<void> {
    if (options.magnitudes?.size) throw new ConfigError("lora", "magnitudes", "those of a file: a fresh adapter has none", [...options.magnitudes]);
    await this.#put(name, options, store => initialise(this.host.session, store, { seed, stream: initialStreams.adapter }));
  }

  async load(path: string, { name = defaultName, strength = 1, skip = [], signal, onProgress }: LoadLoraOptions = {}): Promise<void> {
    const { component, session } = this.host;
    const { file, options, parameterOf } = readLora(path, [component], { skip });
    try {
      const own = options.get(component.name);
      if (!own) throw new DataError(file.source, `expected an adapter of ${component.name}, received a file without one`);
      const fill = (store: ParameterStore): Promise<void> =>
        loadWeights(session, store, file, { parameterOf: parameterOf(component.name), signal, onProgress });
      await this.#put(name, { ...own, strength }, fill);
    } finally {
      file.close();
    }
  }

  /** Writes one adapter; returns warnings about its values, which are process warnings too. */
  async save(path: string, { name, ...options }: SaveLoraOptions = {}): Promise<readonly string[]> {
    const warnings = await writeLora(path, [this.written(name)], options);
    for (const warning of warnings) process.emitWarning(`${path}: ${warning}`, { code: "ATTUNE_LORA" });
    return warnings;
  }

  /** An adapter as writeLora takes it: that of a name, or the only one. Throws ConfigError where there is none. */
  written(name?: string): WrittenAdapter {
    const { subject, session, component } = this.host;
    const chosen = name ?? (this.#all.size === 1 ? [...this.#all.keys()][0]! : undefined);
    const adapter = chosen === undefined ? undefined : this.#all.get(chosen);
    if (!adapter)
      throw new ConfigError(`${subject}.saveLora`, "the model", `one with ${name === undefined ? "one adapter" : `an adapter "${name}"`}`, this.#names());
    return { component, adapter, weights: storedWeights(session, adapter.store) };
  }

  /** Applies these adapters at these strengths, and no others. Throws ConfigError naming one that is not there, or is in the weights already. */
  set(strengths: Readonly<Record<string, number>>): void {
    for (const name of Object.keys(strengths)) {
      this.#require(name);
      this.#requireUnfused(name);
    }
    for (const [name, strength] of Object.entries(strengths)) this.#all.set(name, this.#all.get(name)!.withStrength(strength));
    this.#active.clear();
    for (const name of Object.keys(strengths)) this.#active.add(name);
    this.#changed();
  }

  /** Forgets an adapter. Its memory stays the session's and serves the next adapter of this name. */
  remove(name: string = defaultName): void {
    this.#require(name);
    this.#requireUnfused(name);
    this.#all.delete(name);
    this.#active.delete(name);
    this.#changed();
  }

  /** Folds what is applied into the weights, W' = W + sum of changes, formed in f32 or f64 and rounded once, and applies it no longer: the model then costs what it cost
   *  without. The weights as they were are kept on the device, those of adapted modules alone. */
  async fuse(): Promise<void> {
    const { subject, store, session } = this.host;
    const names = [...this.#active];
    if (this.#fused || names.length === 0)
      throw new ConfigError(subject, "the model", "one whose adapters are applied and not fused", this.#fused ? "one with fused adapters" : "one without");
    const adapters = names.map(name => this.#all.get(name)!);
    const touched = [...store.entries.values()].filter(({ name }) => adapters.some(adapter => adapter.adapts(moduleOf(name) ?? "")));
    const kept = mirrorOf(store, touched);
    await this.#exclusively(async () => {
      reserve(session, kept);
      await this.#run("keep", [kept], () => kept.copy(store));
      const stores = adapters.flatMap(adapter => adapter.stores);
      await this.#run("fuse", [kept, ...stores], () => {
        for (const { name } of touched) {
          const [weight, module] = [kept.kept(name), moduleOf(name)!];
          const changes = adapters.filter(adapter => adapter.adapts(module)).map(adapter => adapter.weightChange(module, weight));
          const total = changes.reduce((a, b) => add(a, b));
          assign(store.kept(name), cast(add(cast(weight, total.dtype), total), weight.dtype));
        }
        store.refresh();
      });
    });
    this.#fused = { kept, names };
    this.#active.clear();
    this.#changed();
  }

  /** Puts the weights back, bit for bit, and applies again what was fused. */
  async unfuse(): Promise<void> {
    const { subject, store } = this.host;
    if (!this.#fused) throw new ConfigError(subject, "the model", "one with fused adapters", "one without");
    const { kept, names } = this.#fused;
    await this.#exclusively(() =>
      this.#run("unfuse", [kept], () => {
        for (const name of kept.entries.keys()) assign(store.kept(name), kept.kept(name));
        store.refresh();
      }),
    );
    this.#fused = undefined;
    for (const name of names) this.#active.add(name);
    this.#changed();
  }

  #changed(): void {
    this.#revision++;
    this.host.changed();
  }

  async #put(name: string, options: LoraOptions, fill: (store: ParameterStore) => Promise<void>): Promise<void> {
    const { subject, session } = this.host;
    if (this.#all.has(name) || this.#busy) throw new ConfigError(subject, "the model", `one without an adapter "${name}"`, "one that has it");
    const adapter = this.host.declare(options, name === defaultName ? "lora" : `lora/${name}`);
    await this.#exclusively(async () => {
      reserve(session, adapter.store);
      await fill(adapter.store);
    });
    this.#all.set(name, adapter);
    this.#active.add(name);
    this.#changed();
  }

  /** Two at once would fill the same arena. */
  async #exclusively(body: () => Promise<void>): Promise<void> {
    if (this.#busy) throw new ConfigError(this.host.subject, "the adapters", "left alone while they are changed", "a second change");
    this.#busy = true;
    try {
      await body();
    } finally {
      this.#busy = false;
    }
  }

  async #run(name: string, stores: readonly ParameterStore[], body: () => void): Promise<void> {
    const { session, store } = this.host;
    const arenas: Record<string, number> = Object.assign({}, ...[store, ...stores].map(each => each.arenas));
    const graph = buildGraph(body);
    await session.run(session.compile(compileGraph(graph, { name: `${name} ${store.arena}`, arenas, target: session.target })), {});
  }

  #require(name: string): void {
    if (!this.#all.has(name)) throw new ConfigError(this.host.subject, "the adapter", `one of ${this.#names()}`, name);
  }

  #requireUnfused(name: string): void {
    if (this.#fused?.names.includes(name)) throw new ConfigError(this.host.subject, "the adapter", "one that is not fused", name);
  }

  #names(): string {
    return [...this.#all.keys()].join(", ") || "none";
  }
}

function moduleOf(parameter: string): string | undefined {
  return parameter.endsWith(".weight") ? parameter.slice(0, -".weight".length) : undefined;
}

/** A store of some entries, kept as they are kept. */
function mirrorOf(store: ParameterStore, entries: readonly ParameterEntry[]): ParameterStore {
  const mirror = new ParameterStore({ arena: `${store.arena}/unfused`, dtype: store.dtype, trainable: false });
  buildGraph(() => {
    for (const { name, shape, layout, init } of entries) mirror.tensor(name, shape, { layout, init });
  });
  mirror.seal();
  return mirror;
}
