/** Adapter files, written: as diffusers writes them, with the scaling in the header, or as kohya's scripts do, with an alpha beside every pair and the notes that
 *  A1111, ComfyUI and kohya's own tools read. */

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type DeferredTensor, writeSafetensors } from "../data/safetensors.js";
import { ConfigError } from "../errors.js";
import { downName, type LoraAdapter, magnitudeName, upName } from "../nn/lora.js";
import { convert, type HostTensor, hostTensor } from "../util/host-tensor.js";
import { loraFileName, loraMetadataField } from "./lora-file.js";
import { diffusersName, kohyaName, type LoraComponent } from "./lora-names.js";

/** The adapter of one model: `weights` are those of the adapter's store, by its names. */
export interface WrittenAdapter {
  readonly component: LoraComponent;
  readonly adapter: LoraAdapter;
  readonly weights: ReadonlyMap<string, DeferredTensor>;
}

export interface WriteLoraOptions {
  /** "diffusers" by default, which diffusers and peft read; "kohya" is what A1111, ComfyUI and sd-scripts call their own. */
  readonly format?: "diffusers" | "kohya";
  /** More notes for the header, e.g. `ss_output_name`. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Writes adapters into one file: `path` is it (.safetensors), or a folder for pytorch_lora_weights.safetensors. Returns what is wrong with the values: that an adapter is zero,
 *  so changes nothing, or holds what is not finite. */
export async function writeLora(
  path: string,
  adapters: readonly WrittenAdapter[],
  { format = "diffusers", metadata = {} }: WriteLoraOptions = {},
): Promise<string[]> {
  if (format !== "diffusers" && format !== "kohya") throw new ConfigError("saveLora", "format", '"diffusers" or "kohya"', format);
  const file = path.endsWith(".safetensors") ? path : join(path, loraFileName);
  await mkdir(dirname(file), { recursive: true });
  const watch = new Watch();
  const watched = adapters.map(each => ({ ...each, weights: watch.over(each.component.name, each.weights) }));
  if (format === "diffusers") await writeSafetensors(file, diffusersTensors(watched), { format: "pt", [loraMetadataField]: peftConfigs(watched), ...metadata });
  else await writeKohya(file, watched, metadata);
  return watch.warnings();
}

/** Modules of an adapter, in order. */
function modulesOf(weights: WrittenAdapter["weights"]): string[] {
  const ending = downName("");
  return [...weights.keys()].flatMap(name => (name.endsWith(ending) ? [name.slice(0, -ending.length)] : []));
}

function diffusersTensors(adapters: readonly WrittenAdapter[]): Map<string, DeferredTensor> {
  const named = adapters.flatMap(({ component: { name }, weights }) =>
    modulesOf(weights).flatMap((module): [string, DeferredTensor][] => {
      const down = weights.get(downName(module))!;
      const magnitude = weights.get(magnitudeName(module));
      const shaped = magnitude && (down.shape.length === 4 ? reshaped(magnitude, [1, magnitude.shape[0]!, 1, 1]) : magnitude); // as peft shapes it
      return [
        [diffusersName(name, module, "down"), down],
        [diffusersName(name, module, "up"), weights.get(upName(module))!],
        ...(shaped ? [[diffusersName(name, module, "magnitude"), shaped] as [string, DeferredTensor]] : []),
      ];
    }),
  );
  return new Map(named);
}

/** The fields of peft's LoraConfig that decide the result, as diffusers keeps them: `<component>.<field>` in one JSON text. */
function peftConfigs(adapters: readonly WrittenAdapter[]): string {
  const fields = adapters.flatMap(({ component, adapter }) => {
    const { rank, alpha, rankStabilized, targets, modules, magnitudes } = adapter;
    const pattern = (value: (size: { rank: number; alpha: number }) => number) => Object.fromEntries([...modules].map(([name, size]) => [name, value(size)]));
    const config = { alpha_pattern: pattern(size => size.alpha), bias: "none", lora_alpha: alpha, lora_dropout: 0, peft_type: "LORA", r: rank };
    const more = { rank_pattern: pattern(size => size.rank), target_modules: targets, use_dora: magnitudes.size > 0, use_rslora: rankStabilized };
    return Object.entries({ ...config, ...more }).map(([name, value]) => [`${component.name}.${name}`, value]);
  });
  return JSON.stringify(Object.fromEntries(fields), null, 2);
}

/** kohya's loaders divide alpha by the rank, whatever scaled the adapter in training. */
function kohyaTensors(adapters: readonly WrittenAdapter[]): Map<string, DeferredTensor> {
  const named = adapters.flatMap(({ component, adapter, weights }) =>
    modulesOf(weights).flatMap((module): [string, DeferredTensor][] => {
      const name = kohyaName(component, module);
      const [down, magnitude] = [weights.get(downName(module))!, weights.get(magnitudeName(module))];
      const shaped = magnitude && reshaped(magnitude, [magnitude.shape[0]!, ...down.shape.slice(1).map(() => 1)]);
      const { rank, alpha } = adapter.sizeOf(module);
      const stored = hostTensor("f32", [], [adapter.rankStabilized ? alpha * Math.sqrt(rank) : alpha]);
      return [
        [`${name}.alpha`, { dtype: "f32", shape: [], read: async () => stored }],
        [`${name}.lora_down.weight`, down],
        [`${name}.lora_up.weight`, weights.get(upName(module))!],
        ...(shaped ? [[`${name}.dora_scale`, shaped] as [string, DeferredTensor]] : []),
      ];
    }),
  );
  return new Map(named);
}

/** Notes of training begin with `ss_`; the hashes are of a file that has those notes alone, so that later notes do not change them (sd-scripts `train_util.py`,
 *  precalculate_safetensors_hashes): sha256 of all behind the header, and eight digits of 64 KiB at 1 MiB, by which older tools know a file. */
async function writeKohya(file: string, adapters: readonly WrittenAdapter[], metadata: Readonly<Record<string, string>>): Promise<void> {
  const { adapter, component } = adapters[0]!;
  const decomposed = adapters.some(each => each.adapter.magnitudes.size > 0);
  const notes: Record<string, string> = {
    ss_network_module: "networks.lora",
    ss_network_dim: String(adapter.rank),
    ss_network_alpha: String(adapter.rankStabilized ? adapter.alpha * Math.sqrt(adapter.rank) : adapter.alpha),
    ...(decomposed && { ss_network_args: JSON.stringify({ dora_wd: "True" }) }),
    ...(component.baseModel && { ss_base_model_version: component.baseModel, ss_v2: component.baseModel.startsWith("sd_v2") ? "True" : "False" }),
  };
  const training = { ...notes, ...Object.fromEntries(Object.entries(metadata).filter(([name]) => name.startsWith("ss_"))) };
  const tensors = kohyaTensors(adapters);
  const draft = `${file}.${process.pid}.draft`;
  try {
    await writeSafetensors(draft, tensors, training);
    await writeSafetensors(file, tensors, { ...training, ...metadata, ...(await kohyaHashes(draft)) });
  } finally {
    await rm(draft, { force: true });
  }
}

async function kohyaHashes(file: string): Promise<Record<string, string>> {
  const handle = await open(file, "r");
  try {
    const length = new BigUint64Array(1);
    await handle.read(new Uint8Array(length.buffer), 0, 8, 0);
    const part = Buffer.alloc(0x10000);
    const { bytesRead } = await handle.read(part, 0, part.length, 0x100000);
    const legacy = createHash("sha256").update(part.subarray(0, bytesRead)).digest("hex").slice(0, 8);
    const data = createHash("sha256");
    for await (const chunk of createReadStream(file, { start: 8 + Number(length[0]) })) data.update(chunk as Buffer);
    return { sshs_model_hash: data.digest("hex"), sshs_legacy_hash: legacy };
  } finally {
    await handle.close();
  }
}

function reshaped(tensor: DeferredTensor, shape: readonly number[]): DeferredTensor {
  return { dtype: tensor.dtype, shape, read: async () => ({ ...(await tensor.read()), shape }) };
}

/** Looks at the values as they are written. */
class Watch {
  readonly #zero = new Map<string, boolean>();
  readonly #broken = new Set<string>();

  over(component: string, weights: WrittenAdapter["weights"]): Map<string, DeferredTensor> {
    const ending = upName("");
    this.#zero.set(component, true);
    const watched = (name: string, tensor: DeferredTensor): DeferredTensor => ({
      ...tensor,
      read: async () => {
        const value = await tensor.read();
        const { finite, zero } = examine(value);
        if (!finite) this.#broken.add(`${component}.${name}`);
        if (name.endsWith(ending) && !zero) this.#zero.set(component, false);
        return value;
      },
    });
    return new Map([...weights].map(([name, tensor]) => [name, watched(name, tensor)]));
  }

  warnings(): string[] {
    const zero = [...this.#zero].filter(([, is]) => is).map(([component]) => `the adapter of ${component} is zero: it changes nothing`);
    const some = [...this.#broken].slice(0, 8).join(", ");
    return [...zero, ...(this.#broken.size > 0 ? [`${this.#broken.size} tensors of the adapter hold NaN or infinity (${some})`] : [])];
  }
}

function examine(value: HostTensor): { finite: boolean; zero: boolean } {
  const numbers = convert(value, value.dtype === "f64" ? "f64" : "f32").data as Float32Array;
  let [finite, zero] = [true, true];
  for (const x of numbers) {
    if (!Number.isFinite(x)) finite = false;
    if (x !== 0) zero = false;
  }
  return { finite, zero };
}
