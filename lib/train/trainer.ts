/** A preference run from start, or from a checkpoint, to its last step: `for await (const event of trainer.run())`. Nothing happens before the loop begins;
 *  leaving it with `break` saves a checkpoint of the last whole step. */

import { ConfigError, NonFiniteError } from "../errors.js";
import type { LoraAdapter } from "../nn/lora.js";
import { BatchFeed } from "./batch-feed.js";
import { type Checkpoint, latestCheckpoint, listCheckpoints, openCheckpoint, saveCheckpoint } from "./checkpoint.js";
import { type EmaDecay, emaDecay } from "./ema.js";
import type { CheckpointEvent, PlanEvent, StepEvent, TrainEvent, WarningEvent } from "./events.js";
import { RunPrograms } from "./run-programs.js";
import { RunWeights } from "./run-weights.js";
import { shuffledOrder } from "./sampler.js";
import { checkIdentity, type RunIdentity, type TrainState } from "./train-state.js";
import { type Settings, settingsOf, type TrainerOptions } from "./trainer-options.js";
import { suspectRewardHacking } from "./validation.js";

/** Steps in a row with a gradient that is not finite, after which a run gives up. */
const nonFiniteLimit = 3;

type Counters = Pick<TrainState, "step" | "updates" | "skippedSteps" | "skippedInARow">;

export class PreferenceTrainer {
  readonly #settings: Settings;
  readonly #weights: RunWeights;
  readonly #emaDecay: EmaDecay | undefined;
  #programs: RunPrograms | undefined;
  #identity: RunIdentity | undefined;
  #at: Counters = { step: 0, updates: 0, skippedSteps: 0, skippedInARow: 0 };
  #saved: { readonly step: number; readonly path: string } | undefined;
  #running = false;
  /** An update has begun and not ended: the weights are those of no step. */
  #torn = false;

  /** Throws ConfigError where options do not fit each other or the model. */
  constructor(options: TrainerOptions) {
    const settings = settingsOf(options);
    const { model, lora, guide, optimizer, ema, objective, validation } = settings;
    this.#settings = settings;
    this.#emaDecay = ema && emaDecay(ema);
    this.#weights = new RunWeights({ model, lora, guide, optimizer, ema: ema !== undefined, reference: objective.usesReference || validation !== undefined });
  }

  /** Steps done. */
  get step(): number {
    return this.#at.step;
  }

  /** The adapter being trained, if the run trains one. */
  get adapter(): LoraAdapter | undefined {
    return this.#weights.adapter;
  }

  /** Makes the moving average the model's weights (or the adapter's), for use after the run. */
  async applyEma(): Promise<void> {
    await this.#weights.applyAverage();
  }

  /** Trains to the last step. `break` stops after the step whose event was received; `signal` within one micro-batch, and the loop throws its reason. Either
   *  way, and on any error, the last whole step is saved where there is an output folder. Called again, it goes on. */
  async *run({ signal }: { readonly signal?: AbortSignal | undefined } = {}): AsyncGenerator<TrainEvent, void, undefined> {
    if (this.#running) throw new ConfigError("PreferenceTrainer.run", "the trainer", "idle", "running");
    this.#running = true;
    try {
      yield* this.#whole(signal);
    } finally {
      this.#running = false;
    }
  }

  async *#whole(signal: AbortSignal | undefined): AsyncGenerator<TrainEvent> {
    const began = performance.now();
    let left = true; // by break: then nothing below a yield runs, but `finally`
    try {
      signal?.throwIfAborted();
      yield* this.#begin();
      yield* this.#train(signal);
      const saved = await this.#save();
      if (saved) yield saved;
      const { step, skippedSteps } = this.#at;
      yield { type: "done", step, skippedSteps, seconds: (performance.now() - began) / 1000, checkpoint: this.#saved?.path };
      left = false;
    } catch (error) {
      left = false;
      await this.#save().catch(() => {}); // the first error is the one to report
      throw error;
    } finally {
      if (left) await this.#save();
    }
  }

  async *#begin(): AsyncGenerator<TrainEvent> {
    if (this.#torn)
      throw new ConfigError("PreferenceTrainer.run", "the weights", "those of a whole step", "an update that failed half way", "resume from a checkpoint");
    if (this.#programs) await this.#weights.clearGradients();
    else yield* this.#start();
    yield this.#plan();
  }

  /** Brings weights and counters to where the run begins. */
  async *#start(): AsyncGenerator<TrainEvent> {
    const { output, resume, seed } = this.#settings;
    if (!resume && output !== undefined && (await listCheckpoints(output)).length > 0)
      throw new ConfigError("PreferenceTrainer", "output", 'a folder without checkpoints, or resume: "latest"', output);
    const programs = new RunPrograms(this.#settings, this.#weights);
    await this.#weights.start(seed);
    this.#identity = await this.#describe();
    if (resume) {
      const { checkpoint, warnings } = await this.#find(resume);
      yield* warnings;
      if (checkpoint) await this.#resume(checkpoint, this.#identity);
    }
    this.#programs = programs;
  }

  async #describe(): Promise<RunIdentity> {
    const { objective, optimizer, seed, data, ema, output, resume } = this.#settings;
    const { adapter } = this.#weights;
    const startWeights = output === undefined && !resume ? "" : await this.#weights.fingerprint();
    return {
      objective: objective.name,
      optimizer: optimizer.name,
      seed,
      effectiveBatch: this.#effectiveBatch,
      pairs: data.length,
      startWeights,
      ema: ema !== undefined,
      adapter: adapter ? `lora rank ${adapter.rank} scaling ${adapter.scaling}` : "none",
    };
  }

  async #find(resume: string): Promise<{ checkpoint: Checkpoint | undefined; warnings: WarningEvent[] }> {
    if (resume !== "latest") return { checkpoint: await openCheckpoint(resume), warnings: [] };
    const { checkpoint, passedOver } = await latestCheckpoint(this.#settings.output!);
    const warnings = passedOver.map(
      ({ message }): WarningEvent => ({ type: "warning", step: checkpoint?.state.step ?? 0, code: "CHECKPOINT_SKIPPED", message }),
    );
    return { checkpoint, warnings };
  }

  async #resume(checkpoint: Checkpoint, identity: RunIdentity): Promise<void> {
    checkIdentity(checkpoint.state, identity, checkpoint.path);
    await this.#weights.restore(checkpoint);
    const { step, updates, skippedSteps, skippedInARow } = checkpoint.state;
    this.#at = { step, updates, skippedSteps, skippedInARow };
    this.#saved = { step, path: checkpoint.path };
  }

  #plan(): PlanEvent {
    const { objective, data, steps } = this.#settings;
    const { arenas } = this.#programs!;
    return {
      type: "plan",
      objective: objective.name,
      trainableParameters: this.#weights.trainable.count,
      effectiveBatch: this.#effectiveBatch,
      pairs: data.length,
      steps,
      startStep: this.#at.step,
      memory: { arenas, bytes: arenas.reduce((sum, arena) => sum + arena.bytes, 0) },
    };
  }

  get #effectiveBatch(): number {
    return this.#settings.batchSize * this.#settings.gradientAccumulationSteps;
  }

  async *#train(signal: AbortSignal | undefined): AsyncGenerator<TrainEvent> {
    const { data, seed, batchSize, steps, validation, checkpointEvery } = this.#settings;
    const order = shuffledOrder({ length: data.length, seed });
    const pairs = this.#effectiveBatch;
    const feed = new BatchFeed({ data, order, size: batchSize, first: this.#at.step * pairs, end: steps * pairs, signal });
    const clock = new StepClock();
    while (this.#at.step < steps) {
      const event = await clock.measure(() => this.#oneStep(feed, signal));
      const { step } = this.#at;
      yield { ...event, samplesPerSecond: this.#effectiveBatch / clock.seconds, etaSeconds: (steps - step) * clock.seconds };
      if (event.skipped) yield* this.#nonFinite();
      if (validation && (step % (validation.every ?? 100) === 0 || step === steps)) yield* this.#validate(signal);
      const saved = step % checkpointEvery === 0 ? await this.#save() : undefined;
      if (saved) yield saved;
    }
  }

  /** All micro-batches of a step, then the update, which is never broken off half way. */
  async #oneStep(feed: BatchFeed, signal: AbortSignal | undefined): Promise<Omit<StepEvent, "samplesPerSecond" | "etaSeconds">> {
    const { steps, batchSize, gradientAccumulationSteps, data, optimizer, learningRateSchedule, maxGradNorm, seed } = this.#settings;
    const { step } = this.#at;
    const micros: Record<string, number>[] = [];
    for (let micro = 0; micro < gradientAccumulationSteps; micro++) {
      signal?.throwIfAborted();
      const batch = await feed.next();
      micros.push(await this.#programs!.micro(batch, { seed, step, sampleOffset: micro * batchSize }, signal));
    }
    signal?.throwIfAborted();
    const learningRate = optimizer.learningRate * learningRateSchedule(step);
    const gradNorm = await this.#update(learningRate);
    const skipped = !Number.isFinite(gradNorm);
    const { loss = Number.NaN, ...metrics } = meansOf(micros);
    const epoch = Math.floor((step * this.#effectiveBatch) / data.length);
    return { type: "step", step: step + 1, steps, epoch, loss, metrics, gradNorm, clipped: gradNorm > maxGradNorm, skipped, learningRate };
  }

  /** The update, the average, and the count of both: all or, where one fails, torn. Returns the gradient's norm. */
  async #update(learningRate: number): Promise<number> {
    const { step, updates, skippedSteps, skippedInARow } = this.#at;
    this.#torn = true;
    const gradNorm = await this.#programs!.update(updates + 1, learningRate);
    const applied = Number.isFinite(gradNorm);
    if (applied && this.#emaDecay) await this.#programs!.average(this.#emaDecay(updates + 1));
    this.#torn = false;
    this.#at = applied
      ? { step: step + 1, updates: updates + 1, skippedSteps, skippedInARow: 0 }
      : { step: step + 1, updates, skippedSteps: skippedSteps + 1, skippedInARow: skippedInARow + 1 };
    return gradNorm;
  }

  *#nonFinite(): Generator<TrainEvent> {
    const { step, skippedInARow } = this.#at;
    yield {
      type: "warning",
      step,
      code: "NON_FINITE_GRADIENT",
      message: `the gradient of step ${step} is not finite; weights and optimizer state are as before it`,
    };
    if (skippedInARow >= nonFiniteLimit)
      throw new NonFiniteError(
        `train: expected finite gradients, received ${skippedInARow} in a row that are not (to step ${step}); weights are those of the last finite step`,
      );
  }

  async *#validate(signal: AbortSignal | undefined): AsyncGenerator<TrainEvent> {
    const { step } = this.#at;
    const result = await this.#programs!.validate(signal);
    yield { type: "validation", step, ...result };
    const message = suspectRewardHacking(result.bands, this.#settings.validation!.winnerRatioLimit);
    if (message) yield { type: "warning", step, code: "REWARD_HACKING_SUSPECTED", message };
  }

  /** Saves the last whole step, unless it is saved or there is nowhere to. */
  async #save(): Promise<CheckpointEvent | undefined> {
    const { output, keepCheckpoints: keep } = this.#settings;
    const { step } = this.#at;
    if (output === undefined || this.#torn || !this.#programs || !this.#identity || step === (this.#saved?.step ?? 0)) return undefined;
    const path = await saveCheckpoint(output, { state: { format: 1, ...this.#identity, ...this.#at }, tensors: this.#weights.files() }, { keep });
    this.#saved = { step, path };
    return { type: "checkpoint", step, path };
  }
}

/** Means over the micro-batches of a step, by name. */
function meansOf(micros: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const mean = (name: string): number => micros.reduce((sum, values) => sum + values[name]!, 0) / micros.length;
  return Object.fromEntries(Object.keys(micros[0]!).map(name => [name, mean(name)]));
}

/** Seconds per step, smoothed: validation and checkpoints do not count. */
class StepClock {
  seconds = 0;

  async measure<T>(body: () => Promise<T>): Promise<T> {
    const began = performance.now();
    const result = await body();
    const taken = (performance.now() - began) / 1000;
    this.seconds = this.seconds === 0 ? taken : 0.9 * this.seconds + 0.1 * taken;
    return result;
  }
}
