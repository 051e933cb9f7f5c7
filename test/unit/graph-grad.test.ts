import { GradError } from "../../lib/errors.js";
import { grad, vjp } from "../../lib/graph/grad.js";
import { defineOp } from "../../lib/graph/op.js";
import { add, div, exp, greater, mean, mul, sigmoid, square, sub } from "../../lib/graph/ops/elementwise.js";
import { input, parameter } from "../../lib/graph/ops/leaf.js";
import { assign } from "../../lib/graph/ops/optimizer.js";
import { sum } from "../../lib/graph/ops/reduce.js";
import { slice, stopGradient } from "../../lib/graph/ops/shape.js";
import { removeDead } from "../../lib/graph/passes.js";
import { buildGraph, type Tensor } from "../../lib/graph/tensor.js";
import { runGraph } from "../support/naive.js";

const x0 = [0.5, -1.25, 2];
const y0 = [3, 0.25, -0.75];

/** Gradients of loss(x, y) with respect to both, f64 [3]. */
function gradients(loss: (x: Tensor, y: Tensor) => Tensor): { dx: number[]; dy: number[] } {
  const graph = buildGraph(g => {
    const x = input("x", { dtype: "f64", shape: [3] });
    const y = input("y", { dtype: "f64", shape: [3] });
    const [dx, dy] = grad(loss(x, y), [x, y], { unreachable: "zeros" });
    g.output("dx", dx!);
    g.output("dy", dy!);
  });
  const { outputs } = runGraph(removeDead(graph), { x: x0, y: y0 }); // of some ops below only the gradient can be run
  return { dx: outputs.dx!, dy: outputs.dy! };
}

const close = (received: number[], expected: number[]) => expected.forEach((e, i) => void expect(received[i]).toBeCloseTo(e, 13));
const s = (x: number) => 1 / (1 + Math.exp(-x));

test("product and quotient rules", () => {
  const { dx, dy } = gradients((x, y) => sum(div(mul(x, exp(y)), y)));
  close(
    dx,
    y0.map(y => Math.exp(y) / y),
  ); // d/dx x e^y / y
  close(
    dy,
    x0.map((x, i) => (x * Math.exp(y0[i]!) * (y0[i]! - 1)) / y0[i]! ** 2),
  );
});

test("every consumer of a tensor adds to its gradient: x used once, twice, three times, and twice in one op", () => {
  close(
    gradients(x => sum(square(x))).dx,
    x0.map(x => 2 * x),
  );
  close(
    gradients(x => add(sum(square(x)), sum(exp(x)))).dx,
    x0.map(x => 2 * x + Math.exp(x)),
  );
  close(
    gradients(x => add(add(sum(square(x)), sum(exp(x))), sum(x))).dx,
    x0.map(x => 2 * x + Math.exp(x) + 1),
  );
  close(
    gradients(x => sum(mul(x, x))).dx,
    x0.map(x => 2 * x),
  );
});

test("an intermediate result used twice: d/dx of s + s^2 with s = sigmoid(x)", () => {
  const { dx } = gradients(x => {
    const y = sigmoid(x);
    return sum(add(y, square(y)));
  });
  close(
    dx,
    x0.map(x => s(x) * (1 - s(x)) * (1 + 2 * s(x))),
  );
});

test("an op with two outputs of which one is used gets zeros for the other", () => {
  const { dx, dy } = gradients((x, y) => sum(sumAndDifference(x, y)[1]));
  close(dx, [1, 1, 1]);
  close(dy, [-1, -1, -1]);
});

test("a broadcast operand gets the sum over where it went", () => {
  const { dx } = gradients((x, y) => sum(mul(slice(x, { axis: 0, start: 1, length: 1 }), y)));
  close(dx, [0, y0[0]! + y0[1]! + y0[2]!, 0]);
});

test("nothing flows through stopGradient", () => {
  close(
    gradients(x => sum(mul(x, stopGradient(square(x))))).dx,
    x0.map(x => x * x),
  );
});

test("an op without a rule is differentiated through its decomposition, also where one input is computed from the other or given twice", () => {
  close(
    gradients(x => sum(squaredDistance(x, exp(x)))).dx,
    x0.map(x => 2 * (x - Math.exp(x)) * (1 - Math.exp(x))),
  );
  close(
    gradients((x, y) => sum(squaredDistance(x, y))).dy,
    y0.map((y, i) => 2 * (y - x0[i]!)),
  );
  close(
    gradients(x => sum(product(x, x))).dx,
    x0.map(x => 2 * x),
  );
});

test("a gradient can be differentiated again: d/dx of |d/dx sum e^x|^2 is 2 e^2x", () => {
  const { dx } = gradients(x => sum(square(grad(sum(exp(x)), [x])[0]!)));
  close(
    dx,
    x0.map(x => 2 * Math.exp(2 * x)),
  );
});

test("vjp starts from given cotangents and may ask for intermediate results", () => {
  const graph = buildGraph(g => {
    const x = input("x", { dtype: "f64", shape: [3] });
    const y = square(x);
    const z = exp(y);
    const [dy, dx] = vjp([z, y], [input("u", { dtype: "f64", shape: [3] }), y], [y, x]);
    g.output("dy", dy!);
    g.output("dx", dx!);
  });
  const { outputs } = runGraph(graph, { x: x0, u: y0 });
  const dy = x0.map((x, i) => y0[i]! * Math.exp(x * x) + x * x);
  close(outputs.dy!, dy);
  close(
    outputs.dx!,
    dy.map((d, i) => 2 * x0[i]! * d),
  );
});

test("nothing is built for what does not lead to the asked tensors", () => {
  const graph = buildGraph(g => {
    const frozen = parameter({ arena: "frozen", name: "w", dtype: "f64", shape: [3], offset: 0 });
    const x = input("x", { dtype: "f64", shape: [3] });
    const features = g.scope("features", () => exp(exp(mul(frozen, frozen))));
    grad(sum(mul(features, x)), [x]);
  });
  expect(graph.nodes.filter(n => n.label.startsWith("grad/features"))).toEqual([]);
});

test("gradient nodes carry the label of what they differentiate, relative to the scope that asks", () => {
  const graph = buildGraph(g =>
    g.scope("step", () => {
      const x = input("x", { dtype: "f64", shape: [3] });
      const loss = g.scope("policy/block", () => sum(exp(x)));
      grad(loss, [x]);
    }),
  );
  expect(new Set(graph.nodes.slice(-2).map(n => n.label))).toEqual(new Set(["step/grad/policy/block"]));
});

describe("errors name the op and its place", () => {
  const failing = (body: (x: Tensor) => unknown, message: string | RegExp) => {
    const build = () => buildGraph(g => void g.scope("model/head", () => body(input("x", { dtype: "f64", shape: [3] }))));
    expect(build).toThrow(GradError);
    expect(build).toThrow(message);
  };
  test("no rule on the way", () =>
    failing(x => grad(sum(unruled(x)), [x]), "unruled_op at model/head: lies on the way to a gradient and has no gradient rule"));
  test("no way at all", () => failing(x => grad(sum(exp(x)), [exp(x)]), "exp at model/head: the outputs do not depend on it through differentiable ops"));
  test("only a way that carries no gradient", () => failing(x => grad(sum(greater(x, 0)), [x]), /do not depend on it/));
  test("a loss of many elements", () => failing(x => grad(exp(x), [x]), "exp at model/head: expected a loss of 1 element, received [3]"));
  test("a rule that returns another shape", () =>
    failing(x => grad(sum(misruled(x)), [x]), "misruled_op at model/head: expected the gradient of input 0 to be f64 [3], received f64 [1]"));
  test("memory that an effect has changed since the forward pass", () =>
    failing(x => {
      const state = parameter({ arena: "state", name: "mean", dtype: "f64", shape: [3], offset: 0 });
      const loss = sum(mul(x, state));
      assign(state, x);
      return grad(loss, [x]);
    }, "mul at model/head: its gradient reads memory that assign at model/head has overwritten; build effects after gradients"));
  test("a cotangent of another shape", () => failing(x => vjp([exp(x)], [sum(x)], [x]), "expected cotangent 0 to be f64 [3], received f64 [1]"));
});

test("a rule with the wrong number of gradients does not compile", () => {
  type None = Record<never, never>;
  defineOp({
    name: "arity_checked_op",
    infer: (_: None, a: Tensor, _b: Tensor) => [a],
    // @ts-expect-error two inputs, one gradient
    vjp: ({ grads: [dy] }) => [dy],
  });
  defineOp({
    name: "grads_checked_op",
    infer: (_: None, a: Tensor) => [a],
    // @ts-expect-error one output has one cotangent
    vjp: ({ grads: [, second] }) => [second],
  });
});

type None = Record<never, never>;
const sumAndDifferenceOp = defineOp({
  name: "sum_and_difference_op",
  infer: (_: None, a: Tensor, b: Tensor) => [a, b],
  vjp: ({ grads: [u, v] }) => [add(u, v), sub(u, v)],
  decompose: (_, a, b) => [add(a, b), sub(a, b)],
});
const sumAndDifference = (a: Tensor, b: Tensor) => sumAndDifferenceOp({}, a, b);

const squaredDistanceOp = defineOp({
  name: "squared_distance_op",
  infer: (_: None, a: Tensor, _b: Tensor) => [a],
  decompose: (_, a, b) => [square(sub(a, b))],
});
const squaredDistance = (a: Tensor, b: Tensor) => squaredDistanceOp({}, a, b)[0];

const productOp = defineOp({ name: "product_op", infer: (_: None, a: Tensor, _b: Tensor) => [a], decompose: (_, a, b) => [mul(a, b)] });
const product = (a: Tensor, b: Tensor) => productOp({}, a, b)[0];

const unruled = (x: Tensor) => unruledOp({}, x)[0];
const unruledOp = defineOp({ name: "unruled_op", infer: (_: None, x: Tensor) => [x] });

const misruled = (x: Tensor) => misruledOp({}, x)[0];
const misruledOp = defineOp({ name: "misruled_op", infer: (_: None, x: Tensor) => [x], vjp: ({ grads: [dy] }) => [mean(dy)] });
