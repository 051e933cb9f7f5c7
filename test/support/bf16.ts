/** bf16 on a machine that computes in f32: the same graph with every bf16 value held in f32 and rounded to bf16 where an op makes it. Persistent memory stays bf16. */

import { launches } from "../../lib/graph/alias.js";
import { cast } from "../../lib/graph/ops/elementwise.js";
import { rebuild } from "../../lib/graph/rebuild.js";
import { type DType, type Graph, inGraph, type Node, type Tensor } from "../../lib/graph/tensor.js";

const held = (dtype: DType): DType => (dtype === "bf16" ? "f32" : dtype);

export function emulated(graph: Graph): Graph {
  return rebuild(graph, (node, inputs, keep, copy) => {
    if (node.op.leaf) return inGraph(copy, () => keep().map(y => cast(y, held(y.dtype))));
    return inGraph(copy, () => (node.op.writes ? effect : computed)(copy, node, inputs));
  });
}

function computed(copy: Graph, node: Node, inputs: Node["inputs"]): readonly Tensor[] {
  const { dtype } = node.attrs;
  const attrs = dtype === "bf16" && node.op.name !== "cast" ? { ...node.attrs, dtype: "f32" } : node.attrs;
  if (node.op.name === "cast") return [cast(cast(inputs[0]!, node.outputs[0]!.dtype), held(node.outputs[0]!.dtype))];
  const types = node.outputs.map(y => ({ dtype: held(y.dtype), shape: y.shape }));
  const made = copy.append(node.op, attrs, inputs, types, node).outputs;
  const rounds = launches(node);
  return made.map((y, k) => (rounds ? cast(cast(y, node.outputs[k]!.dtype), y.dtype) : y));
}

/** Effects write the memory itself, in its dtype. */
function effect(copy: Graph, node: Node, inputs: Node["inputs"]): readonly Tensor[] {
  const targets = node.op.writes!;
  const operands = inputs.map((x, k) => x && (targets.includes(k) ? memory(x) : x));
  const sources = operands.map((x, k) => x && (node.op.name === "assign" && k === 1 ? cast(x, operands[0]!.dtype) : x));
  const written = copy.append(
    node.op,
    node.attrs,
    sources,
    targets.map(k => operands[k]!),
    node,
  ).outputs;
  return written.map(y => cast(y, held(y.dtype)));
}

/** The persistent tensor that was widened for reading. */
function memory(x: Tensor): Tensor {
  return x.node.op.name === "cast" ? x.node.inputs[0]! : x;
}
