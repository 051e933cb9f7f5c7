/** Progress on a terminal: one line that is rewritten; where the output is piped, plain lines, so that logs stay readable. */

import { formatBytes } from "../util/bytes.js";
import type { StepEvent, TrainEvent, ValidationEvent } from "./events.js";

/** Where progress goes: process.stderr, or anything that writes text. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface ProgressOptions {
  /** Default process.stderr: standard output stays free for results. */
  readonly stream?: ProgressStream;
  /** Without a terminal: a line every so many steps (default 10), and at the last. */
  readonly every?: number;
}

/** Passes events on and shows them: `for await (const event of withProgress(trainer.run()))`. Leaving the loop stops the run, as without it. */
export async function* withProgress(events: AsyncIterable<TrainEvent>, options: ProgressOptions = {}): AsyncGenerator<TrainEvent, void, undefined> {
  const { stream = process.stderr, every = 10 } = options;
  const line = new StatusLine(stream);
  try {
    for await (const event of events) {
      if (event.type !== "step") line.print(describeEvent(event));
      else if (stream.isTTY) line.show(describeStep(event));
      else if (event.step % every === 0 || event.step === event.steps) line.print(describeStep(event));
      yield event;
    }
  } finally {
    line.end();
  }
}

/** A line at the bottom of a terminal; what is printed goes above it. */
class StatusLine {
  #shown = false;

  constructor(readonly stream: ProgressStream) {}

  show(text: string): void {
    this.stream.write(`\r\x1b[2K${text.slice(0, (this.stream.columns ?? 80) - 1)}`); // a line that wraps could not be rewritten
    this.#shown = true;
  }

  print(text: string): void {
    this.stream.write(`${this.#shown ? "\r\x1b[2K" : ""}${text}\n`);
    this.#shown = false;
  }

  end(): void {
    if (this.#shown) this.stream.write("\n");
    this.#shown = false;
  }
}

/** "step 120/500 24% | loss 0.6931 | acc 0.55 | drift w -1.2e-4 l 3.1e-4 | grad 1.8 | lr 1.0e-5 | 3.1 pairs/s | 2m 05s left" */
export function describeStep(event: StepEvent): string {
  const { step, steps, loss, metrics, gradNorm, learningRate, samplesPerSecond, etaSeconds, skipped } = event;
  const { implicitAccuracy, winnerDrift, loserDrift } = metrics;
  return [
    `step ${step}/${steps} ${Math.floor((100 * step) / steps)}%`,
    `loss ${loss.toPrecision(4)}`,
    ...(implicitAccuracy === undefined ? [] : [`acc ${implicitAccuracy.toFixed(2)}`]),
    ...(winnerDrift === undefined || loserDrift === undefined ? [] : [`drift w ${winnerDrift.toExponential(1)} l ${loserDrift.toExponential(1)}`]),
    skipped ? "grad not finite, skipped" : `grad ${gradNorm.toPrecision(2)}`,
    `lr ${learningRate.toExponential(1)}`,
    `${samplesPerSecond.toPrecision(2)} pairs/s`,
    `${formatSeconds(etaSeconds)} left`,
  ].join(" | ");
}

/** One line for every other event. */
export function describeEvent(event: Exclude<TrainEvent, StepEvent>): string {
  if (event.type === "plan") {
    const done = event.startStep > 0 ? `, resuming after step ${event.startStep}` : "";
    return `${event.objective}: ${event.trainableParameters} trainable parameters, ${event.pairs} pairs, batch ${event.effectiveBatch}, ${event.steps} steps${done}, ${formatBytes(event.memory.bytes)}`;
  }
  if (event.type === "validation") return describeValidation(event);
  if (event.type === "checkpoint") return `step ${event.step}: checkpoint ${event.path}`;
  if (event.type === "warning") return `step ${event.step}: warning ${event.code}: ${event.message}`;
  return `done after ${event.step} steps in ${formatSeconds(event.seconds)}${event.skippedSteps > 0 ? `, ${event.skippedSteps} skipped` : ""}`;
}

function describeValidation({ step, bands, implicitAccuracy, pairs }: ValidationEvent): string {
  const ratios = (of: "winnerRatio" | "loserRatio"): string => bands.map(band => band[of].toFixed(2)).join(" ");
  return `step ${step}: held out (${pairs} pairs): acc ${implicitAccuracy.toFixed(3)} | error to reference at t ${bands.map(b => b.timestep).join(" ")}: winners ${ratios("winnerRatio")}, losers ${ratios("loserRatio")}`;
}

/** "45s", "2m 05s", "3h 12m". */
export function formatSeconds(seconds: number): string {
  const s = Math.round(seconds);
  const two = (n: number): string => String(n).padStart(2, "0");
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${two(s % 60)}s`;
  return `${Math.floor(s / 3600)}h ${two(Math.floor(s / 60) % 60)}m`;
}
