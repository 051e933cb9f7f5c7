import { PlanError, ProgramError } from "../../lib/errors.js";
import { compileGraph, compileWithPlan } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { gelu, mean, sigmoid, square, sub } from "../../lib/graph/ops/elementwise.js";
import { input, parameter } from "../../lib/graph/ops/leaf.js";
import { linear } from "../../lib/graph/ops/matmul.js";
import { accumulate, assign } from "../../lib/graph/ops/optimizer.js";
import { randomNormal } from "../../lib/graph/ops/random.js";
import { slice } from "../../lib/graph/ops/shape.js";
import { fitPlan } from "../../lib/graph/plan.js";
import { printProgram } from "../../lib/graph/print.js";
import { buildGraph, scope, type Tensor } from "../../lib/graph/tensor.js";
import { runProgram } from "../support/naive.js";
import { randomFeeds, randomGraph } from "../support/random-graph.js";

const weight = (arena: string): Tensor => parameter({ arena, name: "head.weight", dtype: "f32", shape: [2, 8], offset: 0 });

/** One linear layer, its loss against noise, and its gradient added to an arena. */
const tiny = () =>
  buildGraph(graph => {
    const x = input("x", { dtype: "f32", shape: [4, 8] });
    const w = weight("policy");
    const y = scope("head", () => gelu(linear(x, w)));
    const target = scope("noise", () => randomNormal(y.shape, { stream: 1 }));
    const loss = scope("loss", () => mean(square(sub(y, sigmoid(target)))));
    graph.output("loss", loss);
    const [dw] = grad(loss, [w]);
    scope("gradients", () => accumulate(weight("gradient"), dw!));
  });

test("a program prints as a summary and one line an instruction", () => {
  expect(printProgram(compileGraph(tiny(), { name: "tiny" }))).toMatchInlineSnapshot(`
"tiny: 9 instructions of 7 ops, 384 B scratch, 256 FLOP
  arenas   scratch 384 B, policy 64 B, gradient 64 B
  inputs   x f32 [4,8] @0
  outputs  loss f32 [1] @320
  scalars  seed, step, sampleOffset

    0  head: linear (f32 [4,8] @0, f32 [2,8] policy@0, none) -> f32 [4,2] @128
    1  noise: random_normal {seed 0, step 1, offset 2, stream 1} -> f32 [4,2] @192
    2  loss: tape {r2 = gelu(r1); r3 = sigmoid(r0); r3 = sub(r2, r3); r2 = square(r3); out r3, r2} (f32 [4,2] @192, f32 [4,2] @128) -> f32 [4,2] @192 (in place), f32 [4,2] @256
    3  loss: sum {axes [0, 1]} (f32 [4,2] @256) -> f32 [1,1] @320
    4  loss: affine {scale 0.125, shift 0} (f32 [1] @320) -> f32 [1] @320 (in place)
    5  grad/loss: tape {r0 = 1; r0 = affine(r0, scale 0.125, shift 0); out r0} -> f32 [1] @256
    6  grad: tape {r3 = affine(r0, scale 2, shift 0); r3 = mul(r1, r3); r3 = gelu_vjp(r3, r2); out r3} (f32 [4,2] @192, f32 [1,1] @256, f32 [4,2] @128) -> f32 [4,2] @192 (in place)
    7  grad/head: linear_dw (f32 [4,2] @192, f32 [4,8] @0) -> f32 [2,8] @128
    8  gradients: accumulate (f32 [2,8] gradient@0, f32 [2,8] @128) -> f32 [2,8] gradient@0 (writes)
"
`);
});

test("a program is plain data: JSON and back changes nothing, in what it is and in what it computes", () => {
  const program = compileGraph(tiny(), { name: "tiny", arenas: { policy: 128, gradient: 128, unused: 64 } });
  expect(JSON.parse(JSON.stringify(program))).toEqual(program);
  expect(program.arenas.slice(1)).toEqual([
    { name: "policy", bytes: 128 },
    { name: "gradient", bytes: 128 },
    { name: "unused", bytes: 64 },
  ]);
  const { inputs, arenas } = randomFeeds();
  const draws = Array.from({ length: 400 }, (_, i) => (i * 7919) % 1009);
  const random = compileGraph(randomGraph(draws), { name: "random" });
  expect(runProgram(JSON.parse(JSON.stringify(random)), inputs, arenas)).toEqual(runProgram(random, inputs, arenas));
});

test("building the same graph twice gives the same program", () => {
  expect(compileGraph(tiny(), { name: "tiny" })).toEqual(compileGraph(tiny(), { name: "tiny" }));
});

test("a plan that does not fit names what it needs, the largest buffers at the peak, and two ways out", () => {
  const { plan } = compileWithPlan(tiny(), { name: "tiny" });
  const needed = plan.arenas.reduce((sum, a) => sum + a.bytes, 0);
  expect(() => fitPlan(plan, needed, ["recompute activations", "halve the batch"])).not.toThrow();
  let error: unknown;
  try {
    fitPlan(plan, needed - 1, ["recompute activations", "halve the batch"]);
  } catch (e) {
    error = e;
  }
  expect(error).toBeInstanceOf(PlanError);
  expect(error).toMatchObject({ needed, available: needed - 1, largest: plan.largest });
  expect((error as Error).message).toMatch(/recompute activations; or halve the batch/);
  expect((error as Error).message).toContain(plan.largest[0]!.name);
  expect(plan.largest.length).toBeGreaterThan(0);
  expect(plan.largest.length).toBeLessThanOrEqual(10);
});

test("a parameter beyond its arena, an arena named scratch, and an effect on something else than a parameter are refused", () => {
  const program = (arenas: Record<string, number>) => () => compileGraph(tiny(), { name: "tiny", arenas });
  expect(program({ policy: 60 })).toThrow(new ProgramError('parameter head.weight: expected it within the 60 bytes of arena "policy", it ends at 64'));
  expect(program({ scratch: 64 })).toThrow(ProgramError);
  const misdirected = () => buildGraph(() => scope("here", () => assign(input("x", { dtype: "f32", shape: [2] }), input("y", { dtype: "f32", shape: [2] }))));
  expect(() => compileGraph(misdirected(), { name: "bad" })).toThrow("assign at here: expected input 0 to be a parameter, which it overwrites");
});

test("a slice is a view where a vector may begin, and else a copy", () => {
  const ops = (start: number): string[] => {
    const graph = buildGraph(g => g.output("y", gelu(slice(input("x", { dtype: "bf16", shape: [64] }), { axis: 0, start, length: 8 }))));
    return compileGraph(graph, { name: "slice", target: { backend: "cuda", kernels: new Set() } }).instructions.map(i => i.op);
  };
  expect(ops(8)).toEqual(["gelu"]); // 16 bytes
  expect(ops(16)).toEqual(["gelu"]);
  expect(ops(3)).toEqual(["slice", "gelu"]);
  expect(ops(12)).toEqual(["slice", "gelu"]);
});
