/** What the handles of all models share: a session that holds the model's arenas, programs kept by what they were compiled for, folders read and
 *  written, one close. A handle has one of these; it is no base class. */

import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type TensorFile, writeSafetensors } from "../data/safetensors.js";
import { readWeights } from "../data/weights.js";
import type { Device } from "../device.js";
import { ClosedError, ConfigError, DataError } from "../errors.js";
import { compileGraph } from "../graph/compile.js";
import type { Executable, Feed, Session } from "../graph/session.js";
import type { Graph } from "../graph/tensor.js";
import { initialise, initialStreams, reserve } from "../nn/init.js";
import type { ModelDType, ParameterStore } from "../nn/params.js";
import { writeAtomically, writeFully } from "../util/atomic-file.js";
import type { HostDType, HostTensor } from "../util/host-tensor.js";
import { parseStrictJson } from "../util/strict-json.js";
import { type LoadControl, loadWeights, type MatchOptions, matchWeights, storedWeights } from "./load.js";

export interface ModelLoadOptions extends LoadControl {
  readonly device: Device;
  /** Dtype of arithmetic, whatever the files hold: "f32" by default. "bf16" needs a GPU. */
  readonly dtype?: ModelDType;
  /** Whether the weights may be trained. Frozen, a model of "bf16" takes 2 bytes a weight rather than 6. */
  readonly trainable?: boolean;
  /** "fp16" reads `<name>.fp16.safetensors`. */
  readonly variant?: string;
}

export interface ModelCreateOptions extends Omit<ModelLoadOptions, "variant" | keyof LoadControl> {
  /** A whole number; the same seed gives the same weights on every backend. */
  readonly seed: number;
}

/** Where the weights of a model lie: "diffusion_pytorch_model" in diffusers' folders, "model" in transformers'. */
export interface WeightsPlace extends MatchOptions {
  readonly folder: string;
  readonly baseName: string;
}

export class ModelHandle implements AsyncDisposable {
  readonly #programs = new Map<string, Executable>();
  #closed = false;

  private constructor(
    /** What errors call the model. */
    readonly subject: string,
    readonly store: ParameterStore,
    readonly session: Session,
  ) {}

  /** Names, shapes and dtypes of the files are checked before memory is taken.
   *  Throws DataError, WeightsError (missing, unexpected, mismatched), the signal's reason. */
  static async load(subject: string, store: ParameterStore, { folder, baseName, parameterOf }: WeightsPlace, options: ModelLoadOptions): Promise<ModelHandle> {
    options.signal?.throwIfAborted();
    return ModelHandle.read(subject, store, readWeights(folder, baseName, options.variant), options, parameterOf ? { parameterOf } : {});
  }

  /** The same of a file that is open, which is closed. */
  static async read(
    subject: string,
    store: ParameterStore,
    file: TensorFile,
    { device, signal, onProgress }: ModelLoadOptions,
    names: MatchOptions = {},
  ): Promise<ModelHandle> {
    try {
      matchWeights(store, file, names);
      return await ModelHandle.#open(subject, store, device, session => loadWeights(session, store, file, { ...names, signal, onProgress }));
    } finally {
      file.close();
    }
  }

  /** Random weights. */
  static create(subject: string, store: ParameterStore, { device, seed }: ModelCreateOptions): Promise<ModelHandle> {
    return ModelHandle.#open(subject, store, device, session => initialise(session, store, { seed, stream: initialStreams.model }));
  }

  static async #open(subject: string, store: ParameterStore, device: Device, fill: (session: Session) => Promise<void>): Promise<ModelHandle> {
    const session = device.openSession();
    try {
      reserve(session, store);
      await fill(session);
      return new ModelHandle(subject, store, session);
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  /** The program for `key`, which holds all that `build` depends on; built and compiled where there is none yet. */
  program(key: readonly unknown[], build: () => Graph, arenas: Readonly<Record<string, number>> = this.store.arenas): Executable {
    this.checkOpen();
    const name = JSON.stringify(key);
    const known = this.#programs.get(name);
    if (known) return known;
    const graph = build();
    const executable = this.session.compile(compileGraph(graph, { name: `${this.subject} ${key[0]}`, arenas, target: this.session.target }));
    this.#programs.set(name, executable);
    return executable;
  }

  run(executable: Executable, feed: Feed, signal?: AbortSignal): Promise<Record<string, HostTensor>> {
    return this.session.run(executable, feed, signal ? { signal } : {});
  }

  /** After a change of what the model computes. */
  forgetPrograms(): void {
    this.#programs.clear();
  }

  /** Writes config.json and the weights. `dtype` is that of the file, by default what the weights are kept in. */
  async save({ folder, baseName }: WeightsPlace, config: Readonly<Record<string, unknown>>, dtype?: HostDType): Promise<void> {
    this.checkOpen();
    await mkdir(folder, { recursive: true });
    await writeSafetensors(join(folder, `${baseName}.safetensors`), storedWeights(this.session, this.store, dtype), { format: "pt" });
    const json = `${JSON.stringify(config, null, 2)}\n`;
    await writeAtomically(join(folder, "config.json"), file => writeFully(file, new TextEncoder().encode(json)));
  }

  checkOpen(): void {
    if (this.#closed) throw new ClosedError(this.subject);
  }

  /** Frees the session and all it holds. Calls after it throw ClosedError. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#programs.clear();
    await this.session.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Throws ConfigError where the device does not compute in `dtype`. */
export function checkDType(subject: string, dtype: ModelDType, { kind }: Device): void {
  const possible: readonly ModelDType[] = kind === "cpu" ? ["f32", "f64"] : ["f32", "bf16"];
  if (!possible.includes(dtype)) throw new ConfigError(subject, "dtype", `${possible.map(d => `"${d}"`).join(" or ")} on a ${kind} device`, dtype);
}

/** The config.json of a model folder, parsed by `parse(json, path)`. Throws DataError, and what `parse` throws. */
export function readConfig<T>(folder: string, parse: (json: unknown, source: string) => T): T {
  const path = join(folder, "config.json");
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
  return parse(parseStrictJson(bytes, path), path);
}
