/** Runs kernels on typed arrays or on tensors that stay on the device. A call is a small program, compiled once per kernel, options, shapes and dtypes. */

import type { Device } from "../device.js";
import { ClosedError, ConfigError, ShapeError } from "../errors.js";
import { compileGraph } from "../graph/compile.js";
import { vjp } from "../graph/grad.js";
import { input, parameter } from "../graph/ops/leaf.js";
import { assign } from "../graph/ops/optimizer.js";
import type { Executable, Session } from "../graph/session.js";
import { buildGraph, byteSize, type DType, type Graph, type Layout, sameShape, type Tensor } from "../graph/tensor.js";
import { type HostTensor, hostTensorFromBytes, insideShape, outsideShape, toInside, toOutside } from "../util/host-tensor.js";
import { isFloatDtype, type Kernel, type Operand } from "./kernel.js";

/** A tensor in device memory, made by `Kernels.upload` or returned by `Kernels.runOnDevice`; it lives until its `dispose` or the runner's `close`. */
export class DeviceTensor implements Disposable {
  #release: (() => void) | undefined;

  /** Only Kernels makes one. */
  constructor(
    readonly owner: Kernels,
    readonly dtype: DType,
    /** In outside order. */
    readonly shape: readonly number[],
    readonly layout: Layout,
    readonly arena: string,
    release: () => void,
  ) {
    this.#release = release;
  }

  get disposed(): boolean {
    return this.#release === undefined;
  }

  /** Gives its memory to tensors that are made later. */
  dispose(): void {
    this.#release?.();
    this.#release = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export type KernelInput = HostTensor | DeviceTensor;
type Inputs<In extends string> = { readonly [K in In]?: KernelInput | undefined };
type Results<Out extends string, T> = { readonly [K in Out]: T };

interface Call {
  readonly executable: Executable;
  /** Names of the program's outputs; on the device: where each lies. */
  readonly outputs: readonly string[];
}

export class Kernels implements AsyncDisposable {
  readonly #session: Session;
  readonly #calls = new Map<string, Call>();
  readonly #identities = new WeakMap<object, number>();
  readonly #free: { readonly arena: string; readonly bytes: number }[] = [];
  #arenas = 0;
  #objects = 0;
  #closed = false;

  private constructor(session: Session) {
    this.#session = session;
  }

  /** @throws DeviceError, OutOfMemoryError */
  static open(device: Device): Kernels {
    return new Kernels(device.openSession());
  }

  /** Copies a tensor to the device. A map or a conv weight is stored channels-last: say its layout here, kernels check it. */
  upload(tensor: HostTensor, layout: Layout = "plain"): DeviceTensor {
    this.#requireOpen();
    if (tensor.dtype === "i64") throw new ConfigError("Kernels.upload", "dtype", "one that kernels compute in", "i64");
    const made = this.#allocate(tensor.dtype, tensor.shape, layout);
    this.#session.write(made.arena, 0, toInside(tensor, layout).data);
    return made;
  }

  /** Copies a tensor back. */
  async download(tensor: DeviceTensor): Promise<HostTensor> {
    this.#requireOwn("tensor", tensor);
    if (!isFloatDtype(tensor.dtype)) {
      const bytes = await this.#session.read(tensor.arena, 0, byteSize(tensor));
      return toOutside(hostTensorFromBytes(tensor.dtype, insideShape(tensor.shape, tensor.layout), bytes), tensor.layout);
    }
    return this.#session.readTensor(tensor.arena, 0, { dtype: tensor.dtype, shape: insideShape(tensor.shape, tensor.layout), layout: tensor.layout });
  }

  /** Runs a kernel; results come back as typed arrays. Inputs are typed arrays or tensors on the device, computed in their own dtypes.
   *  @throws ConfigError for a missing or unknown input, ShapeError for shapes that do not fit, DeviceError, OutOfMemoryError */
  async run<In extends string, Out extends string, O extends object>(
    kernel: Kernel<In, Out, O>,
    inputs: Inputs<In>,
    options: O = {} as O,
  ): Promise<Results<Out, HostTensor>> {
    const call = this.#call(kernel, inputs, options, {}, undefined);
    return (await this.#execute(call, kernel, inputs, options, {})) as Results<Out, HostTensor>;
  }

  /** Runs a kernel; results stay on the device. */
  async runOnDevice<In extends string, Out extends string, O extends object>(
    kernel: Kernel<In, Out, O>,
    inputs: Inputs<In>,
    options: O = {} as O,
  ): Promise<Results<Out, DeviceTensor>> {
    const types = this.#typesOf(kernel, inputs, options);
    const results = Object.entries(types).map(([name, type]) => {
      const layout = kernel.outputs[name as Out];
      return [name, this.#allocate(type.dtype, outsideShape(type.shape, layout), layout)] as const;
    });
    const places = Object.fromEntries(results);
    await this.#execute(this.#call(kernel, inputs, options, {}, places), kernel, inputs, options, {});
    return places as Results<Out, DeviceTensor>;
  }

  /** Gradients of every floating-point input that is given, for cotangents of the outputs (those left out are zero).
   *  A gradient has the dtype in which its op makes it: that of its input, f32 for weights of bf16 products. */
  async backward<In extends string, Out extends string, O extends object>(
    kernel: Kernel<In, Out, O>,
    inputs: Inputs<In>,
    cotangents: { readonly [K in Out]?: HostTensor },
    options: O = {} as O,
  ): Promise<{ readonly [K in In]?: HostTensor }> {
    const given = Object.fromEntries(Object.entries(cotangents).filter(([, u]) => u !== undefined)) as Record<string, HostTensor>;
    if (Object.keys(given).length === 0) throw new ConfigError(kernel.name, "cotangents", "at least one of the outputs'", cotangents);
    for (const name of Object.keys(given))
      if (!(name in kernel.outputs)) throw new ConfigError(kernel.name, "cotangents", `of ${Object.keys(kernel.outputs).join(", ")}`, name);
    return (await this.#execute(this.#call(kernel, inputs, options, given, undefined), kernel, inputs, options, given)) as { readonly [K in In]?: HostTensor };
  }

  /** Frees the device memory of this runner and of every tensor that it made. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A place of the right size: one that a disposed tensor left, or a new arena. */
  #allocate(dtype: DType, shape: readonly number[], layout: Layout): DeviceTensor {
    const bytes = byteSize({ dtype, shape });
    const at = this.#free.findIndex(place => place.bytes === bytes);
    const place = at >= 0 ? this.#free.splice(at, 1)[0]! : { arena: `tensor ${this.#arenas++}`, bytes };
    if (at < 0) this.#reserve(place.arena, dtype, shape);
    return new DeviceTensor(this, dtype, [...shape], layout, place.arena, () => void this.#free.push(place));
  }

  /** An arena exists when a program names it. */
  #reserve(arena: string, dtype: DType, shape: readonly number[]): void {
    const graph = buildGraph(g => g.output("x", parameter({ arena, name: "x", dtype, shape, offset: 0 })));
    this.#session.compile(compileGraph(graph, { name: `reserve ${arena}`, target: this.#session.target }));
  }

  #call(
    kernel: Kernel,
    inputs: Inputs<string>,
    options: object,
    cotangents: Record<string, HostTensor>,
    places: Record<string, DeviceTensor> | undefined,
  ): Call {
    this.#requireOpen();
    requireInputs(kernel, inputs);
    for (const [name, x] of Object.entries(inputs)) if (x instanceof DeviceTensor) this.#requireOwn(`${kernel.name}: ${name}`, x, kernel.inputs[name]);
    for (const name of kernel.writes ?? [])
      if (!(inputs[name] instanceof DeviceTensor)) throw new ConfigError(kernel.name, name, "a tensor on the device, since it is overwritten", "a typed array");
    const key = this.#keyOf(kernel, inputs, options, cotangents, places);
    const known = this.#calls.get(key);
    if (known) return known;
    const graph = buildGraph(g => this.#build(g, kernel, inputs, options, cotangents, places));
    const executable = this.#session.compile(compileGraph(graph, { name: kernel.name, target: this.#session.target }));
    const call = { executable, outputs: graph.outputs.map(o => o.name) };
    this.#calls.set(key, call);
    return call;
  }

  #build(
    graph: Graph,
    kernel: Kernel,
    inputs: Inputs<string>,
    options: object,
    cotangents: Record<string, HostTensor>,
    places: Record<string, DeviceTensor> | undefined,
  ): void {
    const x = Object.fromEntries(Object.entries(inputs).flatMap(([name, value]) => (value ? [[name, leaf(name, value, kernel.inputs[name]!)]] : [])));
    const y = kernel.build(x, options);
    if (Object.keys(cotangents).length > 0) {
      const names = Object.keys(cotangents);
      const u = names.map(name => leaf(`d ${name}`, fitting(kernel, name, cotangents[name]!, y[name]!), { layout: kernel.outputs[name]! }));
      const wanted = Object.entries(x).filter(([name, t]) => isFloatDtype(t.dtype) && !kernel.inputs[name]!.frozen);
      const outputs = names.map(name => y[name]!);
      const found = vjp(
        outputs,
        u,
        wanted.map(([, t]) => t),
        { unreachable: "zeros" },
      );
      for (const [i, [name]] of wanted.entries()) graph.output(name, found[i]!, kernel.inputs[name]!.layout ?? "plain");
    } else if (places) {
      for (const [name, t] of Object.entries(y)) {
        const { arena, dtype } = places[name]!;
        assign(parameter({ arena, name, dtype, shape: t.shape, offset: 0 }), t);
      }
    } else {
      for (const [name, t] of Object.entries(y)) graph.output(name, t, kernel.outputs[name]!);
    }
  }

  /** Types of a kernel's outputs, inside. */
  #typesOf(kernel: Kernel, inputs: Inputs<string>, options: object): Record<string, { dtype: DType; shape: readonly number[] }> {
    requireInputs(kernel, inputs);
    let types: Record<string, { dtype: DType; shape: readonly number[] }> = {};
    buildGraph(() => {
      const x = Object.fromEntries(Object.entries(inputs).flatMap(([name, value]) => (value ? [[name, leaf(name, value, kernel.inputs[name]!)]] : [])));
      types = Object.fromEntries(Object.entries(kernel.build(x, options)).map(([name, t]) => [name, { dtype: t.dtype, shape: t.shape }]));
    });
    return types;
  }

  async #execute(
    call: Call,
    kernel: Kernel,
    inputs: Inputs<string>,
    options: object,
    cotangents: Record<string, HostTensor>,
  ): Promise<Record<string, HostTensor>> {
    const hosts = Object.entries(inputs).filter((entry): entry is [string, HostTensor] => entry[1] !== undefined && !(entry[1] instanceof DeviceTensor));
    const feeds = Object.fromEntries([...hosts, ...Object.entries(cotangents).map(([name, u]) => [`d ${name}`, u] as const)]);
    return this.#session.run(call.executable, { inputs: feeds, scalars: kernel.scalars?.(options) ?? {} });
  }

  #keyOf(kernel: Kernel, inputs: Inputs<string>, options: object, cotangents: object, places: Record<string, DeviceTensor> | undefined): string {
    const typeOf = (x: KernelInput | undefined): unknown => x && [x.dtype, x.shape, x instanceof DeviceTensor ? x.arena : ""];
    const types = (all: object): unknown => Object.entries(all).map(([name, x]) => [name, typeOf(x as KernelInput | undefined)]);
    const shaping = kernel.shapeOf ? kernel.shapeOf(options) : options;
    const seen = (_: string, value: unknown): unknown => (typeof value === "function" ? `function ${this.#identity(value)}` : value);
    return JSON.stringify([this.#identity(kernel), types(inputs), types(cotangents), places ? types(places) : null, shaping], seen);
  }

  /** A number per object: two objectives with the same fields are two objectives. */
  #identity(object: object): number {
    const known = this.#identities.get(object) ?? this.#objects++;
    this.#identities.set(object, known);
    return known;
  }

  #requireOpen(): void {
    if (this.#closed) throw new ClosedError("the kernel runner");
  }

  #requireOwn(what: string, tensor: DeviceTensor, operand?: Operand): void {
    this.#requireOpen();
    if (tensor.owner !== this) throw new ConfigError(what, "the tensor", "one of this runner", "another runner's");
    if (tensor.disposed) throw new ClosedError(what);
    const layout = operand?.layout ?? tensor.layout;
    if (operand && tensor.layout !== layout) throw new ConfigError(what, "layout", `"${layout}"`, tensor.layout);
  }
}

function requireInputs(kernel: Kernel, inputs: Inputs<string>): void {
  const names = Object.keys(kernel.inputs);
  for (const name of Object.keys(inputs)) if (!names.includes(name)) throw new ConfigError(kernel.name, "inputs", `of ${names.join(", ")}`, name);
  for (const [name, { optional }] of Object.entries(kernel.inputs))
    if (!optional && inputs[name] === undefined) throw new ConfigError(kernel.name, `input "${name}"`, "a tensor", undefined);
}

function leaf(name: string, value: KernelInput, { layout = "plain" }: Operand): Tensor {
  const { dtype } = value;
  if (dtype === "i64") throw new ConfigError(name, "dtype", "one that kernels compute in", dtype);
  const shape = insideShape(value.shape, layout);
  return value instanceof DeviceTensor ? parameter({ arena: value.arena, name, dtype, shape, offset: 0 }) : input(name, { dtype, shape }, layout);
}

function fitting(kernel: Kernel, name: string, u: HostTensor, y: Tensor): HostTensor {
  const shape = outsideShape(y.shape, kernel.outputs[name]!);
  if (!sameShape(u.shape, shape)) throw new ShapeError(kernel.name, `the cotangent of ${name} is [${shape}], received [${u.shape}]`);
  return u.dtype === y.dtype ? u : { ...u };
}
