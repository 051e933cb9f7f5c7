import fc from "fast-check";
import { launches, storageOf } from "../../lib/graph/alias.js";
import { affine, neg, relu } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { type Lifetimes, liveBytes, type Packing, pack, packBySize, packInOrder } from "../../lib/graph/pack.js";
import { optimize } from "../../lib/graph/passes.js";
import { planGraph } from "../../lib/graph/plan.js";
import { buildGraph, byteSize, type Graph, type Tensor } from "../../lib/graph/tensor.js";
import { randomGraph } from "../support/random-graph.js";

/** First instruction, instructions after it with all bytes, instructions after those with some, units of 64 bytes, and how many of these are kept. */
const life = fc.tuple(fc.nat(40), fc.nat(8), fc.nat(8), fc.integer({ min: 1, max: 30 }), fc.nat(40));
const lifetimes = fc.array(life, { maxLength: 60 }).map(
  (rows): Lifetimes => ({
    bytes: Float64Array.from(rows, ([, , , size]) => 64 * size),
    start: Int32Array.from(rows, ([start]) => start),
    whole: Int32Array.from(rows, ([start, length]) => start + length),
    kept: Float64Array.from(rows, ([, , after, size, part]) => (after === 0 ? 0 : 64 * Math.min(part, size))),
    end: Int32Array.from(rows, ([start, length, after, , part]) => start + length + (part === 0 ? 0 : after)),
  }),
);

/** Pairs that share a byte which both need at some time, by looking at every pair whenever one of them is born or shrinks. */
function conflicts({ bytes, start, whole, kept, end }: Lifetimes, { offsets }: Packing): [number, number][] {
  const found: [number, number][] = [];
  const alive = (i: number, t: number): boolean => t >= start[i]! && t <= end[i]!;
  const needed = (i: number, t: number): number => (t <= whole[i]! ? bytes[i]! : kept[i]!);
  const meet = (a: number, b: number, t: number): boolean =>
    alive(a, t) && alive(b, t) && offsets[a]! < offsets[b]! + needed(b, t) && offsets[b]! < offsets[a]! + needed(a, t);
  for (let a = 0; a < bytes.length; a++)
    for (let b = 0; b < a; b++)
      if (meet(a, b, start[a]!) || meet(a, b, start[b]!) || meet(a, b, whole[a]! + 1) || meet(a, b, whole[b]! + 1)) found.push([b, a]);
  return found;
}

for (const strategy of [packBySize, packInOrder, pack])
  test(`${strategy.name}: buffers alive together share no byte, and the arena holds them all`, () => {
    fc.assert(
      fc.property(lifetimes, life => {
        const packing = strategy(life);
        expect(conflicts(life, packing)).toEqual([]);
        expect(packing.bytes).toBe(Math.max(0, ...life.bytes.map((size, i) => packing.offsets[i]! + size)));
        expect(packing.bytes).toBeGreaterThanOrEqual(Math.max(0, ...liveBytes(life, 60)));
        expect([...packing.offsets].every(offset => offset % 64 === 0)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

/** When each byte of a tensor's memory must hold it, found without the planner: from its node to the last node that reads it by way of some view. */
function lifeOf(graph: Graph, tensor: Tensor): { from: number; to: number; bytesAt(time: number): number } {
  const order = graph.nodes.filter(launches);
  const reads = order.flatMap((node, at) => node.inputs.flatMap(x => (x ? [{ at, x }] : [])));
  const all = [...reads, ...graph.outputs.map(o => ({ at: order.length, x: o.tensor }))].filter(({ x }) => storageOf(x).base === tensor);
  const made = tensor.node.op.leaf ? 0 : order.indexOf(tensor.node);
  const bytesAt = (time: number): number => {
    const later = all.filter(({ at }) => at >= time).map(({ x }) => storageOf(x).offset + byteSize(x));
    return time === made ? byteSize(tensor) : Math.max(0, ...later);
  };
  return { from: made, to: Math.max(made, ...all.map(({ at }) => at)), bytesAt };
}

test("two tensors of a plan share a byte only if one took over the other's buffer in place", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(1000), { minLength: 4, maxLength: 160 }), draws => {
      const graph = optimize(randomGraph(draws), { fuse: false });
      const plan = planGraph(graph, { state: 256 });
      const inScratch = graph.nodes.flatMap(n => n.outputs).filter(t => storageOf(t).base === t && t.node.op.name !== "parameter");
      const lives = inScratch.map(t => ({ t, ...lifeOf(graph, t), at: plan.place(t).offset }));
      for (const a of lives)
        for (const b of lives) {
          if (a.t.id >= b.t.id || a.from > b.to || b.from > a.to) continue;
          const together = Math.max(a.from, b.from); // from here on both only shrink
          if (a.at >= b.at + b.bytesAt(together) || b.at >= a.at + a.bytesAt(together)) continue;
          const { node } = b.t;
          const donor = node.op.inplace === undefined ? undefined : node.inputs[node.op.inplace];
          expect(a.to).toBe(b.from);
          expect(donor && storageOf(donor).base).toBe(a.t);
          expect([b.at, byteSize(b.t), b.t.index]).toEqual([a.at, byteSize(donor!), 0]);
        }
    }),
    { numRuns: 300 },
  );
});

/** Lifetimes like a training step's: activations of many sizes that die in the reverse order of their birth, and short-lived ones in between. */
function stepLike(count: number): Lifetimes {
  const bytes = new Float64Array(count);
  const start = new Int32Array(count);
  const whole = new Int32Array(count);
  const kept = new Float64Array(count);
  const end = new Int32Array(count);
  const random = lcg(7);
  for (let i = 0; i < count; i++) {
    const forward = i < count / 2;
    const saved = forward && random() < 0.4;
    bytes[i] = 64 * Math.ceil(2 ** (random() * 14));
    start[i] = i;
    end[i] = Math.min(count - 1, saved ? count - 1 - i : i + 1 + Math.floor(random() * 4));
    whole[i] = end[i]!;
    if (!saved || random() < 0.5) continue;
    whole[i] = Math.min(end[i]!, i + 3); // of half of the saved ones, backward wants the first half
    kept[i] = 64 * Math.ceil(bytes[i]! / 128);
  }
  return { bytes, start, whole, kept, end };
}

function lcg(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test("10,000 buffers are packed within 1.1 times the bytes alive at the peak", () => {
  const life = stepLike(10_000);
  const lowerBound = Math.max(...liveBytes(life, 10_000));
  const before = performance.now();
  const packing = pack(life);
  const ms = performance.now() - before;
  console.log(`arena / lower bound: ${(packing.bytes / lowerBound).toFixed(4)}, ${ms.toFixed(0)} ms`);
  expect(conflicts(life, packing)).toEqual([]);
  expect(packing.bytes / lowerBound).toBeLessThan(1.1);
});

test("a chain of elementwise ops runs in one buffer, unless a value is wanted afterwards", () => {
  const scratch = (keepFirst: boolean): number => {
    const graph = buildGraph(g => {
      const first = neg(input("x", { dtype: "f32", shape: [1000] }));
      g.output("y", relu(affine(first, { scale: 2, shift: 1 })));
      if (keepFirst) g.output("first", first);
    });
    return planGraph(graph).arenas[0]!.bytes;
  };
  expect(scratch(false)).toBe(4032); // 1000 floats, in whole cache lines
  expect(scratch(true)).toBe(2 * 4032);
});
