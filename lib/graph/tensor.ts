/** Symbolic tensors: a value that does not exist yet, its static shape, and the node that will make it.
 *  A Graph is nodes in order of building, which is order of execution. Nothing here knows numbers or devices. */

import { ShapeError } from "../errors.js";
import type { OpDef } from "./op.js";

export type DType = "f64" | "f32" | "bf16" | "f16" | "i32" | "u8";
export type Attr = number | boolean | string | readonly number[];
export type Attrs = { readonly [name: string]: Attr };

/** Axis order of the tensor outside: "bchw" is converted to and from the channels-last order inside, "oihw" conv weights to [O, kh, kw, I]. */
export type Layout = "plain" | "bchw" | "oihw";

export interface TensorType {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

export interface Tensor extends TensorType {
  readonly id: number;
  readonly node: Node;
  /** Which output of the node this is. */
  readonly index: number;
}

export interface Node {
  readonly id: number;
  // biome-ignore lint/suspicious/noExplicitAny: a node holds an op of any arity; defineOp keeps the types at both ends
  readonly op: OpDef<any, any, any>;
  readonly attrs: Attrs;
  readonly inputs: readonly (Tensor | undefined)[];
  readonly outputs: readonly Tensor[];
  /** Where in the model it stands: "policy/down_blocks.1/resnets.0/conv1". */
  readonly label: string;
  /** The recomputation region it was built in, if any (recompute.ts). */
  readonly region: number | undefined;
  /** 0, or the replay that made it: common subexpressions are never merged across replays. */
  readonly replay: number;
}

export interface NamedTensor {
  readonly name: string;
  readonly tensor: Tensor;
  readonly layout: Layout;
}

export class Graph {
  readonly nodes: Node[] = [];
  readonly inputs: NamedTensor[] = [];
  readonly outputs: NamedTensor[] = [];
  /** Names of the slots that change from step to step, in slot order (scalars.ts). */
  readonly scalars: string[] = [];
  readonly #scopes: string[] = [];
  #region: number | undefined;
  #regions = 0;
  #replay = 0;
  #replays = 0;
  #tensors = 0;

  get label(): string {
    return this.#scopes.join("/");
  }

  /** Appends a node. Only defineOp and the passes call this. */
  append(
    op: Node["op"],
    attrs: Attrs,
    inputs: Node["inputs"],
    types: readonly TensorType[],
    as?: { label: string; replay?: number; region?: number | undefined },
  ): Node {
    const outputs: Tensor[] = [];
    const node: Node = {
      id: this.nodes.length,
      op,
      attrs,
      inputs,
      outputs,
      label: as ? as.label : this.label,
      region: as ? as.region : this.#region,
      replay: as?.replay ?? this.#replay,
    };
    for (const [index, type] of types.entries()) {
      if (type.shape.some(n => !Number.isSafeInteger(n) || n < 1))
        throw new ShapeError(op.name, `output ${index} would have shape [${type.shape}]`, node.label);
      outputs.push({ id: this.#tensors++, node, index, dtype: type.dtype, shape: [...type.shape] });
    }
    this.nodes.push(node);
    return node;
  }

  /** Runs `body` with `name` appended to the label of every node it builds. */
  scope<T>(name: string, body: () => T): T {
    this.#scopes.push(name);
    try {
      return body();
    } finally {
      this.#scopes.pop();
    }
  }

  /** Nodes built by `body` form one recomputation region: their activations are dropped after the forward pass. Regions do not nest: the outer one wins. */
  region<T>(body: () => T): T {
    if (this.#region !== undefined) return body();
    this.#region = ++this.#regions;
    try {
      return body();
    } finally {
      this.#region = undefined;
    }
  }

  /** A fresh number for one replay of a region. */
  nextReplay(): number {
    return ++this.#replays;
  }

  /** Nodes built by `body` belong to that replay. */
  inReplay<T>(replay: number, body: () => T): T {
    const before = this.#replay;
    this.#replay = replay;
    try {
      return body();
    } finally {
      this.#replay = before;
    }
  }

  /** The slot of a per-step number, added when first asked for. */
  scalarSlot(name: string): number {
    const at = this.scalars.indexOf(name);
    return at >= 0 ? at : this.scalars.push(name) - 1;
  }

  /** Names a result of the program. */
  output(name: string, tensor: Tensor, layout: Layout = "plain"): void {
    if (this.outputs.some(o => o.name === name)) throw new ShapeError("output", `the name "${name}" is taken`);
    this.outputs.push({ name, tensor, layout });
  }
}

let current: Graph | undefined;

/** The graph under construction. */
export function currentGraph(): Graph {
  if (!current) throw new ShapeError("graph", "tensors exist only inside buildGraph(() => ...)");
  return current;
}

/** Builds a graph: every op called inside `body` is appended to it. */
export function buildGraph(body: (graph: Graph) => void): Graph {
  return extendGraph(new Graph(), body);
}

/** Goes on building a graph. */
export function extendGraph(graph: Graph, body: (graph: Graph) => void): Graph {
  inGraph(graph, () => body(graph));
  return graph;
}

/** What `body` returns, with `graph` under construction meanwhile. */
export function inGraph<T>(graph: Graph, body: () => T): T {
  const before = current;
  current = graph;
  try {
    return body();
  } finally {
    current = before;
  }
}

/** Runs `body` under a scope label of the current graph. */
export function scope<T>(name: string, body: () => T): T {
  return currentGraph().scope(name, body);
}

/** Marks a recomputation region: gradient checkpointing of whatever `body` builds. */
export function recomputed<T>(body: () => T): T {
  return currentGraph().region(body);
}

export function numel(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1);
}

export function typed(dtype: DType, ...shape: number[]): TensorType {
  return { dtype, shape };
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}

export const dtypeBytes: { readonly [K in DType]: number } = { f64: 8, f32: 4, bf16: 2, f16: 2, i32: 4, u8: 1 };

export function byteSize(type: TensorType): number {
  return numel(type.shape) * dtypeBytes[type.dtype];
}
