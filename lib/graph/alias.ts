/** Which tensors share memory, before any address exists: views lie in their input, effects write into a parameter. */

import type { Node, Tensor } from "./tensor.js";

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

/** Whether the tensor lies in an arena that outlives the run, so that an effect may change it between two reads. */
export function isPersistent(tensor: Tensor): boolean {
  return storageOf(tensor).base.node.op.name === "parameter";
}
