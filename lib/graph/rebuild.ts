/** Copying a graph while changing it: the one loop under every pass. */

import { Graph, type Node, type Tensor } from "./tensor.js";

/** Copies `nodes` (by default all of the graph's) with inputs, outputs and scalar slots. `rewrite` gives the tensors that stand for a node's
 *  outputs in the copy: those of `keep()`, others, or none where nothing needs the node. */
export function rebuild(
  graph: Graph,
  rewrite: (node: Node, inputs: Node["inputs"], keep: () => readonly Tensor[], copy: Graph) => readonly Tensor[],
  nodes: readonly Node[] = graph.nodes,
): Graph {
  const copy = new Graph();
  copy.scalars.push(...graph.scalars);
  const image = new Map<Tensor, Tensor>();
  for (const node of nodes) {
    const inputs = node.inputs.map(x => x && image.get(x));
    const keep = () => copy.append(node.op, node.attrs, inputs, node.outputs, { label: node.label, replay: node.replay, region: node.region }).outputs;
    for (const [i, y] of rewrite(node, inputs, keep, copy).entries()) image.set(node.outputs[i]!, y);
  }
  for (const { name, tensor, layout } of graph.inputs) copy.inputs.push({ name, tensor: image.get(tensor)!, layout });
  for (const { name, tensor, layout } of graph.outputs) copy.output(name, image.get(tensor)!, layout);
  return copy;
}
