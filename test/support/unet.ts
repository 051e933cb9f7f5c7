/** A small UNet and inputs for it, for tests of laws that hold for any weights. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { UNetHostInputs } from "../../lib/models/unet-graphs.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { goldenSet } from "./goldens.js";

export { closedAfterTest } from "./models.js";

/** config.json of a golden set, as a fresh object. */
export function goldenConfig(set: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(goldenSet(set), "unet/config.json"), "utf8")) as Record<string, unknown>;
}

/** Numbers in [-1, 1) that look random and are the same in every run. */
export function pseudoRandom(shape: readonly number[], salt = 1): HostTensor {
  const size = shape.reduce((n, d) => n * d, 1);
  const value = (i: number): number => ((Math.imul(i + 1, 2654435761) ^ Math.imul(salt, 40503)) >>> 8) / 2 ** 23 - 1;
  return hostTensor(
    "f32",
    shape,
    Array.from({ length: size }, (_, i) => value(i)),
  );
}

/** Inputs for the set unet-sd-tiny. */
export function smallInputs({
  batch = 2,
  height = 8,
  width = 8,
  salt = 1,
}: {
  batch?: number;
  height?: number;
  width?: number;
  salt?: number;
} = {}): UNetHostInputs {
  return {
    sample: pseudoRandom([batch, 4, height, width], salt),
    timestep: hostTensor(
      "i32",
      [batch],
      Array.from({ length: batch }, (_, i) => (i * 317 + 11) % 1000),
    ),
    encoderHiddenStates: pseudoRandom([batch, 5, 24], salt + 1),
  };
}
