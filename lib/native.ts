/** The only file that loads the addon: types its nine functions, turns its errors into the classes of errors.ts, reads the environment variables. */

import path from "node:path";
import bindings from "bindings";
import {
  AbortedError,
  AddonError,
  CapabilityError,
  ClosedError,
  ConfigError,
  DataError,
  DeviceError,
  DriverError,
  NonFiniteError,
  OutOfMemoryError,
  PlanError,
  ProgramError,
  ShapeError,
} from "./errors.js";
import type { Program } from "./graph/program.js";
import type { Layout } from "./graph/tensor.js";

/** What runs programs: the host, an NVIDIA GPU, or the host machine on which the CUDA kernels are proved (tests only). */
export type Backend = "cpu" | "cuda" | "simt";
export type Isa = "generic" | "avx2" | "avx512";
export type TraceMode = "off" | "time" | "check";

export interface NativeJob<T> {
  readonly promise: Promise<T>;
  /** Asks the work to end; the promise then rejects with ERR_ABORTED. */
  cancel(): void;
}

/** A tensor of floats outside and in an arena. */
export interface NativeTensorForm {
  /** Outside. */
  readonly dtype: string;
  /** Outside: conv weights are [O, I, kh, kw]. */
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly arenaDtype: string;
}

/** Such a tensor in an open file, from byte `offset` on; `path` is for errors. */
export interface NativeSource extends NativeTensorForm {
  readonly path: string;
  readonly fd: number;
  readonly offset: number;
}

export interface NativeMemory {
  readonly arenas: { readonly [name: string]: number };
  readonly workspace: number;
  readonly limit: number;
}

export interface CudaDevice {
  readonly name: string;
  /** Compute capability, "9.0". */
  readonly capability: string;
  readonly multiprocessors: number;
  readonly bytes: number;
}

export interface NativeBackend {
  /** The best instruction set of this machine; "" for cuda. */
  readonly isa: Isa | "";
  readonly kernels: readonly { readonly op: string; readonly isa: Isa | "" }[];
}

export interface NativeCuda extends NativeBackend {
  /** attune_cuda.so lies beside the addon. */
  readonly built: boolean;
  readonly devices: readonly CudaDevice[];
  /** CUDA versions as 13000 for 13.0; 0: unknown, or no driver. */
  readonly runtime: number;
  readonly driver: number;
  /** Why there are no devices; "" if they could be counted. */
  readonly error: string;
}

/** Handles are numbers: a stale one is ERR_CLOSED, never another session. Sizes and offsets are bytes. */
export interface Native {
  open(backend: Backend, options: { device: number; threads: number; isa: Isa | ""; memoryLimit: number }): number;
  compile(session: number, program: Program): number;
  /** One ArrayBuffer per output port. */
  run(session: number, program: number, inputs: readonly ArrayBufferView[], scalars: readonly number[]): NativeJob<ArrayBuffer[]>;
  write(session: number, arena: string, offset: number, data: ArrayBufferView): void;
  write(session: number, arena: string, offset: number, source: NativeSource): NativeJob<void>;
  read(session: number, arena: string, offset: number, what: number | NativeTensorForm): Promise<ArrayBuffer>;
  memory(session: number): NativeMemory;
  trace(session: number, program: number, mode: TraceMode): { runs: number; nanoseconds: Float64Array };
  close(session: number): Promise<void>;
  kernels(backend: "cpu"): NativeBackend;
  kernels(backend: "cuda" | "simt"): NativeCuda;
}

interface NativeFailure {
  readonly message: string;
  readonly code?: string;
  readonly op?: string;
  readonly label?: string;
  readonly needed?: number;
  readonly available?: number;
  readonly cuda?: string;
  readonly file?: string;
  readonly offset?: number;
}

/** ATTUNE_CPU_ISA: the best instruction set that kernels may use, for tests and for comparing; "" sets no limit. */
export function isaLimit(): Isa | "" {
  const isa = process.env.ATTUNE_CPU_ISA ?? "";
  if (isa !== "" && isa !== "generic" && isa !== "avx2" && isa !== "avx512")
    throw new ConfigError("environment", "ATTUNE_CPU_ISA", "generic, avx2 or avx512", isa);
  return isa;
}

let loaded: Native | undefined;

/** The addon, loaded on first use; ATTUNE_ADDON names another file than the one in build/, for instrumented builds. @throws AddonError saying what to run. */
export function native(): Native {
  loaded ??= load();
  return loaded;
}

function load(): Native {
  const root = bindings.getRoot(__filename); // explicit: bindings would otherwise parse stack traces
  const chosen = process.env.ATTUNE_ADDON;
  try {
    return (chosen ? require(path.resolve(chosen)) : bindings({ bindings: "attune", module_root: root })) as Native;
  } catch (cause) {
    const system = `${process.platform}-${process.arch}, Node ${process.version}`;
    const remedy = 'run "npm run build:native" in a checkout, "npm rebuild attune --foreground-scripts" elsewhere (npm may have blocked the install script)';
    throw new AddonError(`no native addon ${chosen ? `at ${chosen}` : `in ${path.join(root, "build", "Release")}`} for ${system}; ${remedy}`, { cause });
  }
}

/** Calls the addon; what it throws becomes one of our classes, with the stack of this call. */
export function guarded<T>(call: (addon: Native) => T): T {
  const addon = native();
  try {
    return call(addon);
  } catch (error) {
    throw fromNative(error);
  }
}

/** Awaits a promise of the addon; a rejection becomes one of our classes, with the stack of `at` (an object given to Error.captureStackTrace):
 *  the frames of a native completion would tell nothing. */
export async function guardedPromise<T>(promise: Promise<T>, at: { readonly stack?: string }): Promise<T> {
  try {
    return await promise;
  } catch (raw) {
    const error = fromNative(raw);
    if (error instanceof Error) error.stack = `${error.name}: ${error.message}\n${(at.stack ?? "").split("\n").slice(1).join("\n")}`;
    throw error;
  }
}

/** Where the caller stands, for guardedPromise. `below`: the function whose caller is the first frame. */
export function callSite(below: (...args: never[]) => unknown): { readonly stack?: string } {
  const at: { stack?: string } = {};
  Error.captureStackTrace(at, below);
  return at;
}

function fromNative(error: unknown): unknown {
  if (typeof error !== "object" || error === null || !("code" in error)) return error;
  const { code, message, op, label, needed = 0, available = 0, cuda, file, offset = 0 } = error as NativeFailure;
  switch (code) {
    case "ERR_ABORTED":
      return new AbortedError(message);
    case "ERR_CLOSED":
      return new ClosedError("the session");
    case "ERR_DATA":
      return file === undefined ? new DataError("program", message) : new DataError(file, message, { offset });
    case "ERR_DEVICE":
      return new DeviceError(message, op, label, cuda);
    case "ERR_CAPABILITY":
      return new CapabilityError(message);
    case "ERR_DRIVER":
      return new DriverError(message);
    case "ERR_OUT_OF_MEMORY":
      return new OutOfMemoryError(message, needed, available);
    case "ERR_MEMORY":
      return new PlanError(message, needed, available);
    case "ERR_NONFINITE":
      return new NonFiniteError(message, op, label);
    case "ERR_CONFIG":
    case "ERR_PROGRAM":
      return new ProgramError(message, op, label);
    case "ERR_SHAPE":
      return new ShapeError(op ?? "program", message, label);
    default:
      return error;
  }
}
