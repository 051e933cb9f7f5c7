/** The forward process: betas and cumulative alphas of a diffusers `scheduler_config.json`, and what follows from them. The tables hold float32 values, as
 *  diffusers' do (cumulative products in double, rounded to float32 at every entry), so that noised samples agree with theirs. */

import { ConfigError } from "../errors.js";
import { cleanSample, type LinearForm, predictedNoise } from "./prediction.js";

/** "flow_prediction": noise - clean, of models of rectified flow. */
export type PredictionType = "epsilon" | "v_prediction" | "sample" | "flow_prediction";
export type BetaSchedule = "linear" | "scaled_linear" | "squaredcos_cap_v2";

export interface NoiseScheduleOptions {
  /** Number of training timesteps T. */
  readonly numTrainTimesteps?: number;
  readonly betaSchedule?: BetaSchedule;
  readonly betaStart?: number;
  readonly betaEnd?: number;
  /** Rescale so that the last step holds no signal, Lin et al. 2023, arXiv:2305.08891, algorithm 1. Needs v or sample prediction. */
  readonly rescaleBetasZeroSnr?: boolean;
  readonly predictionType?: PredictionType;
}

export interface NoiseSchedule {
  readonly steps: number;
  readonly predictionType: PredictionType;
  /** [T], float32 values. */
  readonly betas: Float64Array;
  /** [T], float32 values: alphasCumprod[t] is the share of signal power at t. */
  readonly alphasCumprod: Float64Array;
  /** Coefficients of the clean sample in (x_t, model output) at timestep t. */
  cleanSample(t: number): LinearForm;
  /** Coefficients of the noise in (x_t, model output) at timestep t. */
  predictedNoise(t: number): LinearForm;
}

const f32 = Math.fround;

/** Builds the tables. Defaults are Stable Diffusion's: 1000 steps, scaled_linear from 0.00085 to 0.012, epsilon prediction. */
export function noiseSchedule(options: NoiseScheduleOptions = {}): NoiseSchedule {
  const {
    numTrainTimesteps: steps = 1000,
    betaSchedule = "scaled_linear",
    betaStart = 0.00085,
    betaEnd = 0.012,
    predictionType = "epsilon",
    rescaleBetasZeroSnr = false,
  } = options;
  if (!Number.isSafeInteger(steps) || steps < 2) throw new ConfigError("noiseSchedule", "numTrainTimesteps", "an integer >= 2", steps);
  if (!(betaStart > 0 && betaEnd < 1 && betaStart < betaEnd))
    throw new ConfigError("noiseSchedule", "betaStart, betaEnd", "0 < betaStart < betaEnd < 1", [betaStart, betaEnd]);
  if (rescaleBetasZeroSnr && predictionType === "epsilon")
    throw new ConfigError(
      "noiseSchedule",
      "predictionType",
      "v_prediction or sample where rescaleBetasZeroSnr is set",
      predictionType,
      "noise cannot be told from a sample that is all noise",
    );
  let betas = betaTable(betaSchedule, steps, betaStart, betaEnd);
  if (rescaleBetasZeroSnr) betas = zeroTerminalSnr(betas);
  const alphasCumprod = cumulativeAlphas(betas);
  return {
    steps,
    predictionType,
    betas,
    alphasCumprod,
    cleanSample: t => cleanSample(predictionType, alphasCumprod[t]!),
    predictedNoise: t => predictedNoise(predictionType, alphasCumprod[t]!),
  };
}

/** Reads the fields of a diffusers scheduler config that define the forward process; the others belong to samplers. */
export function noiseScheduleFromConfig(config: Readonly<Record<string, unknown>>, source: string): NoiseSchedule {
  const betaSchedule = field(config, source, "beta_schedule", "linear", ["linear", "scaled_linear", "squaredcos_cap_v2"] as const);
  const predictionType = field(config, source, "prediction_type", "epsilon", ["epsilon", "v_prediction", "sample"] as const);
  if (config.trained_betas != null) throw new ConfigError(source, "trained_betas", "null", "a table");
  const number = (name: string, fallback: number): number => {
    const value = config[name] ?? fallback;
    if (typeof value !== "number") throw new ConfigError(source, name, "a number", value);
    return value;
  };
  return noiseSchedule({
    numTrainTimesteps: number("num_train_timesteps", 1000),
    betaStart: number("beta_start", 0.0001),
    betaEnd: number("beta_end", 0.02),
    betaSchedule,
    predictionType,
    rescaleBetasZeroSnr: config.rescale_betas_zero_snr === true,
  });
}

/** Signal-to-noise ratio at t: alphasCumprod / (1 - alphasCumprod). */
export function snr(schedule: NoiseSchedule, t: number): number {
  const a = schedule.alphasCumprod[t]!;
  return a / (1 - a);
}

function field<T extends string>(config: Readonly<Record<string, unknown>>, source: string, name: string, fallback: T, allowed: readonly T[]): T {
  const value = config[name] ?? fallback;
  if (!allowed.includes(value as T)) throw new ConfigError(source, name, `one of ${allowed.join(", ")}`, value);
  return value as T;
}

function betaTable(kind: BetaSchedule, steps: number, start: number, end: number): Float64Array {
  if (kind === "linear") return linspace(f32(start), f32(end), steps);
  if (kind === "scaled_linear") return linspace(f32(Math.sqrt(start)), f32(Math.sqrt(end)), steps).map(b => f32(b * b));
  const bar = (x: number): number => Math.cos(((x + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
  return Float64Array.from({ length: steps }, (_, i) => f32(Math.min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999)));
}

/** torch.linspace in float32: from both ends towards the middle, with one rounding an entry (a fused multiply-add). */
function linspace(start: number, end: number, steps: number): Float64Array {
  const step = f32(f32(end - start) / (steps - 1));
  return Float64Array.from({ length: steps }, (_, i) => f32(i < steps / 2 ? start + step * i : end - step * (steps - 1 - i)));
}

function cumulativeAlphas(betas: Float64Array): Float64Array {
  let product = 1;
  return betas.map(beta => {
    product *= f32(1 - beta);
    return f32(product);
  });
}

/** Shifts and scales sqrt(alphasCumprod) so that its last entry is 0 and its first is kept. */
function zeroTerminalSnr(betas: Float64Array): Float64Array {
  const root = cumulativeAlphas(betas).map(a => f32(Math.sqrt(a)));
  const first = root[0]!,
    last = root.at(-1)!;
  const shrink = f32(first / f32(first - last));
  const bar = root.map(r => {
    const shifted = f32(f32(r - last) * shrink);
    return f32(shifted * shifted);
  });
  return bar.map((a, i) => f32(1 - (i === 0 ? a : f32(a / bar[i - 1]!))));
}
