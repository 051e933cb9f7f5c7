/** Gradients of a loss of the first sample of a batch: of its rows alone, as reverse mode carries them, and of all rows with zeros, as a mask makes them. */

import fc from "fast-check";
import { compileGraph } from "../../lib/graph/compile.js";
import { firstRows } from "../../lib/graph/first-rows.js";
import { mean, mul, scale, square } from "../../lib/graph/ops/elementwise.js";
import { constant } from "../../lib/graph/ops/leaf.js";
import { Session } from "../../lib/graph/session.js";
import type { Graph, Tensor } from "../../lib/graph/tensor.js";
import { type HostTensor, hostTensor, outsideShape } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { networkBytes, randomNetwork } from "../support/random-network.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

const arenas = { weights: networkBytes };
const wave = (n: number, phase: number): Float64Array => Float64Array.from({ length: n }, (_, i) => Math.sin(1.7 * i + phase) / 2);

async function results(graph: Graph): Promise<Record<string, HostTensor>> {
  const executable = session.compile(compileGraph(graph, { name: "network", arenas }));
  session.write("weights", 0, wave(networkBytes / 8, 0));
  const inputs = graph.inputs.map(({ name, tensor, layout }, i) => {
    const shape = outsideShape(tensor.shape, layout);
    const size = shape.reduce((a, b) => a * b, 1);
    return [name, hostTensor("f64", shape, wave(size, 5 + i))] as const;
  });
  return session.run(executable, { inputs: Object.fromEntries(inputs) });
}

const ofFirst = (last: Tensor): Tensor => mean(square(firstRows(last, 1)));
const masked = (last: Tensor): Tensor => scale(mean(square(mul(last, constant([1, 0], [2, 1, 1, 1], "f64")))), 2);

test("random networks, recomputed layers among them", async () => {
  let shorter = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(1000), { minLength: 3, maxLength: 36 }), async draws => {
      const [alone, all] = [randomNetwork(draws, ofFirst), randomNetwork(draws, masked)];
      const [expected, received] = [await results(all), await results(alone)];
      for (const [name, { data }] of Object.entries(expected)) expectClose(received[name]!.data as Float64Array, data as Float64Array, 1e-12, name);
      shorter += alone.nodes.filter(({ label, outputs }) => label.startsWith("grad") && outputs[0]!.shape[0] === 1 && outputs[0]!.shape.length === 4).length;
    }),
    { numRuns: 200 },
  );
  expect(shorter).toBeGreaterThan(1000); // over one row, not over two of which one is zero
});
