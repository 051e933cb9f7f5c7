/** Rewrites that keep every bit of every result: dead code, identities, common subexpressions, and effects as early as they can be.
 *  A pass takes a graph and returns another; order of execution is still order of nodes. */

import { isPersistent } from "./alias.js";
import { hoistEffects } from "./effects.js";
import { fuseTapes } from "./fuse.js";
import { fuseEpilogues } from "./fuse-epilogues.js";
import { fusePreference } from "./fuse-preference.js";
import { opTable } from "./op.js";
import { rebuild } from "./rebuild.js";
import { byteSize, type Graph, inGraph, type Node, sameShape, type Tensor } from "./tensor.js";

type Inputs = Node["inputs"];

const none: ReadonlySet<string> = new Set();

/** All passes. `fuse: false` keeps one instruction per elementwise op; `kernels` names the fused ops that may be used (op.ts). */
export function optimize(graph: Graph, { fuse = true, kernels = none }: { readonly fuse?: boolean; readonly kernels?: ReadonlySet<string> } = {}): Graph {
  const lean = removeDead(mergeCommon(dropIdentities(removeDead(decomposeFused(graph, kernels)))));
  const joined = removeDead(fusePreference(fuseEpilogues(lean, kernels), kernels));
  return hoistEffects(fuse ? removeDead(fuseTapes(joined)) : joined); // numbers that went into tapes are dead
}

/** Replaces fused ops for which there is no kernel by their decompositions. */
export function decomposeFused(graph: Graph, kernels: ReadonlySet<string> = none): Graph {
  return rebuild(graph, ({ op, attrs, label, replay }, inputs, keep, copy) => {
    if (!op.fused || kernels.has(op.name)) return keep();
    const write = (): readonly Tensor[] => copy.scope(label, () => op.decompose!(attrs, ...inputs));
    return inGraph(copy, () => copy.inReplay(replay, write));
  });
}

/** Keeps what outputs and effects need. Inputs stay, used or not: they are the program's face. */
export function removeDead(graph: Graph): Graph {
  const live = new Uint8Array(graph.nodes.length);
  for (const { tensor } of [...graph.outputs, ...graph.inputs]) live[tensor.node.id] = 1;
  for (let i = graph.nodes.length - 1; i >= 0; i--) {
    const node = graph.nodes[i]!;
    if (node.op.writes) live[i] = 1;
    if (live[i]) for (const x of node.inputs) if (x) live[x.node.id] = 1;
  }
  return rebuild(graph, (node, _inputs, keep) => (live[node.id] ? keep() : []));
}

/** Ops that do nothing where their output has the type of their input. */
const identityOps: ReadonlySet<string> = new Set(["reshape", "broadcast", "cast", "slice", "pad", "concat"]);

/** Removes ops that return their input unchanged, and pairs that undo each other exactly, unless what is left would be persistent memory, which an effect may
 *  have changed since it was read; an addition to the first rows that are all rows becomes a plain one,
 *  which fuses. (Not `affine` with scale 1 and shift 0: it turns -0 into +0.) */
export function dropIdentities(graph: Graph): Graph {
  return rebuild(graph, (node, inputs, keep, copy) => {
    const [x, z] = inputs;
    if (!x) return keep();
    const y = node.outputs[0]!;
    const isMemory = (value: Tensor): boolean => isPersistent(value) && !isPersistent(y);
    if (identityOps.has(node.op.name) && x.dtype === y.dtype && sameShape(x.shape, y.shape) && !isMemory(x)) return [x];
    if (node.op.name === "add_leading" && z && sameShape(x.shape, z.shape)) return copy.append(opTable.get("add")!, {}, inputs, node.outputs, node).outputs;
    const inner = x.node.inputs[0];
    if (!inner || isMemory(inner)) return keep();
    if (node.op.name === "neg" && x.node.op.name === "neg") return [inner];
    if (node.op.name === "transpose" && x.node.op.name === "transpose" && undoes(node, x.node)) return [inner];
    return keep();
  });
}

function undoes(second: Node, first: Node): boolean {
  const after = second.attrs.permutation as readonly number[];
  const before = first.attrs.permutation as readonly number[];
  return after.every((axis, i) => before[axis] === i);
}

/** A source (no inputs) above this many bytes is made again rather than kept: one write costs less than its memory over a whole step. */
const keptSourceBytes = 4096;

/** Computes once what is computed twice: same op, attributes, inputs and output types. Never merges program inputs, effects, values of different
 *  replays (a replay merged with the forward pass would keep what it was to free), or reads of persistent memory on two sides of an effect. */
export function mergeCommon(graph: Graph): Graph {
  const seen = new Map<string, readonly Tensor[]>();
  let effects = 0;
  return rebuild(graph, (node, inputs, keep) => {
    if (node.op.writes) effects++;
    if (node.op.writes || node.op.name === "input") return keep();
    if (!node.op.leaf && inputs.length === 0 && node.outputs.some(y => byteSize(y) > keptSourceBytes)) return keep();
    const epoch = inputs.some(x => x && isPersistent(x)) ? effects : 0;
    const key = expressionKey(node, inputs, epoch);
    let outputs = seen.get(key);
    if (!outputs) {
      outputs = keep();
      seen.set(key, outputs);
    }
    return outputs;
  });
}

function expressionKey(node: Node, inputs: Inputs, epoch: number): string {
  const names = Object.keys(node.attrs).sort();
  const attrs = names.map(name => `${name}=${exact(node.attrs[name])}`);
  const types = node.outputs.map(y => `${y.dtype}[${y.shape}]`);
  const replay = node.op.leaf ? 0 : node.replay;
  return [node.op.name, attrs, inputs.map(x => x?.id ?? -1), types, replay, epoch].join(" ");
}

/** Text that differs wherever values do: JSON, but -0 and the non-finite are told apart. */
function exact(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(exact)}]`;
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  return JSON.stringify(value);
}
