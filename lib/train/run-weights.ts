/** Every tensor that a run moves or compares with, and where it lies: the policy and its reference, gradients, optimizer state, average.
 *  Full fine-tuning: the policy is the model's store and the reference a frozen copy of its start. With an adapter the model's store stays as it is and is the
 *  reference itself; the policy is that store seen through the adapter, and the adapter's store is all that moves. */

import { createHash } from "node:crypto";
import { readSafetensors } from "../data/safetensors.js";
import { ConfigError } from "../errors.js";
import { compileGraph } from "../graph/compile.js";
import { input } from "../graph/ops/leaf.js";
import { assign, fill } from "../graph/ops/optimizer.js";
import { buildGraph, typed } from "../graph/tensor.js";
import { loadWeights, matchWeights, storedWeights } from "../models/load.js";
import { initialise, initialStreams, reserve } from "../nn/init.js";
import { LoraAdapter, type LoraOptions } from "../nn/lora.js";
import { ParameterStore, Params, storage } from "../nn/params.js";
import type { Checkpoint, CheckpointContents } from "./checkpoint.js";
import type { Optimizer, OptimizerState } from "./optimizer.js";
import { sampleDtype } from "./step.js";
import type { Trainable } from "./trainable.js";

export interface RunWeightsOptions {
  readonly model: Trainable;
  /** A new adapter with these options, or one whose values are in the session. */
  readonly lora?: LoraOptions | LoraAdapter | undefined;
  /** Another adapter of the model, whose values are in the session and stay as they are. */
  readonly guide?: LoraAdapter | undefined;
  readonly optimizer: Optimizer;
  readonly ema: boolean;
  /** Whether a frozen reference is asked for, by the objective or by validation. */
  readonly reference: boolean;
}

/** Bytes hashed at a time. */
const chunkBytes = 64 << 20;

export class RunWeights {
  readonly model: Trainable;
  readonly policy: Params;
  readonly reference: Params | undefined;
  readonly guide: Params | undefined;
  readonly adapter: LoraAdapter | undefined;
  /** What moves. */
  readonly trainable: ParameterStore;
  readonly gradients: ParameterStore;
  readonly state: OptimizerState;
  readonly average: ParameterStore | undefined;
  readonly #copied: ParameterStore | undefined;
  readonly #newAdapter: boolean;

  constructor({ model, lora, guide, optimizer, ema, reference }: RunWeightsOptions) {
    this.model = model;
    this.adapter = lora instanceof LoraAdapter ? lora : lora && declaredAdapter(model, lora);
    this.#newAdapter = lora !== undefined && !(lora instanceof LoraAdapter);
    this.trainable = this.adapter?.store ?? model.store;
    if (!this.trainable.trainable) throw new ConfigError("train", "model.store", "trainable where no adapter is trained", "a frozen store");
    this.policy = new Params(model.store, { adapter: this.adapter });
    if (reference && !this.adapter) this.#copied = model.store.mirror(`${model.store.arena}/reference`, storage(model.store.computes, false));
    this.reference = reference ? new Params(this.#copied ?? model.store) : undefined;
    if (guide && guide.store === this.trainable) throw new ConfigError("train", "guide", "another adapter than the one that is trained", "the same");
    this.guide = guide && new Params(this.reference?.store ?? model.store, { adapter: guide });
    this.gradients = this.trainable.mirror(`${this.trainable.arena}/gradient`);
    this.state = optimizer.state(this.trainable);
    this.average = ema ? this.trainable.mirror(`${this.trainable.arena}/ema`) : undefined;
  }

  get stores(): ParameterStore[] {
    const own = [this.model.store, this.#copied, this.adapter?.store, this.gradients, ...Object.values(this.state), this.average];
    return own.filter(store => store !== undefined);
  }

  /** Bytes of every arena, as compileGraph takes them. */
  get arenas(): Record<string, number> {
    return Object.assign({}, ...(this.guide?.adapter?.stores ?? []).map(store => store.arenas), ...this.stores.map(store => store.arenas));
  }

  /** Values of a run that starts: zero gradients and state, a fresh adapter, reference and average as copies. */
  async start(seed: number): Promise<void> {
    const { session } = this.model;
    for (const store of this.stores) reserve(session, store);
    if (this.#newAdapter) await initialise(session, this.trainable, { seed, stream: initialStreams.adapter });
    for (const store of [this.gradients, ...Object.values(this.state)]) await this.#set(store, target => fill(target.flat(), 0));
    if (this.#copied) await this.#set(this.#copied, target => target.copy(this.model.store));
    if (this.average) await this.#set(this.average, target => assign(target.flat(), this.trainable.flat()));
  }

  /** Forgets micro-batches of a step that was broken off. */
  async clearGradients(): Promise<void> {
    await this.#set(this.gradients, store => fill(store.flat(), 0));
  }

  /** Makes the average the trained weights. */
  async applyAverage(): Promise<void> {
    const { average } = this;
    if (!average) throw new ConfigError("train", "ema", "set, so that there is an average to apply", undefined);
    await this.#set(this.trainable, store => assign(store.flat(), average.flat()));
  }

  /** SHA-256 of the model's store as it stands. A guide is not part of it: it may be another run's adapter, which moves. */
  async fingerprint(): Promise<string> {
    const { session, store } = this.model;
    const hash = createHash("sha256");
    for (let at = 0; at < store.bytes; at += chunkBytes)
      hash.update(new Uint8Array(await session.read(store.arena, at, Math.min(chunkBytes, store.bytes - at))));
    return hash.digest("hex");
  }

  /** Files of a checkpoint: weights under their checkpoint names, one file per arena of state. */
  files(): CheckpointContents["tensors"] {
    return Object.fromEntries(this.#saved().map(([name, store]) => [name, storedWeights(this.model.session, store)]));
  }

  /** Takes the values of a checkpoint. Throws CheckpointError, WeightsError or DataError before anything is written, DataError later only if a file changes. */
  async restore(checkpoint: Checkpoint): Promise<void> {
    const files = this.#saved().map(([name, store]) => ({ store, file: readSafetensors(checkpoint.file(name)) }));
    try {
      for (const { store, file } of files) matchWeights(store, file);
      for (const { store, file } of files) await loadWeights(this.model.session, store, file); // whole: weights half restored are of no run
    } finally {
      for (const { file } of files) file.close();
    }
  }

  #saved(): [string, ParameterStore][] {
    return [
      [this.adapter ? "adapter" : "parameters", this.trainable],
      ...Object.entries(this.state),
      ...(this.average ? [["ema", this.average] as [string, ParameterStore]] : []),
    ];
  }

  async #set(store: ParameterStore, write: (store: ParameterStore) => void): Promise<void> {
    const { session } = this.model;
    const graph = buildGraph(() => {
      write(store);
      store.refresh();
    });
    await session.run(session.compile(compileGraph(graph, { name: `set ${store.arena}`, arenas: this.arenas, target: session.target })), {});
  }
}

/** An adapter declares its parameters by being used: one forward pass of one sample does it. */
function declaredAdapter({ denoiser, store }: Trainable, options: LoraOptions): LoraAdapter {
  const adapter = new LoraAdapter(new ParameterStore({ arena: `${store.arena}/lora`, ...storage(store.computes, true) }), options);
  buildGraph(() => {
    const sample = input("sample", typed(sampleDtype(store), 1, ...denoiser.sampleShape), "bchw");
    denoiser.predict(sample, input("timestep", typed("i32", 1)), denoiser.condition(1), new Params(store, { adapter }));
  });
  if (adapter.store.entries.size === 0) throw new ConfigError("lora", "targets", "names of layers of this model", adapter.targets);
  adapter.store.seal();
  return adapter;
}
