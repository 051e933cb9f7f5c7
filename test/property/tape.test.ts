import fc from "fast-check";
import { compileGraph } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import * as ops from "../../lib/graph/ops/elementwise.js";
import { add, affine, clamp, maximum, mul, neg, select, sigmoid, square, sub } from "../../lib/graph/ops/elementwise.js";
import { full, input } from "../../lib/graph/ops/leaf.js";
import { broadcast, sum } from "../../lib/graph/ops/reduce.js";
import { optimize } from "../../lib/graph/passes.js";
import { Session } from "../../lib/graph/session.js";
import { tapeOpcodes, tapeRegisters } from "../../lib/graph/tape-opcodes.js";
import { buildGraph, extendGraph, type Graph, numel, type Tensor } from "../../lib/graph/tensor.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { type Named, runGraph, runProgram } from "../support/naive.js";

/** Ops that plain JavaScript runs too, and all that a tape can hold. */
const plain = { unary: [neg, ops.exp, square, ops.abs, sigmoid, ops.tanh, ops.relu, ops.silu], binary: [add, sub, mul, maximum, ops.minimum, ops.greater] };
const { log, log1p, sqrt, rsqrt, softplus, gelu, geluTanh, quickGelu, sin, cos, reciprocal, div } = ops;
const every = { unary: [...plain.unary, log, log1p, sqrt, rsqrt, softplus, gelu, geluTanh, quickGelu, sin, cos, reciprocal], binary: [...plain.binary, div] };

type Dtype = "f32" | "f64";
const shapes = (rows: number, columns: number) => [[rows, columns], [1, columns], [rows, 1], [1], [columns]];

/** An expression over operands that broadcast to [rows, columns], with inlined numbers, values used often and again much later, and sums in between. */
function expression(dtype: Dtype, draws: readonly number[], { unary, binary }: typeof plain, [rows, columns]: readonly [number, number] = [3, 4]): Graph {
  return buildGraph(g => {
    const pool = shapes(rows, columns).map((shape, i) => input(`x${i}`, { dtype, shape }));
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
        () => mul(a, full(-0, [rows, columns], dtype)),
        () => broadcast(a.shape.length === 2 ? a : full(extra, [1, 1], dtype), [rows, columns]),
        () => (a.shape.length === 2 ? sum(a, [extra % 2]) : neg(a)),
      ];
      pool.push(makers[kind % makers.length]!());
    }
    for (const [i, x] of pool.slice(5).entries()) if (i % 9 === 0) g.output(`y${i}`, x);
    g.output("last", pool.at(-1)!);
  });
}

const wave = (n: number, phase: number): number[] => Array.from({ length: n }, (_, k) => Math.fround(Math.cos(3.3 * k + phase)));
const feeds: Named = Object.fromEntries(shapes(3, 4).map((shape, i) => [`x${i}`, wave(numel(shape), i)]));
const draws = fc.array(fc.nat(1000), { minLength: 8, maxLength: 500 });

for (const dtype of ["f32", "f64"] as const) {
  test(`${dtype}: fused expressions have the bits of single ops`, () => {
    fc.assert(
      fc.property(draws, d => {
        const graph = expression(dtype, d, plain);
        expect(runProgram(compileGraph(graph, { name: "fused" }), feeds)).toEqual(runGraph(graph, feeds));
      }),
      { numRuns: 200 },
    );
  });

  test(`${dtype}: a tape's decomposition has its bits`, () => {
    fc.assert(
      fc.property(draws, d => {
        const graph = expression(dtype, d, plain);
        expect(runGraph(unfused(optimize(graph)), feeds)).toEqual(runGraph(graph, feeds));
      }),
      { numRuns: 100 },
    );
  });
}

const session = Session.open({ backend: "cpu", threads: 2 });
afterAll(() => session.close());

async function nativeBits(graph: Graph, fuse: boolean, inputs: Record<string, HostTensor>): Promise<Record<string, string>> {
  const outputs = await session.run(session.compile(compileGraph(graph, { name: "expression", fuse })), { inputs });
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { data }]) => [name, Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64")]),
  );
}

for (const dtype of ["f32", "f64"] as const) {
  test(`${dtype}: natively fused expressions have the bits of single ops`, async () => {
    await fc.assert(
      fc.asyncProperty(draws, fc.constantFrom([3, 4] as const, [1, 1] as const, [37, 300] as const), async (d, size) => {
        const graph = expression(dtype, d, every, size);
        const inputs = Object.fromEntries(
          shapes(size[0], size[1]).map((shape, i) => [`x${i}`, hostTensor("f64", shape, Float64Array.from(wave(numel(shape), i)))]),
        );
        expect(await nativeBits(graph, true, inputs)).toEqual(await nativeBits(graph, false, inputs));
      }),
      { numRuns: 60 },
    );
  });

  test(`${dtype}: every opcode runs in a tape with the bits of its op, gradients included`, async () => {
    const graph = buildGraph(g => {
      const x = input("x", { dtype, shape: [500] });
      const parts = [...every.unary.map(f => f(x)), ...every.binary.map(f => f(x, sub(0.5, x))), select(x, 2, x), clamp(x, { min: 0.2, max: 0.7 })];
      for (const [i, y] of parts.entries()) g.output(`y${i}`, add(y, 1));
      for (const [i, y] of parts.entries()) g.output(`d${i}`, grad(sum(y), [x], { unreachable: "zeros" })[0]!);
    });
    const fused = compileGraph(graph, { name: "opcodes" }).instructions.filter(i => i.op === "tape");
    const used = new Set(fused.flatMap(({ attrs }) => (attrs.code as readonly number[]).filter((_, i) => i % 5 === 0).map(i => tapeOpcodes[i])));
    expect([...used].sort()).toEqual([...tapeOpcodes].sort());
    const x = hostTensor(
      "f64",
      [500],
      Float64Array.from({ length: 500 }, (_, i) => Math.fround((i + 1) / 501)),
    );
    expect(await nativeBits(graph, true, { x })).toEqual(await nativeBits(graph, false, { x }));
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
  expect(instructions.length).toBeLessThan(16);
  for (const { attrs } of instructions)
    for (const [i, n] of (attrs.code as readonly number[]).entries()) if (i % 5 === 1) expect(n).toBeLessThan(tapeRegisters);
});

test("members of different replays stay apart", () => {
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
