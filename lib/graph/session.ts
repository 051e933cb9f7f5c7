/** A session runs programs: it owns arenas and one native thread. Calls take effect in their order; nothing here blocks the event loop
 *  for longer than a copy. The only file of this floor that touches the native side. */

import os from "node:os";
import type { TensorPlace } from "../data/safetensors.js";
import { AbortedError, ClosedError, ConfigError, ShapeError } from "../errors.js";
import { type Backend, callSite, guarded, guardedPromise, isaLimit, type NativeJob, type TraceMode } from "../native.js";
import { convert, type HostDType, type HostTensor, hostTensorFromBytes, outsideShape, toInside, toOutside } from "../util/host-tensor.js";
import type { Program, ProgramPort, ProgramTensor } from "./program.js";
import type { Target } from "./target.js";
import { type DType, type Layout, sameShape } from "./tensor.js";

export interface SessionOptions {
  readonly backend: Backend;
  /** Which GPU, of the cuda backend; 0 by default. */
  readonly device?: number;
  /** Threads that compute, of the cpu backend, at least 1; as many as the process may use by default. Results do not depend on it. */
  readonly threads?: number;
  /** Bytes that the arenas may take together; by default what the machine or the container has, or what is free on the GPU. */
  readonly memoryLimit?: number;
}

export interface Feed {
  /** By port name, in outside order; every input of the program, in any dtype that converts. Arrays must not change until the run is over. */
  readonly inputs?: Readonly<Record<string, HostTensor>>;
  /** By slot name; every slot of the program. Others are ignored: several programs of a step may share one record. */
  readonly scalars?: Readonly<Record<string, number>>;
}

export interface SessionMemory {
  /** Bytes of each arena by name; "scratch" is shared by all programs. */
  readonly arenas: Readonly<Record<string, number>>;
  /** Bytes of the kernels' own scratch memory. */
  readonly workspace: number;
  readonly total: number;
  /** What the arenas may take together. */
  readonly limit: number;
}

export interface Trace {
  readonly runs: number;
  /** Per op, slowest first; seconds over all runs. */
  readonly ops: readonly { readonly op: string; readonly count: number; readonly seconds: number }[];
  /** Per instruction, in program order. */
  readonly instructions: readonly { readonly op: string; readonly label: string; readonly seconds: number }[];
}

/** A program that a session has checked and holds. */
export class Executable {
  /** Only Session.compile makes one. */
  constructor(
    readonly program: Program,
    readonly session: Session,
    readonly index: number,
  ) {}
}

/** Sessions that were forgotten: their memory goes when the collector notices, close() frees it at once. */
const forgotten = new FinalizationRegistry<number>(handle => void guarded(addon => addon.close(handle)));

export class Session implements AsyncDisposable {
  /** What programs for this session are compiled for. */
  readonly target: Target;
  readonly #handle: number;
  #closed: Promise<void> | undefined;

  private constructor(handle: number, target: Target) {
    this.#handle = handle;
    this.target = target;
    forgotten.register(this, handle, this);
  }

  /** @throws ConfigError, DeviceError, CapabilityError, DriverError, AddonError */
  static open({
    backend,
    device = 0,
    threads = os.availableParallelism(),
    memoryLimit = backend === "cpu" ? machineMemory() : 2 ** 46,
  }: SessionOptions): Session {
    if (!Number.isInteger(threads) || threads < 1 || threads > 1024) throw new ConfigError("Session.open", "threads", "an integer in [1, 1024]", threads);
    if (!Number.isSafeInteger(memoryLimit) || memoryLimit < 0) throw new ConfigError("Session.open", "memoryLimit", "a number of bytes", memoryLimit);
    const handle = guarded(addon => addon.open(backend, { device, threads, isa: isaLimit(), memoryLimit }));
    return new Session(handle, targetOf(backend));
  }

  /** Checks a program and reserves its arenas, zeroed; one that exists keeps its contents and grows if it must.
   *  @throws ProgramError naming the instruction, PlanError over the memory limit. */
  compile(program: Program): Executable {
    this.#requireOpen();
    return new Executable(
      program,
      this,
      guarded(addon => addon.compile(this.#handle, program)),
    );
  }

  /** Runs a program on the session's thread; outputs by port name, in outside order. Runs of one session follow each other.
   *  Aborting stops before the next instruction and rejects with signal.reason: persistent arenas then hold what was written until there.
   *  @throws ConfigError, ShapeError for a wrong feed; NonFiniteError in trace mode "check"; DataError, DeviceError from a kernel. */
  async run(executable: Executable, { inputs = {}, scalars = {} }: Feed, { signal }: { signal?: AbortSignal } = {}): Promise<Record<string, HostTensor>> {
    const at = callSite(this.run);
    this.#requireOwn(executable);
    signal?.throwIfAborted();
    const { program, index } = executable;
    const views = arrangeInputs(program, inputs);
    const numbers = arrangeScalars(program, scalars);
    const job = guarded(addon => addon.run(this.#handle, index, views, numbers));
    const buffers = await settled(job, at, signal);
    return Object.fromEntries(program.outputs.map((port, i) => [port.name, received(program, port, buffers[i]!)]));
  }

  /** Copies bytes into a persistent arena, after the runs that were started before and ahead of later ones. The array may be changed at once. */
  write(arena: string, offset: number, data: ArrayBufferView): void {
    this.#requireOpen();
    guarded(addon => addon.write(this.#handle, arena, offset, data));
  }

  /** Reads a tensor of a file into a persistent arena, on the session's thread and in its turn: converted to `dtype`, axes turned by `layout`.
   *  The file may be closed at once. Aborting rejects with signal.reason; then, as after an error, the tensor holds what was read until there.
   *  @throws DataError naming file and offset if the file does not give all its bytes; ProgramError if the tensor does not fit, or is not of floats. */
  async load(
    arena: string,
    offset: number,
    { path, fd, offset: position, dtype, shape }: TensorPlace,
    { dtype: arenaDtype, layout, signal }: { readonly dtype: DType; readonly layout: Layout; readonly signal?: AbortSignal | undefined },
  ): Promise<void> {
    const at = callSite(this.load);
    this.#requireOpen();
    signal?.throwIfAborted();
    const source = { path, fd, offset: position, dtype, shape, layout, arenaDtype };
    const job = guarded(addon => addon.write(this.#handle, arena, offset, source));
    await settled(job, at, signal);
  }

  /** A tensor of floats of a persistent arena, given by its dtype and shape there, in outside order and as `dtype`: converted on the session's thread.
   *  @throws ProgramError if there is no such place in the arena. */
  async readTensor(
    arena: string,
    offset: number,
    inside: { readonly dtype: DType; readonly shape: readonly number[]; readonly layout: Layout },
    dtype: HostDType = inside.dtype,
  ): Promise<HostTensor> {
    const at = callSite(this.readTensor);
    this.#requireOpen();
    const { layout, dtype: arenaDtype } = inside;
    const shape = outsideShape(inside.shape, layout);
    const bytes = guarded(addon => addon.read(this.#handle, arena, offset, { dtype, shape, layout, arenaDtype }));
    return hostTensorFromBytes(dtype, shape, await guardedPromise(bytes, at));
  }

  /** Copies bytes out of a persistent arena, after the runs that were started before. */
  async read(arena: string, offset: number, bytes: number): Promise<ArrayBuffer> {
    const at = callSite(this.read);
    this.#requireOpen();
    return guardedPromise(
      guarded(addon => addon.read(this.#handle, arena, offset, bytes)),
      at,
    );
  }

  memory(): SessionMemory {
    this.#requireOpen();
    const { arenas, workspace, limit } = guarded(addon => addon.memory(this.#handle));
    return { arenas, workspace, total: Object.values(arenas).reduce((sum, bytes) => sum + bytes, workspace), limit };
  }

  /** Sets how later runs of a program are watched: "time" measures every instruction, "check" stops at the first NaN or infinity that one produces.
   *  Returns what "time" measured since the last call. */
  trace(executable: Executable, mode: TraceMode): Trace {
    this.#requireOwn(executable);
    const { runs, nanoseconds } = guarded(addon => addon.trace(this.#handle, executable.index, mode));
    const instructions = executable.program.instructions.map(({ op, label }, i) => ({ op, label, seconds: (nanoseconds[i] ?? 0) * 1e-9 }));
    return { runs, ops: runs > 0 ? byOp(instructions, runs) : [], instructions: runs > 0 ? instructions : [] };
  }

  /** Ends the session: what runs is cancelled (ERR_ABORTED), memory is free when the promise resolves. Again: the same promise. */
  close(): Promise<void> {
    forgotten.unregister(this);
    this.#closed ??= guarded(addon => addon.close(this.#handle));
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #requireOpen(): void {
    if (this.#closed) throw new ClosedError("the session");
  }

  #requireOwn(executable: Executable): void {
    this.#requireOpen();
    if (executable.session !== this) throw new ConfigError("Session", "executable", "one that this session compiled", executable.program.name);
  }
}

/** simt runs the kernels of cuda. */
function targetOf(backend: Backend): Target {
  const { kernels } = backend === "cpu" ? guarded(addon => addon.kernels("cpu")) : guarded(addon => addon.kernels(backend));
  return { backend: backend === "cpu" ? "cpu" : "cuda", kernels: new Set(kernels.map(({ op }) => op)) };
}

/** Bytes that this process can have: the machine's, or its container's if that is less. */
function machineMemory(): number {
  const constrained = process.constrainedMemory?.() ?? 0; // 0 or absurdly large: no limit
  return Math.min(os.totalmem(), constrained > 0 ? constrained : Number.POSITIVE_INFINITY);
}

async function settled<T>(job: NativeJob<T>, at: { readonly stack?: string }, signal: AbortSignal | undefined): Promise<T> {
  const cancel = (): void => job.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    return await guardedPromise(job.promise, at);
  } catch (error) {
    if (signal?.aborted && error instanceof AbortedError) throw signal.reason;
    throw error;
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}

function arrangeInputs(program: Program, inputs: Readonly<Record<string, HostTensor>>): ArrayBufferView[] {
  const names = program.inputs.map(port => port.name);
  for (const name of Object.keys(inputs))
    if (!names.includes(name)) throw new ConfigError(`program "${program.name}"`, "inputs", `of ${names.join(", ") || "nothing"}`, name);
  return program.inputs.map(port => {
    const host = inputs[port.name];
    if (!host) throw new ConfigError(`program "${program.name}"`, `input "${port.name}"`, "a tensor", host);
    const { dtype, shape } = tensorOf(program, port);
    const wanted = outsideShape(shape, port.layout);
    if (!sameShape(host.shape, wanted)) throw new ShapeError(`program "${program.name}"`, `input "${port.name}" is [${wanted}], received [${host.shape}]`);
    return toInside(convert(host, dtype), port.layout).data;
  });
}

function arrangeScalars(program: Program, scalars: Readonly<Record<string, number>>): number[] {
  return program.scalars.map(name => {
    const value = scalars[name];
    if (typeof value !== "number") throw new ConfigError(`program "${program.name}"`, `scalar "${name}"`, "a number", value);
    return value;
  });
}

function tensorOf(program: Program, port: ProgramPort): ProgramTensor {
  return program.tensors[port.tensor]!; // checked by compile
}

function received(program: Program, port: ProgramPort, buffer: ArrayBuffer): HostTensor {
  const { dtype, shape } = tensorOf(program, port);
  return toOutside(hostTensorFromBytes(dtype, shape, buffer), port.layout);
}

function byOp(instructions: Trace["instructions"], runs: number): { op: string; count: number; seconds: number }[] {
  const totals = new Map<string, { op: string; count: number; seconds: number }>();
  for (const { op, seconds } of instructions) {
    const total = totals.get(op) ?? { op, count: 0, seconds: 0 };
    totals.set(op, { op, count: total.count + runs, seconds: total.seconds + seconds });
  }
  return [...totals.values()].sort((a, b) => b.seconds - a.seconds);
}
