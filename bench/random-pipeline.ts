/** Pipeline folders of the published sizes with random weights, for tests of loading and running that need no download: `npm run random-pipeline -- sd15 folder`,
 *  `-- sdxl folder`. Weights are f16, drawn tensor by tensor: memory holds one of them. The vocabulary is single bytes. */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type DeferredTensor, writeSafetensors } from "../lib/data/safetensors.js";
import { parseClipTextConfig } from "../lib/models/clip-config.js";
import { declareClipText } from "../lib/models/clip-parameters.js";
import { parseUNetConfig } from "../lib/models/unet-config.js";
import { declareUNet } from "../lib/models/unet-parameters.js";
import { parseVaeConfig } from "../lib/models/vae-config.js";
import { declareVae } from "../lib/models/vae-parameters.js";
import type { ParameterStore } from "../lib/nn/params.js";
import { convert, hostTensor, outsideShape } from "../lib/util/host-tensor.js";

type Kind = "sd15" | "sdxl";
type Json = Readonly<Record<string, unknown>>;

const vocabulary = 49408;
const text = { vocab_size: vocabulary, max_position_embeddings: 77, layer_norm_eps: 1e-5, model_type: "clip_text_model", bos_token_id: 0, eos_token_id: 2 };
const vitL: Json = {
  ...text,
  hidden_size: 768,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  intermediate_size: 3072,
  hidden_act: "quick_gelu",
  projection_dim: 768,
};
const bigG: Json = {
  ...text,
  hidden_size: 1280,
  num_hidden_layers: 32,
  num_attention_heads: 20,
  intermediate_size: 5120,
  hidden_act: "gelu",
  projection_dim: 1280,
};
const vae: Json = {
  _class_name: "AutoencoderKL",
  block_out_channels: [128, 256, 512, 512],
  down_block_types: Array.from({ length: 4 }, () => "DownEncoderBlock2D"),
  up_block_types: Array.from({ length: 4 }, () => "UpDecoderBlock2D"),
  in_channels: 3,
  out_channels: 3,
  latent_channels: 4,
  layers_per_block: 2,
};
const scheduler: Json = {
  _class_name: "DDIMScheduler",
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  clip_sample: false,
  set_alpha_to_one: false,
  steps_offset: 1,
};

/** Writes the folder; one that exists is overwritten. Returns the bytes of all weights. */
export async function writeRandomPipeline(kind: Kind, folder: string): Promise<number> {
  const config = join(__dirname, "..", "..", "..", "bench", "configs", `${kind === "sd15" ? "sd15" : "sdxl-base"}-unet.json`);
  const unet = JSON.parse(await readFile(config, "utf8")) as Json;
  const scaling = { ...vae, scaling_factor: kind === "sd15" ? 0.18215 : 0.13025, sample_size: kind === "sd15" ? 512 : 1024 };
  let bytes = 0;
  const part = async (name: string, json: Json, baseName: string, store: ParameterStore): Promise<void> => {
    await mkdir(join(folder, name), { recursive: true });
    await writeFile(join(folder, name, "config.json"), JSON.stringify(json, null, 2));
    await writeSafetensors(join(folder, name, `${baseName}.safetensors`), randomTensors(store, name.length), { format: "pt" });
    bytes += 2 * store.elements;
  };
  await part("unet", { _class_name: "UNet2DConditionModel", ...unet }, "diffusion_pytorch_model", declareUNet(parseUNetConfig(unet, config), "f32"));
  await part("vae", scaling, "diffusion_pytorch_model", declareVae(parseVaeConfig(scaling, "vae"), "f32"));
  const encoder = (name: string, json: Json) => part(name, json, "model", declareClipText(parseClipTextConfig(json, name), "f32"));
  await encoder("text_encoder", { ...vitL, architectures: ["CLIPTextModel"] });
  if (kind === "sdxl") await encoder("text_encoder_2", { ...bigG, architectures: ["CLIPTextModelWithProjection"] });
  for (const suffix of kind === "sdxl" ? ["", "_2"] : [""]) await writeTokenizer(join(folder, `tokenizer${suffix}`));
  await mkdir(join(folder, "scheduler"), { recursive: true });
  await writeFile(join(folder, "scheduler/scheduler_config.json"), JSON.stringify(scheduler, null, 2));
  await writeFile(join(folder, "model_index.json"), JSON.stringify(modelIndex(kind), null, 2));
  return bytes;
}

function modelIndex(kind: Kind): Json {
  const second = { text_encoder_2: ["transformers", "CLIPTextModelWithProjection"], tokenizer_2: ["transformers", "CLIPTokenizer"] };
  return {
    _class_name: kind === "sd15" ? "StableDiffusionPipeline" : "StableDiffusionXLPipeline",
    scheduler: ["diffusers", "DDIMScheduler"],
    text_encoder: ["transformers", "CLIPTextModel"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    unet: ["diffusers", "UNet2DConditionModel"],
    vae: ["diffusers", "AutoencoderKL"],
    ...(kind === "sdxl" && { ...second, force_zeros_for_empty_prompt: true }),
  };
}

/** Matrices by their declared bounds; norms are ones and zeros, as declared. */
function randomTensors(store: ParameterStore, seed: number): Map<string, DeferredTensor> {
  let state = 0x9e3779b9 ^ seed;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  };
  const entries = [...store.entries.values()].map(({ name, shape: inside, layout, init }) => {
    const shape = outsideShape(inside, layout);
    const size = shape.reduce((n, d) => n * d, 1);
    const read = async () => {
      const values = new Float32Array(size);
      for (let i = 0; i < size; i++) values[i] = "value" in init ? init.value : init.bound * next();
      return convert(hostTensor("f32", shape, values), "f16");
    };
    return [name, { dtype: "f16" as const, shape, read }] as const;
  });
  return new Map(entries);
}

/** Symbols of single bytes, in and at the end of a word, and the two tokens at their published places. */
async function writeTokenizer(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let other = 256;
  const symbols = Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : other++)); // GPT-2's names of bytes
  const vocab = Object.fromEntries([...symbols, ...symbols.map(s => `${s}</w>`)].map((s, i) => [s, i]));
  await writeFile(join(folder, "vocab.json"), JSON.stringify({ ...vocab, "<|startoftext|>": vocabulary - 2, "<|endoftext|>": vocabulary - 1 }));
  await writeFile(join(folder, "merges.txt"), "#version: 0.2\n");
}

if (require.main === module) {
  const [kind, folder] = process.argv.slice(2);
  if ((kind !== "sd15" && kind !== "sdxl") || folder === undefined) {
    console.error("usage: random-pipeline sd15|sdxl <folder>");
    process.exitCode = 2;
  } else void writeRandomPipeline(kind, folder).then(bytes => console.log(`${folder}: ${(bytes / 2 ** 30).toFixed(2)} GiB of weights`));
}
