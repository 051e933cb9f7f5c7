/** Random networks of the layers that fusion joins, with the other uses, effects and gradients that forbid it here and there. Drawn from a list of numbers,
 *  so that fast-check can shrink them. */

import { grad } from "../../lib/graph/grad.js";
import { conv2d } from "../../lib/graph/ops/conv.js";
import { add, gelu, mean, mul, quickGelu, silu, square } from "../../lib/graph/ops/elementwise.js";
import { geglu } from "../../lib/graph/ops/gate.js";
import { addLeading } from "../../lib/graph/ops/leading.js";
import { input, parameter } from "../../lib/graph/ops/leaf.js";
import { linear } from "../../lib/graph/ops/matmul.js";
import { groupNorm } from "../../lib/graph/ops/norm.js";
import { accumulate, assign } from "../../lib/graph/ops/optimizer.js";
import { upsampleNearest } from "../../lib/graph/ops/resample.js";
import { concat, reshape, slice } from "../../lib/graph/ops/shape.js";
import { buildGraph, byteSize, type DType, type Graph, recomputed, type Tensor } from "../../lib/graph/tensor.js";

const batch = 2;
const groups = 2;
/** Bytes of each arena: weights overlap in it, so that effects on one change others. */
export const networkBytes = 16384;

/** Arenas "weights" and "totals"; `draws` are integers >= 0, three for each layer. With a `loss` of the last map every gradient of it is a result, else
 *  gradients of another one are partly totals, or there are effects in place of gradients. */
export function randomNetwork(draws: readonly number[], loss?: (last: Tensor) => Tensor): Graph {
  return buildGraph(graph => {
    const dtype = "f64";
    const time = input("time", { dtype, shape: [batch, 1, 1, 4] });
    const maps: Tensor[] = [input("x", { dtype, shape: [batch, 8, 16, 4] }), input("y", { dtype, shape: [batch, 4, 8, 4] })];
    const weights: Tensor[] = [];
    const parameterOf = (shape: readonly number[], n: number): Tensor => {
      const bytes = byteSize({ dtype, shape });
      const offset = Math.floor((n * 64) % (networkBytes - bytes - 64)) & ~63;
      weights.push(parameter({ arena: "weights", name: `w${weights.length}`, dtype, shape, offset }));
      return weights.at(-1)!;
    };
    const differentiated = loss !== undefined || (draws[0] ?? 0) % 4 !== 0; // effects that overwrite weights belong after gradients
    for (let i = 0; i + 2 < draws.length; i += 3) {
      const layer = (): Tensor => grow(maps, time, parameterOf, draws.slice(i, i + 3), !differentiated);
      maps.push((draws[i + 2]! & 8) !== 0 ? recomputed(layer) : layer());
    }
    for (const { outputs } of graph.nodes.slice()) {
      const [y] = outputs; // some of all values are results, and those of products in the middle of a chain
      if (!y!.node.op.leaf && y!.shape.length === 4 && (draws[y!.id % draws.length] ?? 0) % 13 === 0) graph.output(`m${y!.id}`, y!);
    }
    const last = maps.at(-1)!;
    graph.output("last", last);
    if (loss) grad(loss(last), [...maps.slice(0, 2), time, ...weights], { unreachable: "zeros" }).forEach((flow, i) => void graph.output(`d${i}`, flow));
    else if (differentiated) differentiate(graph, last, weights, dtype);
  });
}

/** Some gradients are added to totals that overlap, some are results. */
function differentiate(graph: Graph, last: Tensor, weights: readonly Tensor[], dtype: DType): void {
  if (weights.length === 0) return;
  const wanted = weights.slice(0, 12);
  const flows = grad(mean(square(last)), wanted, { unreachable: "zeros" });
  for (const [i, flow] of flows.entries()) {
    if (i % 4 === 3) graph.output(`d${i}`, flow);
    else accumulate(parameter({ arena: "totals", name: `t${i}`, dtype, shape: flow.shape, offset: (i % 3) * 64 }), flow);
  }
}

type ParameterOf = (shape: readonly number[], n: number) => Tensor;

function grow(maps: readonly Tensor[], time: Tensor, parameterOf: ParameterOf, [kind = 0, first = 0, second = 0]: readonly number[], effects: boolean): Tensor {
  const x = maps[maps.length - 1 - (first % Math.min(maps.length, 4))]!;
  const like = maps.filter(m => `${m.shape}` === `${x.shape}`);
  const other = like[second % like.length]!;
  const channels = x.shape[3]!;
  const [, height = 0, width = 0] = x.shape;
  const bias = second % 2 === 0 ? parameterOf([4], second) : undefined;
  const conv = (m: Tensor, kernel = 3): Tensor =>
    conv2d(m, parameterOf([4, kernel, kernel, m.shape[3]!], first + second), bias, {
      padding: (kernel - 1) >> 1,
      stride: height > 2 && first % 11 === 10 ? 2 : 1,
    });
  const lin = (m: Tensor, features = 4): Tensor => linear(m, parameterOf([features, m.shape[3]!], first), features === 4 ? bias : undefined);
  const norm = (m: Tensor): Tensor => groupNorm(m, parameterOf([m.shape[3]!], 1), parameterOf([m.shape[3]!], 2), { groups, eps: 1e-5, silu: first % 2 === 0 });
  const fits = (m: Tensor): boolean => `${m.shape}` === `${x.shape}`;
  const grown = (m: Tensor): Tensor => (height <= 8 ? upsampleNearest(m, { height: 2 * height, width: (first % 7 === 6 ? 3 : 2) * width }) : m);
  const makers: (() => Tensor)[] = [
    () => conv(x),
    () => (channels === 4 ? add(conv(x), time) : conv(x)),
    () => silu(channels === 4 ? add(time, conv(x, 1)) : conv(x)),
    () => (fits(conv(x)) ? add(x, conv(x)) : conv(x)),
    () => conv(grown(x)),
    () => conv(concat([x, other], 3)),
    () => conv(grown(concat([other, x], 3))),
    () => grown(x),
    () => norm(conv(x)),
    () => norm(x),
    () => gelu(lin(x)),
    () => geglu(lin(x, 8)),
    () => (channels === 4 ? add(quickGelu(lin(x)), other) : lin(x)),
    () => (channels === 4 ? add(other, lin(x)) : silu(lin(x))),
    () => mul(x, other),
    () => addLeading(x, slice(channels === 4 ? lin(other) : other, { axis: 0, start: 0, length: 1 })),
    () => reshape(lin(reshape(x, [batch, height * width, 1, channels])), [batch, height, width, 4]),
    ...(effects ? [() => disturbed(conv(x), time, parameterOf, second), () => disturbed(lin(x), time, parameterOf, second)] : []),
  ];
  return makers[kind % makers.length]!();
}

/** Between a product and what follows it, an effect on memory that its weights may lie in. */
function disturbed(y: Tensor, time: Tensor, parameterOf: ParameterOf, n: number): Tensor {
  assign(parameterOf([4], n), reshape(slice(time, { axis: 0, start: n % batch, length: 1 }), [4]));
  return silu(y);
}
