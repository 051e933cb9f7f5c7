/** Joins ops with what surrounds them, for backends that have kernels for it: the adds and the activation after a linear layer or a convolution, the
 *  doubling or joining of maps before it, the statistics of the norm behind it, the sum that a gradient of weights goes into, and the rounded copy of weights
 *  behind their update. What stands between two such ops is then never written to memory, or not read from it again. Values are those of the plain ops up to
 *  rounding, because an intermediate one may keep the digits of its sum. */

import { launches, persistentBytes } from "./alias.js";
import { opTable } from "./op.js";
import { wide } from "./ops/check.js";
import { type Activation, type Loading, slab } from "./ops/fused.js";
import "./ops/fused-gradients.js";
import { type Readers, readersOf, Writes } from "./readers.js";
import { rebuild } from "./rebuild.js";
import { type Attrs, type Graph, type Node, sameShape, type Tensor } from "./tensor.js";

interface Context {
  readonly graph: Graph;
  readonly readers: Readers;
  readonly writes: Writes;
  readonly kernels: ReadonlySet<string>;
}

/** Fuses into the ops that `kernels` names. What stays plain of a joined node is dead code afterwards. No node moves across a write to what it reads, replays
 *  stay apart, and every output keeps its value. */
export function fuseEpilogues(graph: Graph, kernels: ReadonlySet<string>): Graph {
  const context = { graph, readers: readersOf(graph), writes: new Writes(graph), kernels };
  const loads = loadsOf(context);
  const places = new Map<Node, Node | undefined>(); // what stands where a node stood
  for (const chain of chainsOf(context)) placeProduct(chain, loads, places, context);
  for (const node of graph.nodes) placeWeightGradient(node, loads, places, context);
  if (kernels.has("adamw_mixed")) placeRoundedCopies(graph, places);
  const order = graph.nodes.flatMap(node => (places.has(node) ? (places.get(node) ?? []) : node));
  return rebuild(graph, (_node, _inputs, keep) => keep(), order);
}

/** `node` with another op: its outputs stand for the same tensors. */
function become(node: Node, op: string, attrs: Attrs, inputs: Node["inputs"], label = node.label): Node {
  return { ...node, op: opTable.get(op)!, attrs, inputs, label };
}

function soleReader(x: Tensor, { readers }: Context): Node | undefined {
  const all = readers.get(x) ?? [];
  return all.length === 1 ? all[0] : undefined;
}

// ---- maps that are read from their parts ------------------------------------------------------------------------------------------------------------------

interface Load extends Loading {
  readonly x: Tensor;
  readonly x2: Tensor | undefined;
}

/** Maps that nothing reads but convolutions and their weight gradients, which can read the parts instead. */
function loadsOf(context: Context): Map<Tensor, Load> {
  const { graph, kernels } = context;
  const loads = new Map<Tensor, Load>();
  if (!kernels.has("conv2d_fused")) return loads;
  for (const node of graph.nodes) {
    const load = partsOf(node, context);
    const y = node.outputs[0]!;
    const readers = context.readers.get(y) ?? [];
    if (load && readers.length > 0 && readers.every(reader => reader && loadsFrom(reader, y, context) && context.writes.spare(node, reader)))
      loads.set(y, load);
  }
  return loads;
}

function partsOf(node: Node, context: Context): Load | undefined {
  const [x, x2] = node.inputs;
  if (isJoin(node)) return { x: x!, x2, upsample: 1 };
  if (!isDoubling(node)) return undefined;
  const joined = isJoin(x!.node) && soleReader(x!, context) && context.writes.spare(x!.node, node) ? x!.node.inputs : [x];
  return { x: joined[0]!, x2: joined[1], upsample: 2 };
}

const isJoin = ({ op, attrs, inputs }: Node): boolean => op.name === "concat" && attrs.axis === 3 && inputs.length === 2 && inputs[0]!.shape.length === 4;

function isDoubling({ op, inputs: [x], outputs: [y] }: Node): boolean {
  return op.name === "upsample_nearest" && y!.shape[1] === 2 * x!.shape[1]! && y!.shape[2] === 2 * x!.shape[2]!;
}

function loadsFrom(reader: Node, map: Tensor, { kernels }: Context): boolean {
  const at = reader.inputs.flatMap((x, i) => (x === map ? [i] : []));
  if (reader.op.name === "conv2d") return at.length === 1 && at[0] === 0 && reader.outputs[0]!.dtype === map.dtype;
  return reader.op.name === "conv2d_dw" && at.length === 1 && at[0] === 1 && kernels.has("conv2d_dw_fused");
}

// ---- what follows a product -------------------------------------------------------------------------------------------------------------------------------

/** A product and the nodes that its kernel does as well, in order. */
interface Chain {
  readonly product: Node;
  readonly members: readonly Node[];
  readonly activation: Activation;
  readonly perSample?: Tensor;
  readonly residual?: Tensor;
}

const activationsAfter: Readonly<Record<string, readonly string[]>> = {
  linear: ["silu", "gelu", "gelu_tanh", "quick_gelu", "geglu"],
  conv2d: ["silu"],
};

/** One chain for each product that has a kernel for it. Of two products that meet in an add, the later takes it: the other is there by then. */
function chainsOf(context: Context): Chain[] {
  const products = context.graph.nodes.filter(({ op, inputs, outputs: [y] }) => {
    return op.name in activationsAfter && context.kernels.has(`${op.name}_fused`) && y!.dtype === inputs[0]!.dtype;
  });
  const kept = keptBeforeActivation(products, context);
  const taken = new Set<Node>();
  return products.toReversed().map(product => {
    const chain = grow(product, taken, kept, context);
    for (const node of chain.members) taken.add(node);
    return chain;
  });
}

function grow(product: Node, taken: ReadonlySet<Node>, kept: ReadonlySet<string>, context: Context): Chain {
  let chain: Chain = { product, members: [product], activation: "none" };
  for (;;) {
    const y = resultOf(chain);
    const next = soleReader(y, context);
    if (!next || taken.has(next) || next.replay !== product.replay || !chain.members.every(node => context.writes.spare(node, next))) return chain;
    const more = joins(chain, y, next, kept);
    if (!more) return chain;
    chain = { ...chain, ...more, members: [...chain.members, next] };
  }
}

const resultOf = ({ members }: Chain): Tensor => members.at(-1)!.outputs[0]!;

/** What `next`, which reads the result y of the chain, adds to it; undefined: it cannot be part of the kernel. */
function joins(chain: Chain, y: Tensor, next: Node, kept: ReadonlySet<string>): Partial<Chain> | undefined {
  if (chain.residual) return undefined;
  if (activates(chain, next.op.name)) return kept.has(signature(chain, next.op.name)) ? undefined : { activation: next.op.name as Activation };
  if (next.op.name !== "add" || !sameShape(next.outputs[0]!.shape, y.shape)) return undefined;
  const other = next.inputs[next.inputs[0] === y ? 1 : 0]!;
  if (sameShape(other.shape, y.shape)) return { residual: other };
  const [batch, , , channels] = y.shape;
  const perSample = chain.product.op.name === "conv2d" && chain.activation === "none" && !chain.perSample && sameShape(other.shape, [batch!, 1, 1, channels!]);
  return perSample ? { perSample: other } : undefined;
}

function activates(chain: Chain, op: string): boolean {
  return chain.activation === "none" && activationsAfter[chain.product.op.name]!.includes(op);
}

/** Products, by signature, of which somewhere in the graph the value before the activation is wanted: a backward pass reads it. None of their kind takes the
 *  activation in, though a frozen copy could: a policy that equals its reference must predict the same bits, and a forward pass what its replay does. */
function keptBeforeActivation(products: readonly Node[], context: Context): Set<string> {
  const kept = new Set<string>();
  for (const product of products) {
    const chain = grow(product, new Set(), kept, context);
    for (const reader of context.readers.get(resultOf(chain)) ?? []) {
      const op = reader?.op.name.replace(/_vjp$/, "") ?? "";
      if (activates(chain, op)) kept.add(signature(chain, op));
    }
  }
  return kept;
}

function signature({ product, members }: Chain, activation: string): string {
  const types = product.inputs.map(x => x && `${x.dtype}[${x.shape}]`);
  return JSON.stringify([members.map(node => node.op.name), activation, product.attrs, types]);
}

function placeProduct(chain: Chain, loads: ReadonlyMap<Tensor, Load>, places: Map<Node, Node | undefined>, context: Context): void {
  const { product, members, activation, perSample, residual } = chain;
  const [x, weight, bias] = product.inputs;
  const last = members.at(-1)!;
  const load = loads.get(x!);
  const norms = product.op.name === "conv2d" ? normsOf(resultOf(chain), context) : [];
  if (members.length === 1 && !load && norms.length === 0) return;
  for (const node of members) places.set(node, undefined);
  if (product.op.name === "linear") {
    places.set(last, become(last, "linear_fused", { activation }, [x, weight, bias, residual], product.label));
    return;
  }
  const statistics = Number(norms[0]?.attrs.groups ?? 0);
  const attrs = { ...product.attrs, upsample: load?.upsample ?? 1, activation, statistics };
  const fused = become(last, "conv2d_fused", attrs, [load?.x ?? x, load?.x2, weight, bias, perSample, residual], product.label);
  const partials = partialsOf(fused, statistics);
  places.set(last, { ...fused, outputs: [...fused.outputs, ...partials] });
  for (const norm of norms) places.set(norm, become(norm, "group_norm_from_partials", norm.attrs, [...norm.inputs, ...partials]));
}

/** The norms of a map that its convolution can take statistics for: all of the map's, so that a replay normalises as the forward pass did. */
function normsOf(y: Tensor, { readers, kernels }: Context): Node[] {
  const norms = (readers.get(y) ?? []).filter(node => node?.op.name === "group_norm" && node.inputs[0] === y) as Node[];
  const [, height = 0, columns = 0] = y.shape;
  const possible = kernels.has("group_norm_from_partials") && (height * columns) % slab === 0 && norms.every(n => n.attrs.groups === norms[0]!.attrs.groups);
  return possible ? norms : [];
}

function partialsOf(node: Node, statistics: number): Tensor[] {
  if (statistics === 0) return [];
  const y = node.outputs[0]!;
  const [batch = 0, height = 0, columns = 0] = y.shape;
  return [{ id: -1, node, index: 1, dtype: wide(y.dtype), shape: [batch, (height * columns) / slab, statistics, 2] }];
}

// ---- gradients of weights ---------------------------------------------------------------------------------------------------------------------------------

function placeWeightGradient(node: Node, loads: ReadonlyMap<Tensor, Load>, places: Map<Node, Node | undefined>, context: Context): void {
  const { op, attrs } = node;
  const convolution = op.name === "conv2d_dw";
  if (!convolution && op.name !== "linear_dw") return;
  const [dy, x] = node.inputs as readonly [Tensor, Tensor];
  const load = loads.get(x);
  const operands = load ? [dy, load.x, ...(load.x2 ? [load.x2] : [])] : [dy, x];
  const total = accumulatedBy(node, context);
  const { stride, padding } = attrs as { stride: number; padding: readonly number[] };
  const loading = convolution ? { stride, padding, upsample: load?.upsample ?? 1 } : {};
  if (total) {
    places.set(node, undefined);
    places.set(total, become(total, `${op.name}_accumulate`, loading, [total.inputs[0], ...operands], node.label));
  } else if (load) places.set(node, become(node, "conv2d_dw_fused", { ...attrs, ...loading }, operands));
}

/** The effect that adds this gradient, and nothing else, to a buffer of its dtype. */
function accumulatedBy(node: Node, context: Context): Node | undefined {
  const y = node.outputs[0]!;
  const reader = soleReader(y, context);
  if (reader?.op.name !== "accumulate" || reader.inputs[0]!.dtype !== y.dtype || !context.kernels.has(`${node.op.name}_accumulate`)) return undefined;
  return context.writes.spare(node, reader) ? reader : undefined;
}

// ---- rounded copies of weights ----------------------------------------------------------------------------------------------------------------------------

/** An assignment in bf16 of what an update has just written becomes part of the update. */
function placeRoundedCopies(graph: Graph, places: Map<Node, Node | undefined>): void {
  const launched = graph.nodes.filter(launches);
  for (const [i, update] of launched.entries()) {
    const copy = launched[i + 1];
    if (update.op.name !== "adamw" || copy?.op.name !== "assign" || copy.outputs[0]!.dtype !== "bf16") continue;
    const [written, read] = [persistentBytes(update.inputs[0]!)!, persistentBytes(copy.inputs[1]!)];
    if (read?.arena !== written.arena || read.from !== written.from || read.to !== written.to) continue;
    const [param, grad, m, v, scale] = update.inputs;
    places.set(update, undefined);
    const both = become(copy, "adamw_mixed", update.attrs, [param, grad, m, v, copy.inputs[0], scale], update.label);
    places.set(copy, { ...both, outputs: [...update.outputs, ...copy.outputs] });
  }
}
