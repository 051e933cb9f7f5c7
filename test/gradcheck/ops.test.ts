/** <u, J v> by differences equals <J^T u, v> by the gradient rules, in f64, for random u on the outputs and random v on each input in turn.
 *
 *  The difference is fourth-order: J v ~ (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h, short of J v by h^4 f^(5) / 30, with f's rounding over h. At h = 1e-3
 *  these are 1e-7 relative where the fifth derivative is up to 3e6 times the first, and 1e-12 of |f|. */

import { add, scale, square, sub } from "../../lib/graph/ops/elementwise.js";
import { stopGradient } from "../../lib/graph/ops/shape.js";
import { Session } from "../../lib/graph/session.js";
import { caseInputs, type OpCase } from "../ops/case.js";
import { opCases } from "../ops/cases.js";
import { CaseProgram, caseGraph, differentiable, gradientGraph, outputsOf } from "../ops/program.js";
import { dot, norm, type Values } from "../support/compare.js";
import { gaussian, map, type Nd } from "../support/nd.js";
import { Rng } from "../support/rng.js";

const h = 1e-3;
const truncation = 1e-7;
const rounding = 1e-12;

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

/** x + step * v in place k. */
function moved(x: readonly Nd[], k: number, step: number, v: Nd): Nd[] {
  return x.with(k, { shape: v.shape, data: x[k]!.data.map((value, i) => value + step * v.data[i]!) });
}

function flat(outputs: readonly Values[]): Float64Array {
  return Float64Array.from(outputs.flatMap(y => Array.from(y)));
}

async function directional(program: CaseProgram, x: readonly Nd[], k: number, v: Nd): Promise<Float64Array> {
  const at = async (step: number): Promise<Float64Array> => flat(outputsOf(await program.run(moved(x, k, step, v))));
  const [near, nearBack, far, farBack] = [await at(h), await at(-h), await at(2 * h), await at(-2 * h)];
  return near.map((y, i) => (8 * (y - nearBack[i]!) - (far[i]! - farBack[i]!)) / (12 * h));
}

async function check(c: OpCase): Promise<void> {
  const x = caseInputs(c);
  const forward = new CaseProgram(session, c, "f64", caseGraph(c, "f64"));
  const graph = gradientGraph(c, "f64");
  const backward = new CaseProgram(session, c, "f64", graph);
  const u = graph.inputs.filter(({ name }) => name.startsWith("u")).map(({ tensor }, k) => gaussian(tensor.shape, new Rng(2, k)));
  const gradients = await backward.run(x, u);
  const allU = flat(u.map(({ data }) => data));
  const allY = flat(outputsOf(gradients));
  for (const k of differentiable(c)) {
    const v = gaussian(x[k]!.shape, new Rng(3, k));
    const jv = await directional(forward, x, k, v);
    const byDifferences = dot(allU, jv);
    const byRule = dot(gradients[`g${k}`]!, v.data);
    const bound = norm(allU) * (truncation * norm(jv) + rounding * (1 + norm(allY)));
    if (!(Math.abs(byDifferences - byRule) <= bound))
      throw new Error(`${c.name}, input ${k}: <u, Jv> is ${byDifferences} by differences and ${byRule} by the rule; bound ${bound.toExponential(2)}`);
  }
}

const smooth = opCases.filter(c => differentiable(c).length > 0);
test.each(smooth.map(c => [c.name, c] as const))("%s", (_, c) => check(c));

test("a gradient off by a thousandth is seen", async () => {
  const c: OpCase = {
    name: "x^2 with gradient 2x + 0.001",
    inputs: [{ shape: [5] }],
    build: ([x]) => [add(square(x!), scale(sub(x!, stopGradient(x!)), 1e-3))],
    reference: ([x]) => [map(x!, v => v * v)],
  };
  await expect(check(c)).rejects.toThrow("by differences");
});
