/** Pictures from prompts, as PNG files. */

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { decodePng as decodeImage, encodePng } from "../../data/image.js";
import { openDevice } from "../../device.js";
import { DiffusionPipeline } from "../../pipeline/pipeline.js";
import { writeAtomically, writeFully } from "../../util/atomic-file.js";
import { defineCommand } from "../command.js";
import { defined } from "../defined.js";

export const sample = defineCommand({
  name: "sample",
  summary: "makes pictures from prompts",
  async run({ model, output, device: name, dtype, variant, image, mask, lora = [], ...options }, { signal, note, result }) {
    const device = await openDevice(name as Parameters<typeof openDevice>[0]);
    note(device.description);
    const pipeline = await DiffusionPipeline.load(model, { device, dtype, signal, ...(variant !== undefined && { variant }) });
    try {
      for (const given of lora) {
        const [, path = given, strength = "1"] = /^(.*)@(-?[\d.]+)$/.exec(given) ?? [];
        await pipeline.loadLora(path, { name: given, strength: Number(strength), signal });
      }
      await mkdir(output, { recursive: true });
      const read = async (path: string) => decodeImage(await readFile(path), path);
      const pictures = await pipeline.generate({
        ...defined(options),
        ...(image !== undefined && { image: await read(image) }),
        ...(mask !== undefined && { mask: await read(mask) }),
        signal,
        onStep: ({ step, steps, first, pictures: all }) => step % 5 === 0 && note(`picture ${first + 1} of ${all}: step ${step} of ${steps}`),
        onWarning: note,
      });
      for (const [i, picture] of pictures.entries()) {
        const path = join(output, `${String(options.seed + i).padStart(5, "0")}.png`);
        await writeAtomically(path, file => writeFully(file, encodePng(picture)));
        result({ path, seed: options.seed + i, prompt: options.prompt[Math.floor(i / (options.imagesPerPrompt ?? 1))] }, path);
      }
    } finally {
      await pipeline.close();
    }
  },
});
