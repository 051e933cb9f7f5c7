/** scheduler_config.json of a pipeline: the forward process that its UNet was trained with, and the sampler that it names. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type NoiseSchedule, noiseScheduleFromConfig } from "../diffusion/noise-schedule.js";
import { schedulerFromConfig } from "../diffusion/scheduler-config.js";
import { DataError } from "../errors.js";
import type { Scheduler } from "../schedulers/scheduler.js";
import { parsePythonJson } from "../util/python-json.js";

/** `folder` is the pipeline's "scheduler". Throws DataError, ConfigError (a class or a field that is not supported). */
export function readSchedule(folder: string): { readonly schedule: NoiseSchedule; readonly scheduler: Scheduler } {
  const path = join(folder, "scheduler_config.json");
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
  const config = parsePythonJson(bytes, path);
  if (typeof config !== "object" || config === null || Array.isArray(config)) throw new DataError(path, "expected a JSON object");
  return {
    schedule: noiseScheduleFromConfig(config as Record<string, unknown>, path),
    scheduler: schedulerFromConfig(config as Record<string, unknown>, path),
  };
}
