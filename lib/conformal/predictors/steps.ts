/** Long work in pieces: a generator that yields where it may be interrupted, run either at once or in turns with the event loop. Both give the same result: what
 *  happens between pieces does not enter it. */

import { setImmediate } from "node:timers/promises";
import type { FitOptions, FittedPredictor, Predictor, TrainingData } from "./predictor.js";

export type Steps<T> = Generator<undefined, T>;

/** Milliseconds of work before others have their turn. */
const turn = 8;

/** All of it now. */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** In turns of some milliseconds. Throws the signal's reason at the next turn after it aborts. */
export async function finishAsync<T>(steps: Steps<T>, signal?: AbortSignal): Promise<T> {
  signal?.throwIfAborted();
  for (let started = performance.now(); ; ) {
    const { done, value } = steps.next();
    if (done) return value;
    if (performance.now() - started < turn) continue;
    await setImmediate();
    signal?.throwIfAborted();
    started = performance.now();
  }
}

/** A predictor from its fit in pieces. */
export function steppedPredictor<F extends FittedPredictor>(
  name: string,
  steps: (data: TrainingData, options: FitOptions) => Steps<F>,
): { readonly name: string; fit(data: TrainingData, options?: FitOptions): F; steps(data: TrainingData, options?: FitOptions): Steps<F> } {
  return { name, steps: (data, options = {}) => steps(data, options), fit: (data, options = {}) => finish(steps(data, options)) };
}

/** Any predictor's fit in pieces; in one piece where it has none. */
export function* stepsOf(predictor: Predictor, data: TrainingData, options: FitOptions): Steps<FittedPredictor> {
  yield;
  return predictor.steps ? yield* predictor.steps(data, options) : predictor.fit(data, options);
}

/** Fits without blocking the event loop for long where the predictor can be interrupted (`steps`: forests, boosting, trees and what wraps them): same data, seed and
 *  options, same fit as `predictor.fit`. `signal` is looked at every few milliseconds. */
export function fitAsync(predictor: Predictor, data: TrainingData, options: FitOptions = {}): Promise<FittedPredictor> {
  return finishAsync(stepsOf(predictor, data, options), options.signal);
}

/** Scores in pieces of about two milliseconds: a row's score depends on the row alone. */
export function* scoreSteps(fitted: FittedPredictor, x: readonly Float64Array[]): Steps<Float64Array> {
  const scores = new Float64Array(x.length);
  for (let at = 0, size = 16; at < x.length; ) {
    const started = performance.now(),
      part = x.slice(at, at + size);
    scores.set(fitted.predict(part), at);
    at += part.length;
    if (performance.now() - started < 2) size *= 2;
    yield;
  }
  return scores;
}
