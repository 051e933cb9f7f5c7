/** Effects on persistent buffers, and the optimiser. */

import { accumulate, adamw, adamw8, adamw8Block, adamwMixed, assign, ema, fill } from "../../../lib/graph/ops/optimizer.js";
import type { DType, Tensor } from "../../../lib/graph/tensor.js";
import { fromBf16, toBf16 } from "../../../lib/util/half.js";
import { map, type Nd, nd } from "../../support/nd.js";
import { philox } from "../../support/philox.js";
import type { Rng } from "../../support/rng.js";
import { below, type CaseInput, type OpCase, positive } from "../case.js";

const buffer = (shape: readonly number[]): CaseInput => ({ shape, frozen: true, persistent: true });
const given = (shape: readonly number[]): CaseInput => ({ shape, frozen: true });
const { fround } = Math; // a local: see support/rng.ts
const bf16 = (x: number): number => fromBf16(toBf16(x));
const inBf16 = { dtype: "bf16" as DType, values: (random: Rng) => bf16(random.normal()) };
const scaleInput = (value: number): CaseInput => ({ shape: [1], dtype: "f64", frozen: true, values: () => value });
const zip = (a: Nd, b: Nd, f: (a: number, b: number) => number): Nd => ({ shape: a.shape, data: a.data.map((v, i) => f(v, b.data[i]!)) });

const sizes = [[1], [7], [3, 33], [40000]];

const pairwise = (
  name: string,
  build: (target: Tensor, x: Tensor) => Tensor,
  reference: (target: number, x: number) => number,
  scalars?: Record<string, number>,
): OpCase[] =>
  sizes.map(shape => ({
    name: `${name} [${shape}]`,
    inputs: [buffer(shape), given(shape)],
    ...(scalars && { scalars }),
    build: ([target, x]) => [build(target!, x!)],
    reference: ([target, x]) => [zip(target!, x!, reference)],
  }));

interface Setting {
  readonly shape: readonly number[];
  /** The gradient is bf16, and the parameters have a copy in bf16. */
  readonly mixed?: true;
  readonly update: number;
  readonly weightDecay: number;
  readonly gradScale?: number;
}

const settings: readonly Setting[] = [
  { shape: [1], update: 1, weightDecay: 0 },
  { shape: [37], update: 1, weightDecay: 0.01, gradScale: 0.3 },
  { shape: [40000], update: 1000, weightDecay: 0.1, gradScale: 1 },
];
const mixedSettings: readonly Setting[] = [
  { shape: [1], mixed: true, update: 1, weightDecay: 0 },
  { shape: [37], mixed: true, update: 5, weightDecay: 0.01, gradScale: 0.3 }, // few: where f32 and f64 round to bf16 apart, an element is off by 2^-9
];

const [beta1, beta2, eps, learningRate] = [0.9, 0.999, 1e-8, 0.01];

const adamwCases = [...settings, ...mixedSettings].map(({ shape, mixed, update, weightDecay, gradScale }): OpCase => {
  const scalars = { learningRate, correction1: 1 - beta1 ** update, correction2: 1 - beta2 ** update };
  const gradient = mixed ? { ...given(shape), ...inBf16 } : given(shape);
  const copies = mixed ? [{ ...buffer(shape), ...inBf16 }] : [];
  const moments = [buffer(shape), { ...buffer(shape), values: positive }];
  return {
    name: `adamw${mixed ? "_mixed" : ""} [${shape}] update ${update} weight decay ${weightDecay}${gradScale ? ` gradient times ${gradScale}` : ""}`,
    inputs: [buffer(shape), gradient, ...moments, ...copies, ...(gradScale ? [scaleInput(gradScale)] : [])],
    scalars,
    build([param, grad, m, v, ...rest]) {
      const factor = gradScale ? rest.at(-1) : undefined;
      const tensors = { param: param!, grad: grad!, m: m!, v: v!, ...(factor && { gradScale: factor }) };
      const options = { beta1, beta2, eps, weightDecay };
      const after = mixed ? adamwMixed({ ...tensors, copy: rest[0]! }, options) : adamw(tensors, options);
      return Object.values(after);
    },
    reference([param, grad, m, v, ...rest]) {
      const factor = gradScale ? rest.at(-1) : undefined;
      const g = map(grad!, x => x * (factor ? factor.data[0]! : 1));
      const m1 = zip(m!, g, (old, x) => beta1 * old + (1 - beta1) * x);
      const v1 = zip(v!, g, (old, x) => beta2 * old + (1 - beta2) * x * x);
      const step = zip(m1, v1, (first, second) => first / scalars.correction1 / (Math.sqrt(second / scalars.correction2) + eps));
      const decayed = map(param!, x => x * (1 - learningRate * weightDecay));
      const moved = zip(decayed, step, (x, s) => x - learningRate * s);
      return [moved, m1, v1, ...(mixed ? [map(moved, bf16)] : [])];
    },
  };
});

/** The code book of bitsandbytes (functional.py, create_dynamic_map): entry k is the value of code k. */
function codeBook(signed: boolean): number[] {
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const items = 2 ** (signed ? i : i + 1);
    for (let j = 0; j < items; j++) {
      const value = 10 ** (i - 6) * (0.1 + (0.9 * (j + 0.5)) / items);
      values.push(value, ...(signed ? [-value] : []));
    }
  }
  return values.sort((a, b) => a - b);
}
const [signedBook, unsignedBook] = [codeBook(true), codeBook(false)];

function nearest(book: readonly number[], a: number): number {
  let best = 0;
  for (const [code, value] of book.entries()) if (Math.abs(value - a) < Math.abs(book[best]! - a)) best = code;
  return best;
}

/** x [n] and its largest magnitudes as codes in units of them. */
function encoded(x: Nd, book: readonly number[]): [codes: Nd, largest: Nd] {
  const blocks = Math.ceil(x.data.length / adamw8Block);
  const largest = nd([blocks], b => Math.max(...x.data.slice(b * adamw8Block, (b + 1) * adamw8Block).map(Math.abs)));
  const codes = x.data.map((value, i) => nearest(book, value / largest.data[Math.floor(i / adamw8Block)]!));
  return [{ shape: x.shape, data: codes }, largest];
}
const decoded = (codes: Nd, largest: Nd, book: readonly number[]): Nd => ({
  shape: codes.shape,
  data: codes.data.map((code, i) => book[code]! * largest.data[Math.floor(i / adamw8Block)]!),
});

const seeds = { seed: 2 ** 33 + 5, step: 17, stream: 21 };

/** bf16 by the half word of element i: native/README.md. */
function stochastic(x: number, i: number): number {
  const [block, key] = [BigInt(Math.floor(i / 8)), BigInt(seeds.seed)];
  const words = philox([block, 0n, BigInt(seeds.stream), BigInt(seeds.step)], [key & 0xffffffffn, key >> 32n]);
  const random = Number((words[Math.floor((i % 8) / 2)]! >> BigInt(16 * (i % 2))) & 0xffffn);
  const bits = new DataView(new ArrayBuffer(4));
  bits.setFloat32(0, x);
  bits.setUint32(0, (bits.getUint32(0) + random) & 0xffff0000);
  return bits.getFloat32(0);
}

const adamw8Cases = [1, 300, 517].flatMap(n =>
  (["f32", "bf16"] as const).map((dtype): OpCase => {
    const scalars = { learningRate, correction1: 1 - beta1 ** 3, correction2: 1 - beta2 ** 3, ...seeds };
    const codes: CaseInput = { ...buffer([n]), dtype: "u8", values: below(256) };
    const largest: CaseInput = { ...buffer([Math.ceil(n / adamw8Block)]), dtype: "f32", values: random => 0.01 * positive(random) };
    return {
      name: `adamw8 [${n}] in ${dtype}`,
      inputs: [{ ...buffer([n]), ...inBf16, dtype }, { ...given([n]), ...inBf16 }, codes, codes, largest, largest],
      scalars,
      build([param, grad, m, v, mMax, vMax]) {
        const tensors = { param: param!, grad: grad!, m: m!, v: v!, mMax: mMax!, vMax: vMax! };
        return Object.values(adamw8(tensors, { beta1, beta2, eps, weightDecay: 0.1, stream: seeds.stream }));
      },
      reference([param, grad, m, v, mMax, vMax]) {
        const m1 = zip(decoded(m!, mMax!, signedBook), grad!, (old, x) => beta1 * old + (1 - beta1) * x);
        const v1 = zip(decoded(v!, vMax!, unsignedBook), grad!, (old, x) => beta2 * old + (1 - beta2) * x * x);
        const step = zip(m1, v1, (first, second) => first / scalars.correction1 / (Math.sqrt(second / scalars.correction2) + eps));
        const moved = zip(param!, step, (x, s) => x * (1 - learningRate * 0.1) - learningRate * s);
        const [mCodes, mLargest] = encoded(m1, signedBook);
        const [vCodes, vLargest] = encoded(v1, unsignedBook);
        return [dtype === "bf16" ? { ...moved, data: moved.data.map(stochastic) } : moved, mCodes, vCodes, mLargest, vLargest];
      },
      roundings: 2 ** 28, // arithmetic is f32 in every dtype: this is what 2 roundings of f32 are among those of f64
    };
  }),
);

export const optimizerCases: readonly OpCase[] = [
  ...adamwCases,
  ...adamw8Cases,
  ...pairwise(
    "ema",
    (shadow, param) => ema(shadow, param),
    (shadow, param) => shadow + (1 - 0.99) * (param - shadow),
    { emaDecay: 0.99 },
  ),
  ...pairwise("accumulate", accumulate, (total, x) => total + x),
  ...pairwise("assign", assign, (_target, x) => x),
  {
    name: "accumulate [37] from bf16",
    inputs: [
      { ...buffer([37]), dtype: "f32" },
      { ...given([37]), ...inBf16 },
    ],
    build: ([total, x]) => [accumulate(total!, x!)],
    reference: ([total, x]) => [zip(total!, x!, (a, b) => fround(a + b))],
  },
  {
    name: "assign [37] to bf16",
    inputs: [
      { ...buffer([37]), ...inBf16 },
      { ...given([37]), dtype: "f32" },
    ],
    build: ([target, x]) => [assign(target!, x!)],
    reference: ([, x]) => [map(x!, bf16)],
  },
  { name: "fill [3,5]", inputs: [buffer([3, 5])], build: ([target]) => [fill(target!, -1.5)], reference: ([target]) => [map(target!, () => -1.5)] },
];
