/** Runs graphs and programs in plain JavaScript, one element at a time: what planned, fused and native runs are compared with.
 *  It knows enough ops for laws about graphs; arithmetic is in double and rounded once per op when stored. */

import { launches, storageOf } from "../../lib/graph/alias.js";
import type { Program } from "../../lib/graph/program.js";
import { decodeTape, type TapeAttrs } from "../../lib/graph/tape.js";
import { type Attrs, byteSize, type DType, type Graph, numel, type Tensor } from "../../lib/graph/tensor.js";

type Data = Float64Array | Float32Array | Int32Array;
export interface Value {
  readonly data: Data;
  readonly shape: readonly number[];
}
type Kernel = (attrs: Attrs, inputs: readonly (Value | undefined)[], outputs: readonly Value[]) => void;
export type Named = Readonly<Record<string, readonly number[]>>;

/** One run: program outputs by name, and what persistent arenas hold afterwards. */
export interface Run {
  readonly outputs: Record<string, number[]>;
  readonly arenas: Record<string, ArrayBuffer>;
}

/** Every tensor in a buffer of its own, views and effects by copying or sharing as they say: no plan, no passes. */
export function runGraph(graph: Graph, inputs: Named, arenas: Readonly<Record<string, ArrayBuffer>> = {}): Run {
  const memory = copyArenas(arenas);
  const own = new Map<Tensor, ArrayBuffer>();
  const locate = (tensor: Tensor): Value => {
    const { base, offset } = storageOf(tensor);
    const { op, attrs } = base.node;
    if (op.name === "parameter") return view(memory[String(attrs.arena)]!, Number(attrs.offset) + offset, tensor);
    if (!own.has(base)) own.set(base, new ArrayBuffer(byteSize(base)));
    return view(own.get(base)!, offset, tensor);
  };
  for (const { name, tensor } of graph.inputs) locate(tensor).data.set(inputs[name]!);
  for (const node of graph.nodes)
    if (launches(node))
      kernelOf(node.op.name)(
        node.attrs,
        node.inputs.map(x => x && locate(x)),
        node.outputs.map(locate),
      );
  return { outputs: Object.fromEntries(graph.outputs.map(({ name, tensor }) => [name, [...locate(tensor).data]])), arenas: memory };
}

/** The program in its planned arenas; scratch starts as NaN, so that a byte read before it is written shows. */
export function runProgram(program: Program, inputs: Named, arenas: Readonly<Record<string, ArrayBuffer>> = {}): Run {
  const memory = copyArenas(arenas);
  const buffers = program.arenas.map(({ name, bytes }, i) => (i === 0 ? new Uint8Array(bytes).fill(0xff).buffer : memory[name]!));
  const locate = (id: number): Value => {
    const tensor = program.tensors[id]!;
    return view(buffers[tensor.arena]!, tensor.offset, tensor);
  };
  for (const { name, tensor } of program.inputs) locate(tensor).data.set(inputs[name]!);
  for (const { op, attrs, inputs: from, outputs } of program.instructions)
    kernelOf(op)(
      attrs,
      from.map(id => (id < 0 ? undefined : locate(id))),
      outputs.map(locate),
    );
  return { outputs: Object.fromEntries(program.outputs.map(({ name, tensor }) => [name, [...locate(tensor).data]])), arenas: memory };
}

function copyArenas(arenas: Readonly<Record<string, ArrayBuffer>>): Record<string, ArrayBuffer> {
  return Object.fromEntries(Object.entries(arenas).map(([name, buffer]) => [name, buffer.slice(0)]));
}

function view(buffer: ArrayBuffer, offset: number, { dtype, shape }: { readonly dtype: DType; readonly shape: readonly number[] }): Value {
  const arrays = { f64: Float64Array, f32: Float32Array, i32: Int32Array } as const;
  if (!(dtype in arrays)) throw new Error(`naive runs know no ${dtype}`);
  return { data: new arrays[dtype as keyof typeof arrays](buffer, offset, numel(shape)), shape };
}

function kernelOf(op: string): Kernel {
  const kernel = kernels[op];
  if (!kernel) throw new Error(`naive runs know no ${op}`);
  return kernel;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const siluGrad = (x: number): number => sigmoid(x) * (1 + x * (1 - sigmoid(x)));

/** Elementwise ops by name, over broadcast operands. */
export const scalarOps: Readonly<Record<string, (attrs: Attrs, ...x: number[]) => number>> = {
  add: (_, a = 0, b = 0) => a + b,
  sub: (_, a = 0, b = 0) => a - b,
  mul: (_, a = 0, b = 0) => a * b,
  div: (_, a = 0, b = 0) => a / b,
  maximum: (_, a = 0, b = 0) => Math.max(a, b),
  minimum: (_, a = 0, b = 0) => Math.min(a, b),
  greater: (_, a = 0, b = 0) => (a > b ? 1 : 0),
  select: (_, c = 0, a = 0, b = 0) => (c !== 0 ? a : b),
  neg: (_, x = 0) => -x,
  exp: (_, x = 0) => Math.exp(x),
  log: (_, x = 0) => Math.log(x),
  square: (_, x = 0) => x * x,
  abs: (_, x = 0) => Math.abs(x),
  sigmoid: (_, x = 0) => sigmoid(x),
  tanh: (_, x = 0) => Math.tanh(x),
  relu: (_, x = 0) => Math.max(x, 0),
  silu: (_, x = 0) => x * sigmoid(x),
  silu_vjp: (_, dy = 0, x = 0) => dy * siluGrad(x),
  sin: (_, x = 0) => Math.sin(x),
  cos: (_, x = 0) => Math.cos(x),
  affine: ({ scale, shift }, x = 0) => Number(scale) * x + Number(shift),
  clamp: ({ min, max }, x = 0) => Math.min(Math.max(x, Number(min)), Number(max)),
  cast: (_, x = 0) => x,
  broadcast: (_, x = 0) => x,
};

const kernels: Record<string, Kernel> = {
  ...Object.fromEntries(Object.entries(scalarOps).map(([name, f]) => [name, elementwise(f)])),
  tape: (attrs, inputs, outputs) => {
    const { outputs: registers } = attrs as TapeAttrs;
    const steps = decodeTape(attrs as TapeAttrs);
    const y = outputs[0]!;
    const rounded = y.data instanceof Float32Array ? Math.fround : (v: number) => v;
    each(y.shape, (at, i) => {
      const values = inputs.map(x => x!.data[index(at, x!.shape)]!);
      for (const { opcode, dst, operands, attrs: own } of steps)
        values[dst] = rounded(opcode === "constant" ? Number(own.value) : scalarOps[opcode]!(own, ...operands.map(r => values[r]!)));
      for (const [k, r] of registers.entries()) outputs[k]!.data[i] = values[r]!;
    });
  },
  full: ({ value }, _, [y]) => void y!.data.fill(Number(value)),
  constant: ({ values }, _, [y]) => y!.data.set(values as readonly number[]),
  accumulate: (_, [total, x]) => total!.data.set(total!.data.map((v, i) => v + x!.data[i]!)),
  assign: (_, [target, x]) => target!.data.set(x!.data),
  reshape: (_, [x], [y]) => y!.data.set(x!.data),
  sum: (_, [x], [y]) => {
    const total = new Float64Array(y!.data.length);
    each(x!.shape, (at, i) => {
      total[index(at, y!.shape)]! += x!.data[i]!;
    });
    y!.data.set(total);
  },
  slice: ({ axis, start }, [x], [y]) => copyElements(x!, at => moved(at, axis, start), y!, same, y!.shape),
  pad({ axis, before }, [x], [y]) {
    y!.data.fill(0);
    copyElements(x!, same, y!, at => moved(at, axis, before), x!.shape);
  },
  concat({ axis }, xs, [y]) {
    let start = 0;
    for (const x of xs) {
      const from = start;
      copyElements(x!, same, y!, at => moved(at, axis, from), x!.shape);
      start += x!.shape[Number(axis)]!;
    }
  },
  transpose({ permutation }, [x], [y]) {
    const axes = permutation as readonly number[];
    copyElements(x!, same, y!, at => axes.map(axis => at[axis]!), x!.shape);
  },
  // y = (x - mean) * gamma + beta by rows: not the real normalisation, but an op with three outputs
  layer_norm(_, [x, gamma, beta], [y, mean, rstd]) {
    const width = x!.shape.at(-1)!;
    for (const row of mean!.data.keys()) {
      const values = Array.from(x!.data.subarray(row * width, (row + 1) * width));
      const mu = values.reduce((a, b) => a + b, 0) / width;
      mean!.data.set([mu], row);
      rstd!.data.set([1], row);
      y!.data.set(
        values.map((v, c) => (v - mu) * gamma!.data[c]! + beta!.data[c]!),
        row * width,
      );
    }
  },
};

function elementwise(f: (attrs: Attrs, ...x: number[]) => number): Kernel {
  return (attrs, inputs, [y]) =>
    each(y!.shape, (at, i) => {
      y!.data[i] = f(attrs, ...inputs.map(x => x!.data[index(at, x!.shape)]!));
    });
}

type Position = readonly number[];
const same = (at: Position): Position => at;

/** y[to(at)] = x[from(at)] for every position of `shape`. */
function copyElements(x: Value, from: (at: Position) => Position, y: Value, to: (at: Position) => Position, shape: readonly number[]): void {
  each(shape, at => {
    y.data[index(to(at), y.shape)] = x.data[index(from(at), x.shape)]!;
  });
}

/** Calls body(position, i) for every element, row-major. */
function each(shape: readonly number[], body: (at: Position, i: number) => void): void {
  const at = shape.map(() => 0);
  for (let i = 0; i < numel(shape); i++) {
    body(at, i);
    for (let axis = shape.length - 1; axis >= 0 && ++at[axis]! === shape[axis]; axis--) at[axis] = 0;
  }
}

/** Row-major index of a position, aligned at the last axis, in a tensor whose axes of length 1 repeat. */
function index(at: Position, shape: readonly number[]): number {
  const missing = at.length - shape.length;
  return shape.reduce((i, n, axis) => i * n + (n === 1 ? 0 : at[axis + missing]!), 0);
}

function moved(at: Position, axis: unknown, by: unknown): Position {
  return at.map((i, a) => (a === axis ? i + Number(by) : i));
}
