/** Random graphs for laws about passes and plans, drawn from a list of numbers so that fast-check can shrink them. They hold views of views, ops that
 *  may run in place, several outputs, unused results, effects on overlapping parameters, and reads on both sides of an effect. */

import { isPersistent } from "../../lib/graph/alias.js";
import { add, affine, mul, neg, relu, sub } from "../../lib/graph/ops/elementwise.js";
import { full, input, parameter } from "../../lib/graph/ops/leaf.js";
import { layerNorm } from "../../lib/graph/ops/norm.js";
import { accumulate, assign } from "../../lib/graph/ops/optimizer.js";
import { broadcast, sum } from "../../lib/graph/ops/reduce.js";
import { concat, pad, reshape, slice, transpose } from "../../lib/graph/ops/shape.js";
import { buildGraph, type Graph, numel, type Tensor } from "../../lib/graph/tensor.js";
import type { Named } from "./naive.js";

export const stateBytes = 256;

/** `draws` are integers >= 0; each node takes four. */
export function randomGraph(draws: readonly number[]): Graph {
  return buildGraph(graph => {
    const pool = [input("a", { dtype: "f32", shape: [2, 6] }), input("b", { dtype: "f32", shape: [4, 8] }), input("unused", { dtype: "f32", shape: [3] })];
    const state = (offset: number, shape: readonly number[]) => parameter({ arena: "state", name: `s${offset}`, dtype: "f32", shape, offset });
    pool.push(state(0, [2, 6]), state(0, [6]), state(64, [4, 8]), state(192, [2, 6]));
    for (let i = 0; i + 3 < draws.length; i += 4) pool.push(grow(pool, draws.slice(i, i + 4)));
    for (const [i, x] of pool.slice(7).entries()) if (i % 3 === 2) graph.output(`y${i}`, x);
    graph.output("last", pool.at(-1)!);
  });
}

function grow(pool: readonly Tensor[], [kind = 0, first = 0, second = 0, extra = 0]: readonly number[]): Tensor {
  const recent = (n: number): Tensor => pool[pool.length - 1 - (n % Math.min(pool.length, 9))]!;
  const x = recent(first);
  const like = pool.filter(y => `${y.shape}` === `${x.shape}`);
  const y = like[second % like.length]!;
  const rows = x.shape[0]!;
  const makers: (() => Tensor)[] = [
    () => add(x, y),
    () => mul(x, y),
    () => sub(y, x),
    () => relu(x),
    () => neg(x),
    () => affine(x, { scale: 1 / (1 + (extra % 3)), shift: extra % 2 }),
    () => reshape(x, [numel(x.shape)]),
    () => slice(x, { axis: 0, start: extra % rows, length: 1 + (second % (rows - (extra % rows))) }),
    () => slice(x, { axis: -1, start: 0, length: 1 + (extra % x.shape.at(-1)!) }),
    () => transpose(x, [...x.shape.keys()].reverse()),
    () => (numel(x.shape) > 200 ? relu(x) : concat([x, y], extra % x.shape.length)),
    () => pad(x, { axis: 0, before: extra % 2, after: 1 }),
    () => broadcast(sum(x, [0]), x.shape),
    () => full(extra % 4, x.shape),
    () => add(x, slice(reshape(x, [numel(x.shape)]), { axis: 0, start: extra % numel(x.shape), length: 1 })),
    () => layerNorm(reshape(x, [-1, x.shape.at(-1)!]), full(1, [x.shape.at(-1)!]), full(extra % 3, [x.shape.at(-1)!]), { eps: 1e-5 }),
  ];
  const onState = [
    () => relu(stateOf(pool, first)),
    () => neg(stateOf(pool, first)),
    () => effect(pool, first, second, extra),
    () => effect(pool, first, second, extra),
  ];
  const chosen = kind % 3 === 0 ? onState : makers;
  return chosen[Math.floor(kind / 3) % chosen.length]!();
}

/** A parameter, or what an effect made of it: the same memory either way. Few are chosen often, so that reads stand on both sides of writes. */
function stateOf(pool: readonly Tensor[], n: number): Tensor {
  const states = pool.filter(isPersistent);
  return states[n % Math.min(states.length, 5)]!;
}

/** Writes a tensor of its shape into a parameter; the result is the parameter afterwards. */
function effect(pool: readonly Tensor[], first: number, second: number, extra: number): Tensor {
  const target = stateOf(pool, first);
  const fitting = pool.filter(x => `${x.shape}` === `${target.shape}`);
  const candidates = [...fitting.slice(-3), ...fitting.slice(0, 3)];
  const x = candidates[second % candidates.length]!;
  return extra % 2 === 0 ? accumulate(target, x) : assign(target, x);
}

/** Inputs and state of every random graph. */
export function randomFeeds(): { inputs: Named; arenas: Record<string, ArrayBuffer> } {
  const wave = (n: number, phase: number): number[] => Array.from({ length: n }, (_, i) => Math.fround(Math.sin(1.7 * i + phase) * 2));
  return { inputs: { a: wave(12, 0), b: wave(32, 1), unused: wave(3, 2) }, arenas: { state: new Float32Array(wave(stateBytes / 4, 3)).buffer } };
}
