/** The CUDA kernels on the host machine (native/simt) against the cpu backend in f64: every case of every op, forward and backward, through sessions as a GPU would run
 *  them. Skipped, with the reason, where attune_simt.so was not built (`npm run test:simt` builds it). */

import { Session } from "../../lib/graph/session.js";
import { native } from "../../lib/native.js";
import { caseInputs, f32Bound, type OpCase } from "../ops/case.js";
import { opCases } from "../ops/cases.js";
import { CaseProgram, caseGraph, differentiable, type Float, gradientGraph } from "../ops/program.js";
import { expectClose, type Values } from "../support/compare.js";
import { type Nd, nd } from "../support/nd.js";
import { Rng } from "../support/rng.js";

const { fround } = Math; // a local: see support/rng.ts
const found = native().kernels("simt");
const suite = found.built ? describe : describe.skip;
if (!found.built) console.log("simt: attune_simt.so was not built, its tests are skipped");

let simt: Session;
let cpu: Session;
beforeAll(() => {
  cpu = Session.open({ backend: "cpu" });
  if (found.built) simt = Session.open({ backend: "simt" });
});
afterAll(async () => {
  await cpu.close();
  await simt?.close();
});

function evaluate(c: OpCase, dtype: Float, on: Session): Promise<Record<string, Values>> {
  const graph = differentiable(c).length > 0 ? gradientGraph(c, dtype) : caseGraph(c, dtype);
  const cotangents = graph.inputs.filter(({ name }) => name.startsWith("u")).map(({ tensor }, k) => rounded(tensor.shape, k));
  return new CaseProgram(on, c, dtype, graph).run(caseInputs(c), cotangents);
}

/** Cotangents that float32 holds exactly. */
function rounded(shape: readonly number[], k: number): Nd {
  const random = new Rng(4, k);
  return nd(shape, () => fround(random.normal()));
}

const groups = new Map<string, OpCase[]>();
for (const c of opCases) {
  const op = c.name.split(" ")[0]!;
  groups.set(op, [...(groups.get(op) ?? []), c]);
}

suite("f32 on simt agrees with f64 on the cpu", () => {
  test.each([...groups])("%s", async (_, cases) => {
    for (const c of cases) {
      const [expected, actual] = [await evaluate(c, "f64", cpu), await evaluate(c, "f32", simt)];
      for (const [name, y] of Object.entries(expected)) expectClose(actual[name]!, y, f32Bound(c), `${c.name}: ${name}`);
    }
  });
});
