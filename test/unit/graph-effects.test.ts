import { hoistEffects } from "../../lib/graph/effects.js";
import { relu } from "../../lib/graph/ops/elementwise.js";
import { input, parameter } from "../../lib/graph/ops/leaf.js";
import { accumulate, assign } from "../../lib/graph/ops/optimizer.js";
import { buildGraph, type Graph } from "../../lib/graph/tensor.js";

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
