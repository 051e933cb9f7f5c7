/** Gradients of sum(output * cotangent), for proofs: the same for every model. */

import { vjp } from "../graph/grad.js";
import { add, cast, mul } from "../graph/ops/elementwise.js";
import { input } from "../graph/ops/leaf.js";
import { sum } from "../graph/ops/reduce.js";
import { currentGraph, type NamedTensor, type Tensor, typed } from "../graph/tensor.js";
import type { ParameterStore } from "../nn/params.js";
import type { HostTensor } from "../util/host-tensor.js";

/** Prefixes of the outputs that are gradients; the name of an input or of a parameter follows. */
export const gradientNames = { input: "d input ", parameter: "d parameter " } as const;

export interface ModelGradients {
  /** sum over the outputs of sum(output * cotangent). */
  readonly loss: number;
  /** d loss / d parameter by checkpoint name, in checkpoint order. */
  readonly grads: Readonly<Record<string, HostTensor>>;
  readonly inputGrads: Readonly<Record<string, HostTensor>>;
}

export interface Differentiated {
  /** Outputs with cotangents, each fed under this name: at least one. */
  readonly outputs: readonly NamedTensor[];
  readonly inputs: readonly NamedTensor[];
  readonly stores: readonly ParameterStore[];
  /** What to do for an input or parameter that no output depends on: throw (the default), or return zeros. */
  readonly unreachable?: "error" | "zeros";
}

/** Appends to the current graph: an input for the cotangent of every output, "loss", and the gradients of inputs and parameters, each shaped and laid out
 *  like what it belongs to. */
export function addGradients({ outputs, inputs, stores, unreachable = "error" }: Differentiated): void {
  const graph = currentGraph();
  const cotangents = outputs.map(({ name, tensor, layout }) => input(name, typed(tensor.dtype, ...tensor.shape), layout));
  graph.output(
    "loss",
    outputs.map(({ tensor }, i) => sum(mul(tensor, cotangents[i]!))).reduce((a, b) => add(a, cast(b, a.dtype))),
  );
  const named = inputs.map(i => ({ ...i, name: gradientNames.input + i.name }));
  const wanted = [...named, ...stores.flatMap(parametersOf)];
  const tensors = (list: readonly NamedTensor[]): Tensor[] => list.map(({ tensor }) => tensor);
  const grads = vjp(tensors(outputs), cotangents, tensors(wanted), { unreachable });
  for (const [i, { name, layout }] of wanted.entries()) graph.output(name, grads[i]!, layout);
}

function parametersOf(store: ParameterStore): NamedTensor[] {
  return [...store.entries.values()].map(({ name, layout }) => ({ name: gradientNames.parameter + name, tensor: store.leaf(name), layout }));
}

/** The results of a run of such a graph. */
export function gradientsOf(results: Readonly<Record<string, HostTensor>>): ModelGradients {
  return {
    loss: Number(results.loss!.data[0]),
    grads: withPrefix(results, gradientNames.parameter),
    inputGrads: withPrefix(results, gradientNames.input),
  };
}

/** The entries whose names begin with `prefix`, without it. */
function withPrefix<T>(record: Readonly<Record<string, T>>, prefix: string): Record<string, T> {
  const own = Object.entries(record).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, value]) => [name.slice(prefix.length), value]));
}
