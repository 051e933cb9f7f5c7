import type { TrainState } from "../../lib/train/train-state.js";

/** A state of an invented run. */
export function stateAt(step: number): TrainState {
  const counters = { step, updates: step, skippedSteps: 0, skippedInARow: 0 };
  return {
    format: 1,
    ...counters,
    objective: "dspo",
    optimizer: "adamw",
    seed: 7,
    effectiveBatch: 4,
    pairs: 100,
    startWeights: "ab",
    ema: false,
    adapter: "none",
  };
}
