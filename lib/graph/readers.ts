/** Who reads a tensor, and what stands between two nodes: questions of passes that join nodes. */

import { overlap, persistentBytes, type Stretch } from "./alias.js";
import type { Graph, Node, Tensor } from "./tensor.js";

/** Tensor -> the nodes that read it, once for every operand; for a program output also undefined. */
export type Readers = ReadonlyMap<Tensor, readonly (Node | undefined)[]>;

export function readersOf(graph: Graph): Readers {
  const readers = new Map<Tensor, (Node | undefined)[]>();
  const add = (tensor: Tensor, reader: Node | undefined): void => {
    const known = readers.get(tensor);
    if (known) known.push(reader);
    else readers.set(tensor, [reader]);
  };
  for (const node of graph.nodes) for (const x of node.inputs) if (x) add(x, node);
  for (const { tensor } of graph.outputs) add(tensor, undefined);
  return readers;
}

/** Effects and the persistent bytes that they write, in order. */
export class Writes {
  readonly #writes: { readonly at: number; readonly bytes: Stretch }[] = [];

  constructor(graph: Graph) {
    for (const { op, id, inputs } of graph.nodes)
      for (const k of op.writes ?? []) {
        const bytes = persistentBytes(inputs[k]!);
        if (bytes) this.#writes.push({ at: id, bytes });
      }
  }

  /** Whether `node` reads the same where `later` stands as where it stands itself. */
  spare(node: Node, later: Node): boolean {
    const between = this.#writes.filter(({ at }) => at > node.id && at < later.id);
    if (between.length === 0) return true;
    const read = node.inputs.flatMap(x => (x && persistentBytes(x)) ?? []);
    return !between.some(({ bytes }) => read.some(r => overlap(r, bytes)));
  }
}
