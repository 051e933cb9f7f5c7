/** Embeddings and resampling. */

import { embedding, timestepEmbedding } from "../../../lib/graph/ops/embed.js";
import { avgPool2d, upsampleNearest } from "../../../lib/graph/ops/resample.js";
import { get, nd, total } from "../../support/nd.js";
import { below, type OpCase } from "../case.js";

const embeddingCases = (
  [
    [
      [7, 5],
      [2, 3],
    ],
    [[1, 4], [3]],
    [
      [50, 33],
      [2, 77],
    ], // ids repeat: their gradients add up
    [[9], [4]],
    [
      [300, 130],
      [5, 60],
    ],
  ] as const
).map(
  ([table, ids]): OpCase => ({
    name: `embedding [${table}] at [${ids}]`,
    inputs: [{ shape: table }, { shape: ids, dtype: "i32", values: below(table[0]) }],
    build: ([t, i]) => [embedding(t!, i!)],
    reference: ([t, i]) => [nd([...ids, ...table.slice(1)], (...at) => get(t!, get(i!, ...at.slice(0, ids.length)), ...at.slice(ids.length)))],
    terms: 77,
  }),
);

const timestepCases = [
  { dim: 32, flipSinToCos: true, shift: 0 },
  { dim: 320, flipSinToCos: true, shift: 0 },
  { dim: 7, flipSinToCos: true, shift: 0 },
  { dim: 16, flipSinToCos: false, shift: 1 },
  { dim: 6, flipSinToCos: false, shift: 0, maxPeriod: 100 },
].flatMap(options =>
  (["i32", undefined] as const).map(
    (dtype): OpCase => ({
      name: `timestep_embedding ${dtype ?? "float"} dim ${options.dim}${options.flipSinToCos ? " cos first" : ""} shift ${options.shift}`,
      inputs: [{ shape: [5], values: (_random, i) => [0, 1, 500, 981, 999][i]!, frozen: true, ...(dtype && { dtype }) }],
      build: ([t], run) => [timestepEmbedding(t!, { ...options, dtype: run })],
      reference: ([t]) => [sinusoids(t!.data, options)],
    }),
  ),
);

type Sinusoids = { dim: number; flipSinToCos: boolean; shift: number; maxPeriod?: number };

/** As diffusers: frequency and angle in float32. */
function sinusoids(t: ArrayLike<number>, { dim, flipSinToCos, shift, maxPeriod = 10000 }: Sinusoids): ReturnType<typeof nd> {
  const half = Math.floor(dim / 2);
  const f32 = Math.fround;
  return nd([t.length, dim], (b, c) => {
    if (c >= 2 * half) return 0;
    const exponent = f32(f32(f32(-Math.log(maxPeriod)) * (c % half)) / (half - shift));
    const angle = f32(f32(t[b]!) * f32(Math.exp(exponent)));
    return c < half === flipSinToCos ? Math.cos(angle) : Math.sin(angle);
  });
}

const upsampleCases = (
  [
    [[1, 1, 1, 1], 3, 2],
    [[2, 4, 5, 3], 8, 10],
    [[1, 3, 2, 6], 5, 4],
    [[1, 7, 5, 2], 13, 10],
    [[1, 4, 4, 33], 8, 8],
    [[1, 6, 5, 2], 4, 3], // and down
    [[1, 24, 24, 17], 48, 48],
  ] as const
).map(
  ([shape, height, width]): OpCase => ({
    name: `upsample_nearest [${shape}] to ${height}x${width}`,
    inputs: [{ shape }],
    build: ([x]) => [upsampleNearest(x!, { height, width })],
    reference: ([x]) => [
      nd([shape[0], height, width, shape[3]], (b, y, c, k) => get(x!, b, Math.floor((y * shape[1]) / height), Math.floor((c * shape[2]) / width), k)),
    ],
    terms: 8,
  }),
);

const poolCases = (
  [
    [[1, 1, 1, 1], 1, 1],
    [[2, 7, 9, 3], 2, 2],
    [[1, 6, 5, 4], 3, 1], // windows overlap
    [[1, 8, 7, 33], 2, 3], // and leave gaps
    [[1, 49, 50, 17], 2, 2],
  ] as const
).map(
  ([shape, kernel, stride]): OpCase => ({
    name: `avg_pool2d [${shape}] ${kernel}x${kernel} stride ${stride}`,
    inputs: [{ shape }],
    build: ([x]) => [avgPool2d(x!, { kernel, stride })],
    reference: ([x]) => {
      const [down, across] = [Math.floor((shape[1] - kernel) / stride) + 1, Math.floor((shape[2] - kernel) / stride) + 1];
      const window = (b: number, y: number, c: number, k: number): number => total([kernel, kernel], (i, j) => get(x!, b, y * stride + i, c * stride + j, k));
      return [nd([shape[0], down, across, shape[3]], (b, y, c, k) => window(b, y, c, k) / kernel ** 2)];
    },
    terms: 9,
  }),
);

export const embedCases: readonly OpCase[] = [...embeddingCases, ...timestepCases, ...upsampleCases, ...poolCases];
