/** What a selection promises, in words that can be printed beside it, and what has to be true for it. */

export interface Guarantee {
  /** "finite-sample": for these numbers of units. "as-estimated": as far as estimated weights are right. */
  readonly holds: "finite-sample" | "as-estimated";
  readonly statement: string;
  readonly assumptions: readonly string[];
}

interface Setting {
  readonly alpha: number;
  readonly ties: string;
  readonly kind: string;
  readonly weighted: boolean;
  readonly estimated: boolean;
}

export function guaranteeOf({ alpha, ties, kind, weighted, estimated }: Setting): Guarantee {
  const rate = `Of the units selected, the expected share that is not aligned is at most ${alpha}`;
  const average = "on average over draws of calibration and test units; a single selection can have a larger or smaller share";
  const statement = estimated
    ? `${rate} if the estimated weights are the true density ratios, ${average}. With estimated weights this is not a finite-sample guarantee.`
    : `${rate}, ${average}. This holds for finite samples, any predictor and any model.`;
  const exchangeable = weighted
    ? "Test units are drawn from the calibration distribution with density ratio proportional to the weights, and labels depend on features alike in both."
    : kind === "null-only"
      ? "Calibration and test units that are not aligned are exchangeable with one another."
      : "Each test unit is exchangeable with the calibration units (independent draws from one distribution suffice).";
  return {
    holds: estimated ? "as-estimated" : "finite-sample",
    statement,
    assumptions: [
      exchangeable,
      "The predictor was fixed without looking at labels of calibration units or at test units one by one.",
      "The cutoff and alpha were chosen before the scores were seen, and this is the only selection made with these test units.",
      "A label is what was measured: the guarantee is about measured alignment, not about what it stands for.",
      ...(ties === "deterministic" ? [] : ["Ties were broken by random numbers from the stored seed, drawn without regard to the data."]),
    ],
  };
}
