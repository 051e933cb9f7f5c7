/** Checkpoints between one file and a diffusers folder. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type ToDiffusersOptions, toDiffusers, toSingleFile } from "../../models/single-file.js";
import { parseStrictJson } from "../../util/strict-json.js";
import { defineCommand } from "../command.js";

export const convert = defineCommand({
  name: "convert",
  summary: "a single-file checkpoint to a diffusers folder, and back",
  async run({ from, to, format, configs, predictionType }, { note, result, signal }) {
    const control = { signal, onProgress: (done: number, total: number) => void (done % 100 === 0 && note(`${done} of ${total} tensors`)) };
    if (format === "diffusers") {
      const { family, parts, ignored } = await toDiffusers(from, to, {
        ...control,
        ...(predictionType && { predictionType }),
        ...(configs !== undefined && { configs: configsOf(configs) }),
      });
      if (ignored.length > 0)
        note(`${ignored.length} tensors stand for nothing in a folder: ${ignored.slice(0, 5).join(", ")}${ignored.length > 5 ? ", ..." : ""}`);
      return result({ path: to, family, parts, ignored }, `${to}: ${family}, ${parts.join(", ")}; a tokenizer is not in such files`);
    }
    const { family, parts } = await toSingleFile(from, to, control);
    result({ path: to, family, parts }, `${to}: ${family}, ${parts.join(", ")}`);
  },
});

function configsOf(folder: string): NonNullable<ToDiffusersOptions["configs"]> {
  const paths = (["unet", "vae", "text_encoder", "text_encoder_2"] as const).map(part => [part, join(folder, part, "config.json")] as const);
  return Object.fromEntries(
    paths.filter(([, path]) => existsSync(path)).map(([part, path]) => [part, parseStrictJson(readFileSync(path), path) as Record<string, unknown>]),
  );
}
