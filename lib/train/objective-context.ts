/** What an objective is given beside the sums of its arms: each part is built only if the objective asks for it. */

import { type NoiseSchedule, snr } from "../diffusion/noise-schedule.js";
import { ConfigError } from "../errors.js";
import { cast, sub } from "../graph/ops/elementwise.js";
import { embedding } from "../graph/ops/embed.js";
import { constant, input } from "../graph/ops/leaf.js";
import { pairSums } from "../graph/ops/preference.js";
import { reshape, slice, stopGradient } from "../graph/ops/shape.js";
import { scope, type Tensor, typed } from "../graph/tensor.js";
import { type Objective, type ObjectiveContext, perSample } from "../objectives/objective.js";

export interface ContextOptions {
  readonly objective: Objective;
  readonly schedule: NoiseSchedule;
  readonly batch: number;
  /** i32 [B] */
  readonly index: Tensor;
  readonly prediction: Tensor;
  readonly reference?: Tensor;
  readonly target: Tensor;
  /** The guide's prediction on the same samples. */
  readonly guide?: Tensor | undefined;
}

/** Name of the program's input for a number that the objective declares. */
export const extraInput = (name: string): string => `extras/${name}`;

export function objectiveContext(options: ContextOptions): ObjectiveContext {
  const { objective, schedule, index, prediction, reference, target } = options;
  const { segments = 1, uses = [], inputs = {} } = objective;
  const maps = { target, ...(reference && { reference }), segments };
  const sums = pairSums({ prediction, ...maps });
  return {
    sums: perSample(sums),
    ...(segments > 1 && { segments: sums }),
    ...(uses.includes("guide") && { guide: pairSums({ ...maps, prediction: guideOf(options) }) }),
    ...(uses.includes("cross") && { cross: scope("cross", () => crossOf(prediction, target)) }),
    ...(uses.includes("snr") && { snr: snrAt(schedule, index) }),
    ...(Object.keys(inputs).length > 0 && { inputs: declared(options) }),
  };
}

function guideOf({ guide, objective }: ContextOptions): Tensor {
  if (!guide) throw new ConfigError("train", "guide", `an adapter for the objective ${objective.name}`, guide);
  return guide;
}

function declared({ objective, batch }: ContextOptions): Record<string, Tensor> {
  const shape = (size = 1): number[] => (size === 1 ? [batch] : [batch, size]);
  return Object.fromEntries(Object.entries(objective.inputs!).map(([name, { size }]) => [name, input(extraInput(name), typed("f64", ...shape(size)))]));
}

/** Mean d_w d_l of each pair: the C of sums whose reference is e_w - d_l. */
function crossOf(prediction: Tensor, target: Tensor): Tensor {
  const pairs = target.shape[0]! / 2;
  const half = (x: Tensor, start: number): Tensor => slice(cast(stopGradient(x), target.dtype), { axis: 0, start, length: pairs });
  const [winner, loser] = [half(prediction, 0), half(prediction, pairs)];
  const reference = sub(winner, sub(loser, half(target, pairs)));
  return perSample(pairSums({ prediction: winner, target: half(target, 0), reference })).C;
}

function snrAt(schedule: NoiseSchedule, index: Tensor): Tensor {
  const table = Array.from({ length: schedule.steps }, (_, t) => snr(schedule, t));
  return reshape(embedding(constant(table, [schedule.steps, 1], "f64"), index), [index.shape[0]!]);
}
