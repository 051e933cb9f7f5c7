/** Held-out denoising: the same pairs, noise and timesteps every time, so that two evaluations differ by the weights alone. Training loss says little about
 *  a preference run; the errors of winners and losers against the reference, per timestep band, show both progress and over-optimisation. */

import type { Denoiser } from "../diffusion/denoiser.js";
import type { NoiseSchedule } from "../diffusion/noise-schedule.js";
import { noisePairs } from "../diffusion/noising.js";
import { ConfigError } from "../errors.js";
import { input } from "../graph/ops/leaf.js";
import { pairSums } from "../graph/ops/preference.js";
import { buildGraph, type Graph, type Tensor } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";
import { perSample } from "../objectives/objective.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";
import { mapValues } from "./arms.js";
import type { BandResult, ValidationEvent } from "./events.js";
import type { PairBatch, PairData } from "./pair-data.js";
import { predictBoth } from "./predictions.js";
import { repeated, sampleDtype } from "./step.js";

export interface ValidationOptions {
  /** Held-out pairs; split by prompt, or the numbers flatter the run. */
  readonly data: PairData;
  /** Steps between evaluations (default 100); the end of the run is always evaluated. */
  readonly every?: number;
  /** Timesteps evaluated for every pair (default: the middles of five equal bands). */
  readonly timesteps?: readonly number[];
  /** Seed of the fixed noise (default 0). */
  readonly seed?: number;
  /** A band whose winner error exceeds this many times the reference's raises REWARD_HACKING_SUSPECTED (default 1.25). */
  readonly winnerRatioLimit?: number;
}

/** Philox stream of the fixed noise, apart from those of training and sampling. */
const noiseStream = 32;

export interface ValidationGraphOptions {
  readonly denoiser: Denoiser;
  readonly schedule: NoiseSchedule;
  readonly policy: Params;
  readonly reference: Params;
  readonly batch: number;
}

/** Inputs: winners, losers, timestep [B], the condition. Outputs: E and D of the 2B samples, winners first (objectives/objective.ts). */
export function validationGraph({ denoiser, schedule, policy, reference, batch }: ValidationGraphOptions): Graph {
  const dtype = sampleDtype(policy.store);
  const shape = [batch, ...denoiser.sampleShape];
  return buildGraph(graph => {
    const [winners, losers] = [input("winners", { dtype, shape }, "bchw"), input("losers", { dtype, shape }, "bchw")];
    const noised = noisePairs(schedule, { winners, losers, timestep: input("timestep", { dtype: "i32", shape: [batch] }), stream: noiseStream });
    const condition = denoiser.condition(batch);
    const predict = (params: Params, copies: number): Tensor =>
      denoiser.predict(
        repeated(noised.noisy, copies),
        repeated(noised.timestep, copies),
        mapValues(condition, t => repeated(t, 2 * copies)),
        params,
      );
    const { E, D } = perSample(pairSums({ ...predictBoth({ policy, reference, predict }), target: noised.target }));
    graph.output("E", E);
    graph.output("D", D);
  });
}

/** Middles of five equal bands of [0, T): 100, 300, 500, 700, 900 of 1000. */
export function bandMiddles(schedule: NoiseSchedule): number[] {
  return [0.1, 0.3, 0.5, 0.7, 0.9].map(share => Math.floor(share * schedule.steps));
}

/** What an evaluation says of the weights as they stand. */
export type Evaluation = Omit<ValidationEvent, "type" | "step">;

export interface EvaluateOptions extends ValidationOptions {
  readonly schedule: NoiseSchedule;
  readonly batch: number;
  readonly signal: AbortSignal | undefined;
  /** Runs the validation program: `step` is the number of the band, `sampleOffset` that of the first pair. */
  run(
    inputs: Readonly<Record<string, HostTensor>>,
    scalars: { readonly seed: number; readonly step: number; readonly sampleOffset: number },
  ): Promise<Readonly<Record<string, HostTensor>>>;
}

/** Evaluates every held-out pair at every timestep. A last batch that is not full is filled up with its first pair, which counts once. */
export async function evaluate({ data, schedule, timesteps = bandMiddles(schedule), seed = 0, batch, signal, run }: EvaluateOptions): Promise<Evaluation> {
  const bands = timesteps.map(() => new BandSums());
  for (let first = 0; first < data.length; first += batch) {
    const count = Math.min(batch, data.length - first);
    const indices = Array.from({ length: batch }, (_, i) => (i < count ? first + i : first));
    const inputs = pairInputs(await data.batch(indices, { position: first, signal }));
    for (const [band, timestep] of timesteps.entries()) {
      const times = hostTensor("i32", [batch], new Int32Array(batch).fill(timestep));
      const { E, D } = await run({ ...inputs, timestep: times }, { seed, step: band, sampleOffset: first });
      bands[band]!.add(E!.data as Float64Array, D!.data as Float64Array, batch, count);
    }
  }
  const wins = bands.reduce((sum, band) => sum + band.wins, 0);
  return { pairs: data.length, bands: bands.map((band, i) => band.result(timesteps[i]!)), implicitAccuracy: wins / (data.length * timesteps.length) };
}

function pairInputs({ winners, losers, condition }: PairBatch): Record<string, HostTensor> {
  if (!losers) throw new ConfigError("validation", "data", "pairs with losers", "winners alone");
  return { winners, losers, ...condition };
}

class BandSums {
  wins = 0;
  readonly #error = { winner: 0, loser: 0 };
  readonly #reference = { winner: 0, loser: 0 };

  /** E, D: [2 * batch], of which `count` pairs count. */
  add(E: Float64Array, D: Float64Array, batch: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const j = batch + i;
      this.wins += D[i]! < D[j]! ? 1 : D[i] === D[j] ? 0.5 : 0;
      this.#error.winner += E[i]!;
      this.#error.loser += E[j]!;
      this.#reference.winner += E[i]! - D[i]!;
      this.#reference.loser += E[j]! - D[j]!;
    }
  }

  result(timestep: number): BandResult {
    return { timestep, winnerRatio: this.#error.winner / this.#reference.winner, loserRatio: this.#error.loser / this.#reference.loser };
  }
}

/** The message of REWARD_HACKING_SUSPECTED, or undefined. A ratio that is not a number counts as above the limit. */
export function suspectRewardHacking(bands: readonly BandResult[], limit = 1.25): string | undefined {
  const above = bands.filter(band => !(band.winnerRatio <= limit));
  if (above.length === 0) return undefined;
  const list = above.map(band => `${band.winnerRatio.toFixed(2)} at t = ${band.timestep}`).join(", ");
  return `the held-out error of winners exceeds ${limit} times the reference's (${list}): the policy moves away from both halves of the pairs; stop earlier, lower the learning rate, or raise beta`;
}
