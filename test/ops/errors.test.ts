/** A wrong shape is refused while the graph is built, by a message that names the op, its place, what came and what was expected. */

import { ShapeError } from "../../lib/errors.js";
import { attention } from "../../lib/graph/ops/attention.js";
import { conv2d } from "../../lib/graph/ops/conv.js";
import { add, affine, clamp, select } from "../../lib/graph/ops/elementwise.js";
import { embedding, timestepEmbedding } from "../../lib/graph/ops/embed.js";
import { geglu } from "../../lib/graph/ops/gate.js";
import { constant, full, input, parameter } from "../../lib/graph/ops/leaf.js";
import { linear, matmul } from "../../lib/graph/ops/matmul.js";
import { groupNorm, layerNorm } from "../../lib/graph/ops/norm.js";
import { accumulate, adamw } from "../../lib/graph/ops/optimizer.js";
import { pairSums } from "../../lib/graph/ops/preference.js";
import { randomInt, randomNormal } from "../../lib/graph/ops/random.js";
import { broadcast, sum, sumTo } from "../../lib/graph/ops/reduce.js";
import { avgPool2d, upsampleNearest } from "../../lib/graph/ops/resample.js";
import { concat, pad, reshape, slice, split, transpose } from "../../lib/graph/ops/shape.js";
import { buildGraph, type DType, scope, type Tensor } from "../../lib/graph/tensor.js";

const zeros = (...shape: number[]): Tensor => full(0, shape);
const of = (dtype: DType, ...shape: number[]): Tensor => input(`a ${dtype}`, { dtype, shape });

const refusals: Readonly<Record<string, readonly [build: () => unknown, message: string]>> = {
  "shapes that do not broadcast": [() => add(zeros(2, 3), zeros(2)), "add at here: f32 [2,3] and f32 [2] do not broadcast"],
  "dtypes that differ": [() => add(zeros(2), of("f64", 2)), "add at here: expected one dtype, received a f32 [2] and b f64 [2]; cast one of them"],
  "integers in a float op": [() => select(of("i32", 2), 1, 0), "select at here: expected condition in floating point, received i32 [2]"],
  "no tensor": [() => add(1, 2), "add at here: expected at least one tensor, received 1 and 2"],
  "an infinite bound": [() => clamp(zeros(2), { min: 0, max: Number.POSITIVE_INFINITY }), "clamp at here: expected finite min <= max, received 0 and Infinity"],
  "a factor that is not a number": [
    () => affine(zeros(2), { scale: Number.NaN, shift: 0 }),
    "affine at here: expected finite numbers, received scale NaN and shift 0",
  ],
  "a shape of another size": [() => reshape(zeros(2, 3), [4, 2]), "reshape at here: f32 [2,3] does not fill [4,2]"],
  "a shape that -1 cannot fill": [() => reshape(zeros(2, 3), [-1, 4]), "reshape at here: f32 [2,3] does not fill [1.5,4]"],
  "a slice past the end": [() => slice(zeros(2, 3), { axis: 1, start: 2, length: 2 }), "slice at here: expected 2 .. 4 within axis 1 of f32 [2,3]"],
  "an axis that is not there": [() => slice(zeros(2), { axis: 1, start: 0, length: 1 }), "slice at here: expected an axis in [-1, 1), received 1 for f32 [2]"],
  "a split with a rest": [() => split(zeros(7), 2, 0), "split at here: axis 0 of f32 [7] does not split into 2 parts"],
  "negative padding": [() => pad(zeros(2), { axis: 0, before: -1, after: 0 }), "pad at here: expected counts of zeros before and after, received -1 and 0"],
  "parts that do not join": [
    () => concat([zeros(2, 3), zeros(3, 3)], 1),
    "concat at here: expected dtype and all axes but 1 as in f32 [2,3], received f32 [3,3]",
  ],
  "no parts": [() => concat([], 0), "concat at here: expected at least one tensor, received none"],
  "half a permutation": [() => transpose(zeros(2, 3), [0, 0]), "transpose at here: expected a permutation of the 2 axes of f32 [2,3], received [0,0]"],
  "an axis twice": [() => sum(zeros(2, 3), [1, -1]), "sum at here: expected each axis once, received [1,-1]"],
  "a broadcast that shrinks": [() => broadcast(zeros(3), [2]), "broadcast at here: f32 [3] does not broadcast to [2]"],
  "a sum to what does not broadcast": [() => sumTo(zeros(2, 3), [2]), "sumTo at here: [2] does not broadcast to f32 [2,3]"],
  "inner lengths that differ": [
    () => matmul(zeros(2, 3), zeros(4, 5)),
    "matmul at here: expected equal inner lengths, received 3 of f32 [2,3] and 4 of f32 [4,5]",
  ],
  "batches that differ": [
    () => matmul(zeros(2, 3, 4), zeros(4, 5)),
    "matmul at here: expected matrices with equal leading axes, received f32 [2,3,4] and f32 [4,5]",
  ],
  "a weight of another width": [() => linear(zeros(2, 3), zeros(5, 4)), "linear at here: expected weight [any,3], received f32 [5,4]"],
  "a bias of another width": [() => linear(zeros(2, 3), zeros(5, 3), zeros(3)), "linear at here: expected bias [5], received f32 [3]"],
  "a kernel of other channels": [() => conv2d(zeros(1, 4, 4, 3), zeros(8, 3, 3, 4)), "conv2d at here: expected weight [any,any,any,3], received f32 [8,3,3,4]"],
  "a kernel beyond the map": [
    () => conv2d(zeros(1, 2, 2, 3), zeros(8, 3, 3, 3)),
    "conv2d at here: kernel 3x3 does not fit into f32 [1,2,2,3] with padding [0,0,0,0]",
  ],
  "two paddings": [
    () => conv2d(zeros(1, 2, 2, 3), zeros(8, 1, 1, 3), undefined, { padding: [1, 1] }),
    "conv2d at here: expected padding [top, bottom, left, right] of counts, received [1,1]",
  ],
  "stride 0": [
    () => conv2d(zeros(1, 2, 2, 3), zeros(8, 1, 1, 3), undefined, { stride: 0 }),
    "conv2d at here: expected stride to be a positive integer, received 0",
  ],
  "groups with a rest": [
    () => groupNorm(zeros(1, 2, 2, 6), zeros(6), zeros(6), { groups: 4, eps: 1e-5 }),
    "group_norm at here: 6 channels do not split into 4 groups",
  ],
  "eps 0": [() => layerNorm(zeros(2, 6), zeros(6), zeros(6), { eps: 0 }), "layer_norm at here: expected eps > 0, received 0"],
  "a gamma of another width": [() => layerNorm(zeros(2, 6), zeros(5), zeros(6), { eps: 1 }), "layer_norm at here: expected gamma [6], received f32 [5]"],
  "heads with a rest": [
    () => attention(zeros(1, 2, 6), zeros(1, 2, 6), zeros(1, 2, 6), { heads: 4 }),
    "attention at here: 6 channels do not split into 4 heads",
  ],
  "fewer values than keys": [
    () => attention(zeros(1, 2, 6), zeros(1, 3, 6), zeros(1, 2, 6), { heads: 2 }),
    "attention at here: expected v [1,3,6], received f32 [1,2,6]",
  ],
  "a mask per query": [
    () => attention(zeros(2, 2, 6), zeros(2, 3, 6), zeros(2, 3, 6), { heads: 2 }, zeros(2, 1, 2, 3)),
    "attention at here: expected mask [2,1,1,3], received f32 [2,1,2,3]",
  ],
  "an odd gate": [() => geglu(zeros(2, 3)), "geglu at here: expected an even last axis, received f32 [2,3]"],
  "ids in floating point": [() => embedding(zeros(5, 2), zeros(3)), "embedding at here: expected ids in i32, received f32 [3]"],
  "timesteps in rows": [
    () => timestepEmbedding(zeros(2, 1), { dim: 4, flipSinToCos: true, shift: 0 }),
    "timestep_embedding at here: expected t [any], received f32 [2,1]",
  ],
  "a map without channels": [
    () => upsampleNearest(zeros(1, 2, 2), { height: 4, width: 4 }),
    "upsample_nearest at here: expected x [any,any,any,any], received f32 [1,2,2]",
  ],
  "a window beyond the map": [() => avgPool2d(zeros(1, 2, 2, 1), { kernel: 3 }), "avg_pool2d at here: a 3x3 window does not fit into f32 [1,2,2,1]"],
  "a stream that is not a word": [() => randomNormal([2], { stream: -1 }), "random_normal at here: expected stream in [0, 2^32), received -1"],
  "an empty range": [() => randomInt([2], { low: 3, high: 3, stream: 0 }), "random_int at here: expected 32-bit integers low < high, received 3 and 3"],
  "segments with a rest": [
    () => pairSums({ prediction: zeros(1, 4, 4, 2), target: zeros(1, 4, 4, 2), segments: 3 }),
    "pair_sums at here: the rows of f32 [1,4,4,2] do not split into 3 segments",
  ],
  "a buffer of another shape": [() => accumulate(zeros(3), zeros(2)), "accumulate at here: expected x like the buffer f32 [3], received f32 [2]"],
  "beta1 = 1": [
    () => adamw({ param: zeros(2), grad: zeros(2), m: zeros(2), v: zeros(2) }, { beta1: 1, beta2: 0.9, eps: 1, weightDecay: 0 }),
    "adamw at here: expected beta1 and beta2 in [0, 1), received 1 and 0.9",
  ],
  "a name twice": [() => [of("f32", 1), of("f32", 1)], 'input at here: the name "a f32" is taken'],
  "an offset in the middle of a byte": [
    () => parameter({ arena: "a", name: "w", dtype: "f32", shape: [1], offset: 0.5 }),
    'parameter at here: expected the offset of "w" to be a count of bytes, received 0.5',
  ],
  "too few numbers": [() => constant([1, 2], [3]), "constant at here: expected 3 values for [3], received 2"],
  "a number that JSON lacks": [() => full(Number.NaN, [1]), "full at here: expected a finite number, received NaN"],
  "an empty tensor": [() => zeros(2, 0), "full at here: output 0 would have shape [2,0]"],
};

test.each(Object.entries(refusals))("%s", (_, [build, message]) => {
  let caught: unknown;
  try {
    buildGraph(() => scope("here", build));
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(ShapeError);
  expect((caught as ShapeError).message).toBe(message);
});
