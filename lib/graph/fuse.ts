/** Fusion: elementwise nodes of one shape that feed each other become one `tape`. It saves launches, and a value between two ops of a tape is never
 *  written to memory. Results keep their bits, because a tape rounds after each op as the ops do. */

import { type Readers, readersOf } from "./readers.js";
import { rebuild } from "./rebuild.js";
import { tapeDef } from "./tape.js";
import { encodeTape, operandOf } from "./tape-encode.js";
import { tapeOpcodes } from "./tape-opcodes.js";
import { byteSize, type Graph, type Node, sameShape, type Tensor } from "./tensor.js";

/** Nodes that will run as one where the last of them stands, in order. No node joins a closed group: something reads what it made, or an effect has
 *  come since, which may overwrite what its members read. */
interface Group {
  readonly members: readonly Node[];
  open: boolean;
}

/** Above this many bytes per value, a group takes no node further than `reach` from its last: until it runs, it keeps all its inputs alive. */
const smallBytes = 65536;
const reach = 16;
/** Bounds the time to try encodings: each node that joins costs one of the whole group. */
const maxMembers = 64;

/** Replaces groups of two or more ops, and single ops of which an operand is a number, by tapes. Effects keep their places, replays stay apart. */
export function fuseTapes(graph: Graph): Graph {
  const readers = readersOf(graph);
  const groups = new Map<Node, Group>();
  let open = new Set<Group>();
  for (const node of graph.nodes) {
    if (node.op.writes) {
      for (const group of open) group.open = false;
      open = new Set();
    }
    const joined = fusable(node) ? join(node, groups, readers) : undefined;
    if (joined) open.add(joined);
    for (const x of node.inputs) {
      const group = x && groups.get(x.node);
      if (group && group !== joined) group.open = false;
    }
  }
  const order = graph.nodes.flatMap(node => {
    const group = groups.get(node);
    if (!group) return [node];
    return group.members.at(-1) === node ? [asTape(group.members, readers)] : [];
  });
  return rebuild(graph, (_node, _inputs, keep) => keep(), order);
}

const opcodes: ReadonlySet<string> = new Set(tapeOpcodes);

function fusable({ op, outputs, inputs }: Node): boolean {
  const dtype = outputs[0]!.dtype;
  return op.tape !== undefined && opcodes.has(op.name) && (dtype === "f32" || dtype === "f64") && inputs.every(x => x?.dtype === dtype);
}

/** The group of the node: with those that made its operands, as far as one tape holds them. */
function join(node: Node, groups: Map<Node, Group>, readers: Readers): Group {
  let members: readonly Node[] = [node];
  for (const x of node.inputs) {
    const group = x && groups.get(x.node);
    if (!group?.open || members.includes(x!.node) || !accepts(group, node)) continue;
    const together = [...group.members, ...members].sort((a, b) => a.id - b.id);
    if (together.length <= maxMembers && encode(together, readers)) members = together;
  }
  const joined = { members, open: true };
  for (const member of members) groups.set(member, joined);
  return joined;
}

function accepts(group: Group, node: Node): boolean {
  const last = group.members.at(-1)!;
  const [made, y] = [last.outputs[0]!, node.outputs[0]!];
  const alike = made.dtype === y.dtype && sameShape(made.shape, y.shape) && last.replay === node.replay;
  return alike && (byteSize(y) <= smallBytes || node.id - last.id <= reach);
}

/** What a group reads and what others read of it. An input that ends here and fills the output comes first: the tape may run in its memory. */
function encode(members: readonly Node[], readers: Readers) {
  const within = new Set<Node | undefined>(members);
  const inner = (x: Tensor): boolean => readers.get(x)?.every(reader => within.has(reader)) ?? false;
  const outputs = members.map(node => node.outputs[0]!).filter(y => !inner(y));
  const read = members.flatMap(node => node.inputs.map(x => operandOf(x!))).filter(x => typeof x !== "number" && !within.has(x.node));
  const inputs = [...new Set(read as Tensor[])];
  const fills = (x: Tensor): boolean => inner(x) && sameShape(x.shape, members[0]!.outputs[0]!.shape);
  inputs.sort((a, b) => Number(fills(b)) - Number(fills(a)));
  const attrs = encodeTape(members, inputs, outputs);
  return attrs && { attrs, inputs, outputs };
}

/** A node of the whole group; the node itself where a tape would gain nothing. */
function asTape(members: readonly Node[], readers: Readers): Node {
  const [first] = members;
  const last = members.at(-1)!;
  const plain = members.length === 1 && first!.inputs.every(x => operandOf(x!) === x);
  const tape = plain ? undefined : encode(members, readers);
  return tape ? { ...last, op: tapeDef, ...tape, label: commonLabel(members) } : last;
}

/** The scopes that all members share, or the last member's label if they share none. */
function commonLabel(members: readonly Node[]): string {
  const paths = members.map(node => node.label.split("/"));
  const shared = paths[0]!.findIndex((name, i) => paths.some(path => path[i] !== name));
  return paths[0]!.slice(0, shared < 0 ? undefined : shared).join("/") || members.at(-1)!.label;
}
