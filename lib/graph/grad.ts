/** Reverse mode: walks the graph from the outputs back, asks each op's rule for its gradients, and adds up what arrives at one tensor.
 *  This is the only place that adds gradients. A gradient that is zero but for the first rows of a batch is carried as those rows alone, and ops that work
 *  row by row are differentiated over them: of a policy and its reference run as one batch, backward sees the policy's half. */

import { GradError } from "../errors.js";
import { overlap, persistentBytes } from "./alias.js";
import { attrsOfRows, batchInputs, padRows } from "./first-rows.js";
import { wide } from "./ops/check.js";
import { add, cast } from "./ops/elementwise.js";
import { full } from "./ops/leaf.js";
import { type Replay, Replays } from "./recompute.js";
import { currentGraph, type Graph, type Node, numel, sameShape, type Tensor } from "./tensor.js";

export interface GradOptions {
  /** What to do for a tensor that the outputs do not depend on: throw (the default), or return zeros. */
  readonly unreachable?: "error" | "zeros";
}

/** One may have fewer rows than its tensor: those after them are zero. */
type Gradients = Map<Tensor, Tensor>;
type Optional = Tensor | undefined;

/** d loss / d x for every x of `wrt`, each of the shape of x and of its dtype, or in f32 where x is bf16 and its gradient a sum over rows (that of a weight).
 *  `loss` has one element.
 *  Throws a GradError where an op on the way has no rule, or where no way leads from `loss` to x. */
export function grad(loss: Tensor, wrt: readonly Tensor[], options: GradOptions = {}): Tensor[] {
  if (numel(loss.shape) !== 1) throw new GradError(loss.node.op.name, loss.node.label, `expected a loss of 1 element, received [${loss.shape}]`);
  return vjp([loss], [currentGraph().scope("grad", () => full(1, loss.shape, loss.dtype))], wrt, options);
}

/** Vector-Jacobian product: sum over k of (d outputs[k] / d x)^T cotangents[k] for every x of `wrt`; cotangents[k] is shaped like outputs[k]. */
export function vjp(outputs: readonly Tensor[], cotangents: readonly Tensor[], wrt: readonly Tensor[], options: GradOptions = {}): Tensor[] {
  const gradients: Gradients = new Map();
  for (const [k, output] of outputs.entries()) arrive(gradients, output, fitting(cotangents[k], output, output.node, `cotangent ${k}`));
  walkBack(gradients, currentGraph().nodes.slice(), wrt);
  return wrt.map(x => {
    const found = gradients.get(x);
    if (found) return padRows(found, x.shape[0]);
    if (options.unreachable === "zeros") return full(0, x.shape, x.dtype);
    throw new GradError(x.node.op.name, x.node.label || String(x.node.attrs.name ?? ""), "the outputs do not depend on it through differentiable ops");
  });
}

/** Carries `gradients` back through `nodes` (in order of execution), as far as some tensor of `wrt` can still be met. */
function walkBack(gradients: Gradients, nodes: readonly Node[], wrt: readonly Tensor[]): void {
  const graph = currentGraph();
  const leads = leadingTo(nodes, wrt);
  const replays = new Replays(graph, nodes);
  const effects = nodes.filter(node => node.op.writes);
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i]!;
    if (!node.outputs.some(y => gradients.has(y)) || !node.inputs.some(x => x && leads.has(x))) continue;
    const first = graph.nodes.length;
    const replay = replays.of(node, y => gradients.get(y)?.shape[0]);
    const step = () => graph.scope(gradLabel(graph, node), () => stepBack(gradients, node, replay.see, leads));
    if (replay.number === undefined) step();
    else graph.inReplay(replay.number, step);
    if (effects.length > 0) checkUnchanged(node, graph.nodes.slice(first), effects);
  }
}

/** Memory that backward reads again must still hold what the forward pass read: effects on it belong after the gradients. */
function checkUnchanged(node: Node, backward: readonly Node[], effects: readonly Node[]): void {
  const later = effects.filter(effect => effect.id > node.id);
  if (later.length === 0) return;
  const read = backward.flatMap(({ inputs }) => inputs.map(x => x && persistentBytes(x))).filter(bytes => bytes !== undefined);
  for (const effect of later)
    for (const k of effect.op.writes ?? []) {
      const written = persistentBytes(effect.inputs[k]!);
      if (written && read.some(bytes => overlap(bytes, written)))
        throw new GradError(
          node.op.name,
          node.label,
          `its gradient reads memory that ${effect.op.name} at ${effect.label} has overwritten; build effects after gradients`,
        );
    }
}

/** The tensors of `wrt` and all that is computed from them: no other tensor is worth a gradient. */
function leadingTo(nodes: readonly Node[], wrt: readonly Tensor[]): ReadonlySet<Tensor> {
  const leads = new Set(wrt);
  for (const node of nodes) if (node.inputs.some(x => x && leads.has(x))) for (const y of node.outputs) leads.add(y);
  return leads;
}

function stepBack(gradients: Gradients, node: Node, see: Replay["see"], leads: ReadonlySet<Tensor>): void {
  if (node.op.leads?.(node.attrs)) {
    arrive(gradients, node.inputs[0]!, gradients.get(node.outputs[0]!)!);
    return;
  }
  const rows = Math.max(...node.outputs.map(y => gradients.get(y)?.shape[0] ?? 0));
  const along = batchInputs(node, rows);
  const some = along && rows;
  const inputs = node.inputs.map((x, i) => x && see(x, along?.includes(i) ? rows : undefined));
  const outputs = node.outputs.map(y => see(y, some));
  const cotangents = outputs.map((y, k) => cotangent(gradients.get(node.outputs[k]!), y));
  const attrs = along ? attrsOfRows(node.attrs, rows) : node.attrs;
  const flows = rule({ ...node, attrs }, inputs, outputs, cotangents);
  for (let i = 0; i < Math.max(flows.length, node.inputs.length); i++) {
    const x = node.inputs[i];
    const flow = flows[i];
    if (x && flow === undefined) throw new GradError(node.op.name, node.label, `the rule returned neither a gradient nor null for input ${i}`);
    if (!x && flow) throw new GradError(node.op.name, node.label, `the rule returned a gradient for input ${i}, which was not given`);
    if (!x || !flow) continue;
    fitting(flow, inputs[i]!, node, `the gradient of input ${i}`);
    if (leads.has(x)) arrive(gradients, x, flow);
  }
}

/** The gradient of y as rules take it: in its dtype, zeros where there is none. */
function cotangent(gradient: Optional, y: Tensor): Tensor {
  return gradient ? cast(padRows(gradient, y.shape[0]), y.dtype) : full(0, y.shape, y.dtype);
}

/** The op's own rule, or reverse mode through its decomposition. */
function rule(node: Node, inputs: readonly Optional[], outputs: readonly Tensor[], cotangents: readonly Tensor[]): readonly (Tensor | null | undefined)[] {
  const { op, attrs } = node;
  if (op.vjp) return op.vjp({ attrs, inputs, outputs, grads: cotangents });
  if (!op.decompose) throw new GradError(op.name, node.label, "lies on the way to a gradient and has no gradient rule");
  const graph = currentGraph();
  const first = graph.nodes.length;
  const gradients: Gradients = new Map();
  for (const [k, y] of op.decompose(attrs, ...inputs).entries()) arrive(gradients, y, cotangents[k]!);
  const given = inputs.filter(x => x !== undefined);
  walkBack(gradients, graph.nodes.slice(first), given); // only inside the decomposition: one input may be computed from another
  const sumOf = (x: Tensor): Tensor | null => (gradients.has(x) ? padRows(gradients.get(x)!, x.shape[0]) : null);
  return inputs.map((x, i) => (x && inputs.indexOf(x) === i ? sumOf(x) : null)); // an input given twice has one sum
}

function arrive(gradients: Gradients, tensor: Tensor, gradient: Tensor): void {
  const before = gradients.get(tensor);
  if (!before) {
    gradients.set(tensor, gradient);
    return;
  }
  const type = before.dtype === gradient.dtype ? before.dtype : wide(tensor.dtype);
  const longer = before.shape[0]! > gradient.shape[0]! ? before : gradient;
  const whole = (g: Tensor): Tensor => cast(padRows(g, longer.shape[0]), type);
  gradients.set(tensor, add(whole(before), whole(gradient)));
}

function fitting(gradient: Optional, x: Tensor, node: Node, what: string): Tensor {
  if (gradient && sameShape(gradient.shape, x.shape) && (gradient.dtype === x.dtype || gradient.dtype === wide(x.dtype))) return gradient;
  const received = gradient ? `${gradient.dtype} [${gradient.shape}]` : "none";
  throw new GradError(node.op.name, node.label, `expected ${what} to be ${x.dtype} [${x.shape}], received ${received}`);
}

/** "grad/" and the forward node's label, relative to the scope that asks for gradients. */
function gradLabel(graph: Graph, node: Node): string {
  const here = `${graph.label}/`;
  const label = node.label.startsWith(here) ? node.label.slice(here.length) : node.label;
  return label === "" || label === graph.label ? "grad" : `grad/${label}`;
}
