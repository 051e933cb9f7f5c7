/** An op that calls itself batchwise gives the first rows of its outputs for the first rows of the inputs that it names, and where only the first rows of its
 *  outputs have a gradient, it is differentiated over them alone, with the same result. */

import { attrsOfRows, batchInputs, firstRows, padRows } from "../../lib/graph/first-rows.js";
import { vjp } from "../../lib/graph/grad.js";
import { opTable } from "../../lib/graph/op.js";
import { isFloat } from "../../lib/graph/ops/check.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { removeDead } from "../../lib/graph/passes.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph, type Node, type Tensor, typed } from "../../lib/graph/tensor.js";
import { convert, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { Rng } from "../support/rng.js";
import { runOnce } from "../support/run.js";
import { f64Bound, type OpCase } from "./case.js";
import { opCases } from "./cases.js";
import { caseGraph } from "./program.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

/** The nodes of all cases that can be run over one row less than they have, each kind once. */
const found = new Map<string, { readonly c: OpCase; readonly node: Node }>();
for (const c of opCases)
  for (const node of caseGraph(c, "f64").nodes)
    if (batchInputs(node, rowsBut(1, node)) && node.inputs.every(x => x?.dtype !== "bf16"))
      found.set(`${node.op.name} ${JSON.stringify(node.attrs)} of ${node.inputs.map(x => x && `[${x.shape}]`)}`, { c, node });

function rowsBut(n: number, { outputs: [y] }: Node): number {
  return (y?.shape[0] ?? 0) - n || 1;
}

const inputsOf = ({ inputs }: Node): (Tensor | undefined)[] => inputs.map((x, i) => x && input(`x${i}`, typed(x.dtype, ...x.shape)));
const run = (graph: Graph, { op, attrs }: Node, inputs: Node["inputs"]): readonly Tensor[] =>
  graph.append(op, attrs, inputs, op.infer(attrs, ...inputs)).outputs;

/** Outputs "all k" and "first k": rows of the whole, and the op over rows. */
function forward(graph: Graph, node: Node, rows: number): void {
  const inputs = inputsOf(node);
  const along = batchInputs(node, rows)!;
  for (const [k, y] of run(graph, node, inputs).entries()) graph.output(`all ${k}`, firstRows(y, rows));
  const few = { ...node, attrs: attrsOfRows(node.attrs, rows) };
  const first = inputs.map((x, i) => x && firstRows(x, along.includes(i) ? rows : undefined));
  for (const [k, y] of run(graph, few, first).entries()) graph.output(`first ${k}`, y);
}

/** The same of gradients, for cotangents of the first rows: with zeros after them, and without. */
function backward(graph: Graph, node: Node, rows: number): void {
  const inputs = inputsOf(node);
  const outputs = run(graph, node, inputs);
  const cotangents = outputs.map((y, k) => input(`u${k}`, typed(y.dtype, rows, ...y.shape.slice(1))));
  const wanted = inputs.filter(x => x !== undefined && isFloat(x.dtype)) as Tensor[];
  const padded = cotangents.map(u => padRows(u, outputs[0]!.shape[0]));
  const name = (kind: string) => (flow: Tensor, k: number) => graph.output(`${kind} ${k}`, flow);
  vjp(outputs, padded, wanted, { unreachable: "zeros" }).forEach(name("all"));
  const before = graph.nodes.length;
  const views = outputs.map(y => firstRows(y, rows));
  vjp(views, cotangents, wanted, { unreachable: "zeros" }).forEach(name("first"));
  const launched = graph.nodes.slice(before).filter(({ op }) => /_vjp$|_dx$/.test(op.name) && op.name !== "embedding_vjp"); // its rows are the table's
  for (const { op, outputs: made } of launched)
    if (made[0]!.shape[0] !== rows) throw new Error(`${op.name} ran over ${made[0]!.shape[0]} rows, expected ${rows}`);
}

async function expectEqual({ c, node }: { c: OpCase; node: Node }, build: typeof forward): Promise<void> {
  const rows = rowsBut(1, node);
  const graph = removeDead(buildGraph(g => build(g, node, rows)));
  const random = new Rng(6, c.name);
  const inputs = Object.fromEntries(
    graph.inputs.map(({ name, tensor: { dtype, shape } }) => {
      const size = shape.reduce((n, d) => n * d, 1);
      const values = Array.from({ length: size }, () => (dtype === "i32" ? 0 : 0.5 + random.uniform()));
      return [name, hostTensor(dtype === "i32" ? "i32" : "f64", shape, values)];
    }),
  );
  const results = await runOnce(session, g => void build(g, node, rows), { inputs, scalars: c.scalars ?? {} });
  const numbers = (name: string): Float64Array => convert(results[name]!, "f64").data as Float64Array;
  for (const name of Object.keys(results))
    if (name.startsWith("all")) expectClose(numbers(name.replace("all", "first")), numbers(name), 4 * f64Bound(c), `${c.name}: ${name}`);
}

const kinds = [...found];

test.each(kinds)("%s", async (_, kind) => {
  await expectEqual(kind, forward);
  if (kind.node.op.vjp) await expectEqual(kind, backward);
});

test("every op with a gradient rule says whether it is batchwise, but for sources and sums over all rows", () => {
  const silent = [...opTable.values()].filter(op => op.vjp && !op.batchwise && !op.leaf).map(op => op.name);
  const sources = ["constant", "full", "scalar", "noise_schedule", "random_int", "random_normal", "random_uniform"];
  expect(silent.sort()).toEqual([...sources, "sum_rows", "sum_squares"].sort());
});
