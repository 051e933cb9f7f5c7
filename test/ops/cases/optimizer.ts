/** Effects on persistent buffers, and the optimiser. */

import { accumulate, adamw, assign, ema, fill } from "../../../lib/graph/ops/optimizer.js";
import type { Tensor } from "../../../lib/graph/tensor.js";
import { map, type Nd } from "../../support/nd.js";
import { type CaseInput, type OpCase, positive } from "../case.js";

const buffer = (shape: readonly number[]): CaseInput => ({ shape, frozen: true, persistent: true });
const given = (shape: readonly number[]): CaseInput => ({ shape, frozen: true });
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
  readonly update: number;
  readonly weightDecay: number;
  readonly gradScale?: number;
}

const settings: readonly Setting[] = [
  { shape: [1], update: 1, weightDecay: 0 },
  { shape: [37], update: 1, weightDecay: 0.01, gradScale: 0.3 },
  { shape: [40000], update: 1000, weightDecay: 0.1, gradScale: 1 },
];

const [beta1, beta2, eps, learningRate] = [0.9, 0.999, 1e-8, 0.01];

const adamwCases = settings.map(({ shape, update, weightDecay, gradScale }): OpCase => {
  const scalars = { learningRate, correction1: 1 - beta1 ** update, correction2: 1 - beta2 ** update };
  return {
    name: `adamw [${shape}] update ${update} weight decay ${weightDecay}${gradScale ? ` gradient times ${gradScale}` : ""}`,
    inputs: [buffer(shape), given(shape), buffer(shape), { ...buffer(shape), values: positive }, ...(gradScale ? [scaleInput(gradScale)] : [])],
    scalars,
    build([param, grad, m, v, factor]) {
      const after = adamw({ param: param!, grad: grad!, m: m!, v: v!, ...(factor && { gradScale: factor }) }, { beta1, beta2, eps, weightDecay });
      return [after.param, after.m, after.v];
    },
    reference([param, grad, m, v, factor]) {
      const g = map(grad!, x => x * (factor ? factor.data[0]! : 1));
      const m1 = zip(m!, g, (old, x) => beta1 * old + (1 - beta1) * x);
      const v1 = zip(v!, g, (old, x) => beta2 * old + (1 - beta2) * x * x);
      const step = zip(m1, v1, (first, second) => first / scalars.correction1 / (Math.sqrt(second / scalars.correction2) + eps));
      const decayed = map(param!, x => x * (1 - learningRate * weightDecay));
      return [zip(decayed, step, (x, s) => x - learningRate * s), m1, v1];
    },
  };
});

export const optimizerCases: readonly OpCase[] = [
  ...adamwCases,
  ...pairwise(
    "ema",
    (shadow, param) => ema(shadow, param),
    (shadow, param) => shadow + (1 - 0.99) * (param - shadow),
    { emaDecay: 0.99 },
  ),
  ...pairwise("accumulate", accumulate, (total, x) => total + x),
  ...pairwise("assign", assign, (_target, x) => x),
  { name: "fill [3,5]", inputs: [buffer([3, 5])], build: ([target]) => [fill(target!, -1.5)], reference: ([target]) => [map(target!, () => -1.5)] },
];
