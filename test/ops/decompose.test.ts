/** Every op that names a decomposition equals it: all its outputs, and its gradient rule against reverse mode through the simpler ops. */

import { opTable } from "../../lib/graph/op.js";
import { rebuild } from "../../lib/graph/rebuild.js";
import { Session } from "../../lib/graph/session.js";
import { extendGraph, type Graph, inGraph, type Node, type Tensor } from "../../lib/graph/tensor.js";
import { expectClose } from "../support/compare.js";
import { gaussian } from "../support/nd.js";
import { Rng } from "../support/rng.js";
import { caseInputs, f64Bound, type OpCase } from "./case.js";
import { opCases } from "./cases.js";
import { addGradients, CaseProgram, caseGraph } from "./program.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

const fused = (graph: Graph): boolean => graph.nodes.some(node => node.op.decompose);
const table = opCases.filter(c => fused(caseGraph(c, "f64"))).map(c => [c.name, c] as const);

/** The case's graph with saved outputs (statistics, log-sum-exp) named too. */
function whole(c: OpCase): Graph {
  const graph = caseGraph(c, "f64");
  for (const node of graph.nodes) if (node.op.decompose) for (const y of node.outputs.slice(1)) graph.output(`saved${y.id}`, y);
  return graph;
}

function decomposed(graph: Graph): Graph {
  const simple = ({ op, attrs }: Node, inputs: Node["inputs"]): readonly Tensor[] => op.decompose!(attrs, ...inputs);
  return rebuild(graph, (node, inputs, keep, copy) => (node.op.decompose ? inGraph(copy, () => simple(node, inputs)) : keep()));
}

function withGradients(graph: Graph, c: OpCase): Graph {
  const outputs = graph.outputs.filter(({ name }) => name.startsWith("y")).map(({ tensor }) => tensor);
  const leaves = c.inputs.map((_, k) => graph.nodes.find(({ op, attrs }) => op.leaf && attrs.name === `x${k}`)!.outputs[0]!);
  return extendGraph(graph, () => addGradients(graph, c, outputs, leaves));
}

test.each(table)("%s", async (_, c) => {
  const x = caseInputs(c);
  const [direct, simple] = [withGradients(whole(c), c), withGradients(decomposed(whole(c)), c)];
  const u = direct.inputs.filter(({ name }) => name.startsWith("u")).map(({ tensor }, k) => gaussian(tensor.shape, new Rng(5, k)));
  const actual = await new CaseProgram(session, c, "f64", direct).run(x, u);
  const expected = await new CaseProgram(session, c, "f64", simple).run(x, u);
  expect(Object.keys(expected)).toEqual(Object.keys(actual));
  for (const [name, y] of Object.entries(expected)) expectClose(actual[name]!, y, f64Bound(c), `${c.name}: ${name}`);
});

test("every decomposition is among the cases", () => {
  const covered = new Set(table.flatMap(([, c]) => caseGraph(c, "f64").nodes.map(node => node.op.name)));
  const named = [...opTable.values()].filter(op => op.decompose && op.name !== "tape").map(op => op.name); // tapes are made by fusion
  expect(named.filter(name => !covered.has(name))).toEqual([]);
  expect(named.length).toBeGreaterThanOrEqual(10);
});
