import fc from "fast-check";
import { compileGraph } from "../../lib/graph/compile.js";
import { opTable } from "../../lib/graph/op.js";
import {
  abs,
  add,
  affine,
  clamp,
  exp,
  greater,
  maximum,
  minimum,
  mul,
  neg,
  relu,
  select,
  sigmoid,
  silu,
  square,
  sub,
  tanh,
} from "../../lib/graph/ops/elementwise.js";
import { full, input } from "../../lib/graph/ops/leaf.js";
import { broadcast, sum } from "../../lib/graph/ops/reduce.js";
import { optimize } from "../../lib/graph/passes.js";
import { tapeRegisters } from "../../lib/graph/tape-opcodes.js";
import { buildGraph, extendGraph, type Graph, type Tensor } from "../../lib/graph/tensor.js";
import { type Named, runGraph, runProgram } from "../support/naive.js";

const unary = [neg, exp, square, abs, sigmoid, tanh, relu, silu];
const binary = [add, sub, mul, maximum, minimum, greater];

/** An expression over operands that broadcast to [3,4], with inlined numbers, values used often and again much later, and sums in between. */
function expression(dtype: "f32" | "f64", draws: readonly number[]): Graph {
  return buildGraph(g => {
    const pool = [[3, 4], [1, 4], [3, 1], [1], [4]].map((shape, i) => input(`x${i}`, { dtype, shape }));
    const pick = (n: number): Tensor => pool[n % 3 === 0 ? n % pool.length : pool.length - 1 - (n % Math.min(6, pool.length))]!;
    for (let i = 0; i + 3 < draws.length; i += 4) {
      const [kind = 0, first = 0, second = 0, extra = 0] = draws.slice(i, i + 4);
      const [a, b] = [pick(first), pick(second)];
      const makers = [
        () => unary[extra % unary.length]!(a),
        () => binary[extra % binary.length]!(a, b),
        () => binary[extra % binary.length]!(a, 0.5 - (extra % 3)),
        () => affine(a, { scale: 0.5, shift: (extra % 3) - 1 }),
        () => clamp(a, { min: -1 - (extra % 2), max: 1 }),
        () => select(a, b, pick(extra)),
        () => mul(a, full(-0, [3, 4], dtype)),
        () => broadcast(a.shape.length === 2 ? a : full(extra, [1, 1], dtype), [3, 4]),
        () => (a.shape.length === 2 ? sum(a, [extra % 2]) : neg(a)),
      ];
      pool.push(makers[kind % makers.length]!());
    }
    pool.slice(5).forEach((x, i) => i % 9 === 0 && g.output(`y${i}`, x));
    g.output("last", pool.at(-1)!);
  });
}

const sizes = [12, 4, 3, 1, 4];
const feeds: Named = Object.fromEntries(sizes.map((n, i) => [`x${i}`, Array.from({ length: n }, (_, k) => Math.fround(Math.cos(3.3 * k + i)))]));
const draws = fc.array(fc.nat(1000), { minLength: 8, maxLength: 500 });

for (const dtype of ["f32", "f64"] as const) {
  test(`${dtype}: fused expressions have the bits of single ops`, () => {
    fc.assert(
      fc.property(draws, d => {
        const graph = expression(dtype, d);
        expect(runProgram(compileGraph(graph, { name: "fused" }), feeds)).toEqual(runGraph(graph, feeds));
      }),
      { numRuns: 300 },
    );
  });

  test(`${dtype}: a tape's decomposition has its bits`, () => {
    fc.assert(
      fc.property(draws, d => {
        const graph = expression(dtype, d);
        expect(runGraph(unfused(optimize(graph)), feeds)).toEqual(runGraph(graph, feeds));
      }),
      { numRuns: 100 },
    );
  });
}

/** The graph with every tape decomposed. */
function unfused(graph: Graph): Graph {
  const image = new Map<Tensor, Tensor>();
  return buildGraph(g => {
    for (const node of graph.nodes) {
      const inputs = node.inputs.map(x => image.get(x!)!);
      const outputs = node.op.name === "tape" ? node.op.decompose!(node.attrs, ...inputs) : g.append(node.op, node.attrs, inputs, node.outputs).outputs;
      for (const [i, y] of node.outputs.entries()) image.set(y, outputs[i]!);
    }
    for (const { name, tensor, layout } of graph.inputs) g.inputs.push({ name, tensor: image.get(tensor)!, layout });
    for (const { name, tensor, layout } of graph.outputs) g.output(name, image.get(tensor)!, layout);
  });
}

test("a scalar stage is one instruction", () => {
  const graph = buildGraph(g => {
    const gap = sub(input("policy", { dtype: "f64", shape: [8, 1] }), input("reference", { dtype: "f64", shape: [8, 1] }));
    const doubt = sigmoid(affine(gap, { scale: -2500, shift: 0 }));
    g.output("loss", mul(square(doubt), maximum(gap, 0)));
  });
  expect(compileGraph(graph, { name: "scalars" }).instructions.map(i => i.op)).toEqual(["tape"]);
});

test("a chain longer than any tape is cut, and no tape uses more registers than there are", () => {
  const graph = buildGraph(g => {
    let x = input("x", { dtype: "f32", shape: [4] });
    for (let i = 0; i < 300; i++) {
      x = add(square(x), 1 / (i + 1)); // a number of its own per step, all alive at once if registers were never used again
      if (i % 10 === 0) g.output(`x${i}`, x);
    }
  });
  const { instructions } = compileGraph(graph, { name: "chain" });
  expect(new Set(instructions.map(i => i.op))).toEqual(new Set(["tape"]));
  expect(instructions.length).toBeLessThan(12);
  for (const { attrs } of instructions)
    for (const [i, n] of (attrs.code as readonly number[]).entries()) if (i % 5 === 1) expect(n).toBeLessThan(tapeRegisters);
});

test("members of different replays stay apart, and so do ops on two sides of an effect's place", () => {
  expect(opTable.get("add")!.tape).toBe("add");
  const graph = buildGraph(g => {
    const x = input("x", { dtype: "f32", shape: [4] });
    const first = neg(x);
    const second = g.inReplay(g.nextReplay(), () => square(first));
    g.output("y", second);
  });
  expect(compileGraph(graph, { name: "replays" }).instructions.map(i => i.op)).toEqual(["neg", "square"]);
  extendGraph(graph, g => g.output("z", neg(graph.outputs[0]!.tensor)));
  expect(compileGraph(graph, { name: "replays" }).instructions.map(i => i.op)).toEqual(["neg", "square", "neg"]);
});
