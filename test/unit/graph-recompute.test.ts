import { grad } from "../../lib/graph/grad.js";
import { exp, mul, sigmoid, softplus, square } from "../../lib/graph/ops/elementwise.js";
import { input, parameter } from "../../lib/graph/ops/leaf.js";
import { accumulate } from "../../lib/graph/ops/optimizer.js";
import { sum } from "../../lib/graph/ops/reduce.js";
import { optimize } from "../../lib/graph/passes.js";
import { buildGraph, type Graph, recomputed, type Tensor } from "../../lib/graph/tensor.js";
import { runGraph } from "../support/naive.js";

const x0 = [0.5, -1.25, 2];

/** loss(x), which builds its own regions, and its gradient, without fusion. */
function gradientOf(loss: (x: Tensor) => Tensor): Graph {
  return optimize(
    buildGraph(g => {
      const x = input("x", { dtype: "f64", shape: [3] });
      const value = loss(x);
      g.output("loss", value);
      g.output("dx", grad(value, [x])[0]!);
    }),
    { fuse: false },
  );
}

const ops = (graph: Graph, name: string) => graph.nodes.filter(n => n.op.name === name);

test("what a rule builds again for a region is not merged with the forward pass, which would keep it alive", () => {
  // The rule of softplus asks for sigmoid(x), which the region has computed too, from a tensor outside of it.
  const graph = gradientOf(x => sum(recomputed(() => mul(sigmoid(x), softplus(x)))));
  const [forward, ...others] = ops(graph, "sigmoid");
  const readers = graph.nodes.filter(n => n.inputs.includes(forward!.outputs[0]));
  expect(readers.map(n => [n.op.name, n.label])).toEqual([["mul", ""]]);
  expect(others.length).toBeGreaterThan(0);
});

test("the result of a region that a later region reads is kept, not computed again", () => {
  const graph = gradientOf(x => {
    const first = recomputed(() => exp(square(x)));
    return sum(recomputed(() => square(exp(first))));
  });
  const again = graph.nodes.filter(n => n.label.startsWith("again"));
  expect(again.map(n => n.op.name)).toEqual(["exp", "square", "exp"]); // exp(first); then square(x), exp: the rule of exp reads its result
  const s = x0.map(x => Math.exp(x * x));
  const { outputs } = runGraph(graph, { x: x0 });
  for (const [i, dx] of outputs.dx!.entries()) expect(dx / (4 * x0[i]! * s[i]! * Math.exp(2 * s[i]!))).toBeCloseTo(1, 12);
});

test("an effect inside a region happens once, and leaves are not copied", () => {
  const graph = gradientOf(x =>
    recomputed(() => {
      const y = exp(square(x));
      accumulate(parameter({ arena: "state", name: "seen", dtype: "f64", shape: [3], offset: 0 }), y);
      return sum(square(y));
    }),
  );
  expect(ops(graph, "accumulate").length).toBe(1);
  expect(ops(graph, "parameter").length).toBe(1);
});

test("two gradients of one region are two replays", () => {
  const graph = buildGraph(g => {
    const x = input("x", { dtype: "f64", shape: [3] });
    const y = recomputed(() => exp(square(x)));
    g.output("first", grad(sum(y), [x])[0]!);
    g.output("second", grad(sum(square(y)), [x])[0]!);
  });
  expect(new Set(graph.nodes.filter(n => n.label.startsWith("again")).map(n => n.replay))).toEqual(new Set([1, 2]));
});
