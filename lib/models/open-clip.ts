/** CLIP as open_clip and OpenAI store it: the same networks as transformers' CLIPModel under other names, with q, k and v of a layer as one matrix and the projections
 *  turned. A checkpoint is read as it is; nothing is copied. Layout: mlfoundations/open_clip `src/open_clip/model.py`, `transformer.py`. */

import type { TensorFile, TensorPlace } from "../data/safetensors.js";
import { DataError } from "../errors.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";
import { type ClipConfig, parseClipConfig } from "./clip-config.js";
import { ConfigReader } from "./config-reader.js";

/** open_clip's ViT-H-14.json: the backbone of PickScore and HPSv2. */
export const openClipVitH14 = {
  embed_dim: 1024,
  vision_cfg: { image_size: 224, layers: 32, width: 1280, head_width: 80, patch_size: 14 },
  text_cfg: { context_length: 77, vocab_size: 49408, width: 1024, heads: 16, layers: 24 },
} as const;

/** OpenAI's ViT-L/14: CLIPScore, aesthetic predictors. */
export const openClipVitL14 = {
  embed_dim: 768,
  quick_gelu: true,
  vision_cfg: { image_size: 224, layers: 24, width: 1024, patch_size: 14 },
  text_cfg: { context_length: 77, vocab_size: 49408, width: 768, heads: 12, layers: 12 },
} as const;

/** A model config of open_clip. Throws ConfigError naming every field that is not supported. */
export function parseOpenClipConfig(json: unknown, source: string): ClipConfig {
  const r = new ConfigReader(json, source);
  const vision = new ConfigReader(r.raw("vision_cfg"), `${source} (vision_cfg)`);
  const text = new ConfigReader(r.raw("text_cfg"), `${source} (text_cfg)`);
  const act = r.boolean("quick_gelu", false) ? "quick_gelu" : "gelu";
  const projection = r.count("embed_dim");
  const [width, headWidth] = [vision.count("width", 768), vision.count("head_width", 64)];
  if (width % headWidth !== 0) vision.problem("head_width", `a divisor of width (${width})`, headWidth);
  const tower = (own: ConfigReader, size: number, layers: number) => {
    const ratio = own.number("mlp_ratio", 4);
    return { hidden_size: size, num_hidden_layers: own.count("layers", layers), intermediate_size: Math.trunc(size * ratio), hidden_act: act };
  };
  const textWidth = text.count("width", 512);
  const config = {
    projection_dim: projection,
    vision_config: {
      ...tower(vision, width, 12),
      num_attention_heads: Math.max(1, Math.floor(width / headWidth)),
      image_size: vision.count("image_size", 224),
      patch_size: vision.count("patch_size", 16),
    },
    text_config: {
      ...tower(text, textWidth, 12),
      num_attention_heads: text.count("heads", 8),
      vocab_size: text.count("vocab_size", 49408),
      max_position_embeddings: text.count("context_length", 77),
      eos_token_id: 2, // pooled at the first largest id
    },
  };
  for (const reader of [vision, text, r]) reader.finish();
  return parseClipConfig(config, source);
}

/** One parameter of transformers' CLIPModel in a file of open_clip: a stored tensor, rows of it, or it turned. */
interface Source {
  readonly stored: string;
  /** Which third of its rows. */
  readonly part?: number;
  readonly transposed?: boolean;
}

/** A view of an open file under transformers' names; closing it closes the file. Names that are none of open_clip's stay, so that the model reports them.
 *  Throws DataError where a matrix of q, k and v does not split into three, or two tensors mean one parameter. */
export function openClipWeights(file: TensorFile): TensorFile {
  const sources = new Map<string, Source>();
  for (const stored of file.tensors.keys())
    for (const [name, source] of renamed(stored)) {
      const other = sources.get(name);
      if (other) throw new DataError(file.source, `expected one tensor for ${name}, received ${other.stored} and ${stored}`, { field: stored });
      sources.set(name, source);
    }
  const find = (name: string): Source => {
    const source = sources.get(name);
    if (!source) throw new DataError(file.source, `expected a tensor that stands for this name, received ${sources.size} others`, { field: name });
    return source;
  };
  const tensors = new Map(
    [...sources].map(([name, source]) => {
      const entry = file.tensors.get(source.stored)!;
      const shape = shapeOf(entry.shape, source, file.source);
      return [name, { ...entry, shape }];
    }),
  );
  return {
    source: file.source,
    metadata: file.metadata,
    tensors,
    tensor: name => hostPart(file.tensor(find(name).stored), find(name), file.source),
    place: name => placePart(file.place(find(name).stored), find(name), file.source),
    close: () => file.close(),
  };
}

/** Which parameters a stored name holds. */
function renamed(stored: string): [string, Source][] {
  const whole = (name: string): [string, Source][] => [[name, { stored }]];
  const fixed = fixedNames[stored];
  if (fixed !== undefined) return [[fixed, { stored, ...(turned.has(stored) && { transposed: true }) }]];
  if (stored === "attn_mask" || stored === "input_resolution" || stored === "context_length" || stored === "vocab_size") return []; // no parameters
  const match = /^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)$/.exec(stored);
  if (!match) return whole(stored);
  const layer = `${match[1] ? "vision_model" : "text_model"}.encoder.layers.${match[2]}`;
  const rest = match[3]!;
  const joint = /^attn\.in_proj_(weight|bias)$/.exec(rest);
  if (joint) return ["q", "k", "v"].map((which, part): [string, Source] => [`${layer}.self_attn.${which}_proj.${joint[1]}`, { stored, part }]);
  const own = /^(ln_1|ln_2|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)\.(weight|bias)$/.exec(rest);
  return whole(own ? `${layer}.${layerNames[own[1]!]}.${own[2]}` : stored);
}

const layerNames: Readonly<Record<string, string>> = {
  ln_1: "layer_norm1",
  ln_2: "layer_norm2",
  "attn.out_proj": "self_attn.out_proj",
  "mlp.c_fc": "mlp.fc1",
  "mlp.c_proj": "mlp.fc2",
};
const fixedNames: Readonly<Record<string, string>> = {
  "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
  "visual.class_embedding": "vision_model.embeddings.class_embedding",
  "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
  "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
  "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
  "visual.ln_post.weight": "vision_model.post_layernorm.weight",
  "visual.ln_post.bias": "vision_model.post_layernorm.bias",
  "visual.proj": "visual_projection.weight",
  "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
  positional_embedding: "text_model.embeddings.position_embedding.weight",
  "ln_final.weight": "text_model.final_layer_norm.weight",
  "ln_final.bias": "text_model.final_layer_norm.bias",
  text_projection: "text_projection.weight",
  logit_scale: "logit_scale",
};
/** Stored [width, embedding]. */
const turned: ReadonlySet<string> = new Set(["visual.proj", "text_projection"]);

function shapeOf(shape: readonly number[], { stored, part, transposed }: Source, file: string): readonly number[] {
  if (transposed) {
    if (shape.length !== 2) throw new DataError(file, `expected a matrix, received [${shape}]`, { field: stored });
    return [shape[1]!, shape[0]!];
  }
  if (part === undefined) return shape;
  const [rows = 0, ...rest] = shape;
  if (rows % 3 !== 0 || rows === 0) throw new DataError(file, `expected rows of q, k and v, received [${shape}]`, { field: stored });
  return [rows / 3, ...rest];
}

function placePart(place: TensorPlace, source: Source, file: string): TensorPlace {
  if (source.transposed) return { ...place, transposed: true };
  if (source.part === undefined) return place;
  const bytes = place.bytes / 3;
  return { ...place, shape: shapeOf(place.shape, source, file), offset: place.offset + source.part * bytes, bytes };
}

function hostPart(host: HostTensor, source: Source, file: string): HostTensor {
  const shape = shapeOf(host.shape, source, file);
  const data = host.data as Float32Array;
  const size = data.length / 3;
  if (source.part !== undefined) return hostTensor(host.dtype, shape, data.subarray(source.part * size, (source.part + 1) * size));
  if (!source.transposed) return host;
  const [rows = 0, columns = 0] = shape;
  const out = hostTensor(host.dtype, shape);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) (out.data as Float32Array)[r * columns + c] = data[c * rows + r]!;
  return out;
}
