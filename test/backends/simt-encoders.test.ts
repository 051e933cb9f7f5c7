/** The autoencoder and CLIP by the CUDA kernels on the host machine: every output and gradient against the cpu backend in f64. How far f32 and bf16 may be off is
 *  measured, not chosen: a few times what the cpu's f32, and bf16 emulated on the cpu, are off themselves. */

import { compileGraph } from "../../lib/graph/compile.js";
import { Session } from "../../lib/graph/session.js";
import type { Graph } from "../../lib/graph/tensor.js";
import { native } from "../../lib/native.js";
import { type ModelDType, Params } from "../../lib/nn/params.js";
import type { HostTensor } from "../../lib/util/host-tensor.js";
import { emulated } from "../support/bf16.js";
import { relL2 } from "../support/compare.js";
import { type Encoder, encoders, parameterGradients } from "../support/encoders.js";
import { numbers } from "../support/gradients.js";
import { drawWeights } from "../support/steps.js";

const found = native().kernels("simt");
const suite = found.built ? describe : describe.skip;
if (!found.built) console.log("simt: attune_simt.so was not built, its tests are skipped");

type Results = Record<string, HostTensor>;
const itself = (graph: Graph): Graph => graph;

async function resultsOf(backend: "cpu" | "simt", model: Encoder, dtype: ModelDType, as: (graph: Graph) => Graph = itself): Promise<Results> {
  const session = Session.open({ backend });
  try {
    const store = model.declare(dtype);
    await drawWeights(session, { store, adapter: undefined, reference: store, arenas: store.arenas }, { as });
    const graph = as(model.build(new Params(store)));
    return await session.run(session.compile(compileGraph(graph, { name: "encoder", arenas: store.arenas, target: session.target })), { inputs: model.inputs });
  } finally {
    await session.close();
  }
}

suite("on simt", () => {
  describe.each(encoders)("%s", (_, make) => {
    test.each(["f32", "bf16"] as const)("%s", async dtype => {
      const model = make();
      const exact = await resultsOf("cpu", model, "f64");
      const allowed = await resultsOf("cpu", model, dtype, dtype === "bf16" ? emulated : itself);
      const actual = await resultsOf("simt", model, dtype);
      const expectNear = (of: (results: Results) => ArrayLike<number>, what: string): void => {
        const [error, limit] = [relL2(of(actual), of(exact)), 3 * relL2(of(allowed), of(exact))];
        expect([what, error, error <= limit]).toEqual([what, error, true]);
      };
      for (const name of model.outputs) expectNear(results => numbers(results[name]!), name);
      expectNear(parameterGradients, "gradients");
    });
  });
});
