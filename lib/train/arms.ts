/** The arms of an objective as one batch: every sample that it compares, under its condition, with one noise and timestep for all arms of a pair. */

import type { Condition, Denoiser } from "../diffusion/denoiser.js";
import type { NoiseSchedule } from "../diffusion/noise-schedule.js";
import { addNoise, drawTimesteps, type NoiseDraw, noisePairs, shareInPair, streams } from "../diffusion/noising.js";
import { ConfigError } from "../errors.js";
import { add, cast, greater, mul, select, sub } from "../graph/ops/elementwise.js";
import { full, input } from "../graph/ops/leaf.js";
import { randomUniform } from "../graph/ops/random.js";
import { concat, reshape } from "../graph/ops/shape.js";
import { scope, type Tensor } from "../graph/tensor.js";
import { type Arm, armsOf, type Objective } from "../objectives/objective.js";

export interface ArmsOptions {
  readonly denoiser: Denoiser;
  readonly objective: Objective;
  readonly schedule: NoiseSchedule;
  readonly dtype: "f32" | "f64";
  /** Pairs. */
  readonly batch: number;
  readonly noise: "drawn" | "given";
  readonly conditionDropout: number;
}

export interface NoisedArms {
  /** [arms * B, H, W, C], arm by arm. */
  readonly noisy: Tensor;
  readonly target: Tensor;
  /** As the model takes it, [arms * B]. */
  readonly timestep: Tensor;
  readonly condition: Condition;
  /** The pairs' timesteps as indices of the schedule, i32 [B]. */
  readonly index: Tensor;
}

/** Name of the program's input for a sample of a batch, and for a tensor of a condition. */
export const sampleInput = (sample: string): string => (sample === "winners" || sample === "losers" ? sample : `samples/${sample}`);
export const conditionInput = (condition: string, name: string): string => `conditions/${condition}/${name}`;

/** Declares the samples and conditions as inputs and noises them. */
export function noisedArms(options: ArmsOptions): NoisedArms {
  const arms = armsOf(options.objective);
  return { ...noised(options, arms), condition: conditions(options, arms) };
}

function noised({ denoiser, schedule, dtype, batch, noise }: ArmsOptions, arms: readonly Arm[]): Omit<NoisedArms, "condition"> {
  const shape = [batch, ...denoiser.sampleShape];
  const samples = new Map<string, Tensor>();
  for (const { sample } of arms) if (!samples.has(sample)) samples.set(sample, input(sampleInput(sample), { dtype, shape }, "bchw"));
  const drawn = noise === "drawn" ? undefined : givenNoise(shape, dtype);
  const index = drawn?.timestep ?? drawTimesteps(schedule, batch);
  const single = (clean: Tensor) =>
    drawn ? addNoise(schedule, clean, drawn) : noisePairs(schedule, { winners: clean, timestep: index, stream: streams.noise });
  if (arms.length === 2 && samples.size === 2) {
    const [winners, losers] = [...samples.values()] as [Tensor, Tensor];
    if (!drawn) return { ...noisePairs(schedule, { winners, losers, timestep: index, stream: streams.noise }), index };
    return { ...addNoise(schedule, concat([winners, losers], 0), shareInPair(drawn)), index };
  }
  const bySample = new Map([...samples].map(([name, clean]) => [name, single(clean)])); // draws of one stream are the same numbers
  const joined = (of: "noisy" | "target" | "timestep"): Tensor =>
    concat(
      arms.map(({ sample }) => bySample.get(sample)![of]),
      0,
    );
  return { noisy: joined("noisy"), target: joined("target"), timestep: joined("timestep"), index };
}

function givenNoise(shape: readonly number[], dtype: "f32" | "f64"): NoiseDraw {
  return { noise: input("noise", { dtype, shape }, "bchw"), timestep: input("timestep", { dtype: "i32", shape: [shape[0]!] }) };
}

/** The arms' conditions one after the other; a pair that loses its own loses all of them. */
function conditions({ denoiser, batch, conditionDropout }: ArmsOptions, arms: readonly Arm[]): Condition {
  const own = denoiser.condition(batch);
  const names = [...new Set(arms.map(({ condition }) => condition))];
  const sets = new Map<string | undefined, Condition>();
  for (const name of names) {
    const set = name === undefined ? own : mapValues(own, (t, key) => input(conditionInput(name, key), { dtype: t.dtype, shape: t.shape }));
    sets.set(name, dropped(denoiser, set, batch, conditionDropout));
  }
  return mapValues(own, (_, key) =>
    concat(
      arms.map(({ condition }) => sets.get(condition)![key]!),
      0,
    ),
  );
}

/** The condition with some rows replaced by the empty one, so that the model keeps its unconditional half for guidance. */
function dropped(denoiser: Denoiser, condition: Condition, batch: number, probability: number): Condition {
  if (probability === 0) return condition;
  if (!denoiser.uncondition) throw new ConfigError("train", "conditionDropout", "0 for a denoiser without `uncondition`", probability);
  const empty = denoiser.uncondition(condition);
  return scope("condition", () => {
    const drop = greater(full(probability, [batch], "f32"), randomUniform([batch], { stream: streams.conditionDropout }));
    return mapValues(condition, (t, name) => replaced(t, empty[name]!, drop));
  });
}

/** Row i of b where drop[i] is 1, else of a. */
function replaced(a: Tensor, b: Tensor, drop: Tensor): Tensor {
  const perRow = reshape(drop, [drop.shape[0]!, ...a.shape.slice(1).map(() => 1)]);
  if (a.dtype !== "i32") return select(cast(perRow, a.dtype), b, a);
  const chosen = cast(perRow, "i32"); // token ids: there is no integer select
  return add(a, mul(sub(b, a), chosen));
}

export function mapValues(condition: Condition, to: (t: Tensor, name: string) => Tensor): Condition {
  return Object.fromEntries(Object.entries(condition).map(([name, t]) => [name, to(t, name)]));
}
