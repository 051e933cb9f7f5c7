/** Which tensors share memory, before any address exists: views lie in their input, effects write into a parameter. */

import { byteSize, type Node, type Tensor } from "./tensor.js";

/** Where a tensor lies: `offset` bytes into the memory of `base`, which is neither a view nor the result of an effect. */
export interface Storage {
  readonly base: Tensor;
  readonly offset: number;
}

/** The byte offset at which output 0 lies in input 0, or undefined: the node is no view. */
export function viewOffset(node: Node): number | undefined {
  return node.op.view?.(node.attrs, ...node.inputs);
}

/** Whether the node becomes an instruction: leaves and views launch nothing. */
export function launches(node: Node): boolean {
  return !node.op.leaf && viewOffset(node) === undefined;
}

export function storageOf(tensor: Tensor): Storage {
  let offset = 0;
  for (let at = tensor; ; ) {
    const { node, index } = at;
    const written = node.op.writes?.[index];
    const view = written === undefined && index === 0 ? viewOffset(node) : undefined;
    if (written === undefined && view === undefined) return { base: at, offset };
    offset += view ?? 0;
    at = node.inputs[written ?? 0]!;
  }
}

/** A stretch of a persistent arena, in bytes. */
export interface Stretch {
  readonly arena: string;
  readonly from: number;
  readonly to: number;
}

/** The persistent bytes that a tensor stands for; undefined: it lies in scratch. */
export function persistentBytes(tensor: Tensor): Stretch | undefined {
  const { base, offset } = storageOf(tensor);
  const { op, attrs } = base.node;
  if (op.name !== "parameter") return undefined;
  const from = Number(attrs.offset) + offset;
  return { arena: String(attrs.arena), from, to: from + byteSize(tensor) };
}

export function overlap(a: Stretch, b: Stretch): boolean {
  return a.arena === b.arena && a.from < b.to && b.from < a.to;
}

/** Whether the tensor lies in an arena that outlives the run, so that an effect may change it between two reads. */
export function isPersistent(tensor: Tensor): boolean {
  return storageOf(tensor).base.node.op.name === "parameter";
}
