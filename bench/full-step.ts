/** Training steps of full-size models, built without a device: what plan.ts plans and floors.ts counts. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { opTable } from "../lib/graph/op.js";
import type { Target } from "../lib/graph/target.js";
import { parseUNetConfig, type UNetConfig } from "../lib/models/unet-config.js";
import { dspo } from "../lib/objectives/dspo.js";
import { type MemoryPlan, planMemory } from "../lib/train/plan-memory.js";

export interface Case {
  readonly model: "sd15" | "sdxl-base";
  readonly dtype: "f32" | "bf16";
  readonly pairs: number;
  /** LoRA rank, or undefined: all parameters are trained and a frozen copy is the reference. */
  readonly rank?: number;
  readonly recompute: "none" | "blocks";
  /** For a backend that has the kernels of all fused ops. */
  readonly fused?: true;
}

/** A backend that has the kernels of all fused ops. */
export const everyKernel: Target = { backend: "cuda", kernels: new Set(opTable.keys()) };

function readConfig(model: Case["model"]): UNetConfig {
  const path = join(__dirname, "..", "..", "..", "bench", "configs", `${model}-unet.json`);
  return parseUNetConfig(JSON.parse(readFileSync(path, "utf8")), path);
}

/** Both programs of a step, and their memory. */
export function planStep({ model, dtype, pairs, rank, recompute, fused }: Case): MemoryPlan {
  return planMemory({
    config: readConfig(model),
    objective: dspo({ beta: 0.01 }),
    batchSize: pairs,
    dtype,
    recompute,
    ...(rank !== undefined && { lora: { rank } }),
    ...(fused && { target: everyKernel }),
  });
}
