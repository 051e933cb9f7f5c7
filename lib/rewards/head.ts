/** The head of the LAION aesthetic predictor and of ImageReward: five linear layers with nothing but dropout between them, so that a trained head is one
 *  affine map. Released code: christophschuhmann/improved-aesthetic-predictor `simple_inference.py`, THUDM/ImageReward `ImageReward.py`. */

import type { TensorFile } from "../data/safetensors.js";
import { DataError } from "../errors.js";
import { wide } from "../graph/ops/check.js";
import { cast } from "../graph/ops/elementwise.js";
import { linear } from "../graph/ops/matmul.js";
import { reshape } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";
import { convert } from "../util/host-tensor.js";

/** Widths after each layer, and the layers' places in the released nn.Sequential (the others are dropouts). */
export const headLayers: readonly (readonly [place: number, features: number])[] = [
  [0, 1024],
  [2, 128],
  [4, 64],
  [6, 16],
  [7, 1],
];

/** x [B, C] -> [B]. `p` is at the place of "layers". In f32 also of a model of bf16: five roundings to three digits would be most of the score. */
export function scoreHead(x: Tensor, p: Params, layers: readonly (readonly [number, number])[] = headLayers): Tensor {
  const dtype = wide(x.dtype);
  const y = layers.reduce(
    (h, [place, features]) => {
      const own = p.at(`layers.${place}`);
      const inputs = h.shape.at(-1)!;
      const init = { bound: Math.sqrt(3) / (x.shape.at(-1)! + 1) }; // the released code draws normal numbers of this deviation
      return own.scope(() =>
        linear(h, cast(own.tensor("weight", [features, inputs], { init }), dtype), own.tensor("bias", [features], { init: { value: 0 } })),
      );
    },
    cast(x, dtype),
  );
  return reshape(y, [x.shape[0]!]);
}

/** score = weight . x + bias. */
export interface AffineHead {
  readonly weight: Float64Array;
  readonly bias: number;
}

/** A head's file (`layers.{0,2,4,6,7}.{weight,bias}`, or other widths at those or other places) as the one map that it is, multiplied out in f64.
 *  Throws DataError naming the layer that is missing or does not fit. */
export function readHead(file: TensorFile, prefix = "layers."): AffineHead {
  const pattern = new RegExp(`^${prefix.replaceAll(".", "\\.")}(\\d+)\\.weight$`);
  const places = [...file.tensors.keys()].flatMap(name => pattern.exec(name)?.[1] ?? []).map(Number);
  if (places.length === 0) throw new DataError(file.source, `expected ${prefix}<n>.weight, received ${[...file.tensors.keys()].slice(0, 4).join(", ")}`);
  let map: AffineHead | undefined; // of what follows the layer at hand: from the last to the first
  for (const place of places.sort((a, b) => b - a)) {
    const [weight, bias] = ["weight", "bias"].map(part => file.tensor(`${prefix}${place}.${part}`));
    const [rows = 0, columns = 0] = weight!.shape;
    const after: AffineHead = map ?? { weight: Float64Array.of(1), bias: 0 };
    if (weight!.shape.length !== 2 || after.weight.length !== rows || bias!.shape.length !== 1 || bias!.shape[0] !== rows)
      throw new DataError(
        file.source,
        `expected weight [${after.weight.length}, C] and bias [${after.weight.length}], received [${weight!.shape}] and [${bias!.shape}]`,
        {
          field: `${prefix}${place}`,
        },
      );
    const [w, b] = [convert(weight!, "f64").data as Float64Array, convert(bias!, "f64").data as Float64Array];
    const joined = new Float64Array(columns);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) joined[c]! += after.weight[r]! * w[r * columns + c]!;
    map = { weight: joined, bias: b.reduce((sum, v, r) => sum + after.weight[r]! * v, after.bias) };
  }
  return map!;
}
