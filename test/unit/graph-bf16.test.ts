/** bf16 as a dtype of computation: what ops give in it, what stays f32 beside it, and what the gradients of both are. */

import { ProgramError, ShapeError } from "../../lib/errors.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { attention } from "../../lib/graph/ops/attention.js";
import { conv2d } from "../../lib/graph/ops/conv.js";
import { cast, mean, square } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { linear, matmul } from "../../lib/graph/ops/matmul.js";
import { groupNorm, layerNorm } from "../../lib/graph/ops/norm.js";
import { accumulate, adamw, assign } from "../../lib/graph/ops/optimizer.js";
import { sumRows } from "../../lib/graph/ops/reduce.js";
import type { Target } from "../../lib/graph/target.js";
import { buildGraph, type DType, extendGraph, type Graph, type Node, scope, type Tensor } from "../../lib/graph/tensor.js";
import { opCases } from "../ops/cases.js";
import { caseGraph, type Float, gradientGraph } from "../ops/program.js";
import { persistent } from "../support/leaves.js";

let names = 0;
const of = (dtype: DType, ...shape: number[]): Tensor => input(`x${names++}`, { dtype, shape });
const built = (body: () => void): void => void buildGraph(body);

test("results follow the operands; statistics and sums over rows are f32", () => {
  built(() => {
    const [x, map] = [of("bf16", 2, 6, 8), of("bf16", 2, 4, 4, 8)];
    const [vector, narrow] = [of("f32", 8), of("bf16", 8)];
    const types = (y: Tensor): DType[] => y.node.outputs.map(output => output.dtype);
    for (const v of [vector, narrow]) {
      expect(types(linear(x, of("bf16", 8, 8), v))).toEqual(["bf16"]);
      expect(types(conv2d(map, of("bf16", 8, 3, 3, 8), v))).toEqual(["bf16"]);
      expect(types(layerNorm(x, v, v, { eps: 1e-5 }))).toEqual(["bf16", "f32", "f32"]);
      expect(types(groupNorm(map, v, v, { groups: 4, eps: 1e-5 }))).toEqual(["bf16", "f32", "f32"]);
    }
    expect(types(attention(x, x, x, { heads: 2 }))).toEqual(["bf16", "f32"]);
    expect(types(sumRows(x))).toEqual(["f32"]);
  });
});

test("a product of bf16 may be asked for in f32", () => {
  built(() => {
    const [x, weight] = [of("bf16", 6, 8), of("bf16", 4, 8)];
    expect(linear(x, weight, undefined, { dtype: "f32" }).dtype).toBe("f32");
    expect(matmul(x, weight, { transposeB: true, dtype: "f32" }).dtype).toBe("f32");
    expect(conv2d(of("bf16", 1, 4, 4, 8), of("bf16", 2, 1, 1, 8), undefined, { dtype: "f32" }).dtype).toBe("f32");
    expect(() => linear(x, weight, undefined, { dtype: "f64" })).toThrow("linear: expected a result in bf16 or f32 from operands in bf16, received f64");
    expect(() => matmul(of("f32", 2, 2), of("f32", 2, 2), { dtype: "bf16" })).toThrow("expected a result in f32 from operands in f32, received bf16");
  });
});

test("gradients: of weights and vectors in f32, of activations as they are, whatever the dtype of the product", () => {
  for (const dtype of ["bf16", "f32"] as const)
    built(() => {
      const [x, weight, bias, gamma] = [of("bf16", 6, 8), of("bf16", 8, 8), of("f32", 8), of("bf16", 8)];
      const y = linear(layerNorm(linear(x, weight, bias), gamma, bias, { eps: 1e-5 }), weight, undefined, { dtype });
      const gradients = grad(mean(square(cast(y, "f32"))), [x, weight, bias, gamma]);
      expect(gradients.map(g => g.dtype)).toEqual(["bf16", "f32", "f32", "f32"]);
      const products = gradients[0]!.node.inputs.map(t => t!.dtype);
      expect(products).toEqual(["bf16", "bf16"]); // dy and weight: never a product of two dtypes
    });
});

test("a cast hands its gradient back in the dtype it came from", () => {
  built(() => {
    const x = of("f32", 4);
    const [dx] = grad(mean(square(cast(cast(x, "bf16"), "f32"))), [x]);
    expect(dx!.dtype).toBe("f32");
    expect(dx!.node.inputs[0]!.dtype).toBe("bf16");
  });
});

test("buffers take sums of another floating-point dtype, the optimizer does not", () => {
  built(() => {
    const [master, mirror] = [persistent("master", "f32", 4), persistent("mirror", "bf16", 4)];
    expect(assign(mirror, master).dtype).toBe("bf16");
    expect(accumulate(master, of("bf16", 4)).dtype).toBe("f32");
    expect(() => assign(master, of("i32", 4))).toThrow("assign: expected x like the buffer f32 [4], received i32 [4]");
    expect(() => adamw({ param: mirror, grad: master, m: master, v: master }, { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0 })).toThrow(ShapeError);
  });
});

test.each<[string, () => unknown, string]>([
  ["weight", () => linear(of("bf16", 2, 3), of("f32", 5, 3)), "linear: expected one dtype, received x bf16 [2,3] and weight f32 [5,3]; cast one of them"],
  [
    "bias",
    () => linear(of("bf16", 2, 3), of("bf16", 5, 3), of("f64", 5)),
    "linear: expected one dtype, received x bf16 [2,3] and bias f64 [5]; cast one of them",
  ],
  [
    "narrow bias",
    () => linear(of("f32", 2, 3), of("f32", 5, 3), of("bf16", 5)),
    "linear: expected one dtype, received x f32 [2,3] and bias bf16 [5]; cast one of them",
  ],
  [
    "gamma",
    () => layerNorm(of("bf16", 2, 3), of("f64", 3), of("f32", 3), { eps: 1 }),
    "layer_norm: expected one dtype, received x bf16 [2,3] and gamma f64 [3]; cast one of them",
  ],
])("combinations that no kernel computes are refused by name: %s", (_, body, message) => {
  built(() => expect(body).toThrow(message));
});

const cpu: Target = { backend: "cpu", kernels: new Set() };

test("a program in bf16 is refused for the cpu by name, and may be kept, converted and copied there", () => {
  const compiled = (body: (graph: Graph) => void) => () => compileGraph(buildGraph(body), { name: "p", target: cpu });
  const product = compiled(g =>
    g.output(
      "y",
      scope("head", () => linear(of("bf16", 2, 3), of("bf16", 5, 3))),
    ),
  );
  expect(product).toThrow(ProgramError);
  expect(product).toThrow("linear at head: the cpu backend computes in f32 and f64, not in bf16; use a GPU, or a model of f32");
  const rounded = compiled(() => void assign(persistent("mirror", "bf16", 4), persistent("kept", "f32", 4)));
  expect(rounded).toThrow("assign: on the cpu, expected a source in bf16, received f32; cast it");
  const total = (dtype: DType, x: DType) => compiled(() => void accumulate(persistent("total", dtype, 4), persistent("x", x, 4)));
  expect(total("f32", "bf16")).toThrow(ProgramError);
  expect(total("bf16", "bf16")).toThrow(ProgramError);
  for (const fine of [total("f64", "f64"), compiled(() => void assign(persistent("a", "bf16", 4), cast(persistent("b", "f32", 4), "bf16")))])
    expect(fine).not.toThrow();
});

/** Ops that bf16 does not reach: numbers drawn or formed in f32, sums of predictions, the optimizer, sums in f64. */
const apart = ["random_", "timestep_embedding", "adamw", "ema", "accumulate", "assign", "fill", "linear_dw_accumulate", "conv2d_dw_accumulate"];

test("every other op builds, differentiates and plans in bf16, with gradients in bf16 or f32", () => {
  const cases = opCases.filter(c => !apart.some(op => c.name.startsWith(op)));
  for (const c of cases) {
    const graph = (c.inputs.some(x => !x.frozen && !x.dtype) ? gradientGraph : caseGraph)(c, "bf16" as unknown as Float);
    for (const { name, tensor } of graph.outputs) if (name.startsWith("g")) expect([c.name, "bf16", "f32"]).toContain(tensor.dtype);
    compileGraph(graph, { name: c.name });
    extendGraph(graph, () => graph.nodes.slice().forEach(expectSameTypes));
  }
  expect(cases.length).toBeGreaterThan(100);
});

/** A decomposition stands in for its op: it has the op's types. */
function expectSameTypes({ op, attrs, inputs, outputs }: Node): void {
  const simple: readonly Tensor[] | undefined = op.decompose?.(attrs, ...inputs);
  if (simple) expect([op.name, ...simple.map(y => [y.dtype, ...y.shape])]).toEqual([op.name, ...outputs.map(y => [y.dtype, ...y.shape])]);
}
