/** What a training step needs, from a config alone: no weight is read, nothing is allocated. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { readConfig } from "../../models/model-handle.js";
import { parseUNetConfig } from "../../models/unet-config.js";
import { parseVaeConfig, vaeFactor } from "../../models/vae-config.js";
import { diffusionDpo } from "../../objectives/diffusion-dpo.js";
import { planMemory } from "../../train/plan-memory.js";
import { formatBytes } from "../../util/bytes.js";
import { defineCommand } from "../command.js";
import { defined } from "../defined.js";

export const plan = defineCommand({
  name: "plan",
  summary: "says how much memory a training step takes, before anything is loaded",
  positional: "model",
  async run({ model, pairs, height, width, dtype, recompute, lora }, io) {
    const unet = existsSync(join(model, "unet")) ? join(model, "unet") : model;
    const config = readConfig(unet, parseUNetConfig);
    const factor = existsSync(join(model, "vae/config.json")) ? vaeFactor(readConfig(join(model, "vae"), parseVaeConfig)) : unet === model ? 8 : 1;
    const sides = { ...(height !== undefined && { height: height / factor }), ...(width !== undefined && { width: width / factor }) };
    const planned = planMemory({
      config,
      objective: diffusionDpo({ beta: 2000 }),
      batchSize: pairs,
      dtype,
      recompute,
      ...sides,
      ...(lora && { lora: defined(lora) }),
    });
    const { arenas, bytes, largest, trainableParameters, flops, traffic, programs } = planned;
    const instructions = { micro: programs.micro.instructions.length, update: programs.update.instructions.length };
    io.result(
      { bytes, arenas, largest, trainableParameters, flops, traffic, instructions },
      [
        `${formatBytes(bytes)} for ${pairs} pair${pairs === 1 ? "" : "s"}, ${lora ? `LoRA of rank ${lora.rank}` : "all weights"}, ${dtype}: ${trainableParameters} trainable parameters`,
        ...arenas.map(a => `  ${formatBytes(a.bytes).padStart(9)}  ${a.name === "scratch" ? "activations" : a.name}`),
        `a step: ${(flops / 1e12).toFixed(2)} TFLOP, ${formatBytes(traffic)} read and written, ${instructions.micro} + ${instructions.update} instructions`,
        "largest buffers at the peak:",
        ...largest.map(b => `  ${formatBytes(b.bytes).padStart(9)}  ${b.name}`),
      ].join("\n"),
    );
  },
});
