/** The two predictions that an objective compares: the policy's, and the frozen reference's on the same noisy samples. */

import { rowsFrom } from "../graph/first-rows.js";
import { slice, stopGradient } from "../graph/ops/shape.js";
import { currentGraph, scope, type Tensor } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";

export interface PredictionOptions {
  readonly policy: Params;
  readonly reference: Params;
  /** Whether a reference that is the policy without its adapter runs in one batch with it (default): their common weights are read once, and half as many
   *  instructions do the forward pass. */
  readonly oneBatch?: boolean | undefined;
  /** The prediction of these parameters on the noisy samples, `copies` times one after the other. */
  predict(params: Params, copies: number): Tensor;
}

/** Neither depends on the order: with two passes the reference runs first, so that of its activations only the prediction outlives the policy's forward pass. */
export function predictBoth({ policy, reference, oneBatch = true, predict }: PredictionOptions): { readonly prediction: Tensor; readonly reference: Tensor } {
  const together = oneBatch && policy.adapter && reference.store === policy.store && !reference.adapter ? inOneBatch(policy, predict) : undefined;
  if (together) return together;
  const frozen = scope("reference", () => stopGradient(predict(reference, 1)));
  return { prediction: scope("policy", () => predict(policy, 1)), reference: frozen };
}

/** The samples twice, the adapter on the first half. Undefined for a model that mixes its samples, or lays them out so that its layers cannot be told the
 *  halves apart: what was built of it is then dead code. */
function inOneBatch(policy: Params, predict: PredictionOptions["predict"]): { readonly prediction: Tensor; readonly reference: Tensor } | undefined {
  const graph = currentGraph();
  const first = graph.nodes.length;
  const both = scope("policy and reference", () => predict(policy.sharing(1 / 2), 2));
  const length = both.shape[0]! / 2;
  const weights = policy.adapter!.stores.flatMap(store => [...store.entries.keys()].map(name => store.leaf(name)));
  if (rowsFrom(graph.nodes.slice(first), weights)(both) !== length) return undefined;
  const half = (start: number): Tensor => slice(both, { axis: 0, start, length });
  return { prediction: half(0), reference: stopGradient(half(length)) };
}
