/** The scales of the objectives' options. Papers call several things beta that differ by a factor of a million; a value of another method's scale trains
 *  nothing or destroys the model, so it is refused where it is received, with the scale that was probably meant. */

import { ConfigError } from "../errors.js";
import type { Tensor } from "../graph/tensor.js";
import type { ObjectiveContext } from "./objective.js";

/** An inverse temperature on Diffusion-DPO's scale: 1 / (mean squared error), where the margin is -(beta / 2) times a difference of mean squared errors. */
export function checkErrorBeta(subject: string, value: number, { option = "beta", usual = "500 to 5000" } = {}): void {
  if (value >= 10 && Number.isFinite(value)) return;
  const hint = "values below 1 are dspo's scale: there beta multiplies a prediction difference, here an error difference";
  throw new ConfigError(subject, option, `a finite number >= 10 (${usual} in practice)`, value, hint);
}

/** An inverse temperature in units of the log-ratio, which `kappa` has taken out of errors already. */
export function checkLogRatioBeta(subject: string, value: number, option = "beta"): void {
  if (value > 0 && value < 10) return;
  const hint = "500 to 5000 is the scale of diffusionDpo: there beta multiplies errors, here log-ratios; errors are scaled by kappa";
  throw new ConfigError(subject, option, "in (0, 10)", value, hint);
}

/** The factor from mean squared errors to log-ratios. */
export function checkKappa(subject: string, value: number): void {
  if (value >= 1 && Number.isFinite(value)) return;
  throw new ConfigError(
    subject,
    "kappa",
    "a finite number >= 1 (100 to 10000 in practice)",
    value,
    "it scales mean squared errors to log-ratios of a few units",
  );
}

export interface Range {
  readonly above?: number;
  readonly least?: number;
  readonly below?: number;
  readonly most?: number;
  readonly hint?: string;
}

/** A finite number in a range. */
export function checkRange(subject: string, option: string, value: number, { above, least, below, most, hint }: Range): void {
  const fits =
    Number.isFinite(value) &&
    (above === undefined || value > above) &&
    (least === undefined || value >= least) &&
    (below === undefined || value < below) &&
    (most === undefined || value <= most);
  if (fits) return;
  const low = above !== undefined ? `> ${above}` : least !== undefined ? `>= ${least}` : "";
  const high = below !== undefined ? `< ${below}` : most !== undefined ? `<= ${most}` : "";
  throw new ConfigError(subject, option, ["a finite number", [low, high].filter(Boolean).join(" and ")].filter(Boolean).join(" "), value, hint);
}

/** What the step must have handed over. Throws ConfigError naming it. */
export function given<K extends "segments" | "guide" | "cross" | "snr">(ctx: ObjectiveContext, subject: string, part: K): NonNullable<ObjectiveContext[K]> {
  const value = ctx[part];
  if (value === undefined) throw new ConfigError(subject, part, "part of the objective's context", value);
  return value;
}

/** A declared input of the objective. Throws ConfigError naming it. */
export function givenInput({ inputs }: ObjectiveContext, subject: string, name: string): Tensor {
  const value = inputs?.[name];
  if (value === undefined) throw new ConfigError(subject, `extras.${name}`, "given with every batch", value);
  return value;
}
