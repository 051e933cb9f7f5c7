/** What a model predicts, and the only place where one kind becomes another. Every kind is linear in (x, output), so a conversion is two coefficients.
 *  x = signal x0 + noise n; v = signal n - noise x0 (Salimans & Ho 2022, arXiv:2202.00512); flow = n - x0 (Lipman et al. 2023, arXiv:2210.02747).
 *  A level may be given as alphaCumprod, the share of signal power of a process with signal^2 + noise^2 = 1. */

import { type Level, type LinearForm, levelOfAlpha } from "../schedulers/scheduler.js";
import type { PredictionType } from "./noise-schedule.js";

export type { Level, LinearForm } from "../schedulers/scheduler.js";

/** x0 from the model's output. For epsilon prediction a signal of 0 has no answer: the coefficients are then infinite. */
export function cleanSample(kind: PredictionType, level: number | Level): LinearForm {
  const { signal, noise } = levelOf(level);
  if (kind === "epsilon") return { sample: 1 / signal, output: -noise / signal };
  if (kind === "sample") return { sample: 0, output: 1 };
  if (kind === "flow_prediction") return { sample: 1 / (signal + noise), output: -noise / (signal + noise) };
  const power = signal * signal + noise * noise; // 1 of a variance-preserving process
  return { sample: signal / power, output: -noise / power };
}

/** The noise from the model's output. */
export function predictedNoise(kind: PredictionType, level: number | Level): LinearForm {
  const { signal, noise } = levelOf(level);
  if (kind === "epsilon") return { sample: 0, output: 1 };
  if (kind === "sample") return { sample: 1 / noise, output: -signal / noise };
  if (kind === "flow_prediction") return { sample: 1 / (signal + noise), output: signal / (signal + noise) };
  const power = signal * signal + noise * noise;
  return { sample: noise / power, output: signal / power };
}

/** The training target as a combination of clean sample and noise. */
export function targetForm(kind: PredictionType, level: number | Level): { readonly clean: number; readonly noise: number } {
  const { signal, noise } = levelOf(level);
  if (kind === "epsilon") return { clean: 0, noise: 1 };
  if (kind === "sample") return { clean: 1, noise: 0 };
  if (kind === "flow_prediction") return { clean: -1, noise: 1 };
  return { clean: -noise, noise: signal };
}

function levelOf(level: number | Level): Level {
  return typeof level === "number" ? levelOfAlpha(level) : level;
}
