/** Gradient checkpointing, Chen et al. 2016, arXiv:1604.06174: a region's activations are built again when backward first asks for one,
 *  so that the forward pass need not keep them. A replay is bit-exact, because random ops are functions of counters and kernels of their inputs. */

import type { Graph, Node, Tensor } from "./tensor.js";

/** What the gradient rules of a node look at. */
export interface Replay {
  /** The number that keeps its nodes apart from every other replay's; undefined outside of regions. */
  readonly number: number | undefined;
  /** The tensor that stands for `tensor` during backward. */
  see(tensor: Tensor): Tensor;
}

const direct: Replay = { number: undefined, see: tensor => tensor };

/** The replays of one reverse walk over `nodes`. Each region is cloned whole, once, at the end of the graph as it stands when first asked for;
 *  clones that no rule reads are dead code. Tensors from outside the region, the results of earlier regions among them, stay as they are. */
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

  of(node: Node): Replay {
    if (node.region === undefined) return direct;
    let replay = this.#replays.get(node.region);
    if (!replay) {
      replay = cloneRegion(this.#graph, this.#regions.get(node.region) ?? []);
      this.#replays.set(node.region, replay);
    }
    return replay;
  }
}

/** Leaves are memory, and effects happen once: neither is cloned. */
function cloneRegion(graph: Graph, members: readonly Node[]): Replay {
  const number = graph.nextReplay();
  const clones = new Map<Tensor, Tensor>();
  const see = (tensor: Tensor): Tensor => clones.get(tensor) ?? tensor;
  for (const node of members) {
    if (node.op.leaf || node.op.writes) continue;
    const inputs = node.inputs.map(x => x && see(x));
    const label = node.label ? `again/${node.label}` : "again";
    const clone = graph.append(node.op, node.attrs, inputs, node.outputs, { label, replay: number, region: undefined });
    for (const [i, output] of node.outputs.entries()) clones.set(output, clone.outputs[i]!);
  }
  return { number, see };
}
