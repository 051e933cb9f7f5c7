/** What a model predicts, and the only place where one kind becomes another. Every kind is linear in (x_t, output), so a conversion is two coefficients.
 *  x_t = sqrt(a) x0 + sqrt(1 - a) n with a = alphasCumprod[t]; v = sqrt(a) n - sqrt(1 - a) x0 (Salimans & Ho 2022, arXiv:2202.00512). */

import type { PredictionType } from "./noise-schedule.js";

/** value = sample * x_t + output * model(x_t, t) */
export interface LinearForm {
  readonly sample: number;
  readonly output: number;
}

/** x0 from the model's output. For epsilon prediction a = 0 has no answer: the coefficients are then infinite. */
export function cleanSample(kind: PredictionType, alphaCumprod: number): LinearForm {
  const signal = Math.sqrt(alphaCumprod),
    noise = Math.sqrt(1 - alphaCumprod);
  if (kind === "epsilon") return { sample: 1 / signal, output: -noise / signal };
  if (kind === "v_prediction") return { sample: signal, output: -noise };
  return { sample: 0, output: 1 };
}

/** The noise from the model's output. */
export function predictedNoise(kind: PredictionType, alphaCumprod: number): LinearForm {
  const signal = Math.sqrt(alphaCumprod),
    noise = Math.sqrt(1 - alphaCumprod);
  if (kind === "epsilon") return { sample: 0, output: 1 };
  if (kind === "v_prediction") return { sample: noise, output: signal };
  return { sample: 1 / noise, output: -signal / noise };
}

/** The training target as a combination of clean sample and noise. */
export function targetForm(kind: PredictionType, alphaCumprod: number): { readonly clean: number; readonly noise: number } {
  if (kind === "epsilon") return { clean: 0, noise: 1 };
  if (kind === "v_prediction") return { clean: -Math.sqrt(1 - alphaCumprod), noise: Math.sqrt(alphaCumprod) };
  return { clean: 1, noise: 0 };
}
