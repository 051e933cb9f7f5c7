/** Moves every effect to the earliest place where its operands exist. Effects are written last, after all gradients are known; run there,
 *  they would keep every gradient in scratch at once. Run early, `accumulate` frees each gradient as soon as it is made. */

import { launches, overlap, persistentBytes, type Stretch, storageOf } from "./alias.js";
import { rebuild } from "./rebuild.js";
import type { Graph, Node, Tensor } from "./tensor.js";

/** Persistent bytes, and after which nodes (by id) their last read and last write stand. */
interface Access extends Stretch {
  read: number;
  write: number;
}

/** Arena -> accesses by "from:to". */
type Memory = Map<string, Map<string, Access>>;
/** Effect -> the node, by id, after which it runs; -1: before all others. */
type Places = Map<Node, number>;

/** Keeps the order of any two instructions of which one writes bytes that the other reads or writes, and of everything that is no effect. */
export function hoistEffects(graph: Graph): Graph {
  if (!graph.nodes.some(node => node.op.writes)) return graph;
  const memory: Memory = new Map();
  const places: Places = new Map();
  for (const node of graph.nodes) {
    if (!launches(node)) continue;
    if (node.op.writes) places.set(node, earliest(node, memory));
    record(node, memory, places.get(node) ?? node.id);
  }
  return rebuild(graph, (_node, _inputs, keep) => keep(), reordered(graph, places));
}

/** After the producers of the operands, after whatever touches the bytes written, and after whatever writes the bytes read. */
function earliest(node: Node, memory: Memory): number {
  let after = -1;
  for (const [i, x] of node.inputs.entries()) {
    if (!x) continue;
    const { base } = storageOf(x);
    if (!base.node.op.leaf) after = Math.max(after, base.node.id);
    const own = accessOf(x, memory);
    if (!own) continue;
    const writes = node.op.writes?.includes(i);
    for (const other of memory.get(own.arena)!.values()) if (overlap(own, other)) after = Math.max(after, other.write, writes ? other.read : -1);
  }
  return after;
}

function record(node: Node, memory: Memory, at: number): void {
  for (const [i, x] of node.inputs.entries()) {
    const access = x && accessOf(x, memory);
    if (!access) continue;
    access.read = Math.max(access.read, at);
    if (node.op.writes?.includes(i)) access.write = Math.max(access.write, at);
  }
}

function accessOf(x: Tensor, memory: Memory): Access | undefined {
  const bytes = persistentBytes(x);
  if (!bytes) return undefined;
  const ofArena = memory.get(bytes.arena) ?? new Map<string, Access>();
  memory.set(bytes.arena, ofArena);
  const key = `${bytes.from}:${bytes.to}`;
  const access = ofArena.get(key) ?? { ...bytes, read: -1, write: -1 };
  ofArena.set(key, access);
  return access;
}

/** The nodes in their new order: an effect stands right after its place, with the leaves and views it needs before it. */
function reordered(graph: Graph, places: Places): Node[] {
  const order: Node[] = [];
  const done = new Uint8Array(graph.nodes.length);
  const emit = (node: Node): void => {
    if (done[node.id]) return;
    for (const x of node.inputs) if (x) emit(x.node);
    done[node.id] = 1;
    order.push(node);
  };
  const waiting = new Map<number, Node[]>();
  for (const [node, after] of places) {
    const others = waiting.get(after);
    if (others) others.push(node);
    else waiting.set(after, [node]);
  }
  const release = (after: number): void => waiting.get(after)?.forEach(emit);
  release(-1);
  for (const node of graph.nodes) {
    if (!places.has(node)) emit(node);
    release(node.id);
  }
  return order;
}
