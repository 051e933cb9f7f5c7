/** What the model itself says about an output: how well it predicts the noise that is put on it. The prompt's gain in that error is the diffusion classifier
 *  (Li et al. 2023, Clark & Jaini 2023); the policy's gain over its reference is the implicit reward of preference training. */

import { ConfigError, ShapeError } from "../../errors.js";
import { type FeatureTable, featureTable } from "./table.js";

/** Mean squared errors of one output each, timestep-major: [timesteps * draws], ascending timesteps. Arms must share noise and timesteps draw by draw, or their
 *  difference is mostly noise. */
export interface DenoisingErrors {
  readonly timesteps: number;
  /** Under the output's prompt. */
  readonly conditional: readonly ArrayLike<number>[];
  /** Under the empty prompt. */
  readonly unconditional?: readonly ArrayLike<number>[];
  /** Of the reference model, under the prompt. */
  readonly reference?: readonly ArrayLike<number>[];
}

/** Columns: denoising.mean; .low, .high (mean over the lower and upper half of timesteps; the middle one counts to both); .deviation (over draws at one timestep, averaged);
 *  .slope (least squares over timesteps scaled to [0, 1]); .promptGain (unconditional minus conditional) and .promptGainError (its standard error over
 *  timesteps and draws); .policyGain (reference minus policy). Gains only where their errors are given. */
export function denoisingErrorFeatures({ timesteps, conditional, unconditional, reference }: DenoisingErrors): FeatureTable {
  if (!(Number.isInteger(timesteps) && timesteps >= 1)) throw new ConfigError("denoisingErrorFeatures", "timesteps", "a whole number >= 1", timesteps);
  const size = conditional[0]?.length ?? timesteps;
  for (const [arm, outputs] of Object.entries({ conditional, unconditional, reference })) {
    if (!outputs) continue;
    if (outputs.length !== conditional.length)
      throw new ShapeError("denoisingErrorFeatures", `expected ${conditional.length} outputs in ${arm}, received ${outputs.length}`);
    for (const [row, errors] of outputs.entries())
      if (errors.length !== size || size % timesteps !== 0 || size === 0)
        throw new ShapeError(
          "denoisingErrorFeatures",
          `expected ${size} errors (a multiple of ${timesteps}) for output ${row} in ${arm}, received ${errors.length}`,
        );
  }
  const steps = conditional.map(errors => byTimestep(errors, timesteps)),
    half = Math.ceil(timesteps / 2);
  const gain = (arm: readonly ArrayLike<number>[]): number[][] => conditional.map((errors, row) => Array.from(errors, (e, i) => arm[row]![i]! - e));
  const promptGain = unconditional && gain(unconditional);
  return featureTable({
    "denoising.mean": steps.map(s => mean(s.map(mean))),
    "denoising.low": steps.map(s => mean(s.slice(0, half).map(mean))),
    "denoising.high": steps.map(s => mean(s.slice(-half).map(mean))),
    "denoising.deviation": steps.map(s => mean(s.map(deviation))),
    "denoising.slope": steps.map(s => slope(s.map(mean))),
    ...(promptGain && { "denoising.promptGain": promptGain.map(mean), "denoising.promptGainError": promptGain.map(g => deviation(g) / Math.sqrt(g.length)) }),
    ...(reference && { "denoising.policyGain": gain(reference).map(mean) }),
  });
}

function byTimestep(errors: ArrayLike<number>, timesteps: number): number[][] {
  const draws = errors.length / timesteps;
  return Array.from({ length: timesteps }, (_, t) => Array.from({ length: draws }, (_, k) => errors[t * draws + k]!));
}

const mean = (v: readonly number[]): number => v.reduce((a, b) => a + b, 0) / v.length;
const deviation = (v: readonly number[]): number => Math.sqrt(mean(v.map(x => (x - mean(v)) ** 2)));

function slope(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const at = values.map((_, t) => t / (values.length - 1) - 0.5);
  return at.reduce((sum, t, i) => sum + t * values[i]!, 0) / at.reduce((sum, t) => sum + t * t, 0);
}
