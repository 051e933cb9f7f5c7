/** Autoencoders and CLIP frozen in bf16, on the cpu with every value rounded as its dtype says (support/bf16.ts): what a GPU computes, but for the order of
 *  its sums. */

import { Session } from "../../lib/graph/session.js";
import type { Graph } from "../../lib/graph/tensor.js";
import { readParameter, writeParameter } from "../../lib/models/load.js";
import { type ModelDType, type ParameterStore, Params } from "../../lib/nn/params.js";
import { convert, type HostTensor } from "../../lib/util/host-tensor.js";
import { emulated } from "../support/bf16.js";
import { relL2 } from "../support/compare.js";
import { encoders, parameterGradients } from "../support/encoders.js";
import { numbers } from "../support/gradients.js";
import { drawWeights, runGraph } from "../support/steps.js";

let session: Session;
beforeEach(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterEach(() => session.close());

test.each(encoders)("%s gives the outputs and the gradients of f64, up to its roundings", async (_, make) => {
  const model = make();
  const run = async (dtype: ModelDType, weights: "drawn" | "rounded" = "drawn"): Promise<Record<string, HostTensor>> => {
    const store = model.declare(dtype);
    const as = dtype === "bf16" ? emulated : (graph: Graph) => graph;
    await drawWeights(session, { store, adapter: undefined, reference: store, arenas: store.arenas }, { as });
    if (weights === "rounded") await roundMatrices(store);
    return runGraph(session, as(model.build(new Params(store))), model.inputs, store.arenas);
  };
  const [exact, shaken, rounded] = [await run("f64"), await run("f64", "rounded"), await run("bf16")];
  // How much a rounding costs is the model's own condition: what f64 strays by when every matrix is rounded once. Around each product some four results
  // are rounded besides (norm, product, activation, sum), at random: sqrt(1 + 4) times that, doubled.
  const bound = (of: (result: Record<string, HostTensor>) => ArrayLike<number>): number => 2 * Math.sqrt(5) * relL2(of(shaken), of(exact));
  for (const name of model.outputs) {
    const of = (result: Record<string, HostTensor>): Float64Array => numbers(result[name]!);
    expect(rounded[name]!.dtype).toBe("f32"); // whatever the model computes in
    const error = relL2(of(rounded), of(exact));
    expect([name, error, error < bound(of)]).toEqual([name, error, true]);
    expect(error).toBeGreaterThan(2 ** -11); // it did round
  }
  expect(relL2(parameterGradients(rounded), parameterGradients(exact))).toBeLessThan(bound(parameterGradients));
});

async function roundMatrices(store: ParameterStore): Promise<void> {
  for (const entry of store.entries.values())
    if (entry.shape.length > 1) writeParameter(session, store, entry, convert(await readParameter(session, store, entry), "bf16"));
}
