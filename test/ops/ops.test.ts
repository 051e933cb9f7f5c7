/** Every op in f64 equals its reference in loops, to the rounding of both. */

import { Session } from "../../lib/graph/session.js";
import { expectClose } from "../support/compare.js";
import { caseInputs, f64Bound } from "./case.js";
import { opCases } from "./cases.js";
import { CaseProgram, caseGraph, outputsOf } from "./program.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

test.each(opCases.map(c => [c.name, c] as const))("%s", async (_, c) => {
  const x = caseInputs(c);
  const program = new CaseProgram(session, c, "f64", caseGraph(c, "f64"));
  const outputs = outputsOf(await program.run(x));
  const expected = c.reference(x);
  expect(outputs.length).toBe(expected.length);
  for (const [k, y] of outputs.entries()) expectClose(y, expected[k]!.data, f64Bound(c), `${c.name}: output ${k}`);
  const written = c.inputs.flatMap((input, k) => (input.persistent ? [k] : []));
  for (const [i, k] of written.entries()) expectClose(await program.buffer(k), expected[i]!.data, f64Bound(c), `${c.name}: buffer of input ${k}`);
});

test("names are unique", () => {
  expect(new Set(opCases.map(c => c.name)).size).toBe(opCases.length);
});
