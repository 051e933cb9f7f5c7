/** Fused ops, against references that know nothing of how they decompose. A backend without their kernels runs their decompositions. */

import { conv2dFused, groupNormFromPartials, linearFused } from "../../../lib/graph/ops/fused.js";
import { conv2dDwAccumulate, conv2dDwFused, linearDwAccumulate } from "../../../lib/graph/ops/fused-gradients.js";
import { addLeading } from "../../../lib/graph/ops/leading.js";
import { get, map, type Nd, nd, total } from "../../support/nd.js";
import type { OpCase } from "../case.js";
import { convolved } from "./conv.js";
import { erf } from "./elementwise.js";
import { groupNormalised } from "./norm.js";

const plus = (a: Nd, b: Nd | undefined): Nd => (b ? nd(a.shape, (...i) => get(a, ...i) + get(b, ...i)) : a);
const logistic = (v: number): number => 1 / (1 + Math.exp(-v));
const phi = (v: number): number => (1 + erf(v / Math.SQRT2)) / 2;
const curves = {
  none: (v: number) => v,
  silu: (v: number) => v * logistic(v),
  gelu: (v: number) => v * phi(v),
  gelu_tanh: (v: number) => (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))),
  quick_gelu: (v: number) => v * logistic(1.702 * v),
};

const linearCases = (["none", "silu", "gelu", "gelu_tanh", "quick_gelu", "geglu"] as const).flatMap(activation =>
  [0, 1, 2, 3].map((bits): OpCase => {
    const [biased, added] = [(bits & 1) !== 0, (bits & 2) !== 0];
    const [rows, inner, outer] = [[2, 5], 12, 9] as const;
    const features = activation === "geglu" ? 2 * outer : outer;
    const optional = [...(biased ? [[features]] : []), ...(added ? [[...rows, outer]] : [])].map(shape => ({ shape }));
    const arrange = <T>([x, w, ...rest]: readonly T[]) => ({ x: x!, w: w!, bias: biased ? rest[0] : undefined, residual: added ? rest.at(-1) : undefined });
    return {
      name: `linear_fused ${activation}${biased ? " with bias" : ""}${added ? " and residual" : ""}`,
      inputs: [{ shape: [...rows, inner] }, { shape: [features, inner] }, ...optional],
      build(tensors) {
        const { x, w, bias, residual } = arrange(tensors);
        return [linearFused({ activation }, x, w, bias, residual)[0]];
      },
      reference(arrays) {
        const { x, w, bias, residual } = arrange(arrays);
        const product = nd([...rows, features], (a, b, o) => (bias?.data[o] ?? 0) + total([inner], i => get(x, a, b, i) * get(w, o, i)));
        const gated = (a: number, b: number, o: number): number => get(product, a, b, o) * curves.gelu(get(product, a, b, o + outer));
        return [plus(activation === "geglu" ? nd([...rows, outer], gated) : map(product, curves[activation]), residual)];
      },
      roundings: 30,
      terms: inner * 4,
    };
  }),
);

/** What a fused convolution sees: two maps joined along the channels, every pixel `upsample` times. */
function seen(x: Nd, x2: Nd | undefined, upsample: number): Nd {
  const [batch = 0, height = 0, width = 0, channels = 0] = x.shape;
  const all = channels + (x2?.shape[3] ?? 0);
  const at = (i: number): number => Math.floor(i / upsample);
  return nd([batch, height * upsample, width * upsample, all], (b, h, w, c) =>
    c < channels ? get(x, b, at(h), at(w), c) : get(x2!, b, at(h), at(w), c - channels),
  );
}

interface Conv {
  readonly name: string;
  readonly x: readonly number[];
  /** Channels of x2. */
  readonly join?: number;
  /** [O, kh, kw] */
  readonly weight: readonly [number, number, number];
  readonly upsample?: 1 | 2;
  readonly stride?: number;
  readonly bias?: true;
  readonly perSample?: true;
  readonly silu?: true;
  readonly residual?: true;
  readonly statistics?: number;
}

const convs: readonly Conv[] = [
  { name: "bare", x: [1, 4, 5, 3], weight: [4, 3, 3] },
  { name: "bias and time", x: [2, 5, 4, 3], weight: [6, 3, 3], bias: true, perSample: true },
  { name: "bias and residual", x: [2, 3, 4, 5], weight: [4, 1, 1], bias: true, residual: true },
  { name: "upsampled", x: [2, 3, 4, 3], weight: [5, 3, 3], upsample: 2, bias: true },
  { name: "joined", x: [2, 4, 3, 3], join: 5, weight: [4, 3, 3], bias: true },
  { name: "joined and upsampled, stride 2", x: [1, 3, 4, 2], join: 3, weight: [3, 3, 3], upsample: 2, stride: 2 },
  { name: "statistics", x: [2, 16, 8, 3], weight: [4, 3, 3], bias: true, statistics: 2 },
  { name: "everything", x: [2, 8, 8, 2], join: 2, weight: [6, 3, 3], upsample: 2, bias: true, perSample: true, silu: true, residual: true, statistics: 3 },
];

const padding = (kernel: number): readonly [number, number, number, number] => {
  const side = (kernel - 1) >> 1;
  return [side, side, side, side];
};

const convCases = convs.map(({ name, x, join, weight: [channels, kh, kw], upsample = 1, stride = 1, statistics = 0, ...has }): OpCase => {
  const [batch = 0, height = 0, width = 0, inner = 0] = x;
  const out = [batch, Math.ceil((height * upsample) / stride), Math.ceil((width * upsample) / stride), channels];
  const shapes = {
    x,
    ...(join && { x2: [batch, height, width, join] }),
    weight: [channels, kh, kw, inner + (join ?? 0)],
    ...(has.bias && { bias: [channels] }),
    ...(has.perSample && { perSample: [batch, 1, 1, channels] }),
    ...(has.residual && { residual: out }),
    ...(statistics && { gamma: [channels], beta: [channels] }),
  };
  const arrange = <T>(given: readonly T[]) => Object.fromEntries(Object.keys(shapes).map((key, i) => [key, given[i]])) as Record<keyof typeof shapes, T>;
  const norm = { groups: statistics, eps: 1e-5, silu: true };
  return {
    name: `conv2d_fused ${name}`,
    inputs: Object.values(shapes).map(shape => ({ shape })),
    build(tensors) {
      const t = arrange(tensors);
      const attrs = { stride, padding: padding(kh), upsample, activation: has.silu ? ("silu" as const) : ("none" as const), statistics };
      const [y, partials] = conv2dFused(attrs, t.x, t.x2, t.weight, t.bias, t.perSample, t.residual);
      return partials ? [y!, partials, groupNormFromPartials(norm, y!, t.gamma!, t.beta!, partials)[0]] : [y!];
    },
    reference(arrays) {
      const a = arrange(arrays);
      const products = plus(convolved(seen(a.x, a.x2, upsample), a.weight, a.bias, stride, padding(kh)), a.perSample);
      const y = plus(has.silu ? map(products, curves.silu) : products, a.residual);
      if (!statistics) return [y];
      return [y, slabStatistics(y, statistics), groupNormalised(y, a.gamma!, a.beta!, statistics, norm.eps, norm.silu)];
    },
    roundings: 40,
    terms: kh * kw * inner * 4 + (statistics ? batch * height * width * upsample ** 2 : 0),
  };
});

/** [B, slabs, groups, 2]: mean and sum of squared differences of 128 pixels' channels of a group. */
function slabStatistics(y: Nd, groups: number): Nd {
  const [batch = 0, height = 0, width = 0, channels = 0] = y.shape;
  const size = channels / groups;
  const over = (b: number, s: number, g: number, f: (v: number) => number): number =>
    total([128, size], (p, c) => f(get(y, b, Math.floor((s * 128 + p) / width), (s * 128 + p) % width, g * size + c)));
  return nd([batch, (height * width) / 128, groups, 2], (b, s, g, which) => {
    const mean = over(b, s, g, v => v) / (128 * size);
    return which === 0 ? mean : over(b, s, g, v => (v - mean) ** 2);
  });
}

const buffer = (shape: readonly number[]) => ({ shape, frozen: true as const, persistent: true as const });
const given = (shape: readonly number[]) => ({ shape, frozen: true as const });

const linearDwCase: OpCase = {
  name: "linear_dw_accumulate [7,5] from 2x6 rows",
  inputs: [buffer([7, 5]), given([2, 6, 7]), given([2, 6, 5])],
  build: ([sum, dy, x]) => [linearDwAccumulate({}, sum!, dy!, x!)[0]],
  reference: ([sum, dy, x]) => [nd([7, 5], (n, k) => get(sum!, n, k) + total([2, 6], (b, r) => get(dy!, b, r, n) * get(x!, b, r, k)))],
  roundings: 16,
  terms: 12,
};

/** [O, kh, kw, I + I2] of a 3x3 convolution with padding 1. */
function convolutionGradient(dy: Nd, map: Nd): Nd {
  const [batch = 0, height = 0, width = 0, outer = 0] = dy.shape;
  const pixel = (b: number, h: number, w: number, i: number): number => (h >= 0 && h < map.shape[1]! && w >= 0 && w < map.shape[2]! ? get(map, b, h, w, i) : 0);
  return nd([outer, 3, 3, map.shape[3]!], (o, ky, kx, i) =>
    total([batch, height, width], (b, h, w) => get(dy, b, h, w, o) * pixel(b, h + ky - 1, w + kx - 1, i)),
  );
}

const convDwCases = ([1, 2] as const).flatMap(upsample =>
  [false, true].flatMap((joined): OpCase[] => {
    const [dy, x, x2] = [
      [2, 4 * upsample, 3 * upsample, 5],
      [2, 4, 3, 3],
      [2, 4, 3, 2],
    ];
    const weight = [5, 3, 3, joined ? 5 : 3];
    const maps = [given(dy), given(x), ...(joined ? [given(x2)] : [])];
    const attrs = { stride: 1, padding: [1, 1, 1, 1], upsample };
    const name = `${joined ? "joined" : "one map"} upsample ${upsample}`;
    const sum = (d: Nd, a: Nd, b: Nd | undefined): Nd => convolutionGradient(d, seen(a, b, upsample));
    return [
      {
        name: `conv2d_dw_fused ${name}`,
        inputs: maps,
        build: ([d, a, b]) => [conv2dDwFused({ ...attrs, kernelHeight: 3, kernelWidth: 3 }, d!, a!, b)[0]],
        reference: ([d, a, b]) => [sum(d!, a!, b)],
        roundings: 16,
        terms: 24 * upsample ** 2,
      },
      {
        name: `conv2d_dw_accumulate ${name}`,
        inputs: [buffer(weight), ...maps],
        build: ([t, d, a, b]) => [conv2dDwAccumulate(attrs, t!, d!, a!, b)[0]],
        reference: ([t, d, a, b]) => [plus(t!, sum(d!, a!, b))],
        roundings: 16,
        terms: 24 * upsample ** 2,
      },
    ];
  }),
);

const leadingCases = [
  { x: [5, 3], z: [2, 3] },
  { x: [4, 2, 3], z: [1, 2, 3] },
  { x: [3, 7], z: [3, 7] },
].map(
  ({ x, z }): OpCase => ({
    name: `add_leading [${z}] to [${x}]`,
    inputs: [{ shape: x }, { shape: z }],
    build: ([a, b]) => [addLeading(a!, b!)],
    reference: ([a, b]) => [nd(x, (...i) => get(a!, ...i) + (i[0]! < z[0]! ? get(b!, ...i) : 0))],
  }),
);

export const fusedCases: readonly OpCase[] = [...linearCases, ...convCases, linearDwCase, ...convDwCases, ...leadingCases];
