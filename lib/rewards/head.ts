/** The head of the LAION aesthetic predictor and of ImageReward: five linear layers with nothing but dropout between them, so that a trained head is one
 *  affine map. Released code: christophschuhmann/improved-aesthetic-predictor `simple_inference.py`, THUDM/ImageReward `ImageReward.py`. */

import type { TensorFile } from "../data/safetensors.js";
import { DataError } from "../errors.js";
import { reshape } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { linear } from "../nn/layers.js";
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

/** x [B, C] -> [B]. `p` is at the place of "layers". */
export function scoreHead(x: Tensor, p: Params, layers: readonly (readonly [number, number])[] = headLayers): Tensor {
  const y = layers.reduce((h, [place, features]) => linear(h, p.at(`layers.${place}`), { features }), x);
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
