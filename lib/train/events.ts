/** What a run tells while it goes: a discriminated union on `type`. A loop over events should have a default branch, since a minor version may add types. */

export interface ArenaSize {
  readonly name: string;
  readonly bytes: number;
}

/** Emitted once, before the first step. */
export interface PlanEvent {
  readonly type: "plan";
  readonly objective: string;
  readonly trainableParameters: number;
  /** Pairs (or single samples) per optimizer step: batchSize x gradientAccumulationSteps. */
  readonly effectiveBatch: number;
  readonly pairs: number;
  /** Steps of the whole run, and those already done when it resumes. */
  readonly steps: number;
  readonly startStep: number;
  /** Every arena of the run's programs (weights, gradients, moments, reference, activations), and their sum. */
  readonly memory: { readonly arenas: readonly ArenaSize[]; readonly bytes: number };
}

/** After every optimizer step. */
export interface StepEvent {
  readonly type: "step";
  /** Steps done, from 1. */
  readonly step: number;
  readonly steps: number;
  readonly epoch: number;
  /** Means over the step's micro-batches. */
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
  /** Global L2 norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** The norm was above maxGradNorm. */
  readonly clipped: boolean;
  /** The gradient was not finite: parameters and moments are as before the step. */
  readonly skipped: boolean;
  readonly learningRate: number;
  readonly samplesPerSecond: number;
  readonly etaSeconds: number;
}

export interface BandResult {
  readonly timestep: number;
  /** Mean squared denoising error of the policy divided by the reference's: 1 at the start; healthy training keeps the winners' near or below 1. */
  readonly winnerRatio: number;
  readonly loserRatio: number;
}

export interface ValidationEvent {
  readonly type: "validation";
  readonly step: number;
  readonly pairs: number;
  readonly bands: readonly BandResult[];
  /** Share of (pair, timestep) whose winner gained more on the reference than its loser; ties count one half. */
  readonly implicitAccuracy: number;
}

export interface CheckpointEvent {
  readonly type: "checkpoint";
  readonly step: number;
  readonly path: string;
}

export type WarningCode = "NON_FINITE_GRADIENT" | "REWARD_HACKING_SUSPECTED" | "CHECKPOINT_SKIPPED";

export interface WarningEvent {
  readonly type: "warning";
  readonly step: number;
  readonly code: WarningCode;
  readonly message: string;
}

/** The last event of a run that was not broken off. */
export interface DoneEvent {
  readonly type: "done";
  readonly step: number;
  readonly skippedSteps: number;
  readonly seconds: number;
  /** The last checkpoint written, if the run has an output folder. */
  readonly checkpoint: string | undefined;
}

export type TrainEvent = PlanEvent | StepEvent | ValidationEvent | CheckpointEvent | WarningEvent | DoneEvent;
