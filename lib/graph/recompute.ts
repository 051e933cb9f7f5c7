/** Gradient checkpointing, Chen et al. 2016, arXiv:1604.06174: a region's activations are built again when backward first asks for one,
 *  so that the forward pass need not keep them. A replay is bit-exact, because random ops are functions of counters and kernels of their inputs. */

import { attrsOfRows, batchInputs, firstRows } from "./first-rows.js";
import type { Graph, Node, Tensor } from "./tensor.js";

/** What the gradient rules of a node look at. */
export interface Replay {
  /** The number that keeps its nodes apart from every other replay's; undefined outside of regions. */
  readonly number: number | undefined;
  /** The tensor that stands for `tensor`, or for its first `rows` rows, during backward. */
  see(tensor: Tensor, rows?: number): Tensor;
}

const direct: Replay = { number: undefined, see: firstRows };

/** How many first rows of a tensor have a gradient: those that backward will look at; undefined: it has none so far. */
type Covered = (tensor: Tensor) => number | undefined;

/** The replays of one reverse walk over `nodes`. Each region is cloned whole, once, at the end of the graph as it stands when first asked for;
 *  clones that no rule reads are dead code. Tensors from outside the region, the results of earlier regions among them, stay as they are.
 *  Where the gradients that come into a region cover the first rows of a batch alone, and its ops work row by row, so does the clone. */
export class Replays {
  readonly #graph: Graph;
  readonly #regions = new Map<number, Node[]>();
  readonly #replays = new Map<number, Replay>();

  constructor(graph: Graph, nodes: readonly Node[]) {
    this.#graph = graph;
    for (const node of nodes) {
      if (node.region === undefined) continue;
      const members = this.#regions.get(node.region);
      if (members) members.push(node);
      else this.#regions.set(node.region, [node]);
    }
  }

  of(node: Node, covered: Covered): Replay {
    if (node.region === undefined) return direct;
    let replay = this.#replays.get(node.region);
    if (!replay) {
      const members = (this.#regions.get(node.region) ?? []).filter(({ op }) => !op.leaf && !op.writes); // leaves are memory, and effects happen once
      replay = cloneFirstRows(this.#graph, members, covered) ?? cloneRegion(this.#graph, members);
      this.#replays.set(node.region, replay);
    }
    return replay;
  }
}

function cloneRegion(graph: Graph, members: readonly Node[]): Replay {
  const number = graph.nextReplay();
  const clones = new Map<Tensor, Tensor>();
  const see = (tensor: Tensor, rows?: number): Tensor => firstRows(clones.get(tensor) ?? tensor, rows);
  for (const node of members) {
    const inputs = node.inputs.map(x => x && see(x));
    const clone = graph.append(node.op, node.attrs, inputs, node.outputs, asReplay(node, number));
    for (const [i, output] of node.outputs.entries()) clones.set(output, clone.outputs[i]!);
  }
  return { number, see };
}

/** A clone of the region over the first rows of its batch; undefined where the gradients cover more, or an op looks at all rows. */
function cloneFirstRows(graph: Graph, members: readonly Node[], covered: Covered): Replay | undefined {
  const rows = rowsWanted(members, covered);
  const short = rows === undefined ? undefined : shortened(members, rows);
  if (rows === undefined || !short) return undefined;
  const number = graph.nextReplay();
  const clones = new Map<Tensor, Tensor>();
  let whole: Replay | undefined;
  const see = (tensor: Tensor, wanted?: number): Tensor => {
    if (!short.has(tensor) || (wanted !== undefined && wanted <= rows)) return firstRows(clones.get(tensor) ?? tensor, wanted);
    whole ??= cloneRegion(graph, members); // a rule that looks at all rows after all
    return whole.see(tensor, wanted);
  };
  graph.inReplay(number, () => {
    for (const node of members) {
      const outputs = short.has(node.outputs[0]!) ? overFirstRows(graph, node, rows, number, see) : overAllRows(graph, node, number, see);
      for (const [i, output] of node.outputs.entries()) clones.set(output, outputs[i]!);
    }
  });
  return { number, see };
}

/** The rows that all gradients coming into the region stay within, if they leave some out. */
function rowsWanted(members: readonly Node[], covered: Covered): number | undefined {
  const reached = members.flatMap(({ outputs }) => outputs.filter(y => covered(y) !== undefined));
  const partial = reached.length > 0 && reached.every(y => covered(y)! < y.shape[0]!);
  return partial ? Math.max(...reached.map(y => covered(y)!)) : undefined;
}

/** The tensors of the region of which the first rows can be had alone; undefined if some op needs more of one of them. */
function shortened(members: readonly Node[], rows: number): Set<Tensor> | undefined {
  const short = new Set<Tensor>();
  for (const node of members) {
    const along = batchInputs(node, rows);
    const others = node.inputs.filter((x, i) => x && short.has(x) && !along?.includes(i));
    if (along && others.length === 0) for (const y of node.outputs) short.add(y);
    else if (!(node.op.leads?.(node.attrs) && node.outputs[0]!.shape[0]! <= rows) && node.inputs.some(x => x && short.has(x))) return undefined;
  }
  return short;
}

function overFirstRows(graph: Graph, node: Node, rows: number, number: number, see: Replay["see"]): readonly Tensor[] {
  const along = batchInputs(node, rows)!;
  const inputs = node.inputs.map((x, i) => x && (along.includes(i) ? see(x, rows) : see(x)));
  const attrs = attrsOfRows(node.attrs, rows);
  return graph.append(node.op, attrs, inputs, node.op.infer(attrs, ...inputs), asReplay(node, number)).outputs;
}

function overAllRows(graph: Graph, node: Node, number: number, see: Replay["see"]): readonly Tensor[] {
  const { op, attrs, outputs } = node;
  if (op.leads?.(attrs)) return [see(node.inputs[0]!, outputs[0]!.shape[0]!)];
  const inputs = node.inputs.map(x => x && see(x));
  return graph.append(op, attrs, inputs, outputs, asReplay(node, number)).outputs;
}

function asReplay({ label }: Node, replay: number) {
  return { label: label ? `again/${label}` : "again", replay, region: undefined };
}
