/** The text tower of CLIP: transformers' CLIPTextModel, with and without projection. It is also the text encoder of Stable Diffusion, and both of SDXL's. */

import { ShapeError } from "../errors.js";
import { wide } from "../graph/ops/check.js";
import { add, affine, cast } from "../graph/ops/elementwise.js";
import { embedding } from "../graph/ops/embed.js";
import { linear as linearOp } from "../graph/ops/matmul.js";
import { reshape, slice } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { layerNorm } from "../nn/layers.js";
import type { Params } from "../nn/params.js";
import { convert, type HostTensor, hostTensor } from "../util/host-tensor.js";
import type { ClipTextConfig } from "./clip-config.js";
import { clipEncoder } from "./clip-encoder.js";
import type { RecomputeOptions } from "./regions.js";

export interface ClipTextInputs {
  /** Token ids [B, N], i32, N up to config.positions. */
  readonly inputIds: Tensor;
  /** [B], i32: where each text is pooled, as a row of the states [B * N, width] (pooledRows). */
  readonly pooledRows: Tensor;
  /** [B, N], 1 for tokens that are seen and 0 for padding; Stable Diffusion passes none, and padding is seen. */
  readonly attentionMask?: Tensor | undefined;
}

export interface ClipTextOutputs {
  /** Embeddings, then the states after every layer, before the final norm: layers + 1 tensors [B, N, width]. */
  readonly hiddenStates: readonly Tensor[];
  /** The last state, normalised [B, N, width]. */
  readonly lastHiddenState: Tensor;
  /** Its token at pooledRows [B, width]. */
  readonly pooled: Tensor;
  /** Of a model with projection [B, projection], not normalised; f32 from a model of bf16. */
  readonly textEmbeds: Tensor | undefined;
}

/** Only what is read of the result is computed. `p` is the root of the model: parameters are `text_model.*` and `text_projection.weight`. Throws ShapeError. */
export function clipText(
  config: ClipTextConfig,
  p: Params,
  { inputIds, pooledRows, attentionMask }: ClipTextInputs,
  options: RecomputeOptions = {},
): ClipTextOutputs {
  checkInputs(config, inputIds, pooledRows, attentionMask);
  const tower = p.at("text_model");
  return tower.scope(() => {
    const mask = attentionMask && paddingMask(attentionMask, tower);
    const hiddenStates = clipEncoder(embed(inputIds, config, tower.at("embeddings")), config, tower.at("encoder"), { ...options, causal: true, mask });
    const lastHiddenState = clipFinalNorm(config, p, hiddenStates.at(-1)!);
    const pooled = embedding(reshape(lastHiddenState, [-1, config.width]), pooledRows); // rows of a table
    const textEmbeds = config.projection === undefined ? undefined : clipProjection(pooled, config.projection, p.at("text_projection"));
    return { hiddenStates, lastHiddenState, pooled, textEmbeds };
  });
}

/** The final norm on any state [B, N, width]: diffusers' clip_skip n conditions on that of hiddenStates.at(-1 - n). */
export function clipFinalNorm({ eps }: ClipTextConfig, p: Params, state: Tensor): Tensor {
  return layerNorm(state, p.at("text_model.final_layer_norm"), { eps });
}

/** x [.., C] -> [.., features], without bias and in f32 from bf16: scores are differences of cosines, and bf16 has three digits. */
export function clipProjection(x: Tensor, features: number, p: Params): Tensor {
  const width = x.shape.at(-1)!;
  return p.scope(() => linearOp(x, p.tensor("weight", [features, width], { init: { bound: 1 / Math.sqrt(width) } }), undefined, { dtype: wide(x.dtype) }));
}

/** Where each text of ids [B, N] is pooled, as a row of [B * N, ..]: at its first end-of-text token (at its first token where it has none, as transformers
 *  does), or, if the config calls that token 2, at its first largest id. */
export function pooledRows({ eosTokenId }: ClipTextConfig, inputIds: HostTensor): HostTensor {
  const [batch = 0, tokens = 0] = inputIds.shape;
  const ids = convert(inputIds, "i32").data as Int32Array;
  const row = (b: number): number => {
    const own = ids.subarray(b * tokens, (b + 1) * tokens);
    return b * tokens + Math.max(0, own.indexOf(eosTokenId === 2 ? own.reduce((a, id) => Math.max(a, id)) : eosTokenId));
  };
  return hostTensor(
    "i32",
    [batch],
    Int32Array.from({ length: batch }, (_, b) => row(b)),
  );
}

function embed(ids: Tensor, { vocabulary, positions, width }: ClipTextConfig, p: Params): Tensor {
  return p.scope(() => {
    const init = { bound: 0.02 * Math.sqrt(3) }; // the standard deviation that transformers draws with
    const tokens = embedding(p.tensor("token_embedding.weight", [vocabulary, width], { init }), ids);
    const places = p.tensor("position_embedding.weight", [positions, width], { init });
    return add(tokens, slice(places, { axis: 0, start: 0, length: ids.shape[1]! }));
  });
}

/** 0 where a token is seen and -1e30 where not: as good as minus infinity, and a row without any token stays finite. */
function paddingMask(mask: Tensor, { store }: Params): Tensor {
  const [batch = 0, tokens = 0] = mask.shape;
  return cast(reshape(affine(mask, { scale: 1e30, shift: -1e30 }), [batch, 1, 1, tokens]), store.computes);
}

function checkInputs({ positions }: ClipTextConfig, ids: Tensor, rows: Tensor, mask: Tensor | undefined): void {
  const [batch, tokens = 0] = ids.shape;
  const refuse = (what: string, { shape }: Tensor): never => {
    throw new ShapeError("clip text", `expected ${what}, received [${shape.join(", ")}]`);
  };
  if (ids.shape.length !== 2 || tokens > positions) refuse(`inputIds [B, N] with N <= ${positions}`, ids);
  if (rows.shape.length !== 1 || rows.shape[0] !== batch) refuse(`pooledRows [${batch}]`, rows);
  if (mask && (mask.shape.length !== 2 || mask.shape[0] !== batch || mask.shape[1] !== tokens)) refuse(`attentionMask [${batch}, ${tokens}]`, mask);
}
