/** Exponential moving average of the parameters: the decay of each update by the formula of diffusers `EMAModel` (diffusers 0.40 training_utils.py).
 *  shadow += (1 - decay) (parameter - shadow); the first update has decay 0, so the shadow starts as a copy. */

import { ConfigError } from "../errors.js";
import { ema } from "../graph/ops/optimizer.js";
import { buildGraph, type Graph } from "../graph/tensor.js";
import type { ParameterStore } from "../nn/params.js";

export interface EmaOptions {
  /** Upper bound of the decay, in [0, 1) (default 0.9999). */
  readonly decay?: number;
  /** Lower bound of the decay once averaging has begun (default 0). */
  readonly minDecay?: number;
  /** Updates during which the shadow stays a copy (default 0). */
  readonly updateAfterStep?: number;
  /** Ramp 1 - (1 + k / invGamma)^-power in place of (1 + k) / (10 + k) (default: the latter). */
  readonly warmup?: { /** default 1 */ readonly invGamma?: number /** default 2/3; 3/4 for runs below 1e5 steps */; readonly power?: number };
}

/** Decay of update number `update`, counted from 1. */
export type EmaDecay = (update: number) => number;

/** Checks the options and returns the decay of each update. Throws ConfigError. */
export function emaDecay({ decay = 0.9999, minDecay = 0, updateAfterStep = 0, warmup }: EmaOptions = {}): EmaDecay {
  if (!(decay >= 0 && decay < 1)) throw new ConfigError("ema", "decay", "in [0, 1)", decay);
  if (!(minDecay >= 0 && minDecay <= decay)) throw new ConfigError("ema", "minDecay", `in [0, decay = ${decay}]`, minDecay);
  if (!Number.isSafeInteger(updateAfterStep) || updateAfterStep < 0) throw new ConfigError("ema", "updateAfterStep", "an integer >= 0", updateAfterStep);
  const { invGamma = 1, power = 2 / 3 } = warmup ?? {};
  if (!(invGamma > 0 && power > 0)) throw new ConfigError("ema", "warmup", "invGamma > 0 and power > 0", { invGamma, power });
  return update => {
    const k = update - updateAfterStep - 1;
    if (k <= 0) return 0;
    const ramp = warmup ? 1 - (1 + k / invGamma) ** -power : (1 + k) / (10 + k);
    return Math.max(minDecay, Math.min(ramp, decay));
  };
}

/** One update of the average: shadow += (1 - decay) (parameter - shadow), decay in slot "emaDecay". */
export function averageGraph(average: ParameterStore, trainable: ParameterStore): Graph {
  return buildGraph(() => void ema(average.flat(), trainable.flat()));
}
