/** The cpu backend in f32 against itself in f64, forward and backward, for every instruction set of this machine; and the same bits for any number
 *  of threads, with and without fusion. The bound of a case follows from the length of its sums (test/ops/case.ts). */

import type { Session } from "../../lib/graph/session.js";
import type { Isa } from "../../lib/native.js";
import { caseInputs, f32Bound, type OpCase } from "../ops/case.js";
import { opCases } from "../ops/cases.js";
import { CaseProgram, caseGraph, differentiable, type Float, gradientGraph } from "../ops/program.js";
import { expectClose, expectSame, type Values } from "../support/compare.js";
import { type Nd, nd } from "../support/nd.js";
import { Rng } from "../support/rng.js";
import { isas, openWithIsa } from "../support/run.js";

const { fround } = Math; // a local: see support/rng.ts
const sessions = new Map<string, Session>();

function session(isa: Isa, threads = 2): Session {
  const key = `${isa} ${threads}`;
  const open = sessions.get(key) ?? openWithIsa(isa, threads);
  sessions.set(key, open);
  return open;
}

afterAll(async () => {
  for (const open of sessions.values()) await open.close();
});

/** Outputs y0, .. and gradients g0, .. of a case. */
function evaluate(c: OpCase, dtype: Float, on: Session, options: { fuse?: boolean } = {}): Promise<Record<string, Values>> {
  const graph = differentiable(c).length > 0 ? gradientGraph(c, dtype) : caseGraph(c, dtype);
  const cotangents = graph.inputs.filter(({ name }) => name.startsWith("u")).map(({ tensor }, k) => rounded(tensor.shape, k));
  return new CaseProgram(on, c, dtype, graph, options).run(caseInputs(c), cotangents);
}

/** Cotangents that float32 holds exactly. */
function rounded(shape: readonly number[], k: number): Nd {
  const random = new Rng(4, k);
  return nd(shape, () => fround(random.normal()));
}

const references = new Map<OpCase, Promise<Record<string, Values>>>();

function inF64(c: OpCase): Promise<Record<string, Values>> {
  const known = references.get(c) ?? evaluate(c, "f64", session("generic"));
  references.set(c, known);
  return known;
}

/** Cases by the op that their name begins with: one test each, the message names the case. */
const groups = new Map<string, OpCase[]>();
for (const c of opCases) {
  const op = c.name.split(" ")[0]!;
  groups.set(op, [...(groups.get(op) ?? []), c]);
}

describe.each(isas())("%s", isa => {
  test.each([...groups])("f32 agrees with f64: %s", async (_, cases) => {
    for (const c of cases) {
      const [expected, actual] = [await inF64(c), await evaluate(c, "f32", session(isa))];
      for (const [name, y] of Object.entries(expected)) expectClose(actual[name]!, y, f32Bound(c), `${c.name} (${isa}): ${name}`);
    }
  });
});

describe("bits", () => {
  const isa = isas().at(-1)!;

  test.each([...groups])("do not depend on threads or fusion: %s", async (_, cases) => {
    for (const c of cases) {
      const expected = await evaluate(c, "f32", session(isa, 2));
      const alone = await evaluate(c, "f32", session(isa, 1));
      const unfused = await evaluate(c, "f32", session(isa, 3), { fuse: false });
      for (const [name, y] of Object.entries(expected)) {
        expectSame(alone[name]!, y, `${c.name}: ${name} on one thread`);
        expectSame(unfused[name]!, y, `${c.name}: ${name} unfused on three threads`);
      }
    }
  });
});

test("an instruction set is chosen by its name", async () => {
  expect(() => openWithIsa("sse" as Isa)).toThrow("ATTUNE_CPU_ISA");
  const c = groups.get("conv2d")!.at(-1)!;
  const results: Values[] = [];
  for (const isa of isas()) results.push((await evaluate(c, "f32", session(isa))).y0!);
  const differ = results.slice(1).map(y => Array.from(y).some((v, i) => v !== results[0]![i]));
  expect(differ).toEqual(differ.map(() => true)); // wider vectors and fused multiply-adds round otherwise
});
