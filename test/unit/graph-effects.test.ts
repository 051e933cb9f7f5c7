import { hoistEffects } from "../../lib/graph/effects.js";
import { neg, relu } from "../../lib/graph/ops/elementwise.js";
import { input, parameter } from "../../lib/graph/ops/leaf.js";
import { accumulate, assign } from "../../lib/graph/ops/optimizer.js";
import { transpose } from "../../lib/graph/ops/shape.js";
import { optimize } from "../../lib/graph/passes.js";
import { buildGraph, type Graph, type Tensor } from "../../lib/graph/tensor.js";
import { runGraph } from "../support/naive.js";

const state = (name: string, offset: number) => parameter({ arena: "state", name, dtype: "f32", shape: [4], offset });
const order = (graph: Graph): string[] => graph.nodes.filter(n => !n.op.leaf).map(n => n.label);

test("an effect runs as soon as its operand exists", () => {
  const graph = buildGraph(g => {
    const x = input("x", { dtype: "f32", shape: [4] });
    const first = g.scope("first", () => relu(x));
    const second = g.scope("second", () => relu(first));
    g.output(
      "y",
      g.scope("third", () => relu(second)),
    );
    g.scope("total += first", () => accumulate(state("total", 0), first));
  });
  expect(order(hoistEffects(graph))).toEqual(["first", "total += first", "second", "third"]);
});

test("an effect that reads what another wrote stays behind it", () => {
  const graph = buildGraph(g => {
    const x = input("x", { dtype: "f32", shape: [4] });
    const late = g.scope("late", () => relu(x));
    g.scope("a = late", () => assign(state("a", 0), late));
    g.scope("b = a", () => assign(state("b", 64), state("a", 0)));
  });
  expect(order(hoistEffects(graph))).toEqual(["late", "a = late", "b = a"]);
});

test("an effect stays behind the last reader of what it overwrites", () => {
  const graph = buildGraph(g => {
    const x = input("x", { dtype: "f32", shape: [4] });
    const a = state("a", 0);
    g.scope("first", () => relu(x));
    g.output(
      "y",
      g.scope("reads a", () => relu(a)),
    );
    g.scope("last", () => relu(x));
    g.scope("a = x", () => assign(a, x));
  });
  expect(order(hoistEffects(graph))).toEqual(["first", "reads a", "a = x", "last"]);
});

test("what was read before an effect is not what its memory holds after it: pairs of ops that undo each other stay", () => {
  for (const twice of [neg, (x: Tensor) => transpose(x, [1, 0])]) {
    const graph = buildGraph(g => {
      const a = parameter({ arena: "state", name: "a", dtype: "f32", shape: [2, 2], offset: 0 });
      const before = twice(twice(a));
      assign(a, input("x", { dtype: "f32", shape: [2, 2] }));
      g.output("before", before);
    });
    expect(runGraph(optimize(graph), { x: [5, 6, 7, 8] }, { state: new Float32Array([1, 2, 3, 4]).buffer }).outputs.before).toEqual([1, 2, 3, 4]);
  }
});
