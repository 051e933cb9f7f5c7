/** Reference units, dealt at random to tuning, training and calibration. */

import { ConfigError } from "../errors.js";
import { Random } from "../util/random.js";
import { checkSeed } from "./check.js";

export interface SplitShares {
  /** Share of units on which predictors are compared. */
  readonly tuning: number;
  /** Share of units on which they are fitted; the rest calibrates. */
  readonly training: number;
}

export interface Split {
  readonly tuning: Uint32Array;
  readonly training: Uint32Array;
  readonly calibration: Uint32Array;
}

/** floor(tuning N), floor(training N) and the remainder, each in ascending order. */
export function splitUnits(count: number, { tuning, training }: SplitShares, seed = 0): Split {
  if (!(tuning >= 0 && training > 0 && tuning + training < 1)) {
    throw new ConfigError("splitUnits", "split", "tuning >= 0 and training > 0 with a sum below 1", { tuning, training });
  }
  const order = Uint32Array.from(new Random(checkSeed("splitUnits", seed), "conformal split").shuffle(Array.from({ length: count }, (_, i) => i)));
  const [first, second] = [Math.floor(tuning * count), Math.floor(training * count)];
  return { tuning: order.slice(0, first).sort(), training: order.slice(first, first + second).sort(), calibration: order.slice(first + second).sort() };
}
