/** Where a run stands, as its checkpoints hold it in `state.json`, and which parts of a run must agree before it may be resumed. */

import { CheckpointError } from "../errors.js";

/** What may not change between the parts of one run. Learning rate, beta and clipping are not here: they may be changed on purpose. */
export interface RunIdentity {
  readonly objective: string;
  readonly optimizer: string;
  readonly seed: number;
  /** Pairs per optimizer step. */
  readonly effectiveBatch: number;
  /** Pairs in the data set. */
  readonly pairs: number;
  /** SHA-256 of the frozen weights the policy is compared with or built on. */
  readonly startWeights: string;
  /** Whether an average of the parameters is kept. */
  readonly ema: boolean;
  /** Rank and scaling of the adapter that is trained, or "none". */
  readonly adapter: string;
}

export interface TrainState extends RunIdentity {
  readonly format: 1;
  /** Optimizer steps done, skipped ones included: the position in the data follows from it. */
  readonly step: number;
  /** Updates applied: the t of the bias corrections, and of the average's decay. */
  readonly updates: number;
  readonly skippedSteps: number;
  /** Skipped steps since the last applied one. */
  readonly skippedInARow: number;
}

const identity: { readonly [K in keyof RunIdentity]: "string" | "number" | "boolean" } = {
  objective: "string",
  optimizer: "string",
  seed: "number",
  effectiveBatch: "number",
  pairs: "number",
  startWeights: "string",
  ema: "boolean",
  adapter: "string",
};
const counters = ["step", "updates", "skippedSteps", "skippedInARow"] as const;

/** Checks the contents of state.json. Throws CheckpointError naming the field. */
export function parseState(json: unknown, path: string): TrainState {
  const state = (json ?? {}) as Record<string, unknown>;
  if (state.format !== 1) throw new CheckpointError(path, `expected state.json of format 1, received ${JSON.stringify(state.format)}`);
  for (const name of counters)
    if (!Number.isSafeInteger(state[name]) || (state[name] as number) < 0)
      throw new CheckpointError(path, `expected ${name} in state.json to be a whole number, received ${JSON.stringify(state[name])}`);
  for (const [name, type] of Object.entries(identity))
    if (typeof state[name] !== type) throw new CheckpointError(path, `expected ${name} in state.json to be a ${type}, received ${JSON.stringify(state[name])}`);
  return state as unknown as TrainState;
}

/** Throws CheckpointError listing everything in which the checkpoint's run differs from this one. */
export function checkIdentity(state: TrainState, run: RunIdentity, path: string): void {
  const differing = (Object.keys(identity) as (keyof RunIdentity)[]).filter(name => state[name] !== run[name]);
  if (differing.length === 0) return;
  const parts = differing.map(name => `${name} ${JSON.stringify(state[name])}, this run has ${JSON.stringify(run[name])}`);
  throw new CheckpointError(path, `expected the checkpoint of the same run, received one with ${parts.join("; ")}`);
}
