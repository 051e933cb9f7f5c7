/** Laws of the schedulers that need no reference: order of convergence and the moments of ancestral sampling, on data whose exact denoiser is known. */

import { noiseSchedule, snr } from "../../lib/diffusion/noise-schedule.js";
import { cleanSample, predictedNoise, targetForm } from "../../lib/diffusion/prediction.js";
import { ConfigError } from "../../lib/errors.js";
import { ddim } from "../../lib/schedulers/ddim.js";
import { ddpm } from "../../lib/schedulers/ddpm.js";
import type { Scheduler } from "../../lib/schedulers/scheduler.js";
import { spacedTimesteps } from "../../lib/schedulers/timesteps.js";

const variance = 0.25; // data N(0, variance): the best noise prediction is x sqrt(1 - a) / (a variance + 1 - a)
const schedule = noiseSchedule();
const bestNoise = (x: number, t: number): number => {
  const a = schedule.alphasCumprod[t]!;
  return (x * Math.sqrt(1 - a)) / (a * variance + 1 - a);
};

/** The deterministic flow scales x by the ratio of the marginal standard deviations. */
function ddimError(steps: number): number {
  const plan = ddim({ stepsOffset: 0 })(schedule, steps);
  const std = (a: number): number => Math.sqrt(a * variance + 1 - a);
  let x = 1;
  for (const { timestep, denoised, update } of plan) {
    const out = bestNoise(x, timestep);
    x = update.state! * x + update.denoised! * (denoised.sample * x + denoised.output * out) + update.output! * out;
  }
  return Math.abs(x - std(schedule.alphasCumprod[0]!) / std(schedule.alphasCumprod[plan[0]!.timestep]!));
}

test("DDIM converges with order one on Gaussian data", () => {
  const errors = [50, 100, 200].map(ddimError);
  const orders = [Math.log2(errors[0]! / errors[1]!), Math.log2(errors[1]! / errors[2]!)];
  for (const order of orders) expect(order).toBeGreaterThan(0.8);
});

/** Variance of the result of a linear stochastic sampler, exactly: each step maps variance v to gain^2 v + noise^2. */
function variances(scheduler: Scheduler, steps: number): number {
  let v = 1;
  for (const { timestep, denoised, update } of scheduler(schedule, steps)) {
    const out = bestNoise(1, timestep);
    const gain = update.state! + update.denoised! * (denoised.sample + denoised.output * out) + (update.output ?? 0) * out;
    v = gain * gain * v + (update.noise ?? 0) ** 2;
  }
  return v;
}

test("ancestral sampling ends with the variance of the data", () => {
  expect(variances(ddpm({ stepsOffset: 0 }), 1000)).toBeCloseTo(variance, 2);
  expect(variances(ddim({ eta: 1, stepsOffset: 0 }), 1000)).toBeCloseTo(variance, 2);
});

test("DDIM with eta 1 is DDPM with the small variance", () => {
  expect(variances(ddim({ eta: 1, setAlphaToOne: true, spacing: "leading", stepsOffset: 0 }), 100)).toBeCloseTo(variances(ddpm({ stepsOffset: 0 }), 100), 6);
});

test("every prediction type gives back clean sample and noise", () => {
  const x0 = 0.3,
    n = -1.7;
  for (const kind of ["epsilon", "v_prediction", "sample"] as const)
    for (const a of [0.999, 0.5, 0.01]) {
      const x = Math.sqrt(a) * x0 + Math.sqrt(1 - a) * n,
        form = targetForm(kind, a),
        output = form.clean * x0 + form.noise * n;
      const clean = cleanSample(kind, a),
        noise = predictedNoise(kind, a);
      expect(clean.sample * x + clean.output * output).toBeCloseTo(x0, 12);
      expect(noise.sample * x + noise.output * output).toBeCloseTo(n, 12);
    }
});

test("the schedule is what it says", () => {
  expect(schedule.alphasCumprod[999]).toBeCloseTo(0.0046601, 7);
  expect(snr(schedule, 0)).toBeCloseTo(0.99915 / 0.00085, -1);
  const zero = noiseSchedule({ rescaleBetasZeroSnr: true, predictionType: "v_prediction" });
  expect(zero.alphasCumprod[999]).toBe(0);
  expect(zero.alphasCumprod[0]).toBeCloseTo(schedule.alphasCumprod[0]!, 6);
});

test("what cannot be sampled or scheduled is refused by name", () => {
  expect(() => spacedTimesteps(1000, 0, "leading", 0)).toThrow(ConfigError);
  expect(() => spacedTimesteps(1000, 1001, "leading", 0)).toThrow("expected steps to be an integer in [1, 1000], received 1001");
  expect(() => ddim({ eta: 2 })).toThrow("expected eta to be in [0, 1], received 2");
  expect(() => noiseSchedule({ rescaleBetasZeroSnr: true })).toThrow("predictionType");
  expect(() => noiseSchedule({ betaStart: 0.02, betaEnd: 0.01 })).toThrow(ConfigError);
});
