import fc from "fast-check";
import { launches, storageOf } from "../../lib/graph/alias.js";
import { affine, neg, relu } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { type Lifetimes, liveBytes, type Packing, pack, packBySize, packInOrder } from "../../lib/graph/pack.js";
import { optimize } from "../../lib/graph/passes.js";
import { planGraph } from "../../lib/graph/plan.js";
import { buildGraph, byteSize, type Graph, type Tensor } from "../../lib/graph/tensor.js";
import { randomGraph } from "../support/random-graph.js";

const lifetimes = fc.array(fc.tuple(fc.nat(40), fc.nat(12), fc.integer({ min: 1, max: 30 })), { maxLength: 60 }).map(rows => ({
  bytes: Float64Array.from(rows, ([, , size]) => 64 * size),
  start: Int32Array.from(rows, ([start]) => start),
  end: Int32Array.from(rows, ([start, length]) => start + length),
}));

/** Pairs that are alive together and share a byte, by looking at every pair. */
function conflicts({ bytes, start, end }: Lifetimes, { offsets }: Packing): [number, number][] {
  const found: [number, number][] = [];
  for (let a = 0; a < bytes.length; a++)
    for (let b = 0; b < a; b++) {
      const together = start[a]! <= end[b]! && start[b]! <= end[a]!;
      if (together && offsets[a]! < offsets[b]! + bytes[b]! && offsets[b]! < offsets[a]! + bytes[a]!) found.push([b, a]);
    }
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

/** When a tensor's memory must hold it, found without the planner: from its node to the last node that reads it or a view of it. */
function lifeOf(graph: Graph, tensor: Tensor): { from: number; to: number } {
  const order = graph.nodes.filter(launches);
  const readers = order.flatMap((node, at) => (node.inputs.some(x => x && storageOf(x).base === tensor) ? [at] : []));
  const isOutput = graph.outputs.some(o => storageOf(o.tensor).base === tensor);
  const made = tensor.node.op.leaf ? 0 : order.indexOf(tensor.node);
  return { from: made, to: isOutput ? order.length : Math.max(made, ...readers) };
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
          if (a.at >= b.at + byteSize(b.t) || b.at >= a.at + byteSize(a.t)) continue;
          const { node } = b.t;
          const donor = node.op.inplace === undefined ? undefined : node.inputs[node.op.inplace];
          expect(a.to).toBe(b.from);
          expect(donor && storageOf(donor).base).toBe(a.t);
          expect([b.at, byteSize(b.t), b.t.index]).toEqual([a.at, byteSize(a.t), 0]);
        }
    }),
    { numRuns: 300 },
  );
});

/** Lifetimes like a training step's: activations of many sizes that die in the reverse order of their birth, and short-lived ones in between. */
function stepLike(count: number): Lifetimes {
  const bytes = new Float64Array(count);
  const start = new Int32Array(count);
  const end = new Int32Array(count);
  const random = lcg(7);
  for (let i = 0; i < count; i++) {
    const forward = i < count / 2;
    const saved = forward && random() < 0.4;
    bytes[i] = 64 * Math.ceil(2 ** (random() * 14));
    start[i] = i;
    end[i] = Math.min(count - 1, saved ? count - 1 - i : i + 1 + Math.floor(random() * 4));
  }
  return { bytes, start, end };
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
