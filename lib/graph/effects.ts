/** Moves every effect to the earliest place where its operands exist. Effects are written last, after all gradients are known; run there,
 *  they would keep every gradient in scratch at once. Run early, `accumulate` frees each gradient as soon as it is made. */

import { launches, storageOf } from "./alias.js";
import { rebuild } from "./rebuild.js";
import { byteSize, type Graph, type Node, type Tensor } from "./tensor.js";

/** A stretch of a persistent arena, and after which nodes (by id) its last read and last write stand. */
interface Stretch {
  readonly from: number;
  readonly to: number;
  read: number;
  write: number;
}

/** Arena -> its stretches by "from:to". */
type Memory = Map<string, Map<string, Stretch>>;
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
    const own = stretchOf(x, memory);
    if (!own) continue;
    const writes = node.op.writes?.includes(i);
    for (const s of memory.get(String(base.node.attrs.arena))!.values())
      if (s.from < own.to && own.from < s.to) after = Math.max(after, s.write, writes ? s.read : -1);
  }
  return after;
}

function record(node: Node, memory: Memory, at: number): void {
  for (const [i, x] of node.inputs.entries()) {
    const stretch = x && stretchOf(x, memory);
    if (!stretch) continue;
    stretch.read = Math.max(stretch.read, at);
    if (node.op.writes?.includes(i)) stretch.write = Math.max(stretch.write, at);
  }
}

/** The persistent bytes of a tensor; undefined: it lies in scratch. */
function stretchOf(x: Tensor, memory: Memory): Stretch | undefined {
  const { base, offset } = storageOf(x);
  if (base.node.op.name !== "parameter") return undefined;
  const arena = String(base.node.attrs.arena);
  const from = Number(base.node.attrs.offset) + offset,
    to = from + byteSize(x);
  const stretches = memory.get(arena) ?? new Map<string, Stretch>();
  memory.set(arena, stretches);
  const stretch = stretches.get(`${from}:${to}`) ?? { from, to, read: -1, write: -1 };
  stretches.set(`${from}:${to}`, stretch);
  return stretch;
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
