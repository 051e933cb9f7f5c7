/** Progress: one rewritten line on a terminal, plain lines elsewhere, and never in the way of the run. */

import type { StepEvent, TrainEvent } from "../../lib/train/events.js";
import { describeEvent, describeStep, formatSeconds, type ProgressStream, withProgress } from "../../lib/train/progress.js";

const step = (n: number, extra: Partial<StepEvent> = {}): StepEvent => ({
  type: "step",
  step: n,
  steps: 20,
  epoch: 0,
  loss: Math.LN2,
  metrics: { implicitAccuracy: 0.5, winnerDrift: -1.5e-4, loserDrift: 2e-4 },
  gradNorm: 1.84,
  clipped: true,
  skipped: false,
  learningRate: 1e-5,
  samplesPerSecond: 3.14,
  etaSeconds: 125,
  ...extra,
});

function recorder(isTTY: boolean): ProgressStream & { text: string } {
  return {
    text: "",
    isTTY,
    columns: 60,
    write(text: string) {
      this.text += text;
    },
  };
}

async function* given(events: readonly TrainEvent[], ended: { value: boolean }): AsyncGenerator<TrainEvent> {
  try {
    yield* events;
  } finally {
    ended.value = true;
  }
}

async function show(events: readonly TrainEvent[], isTTY: boolean): Promise<string> {
  const stream = recorder(isTTY);
  const passed: TrainEvent[] = [];
  for await (const event of withProgress(given(events, { value: false }), { stream })) passed.push(event);
  expect(passed).toEqual(events);
  return stream.text;
}

test("a step reads: progress, loss, what the policy did to winners and losers, speed, time left", () => {
  expect(describeStep(step(5))).toBe("step 5/20 25% | loss 0.6931 | acc 0.50 | drift w -1.5e-4 l 2.0e-4 | grad 1.8 | lr 1.0e-5 | 3.1 pairs/s | 2m 05s left");
  expect(describeStep(step(5, { metrics: {}, skipped: true }))).toContain("| loss 0.6931 | grad not finite, skipped |");
});

test("piped: a line every ten steps and at the end, no control characters", async () => {
  const text = await show(
    Array.from({ length: 20 }, (_, i) => step(i + 1)),
    false,
  );
  expect(text.split("\n").map(line => /^step (\d+)/.exec(line)?.[1])).toEqual(["10", "20", undefined]);
  for (const control of ["\r", "\x1b"]) expect(text).not.toContain(control);
});

test("on a terminal: one line, rewritten, never wider than the terminal; other events stand above it", async () => {
  const text = await show([step(1), { type: "checkpoint", step: 1, path: "runs/checkpoint-1" }, step(2)], true);
  const lines = text.split("\r\x1b[2K");
  expect(lines.map(line => line.split(" ").slice(0, 2).join(" "))).toEqual(["", "step 1/20", "step 1:", "step 2/20"]);
  for (const line of lines.filter(l => l.startsWith("step") && l.includes("/20"))) expect(line.trimEnd().length).toBeLessThan(60);
  expect(text.endsWith("\n")).toBe(true);
});

test("every event has its line", () => {
  expect(
    describeEvent({
      type: "plan",
      objective: "dspo",
      trainableParameters: 1000,
      effectiveBatch: 8,
      pairs: 50,
      steps: 20,
      startStep: 5,
      memory: { arenas: [], bytes: 2048 },
    }),
  ).toBe("dspo: 1000 trainable parameters, 50 pairs, batch 8, 20 steps, resuming after step 5, 2.0 KiB");
  const bands = [
    { timestep: 100, winnerRatio: 0.98, loserRatio: 1.1 },
    { timestep: 900, winnerRatio: 1, loserRatio: 1.25 },
  ];
  expect(describeEvent({ type: "validation", step: 3, pairs: 9, bands, implicitAccuracy: 0.75 })).toBe(
    "step 3: held out (9 pairs): acc 0.750 | error to reference at t 100 900: winners 0.98 1.00, losers 1.10 1.25",
  );
  expect(describeEvent({ type: "warning", step: 3, code: "NON_FINITE_GRADIENT", message: "m" })).toBe("step 3: warning NON_FINITE_GRADIENT: m");
  expect(describeEvent({ type: "done", step: 20, skippedSteps: 1, seconds: 3700, checkpoint: undefined })).toBe("done after 20 steps in 1h 01m, 1 skipped");
});

test("leaving the loop stops the run", async () => {
  const ended = { value: false };
  for await (const _ of withProgress(given([step(1), step(2)], ended), { stream: recorder(true) })) break;
  expect(ended.value).toBe(true);
});

test.each([
  [0.4, "0s"],
  [59.6, "1m 00s"],
  [3599, "59m 59s"],
  [3600, "1h 00m"],
  [90000, "25h 00m"],
])("%p seconds are %s", (seconds, text) => {
  expect(formatSeconds(seconds)).toBe(text);
});
