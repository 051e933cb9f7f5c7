/** Laws of the schedulers that need no reference: order of convergence, the moments of what they sample, and which of them are one method in two notations, on
 *  Gaussian data, whose exact denoiser and exact flow are known. */

import { noiseSchedule, type PredictionType, snr } from "../../lib/diffusion/noise-schedule.js";
import { cleanSample, predictedNoise, targetForm } from "../../lib/diffusion/prediction.js";
import { ConfigError } from "../../lib/errors.js";
import { betaQuantile } from "../../lib/schedulers/beta-quantile.js";
import { ddim } from "../../lib/schedulers/ddim.js";
import { ddpm } from "../../lib/schedulers/ddpm.js";
import { type DpmSolverOptions, dpmSolver } from "../../lib/schedulers/dpm-solver.js";
import { euler } from "../../lib/schedulers/euler.js";
import { eulerAncestral } from "../../lib/schedulers/euler-ancestral.js";
import { dynamicShift, flowMatchEuler } from "../../lib/schedulers/flow-match-euler.js";
import { heun } from "../../lib/schedulers/heun.js";
import { lcm } from "../../lib/schedulers/lcm.js";
import { pndm } from "../../lib/schedulers/pndm.js";
import type { Level, Scheduler, SchedulerStep } from "../../lib/schedulers/scheduler.js";
import { levelOfSigma, respaced, timestepOfSigma, trainSigmas } from "../../lib/schedulers/sigmas.js";
import { fractionalTimesteps, solverTimesteps, spacedTimesteps } from "../../lib/schedulers/timesteps.js";
import { type UniPCOptions, uniPC } from "../../lib/schedulers/unipc.js";
import { runPlan } from "../support/plan.js";

const variance = 0.25; // data N(0, variance): E[x0 | x] = signal variance x / marginal(level)
const schedule = noiseSchedule();
const flow = noiseSchedule({ predictionType: "flow_prediction" });
const marginal = ({ signal, noise }: Level): number => signal * signal * variance + noise * noise;

/** The best prediction of each kind for Gaussian data, of the sample as the model sees it. */
const best =
  (kind: PredictionType) =>
  (xs: readonly number[], { level, inputScale = 1 }: SchedulerStep): number[] => {
    const seen = { signal: level.signal * inputScale, noise: level.noise * inputScale };
    const target = targetForm(kind, seen);
    return xs.map(x => {
      const clean = (seen.signal * variance * x) / marginal(seen),
        noise = (seen.noise * x) / marginal(seen);
      return target.clean * clean + target.noise * noise;
    });
  };

describe("order of convergence", () => {
  // Uniform in log sigma from 100, where all but nothing of the data is left, so that the low orders of the first steps hardly count, to the last of training.
  const grid = { sigmaSpacing: "exponential", sigmaMax: 100, finalSigma: "sigma_min", stepsOffset: 0, spacing: "trailing" } as const;
  const end = trainSigmas(schedule)[0]!;

  /** How far x lands from where the exact flow does, which scales it by the ratio of the marginal standard deviations. */
  function error(scheduler: Scheduler, steps: number, kind: PredictionType): number {
    const plan = scheduler(noiseSchedule({ predictionType: kind }), steps);
    const last = plan[0]!.inputScale === undefined ? levelOfSigma(end) : { signal: 1, noise: end };
    const [x] = runPlan(plan, [1], best(kind)).states.at(-1)!;
    return Math.abs(x! / Math.sqrt(marginal(last) / marginal(plan[0]!.level)) - 1);
  }

  function orders(scheduler: Scheduler, kind: PredictionType = "epsilon"): number[] {
    const [a, b, c] = [40, 80, 160].map(steps => error(scheduler, steps, kind)) as [number, number, number];
    return [Math.log2(a / b), Math.log2(b / c)];
  }

  const solver = (options: DpmSolverOptions): Scheduler => dpmSolver({ ...grid, ...options });
  const exact: readonly (readonly [string, Scheduler, number])[] = [
    ["Euler", euler(grid), 1],
    ["Heun", heun(grid), 2],
    ["DPM-Solver++ 1", solver({ order: 1 }), 1],
    ["DPM-Solver++(2M)", solver({}), 2],
    ["DPM-Solver++(2M) by Heun's rule", solver({ solverType: "heun" }), 2],
    ["DPM-Solver(2M)", solver({ algorithm: "dpmsolver" }), 2],
    ["DPM-Solver++(3M) as released", solver({ order: 3 }), 2],
  ];
  test.each(exact)("%s", (_name, scheduler, order) => {
    for (const kind of ["epsilon", "v_prediction", "sample"] as const)
      for (const seen of orders(scheduler, kind)) expect(Math.abs(seen - order)).toBeLessThan(0.25);
  });

  const least: readonly (readonly [string, Scheduler, number])[] = [
    ["DPM-Solver++(3M), exact", solver({ order: 3, exactThird: true }), 3],
    ["DPM-Solver(3M), exact", solver({ order: 3, exactThird: true, algorithm: "dpmsolver" }), 3],
    ...([1, 2, 3] as const).flatMap(order =>
      (["bh1", "bh2"] as const).flatMap(solverType =>
        [true, false].map((predictX0): [string, Scheduler, number] => {
          const options: UniPCOptions = { ...grid, order, solverType, predictX0 };
          // the corrector gains an order; that of UniPC-3 is not seen through the lower orders of its first steps
          return [`UniPC-${order} ${solverType} over ${predictX0 ? "data" : "noise"}`, uniPC(options), Math.min(order + 1, 3)];
        }),
      ),
    ),
    // without its corrector UniPC-p is UniP-p, of order p
    ...([1, 2, 3] as const).map((order): [string, Scheduler, number] => [
      `UniP-${order}`,
      uniPC({ ...grid, order, disableCorrector: Array.from({ length: 160 }, (_, i) => i) }),
      order,
    ]),
  ];
  test.each(least)("%s", (_name, scheduler, order) => {
    for (const seen of orders(scheduler)) expect(seen).toBeGreaterThan(order - 0.15);
  });

  test("Euler's method for flow matching: 1", () => {
    const errors = [40, 80, 160].map(steps => {
      const plan = flowMatchEuler({ shift: 3 })(flow, steps);
      const [x] = runPlan(plan, [1], best("flow_prediction")).states.at(-1)!;
      return Math.abs(x! / Math.sqrt(variance) - 1); // begins at noise of variance 1
    });
    for (const [i, e] of errors.slice(1).entries()) expect(Math.abs(Math.log2(errors[i]! / e) - 1)).toBeLessThan(0.15);
  });

  test("DDIM converges with order one", () => {
    const errors = [50, 100, 200].map(steps => {
      const plan = ddim({ stepsOffset: 0 })(schedule, steps);
      const [x] = runPlan(plan, [1], best("epsilon")).states.at(-1)!;
      const a = schedule.alphasCumprod[0]!;
      return Math.abs(x! - Math.sqrt((a * variance + 1 - a) / marginal(plan[0]!.level)));
    });
    for (const [i, e] of errors.slice(1).entries()) expect(Math.log2(errors[i]! / e)).toBeGreaterThan(0.8);
  });
});

describe("PNDM", () => {
  /** PLMS with the bookkeeping of its released code: a list of outputs, a counter, and a sample kept for the second evaluation. */
  function released(timesteps: readonly number[], ratio: number, start: number, model: (x: number, t: number) => number): number[] {
    const at = (t: number): number => schedule.alphasCumprod[t] ?? schedule.alphasCumprod[0]!;
    const ets: number[] = [],
      states = [start];
    let kept = 0;
    for (const [counter, told] of timesteps.entries()) {
      let sample = states.at(-1)!,
        output = model(sample, told),
        [t, previous] = [told, told - ratio];
      if (counter === 1) [t, previous] = [told + ratio, told];
      else ets.push(output);
      const [e1, e2, e3, e4] = ets.toReversed() as [number, number, number, number];
      if (counter === 0) kept = sample;
      else if (counter === 1) [output, sample] = [(output + e1) / 2, kept];
      else if (ets.length === 2) output = (3 * e1 - e2) / 2;
      else if (ets.length === 3) output = (23 * e1 - 16 * e2 + 5 * e3) / 12;
      else output = (55 * e1 - 59 * e2 + 37 * e3 - 9 * e4) / 24;
      const [a, next] = [at(t), at(previous)];
      states.push(Math.sqrt(next / a) * sample - ((next - a) * output) / (a * Math.sqrt(1 - next) + Math.sqrt(a * (1 - a) * next)));
    }
    return states;
  }

  test.each([1, 2, 3, 4, 5, 20, 50])("%d steps are those of its released code", steps => {
    const plan = pndm()(schedule, steps);
    const ratio = Math.floor(1000 / steps),
      own = Array.from({ length: steps }, (_, i) => (steps - 1 - i) * ratio + 1);
    const told = steps === 1 ? own : [own[0]!, own[1]!, ...own.slice(1)];
    expect(plan.map(step => step.timestep)).toEqual(told);
    const model = (x: number, t: number): number => 0.1 * x + 0.3 * Math.sin(0.01 * t);
    const expected = released(told, ratio, 0.7, model);
    const { states } = runPlan(plan, [0.7], ([x], { timestep }) => [model(x!, timestep)]);
    for (const [i, [x]] of states.entries()) expect(x).toBeCloseTo(expected[i]!, 10);
  });

  test("is closer to the exact flow than DDIM", () => {
    const off = (scheduler: Scheduler): number => {
      const plan = scheduler(schedule, 50);
      const [x] = runPlan(plan, [1], best("epsilon")).states.at(-1)!;
      const a = schedule.alphasCumprod[0]!;
      return Math.abs(x! - Math.sqrt((a * variance + 1 - a) / marginal(plan[0]!.level)));
    };
    expect(off(pndm({ stepsOffset: 0 }))).toBeLessThan(off(ddim({ stepsOffset: 0 })) / 4);
  });
});

/** Variance of the result of a linear sampler, exactly: the result is a sum over the start and the noise of every step, each carried by a component of x. */
function sampledVariance(plan: readonly SchedulerStep[], model: (x: readonly number[], step: SchedulerStep) => number[]): number {
  const unit = (at: number): number[] => Array.from({ length: plan.length + 1 }, (_, i) => (i === at ? 1 : 0));
  const start = unit(0).map(v => v * (plan[0]!.start ?? 1));
  return runPlan(plan, start, model, i => unit(i + 1))
    .states.at(-1)!
    .reduce((sum, v) => sum + v * v, 0);
}

describe("the variance of the data is sampled", () => {
  const process = noiseSchedule({ predictionType: "v_prediction", rescaleBetasZeroSnr: true }); // begins at noise alone, as a run does
  const trailing = { spacing: "trailing" } as const;
  // First-order methods are off by a multiple of 1 / steps. What stays is the jump from the smallest sigma to clean data, off by sigma^2 / variance < 0.01.
  test.each<[string, Scheduler]>([
    ["DDPM", ddpm(trailing)],
    ["DDIM with eta 1", ddim({ ...trailing, eta: 1, setAlphaToOne: true })],
    ["DDIM with eta 0.5", ddim({ ...trailing, eta: 0.5, setAlphaToOne: true })],
    ["DDIM", ddim({ ...trailing, setAlphaToOne: true })],
    ["Euler", euler({ ...trailing, sigmaSpacing: "karras" })],
    ["Euler ancestral", eulerAncestral(trailing)],
    ["Heun", heun({ ...trailing, sigmaSpacing: "karras" })],
    ["DPM-Solver++(2M)", dpmSolver({ ...trailing, sigmaSpacing: "karras" })],
    ["SDE-DPM-Solver++(1)", dpmSolver({ ...trailing, algorithm: "sde-dpmsolver++", order: 1 })],
    ["SDE-DPM-Solver++(2M)", dpmSolver({ ...trailing, algorithm: "sde-dpmsolver++" })],
    ["SDE-DPM-Solver++(2M) by Heun's rule", dpmSolver({ ...trailing, algorithm: "sde-dpmsolver++", solverType: "heun" })],
    ["SDE-DPM-Solver(2M)", dpmSolver({ ...trailing, algorithm: "sde-dpmsolver", finalSigma: "sigma_min" })],
    ["UniPC", uniPC({ ...trailing, sigmaSpacing: "karras" })],
  ])("%s", (_name, scheduler) => {
    const [some, more] = [125, 250].map(steps => Math.abs(sampledVariance(scheduler(process, steps), best("v_prediction")) / variance - 1)) as [number, number];
    expect(more).toBeLessThan(0.065);
    expect(more).toBeLessThan(Math.max(0.65 * some, 0.01));
  });

  test("LCM, with a consistency function for a model", () => {
    // f = x sqrt(variance / marginal) follows the exact flow to its end
    const consistency = (xs: readonly number[], { level, denoised }: SchedulerStep): number[] =>
      xs.map(x => (x * Math.sqrt(variance / marginal(level)) - denoised.sample * x) / denoised.output);
    for (const steps of [1, 2, 4, 8]) expect(Math.abs(sampledVariance(lcm()(process, steps), consistency) / variance - 1)).toBeLessThan(1e-6);
  });

  test("a halved noise is seen", () => {
    const plan = ddpm(trailing)(process, 250).map(step => ({ ...step, update: { ...step.update, noise: step.update.noise! / 2 } }));
    expect(Math.abs(sampledVariance(plan, best("v_prediction")) / variance - 1)).toBeGreaterThan(0.1);
  });
});

describe("one method in two notations", () => {
  /** A memoryless step as a combination of x and the model's output alone, and its noise. */
  const reduced = ({ update, denoised, inputScale }: SchedulerStep): [number, number, number, number] => [
    (update.state ?? 0) + (update.denoised ?? 0) * denoised.sample,
    (update.output ?? 0) + (update.denoised ?? 0) * denoised.output,
    update.noise ?? 0,
    inputScale ?? 1,
  ];
  const expectEqual = (a: readonly SchedulerStep[], b: readonly SchedulerStep[], digits = 9): void => {
    expect(a.map(step => step.timestep)).toEqual(b.map(step => step.timestep));
    for (const [i, step] of a.entries()) for (const [k, value] of reduced(step).entries()) expect(value).toBeCloseTo(reduced(b[i]!)[k]!, digits);
  };

  test("DDIM with eta 1 is DDPM with the small variance", () => {
    for (const spacing of ["leading", "trailing"] as const)
      expectEqual(ddim({ eta: 1, setAlphaToOne: true, spacing, stepsOffset: 0 })(schedule, 100), ddpm({ spacing, stepsOffset: 0 })(schedule, 100));
  });

  test("DPM-Solver++ of order 1 is DDIM, and UniPC of order 1 without its corrector", () => {
    const spacing = "trailing";
    const first = dpmSolver({ order: 1, spacing })(schedule, 50);
    expectEqual(first, ddim({ setAlphaToOne: true, spacing })(schedule, 50), 6); // sigmas are rounded to float32
    expectEqual(first, uniPC({ order: 1, spacing, disableCorrector: Array.from({ length: 50 }, (_, i) => i) })(schedule, 50), 12);
  });

  test("Euler's method is DDIM on x / signal", () => {
    const spacing = "trailing";
    const scaled = euler({ spacing })(schedule, 50).map((step, i, all): SchedulerStep => {
      // x of variance preserved is signal times x of variance exploding
      const signal = step.inputScale!,
        next = all[i + 1]?.inputScale ?? 1;
      const { inputScale: _, ...rest } = step;
      return {
        ...rest,
        denoised: { ...step.denoised, sample: step.denoised.sample / signal },
        update: { state: (next * step.update.state!) / signal, denoised: next * step.update.denoised! },
      };
    });
    expectEqual(scaled, ddim({ setAlphaToOne: true, spacing })(schedule, 50), 6);
  });

  test("ancestral sampling of one noise schedule is one distribution: DDPM, DDIM with eta 1, Euler ancestral and SDE-DPM-Solver++ of order 1", () => {
    const spacing = "trailing";
    const of = (scheduler: Scheduler): number => sampledVariance(scheduler(schedule, 50), best("epsilon"));
    const expected = of(ddpm({ spacing }));
    for (const scheduler of [ddim({ spacing, eta: 1, setAlphaToOne: true }), dpmSolver({ spacing, algorithm: "sde-dpmsolver++", order: 1 })])
      expect(of(scheduler) / expected).toBeCloseTo(1, 6);
    // begins with the noise alone of its first sigma: more than the variance that the others begin with, by its signal
    const begins = levelOfSigma(trainSigmas(schedule)[999]!);
    const exploding = sampledVariance(eulerAncestral({ spacing })(schedule, 50), best("epsilon"));
    expect(exploding).not.toBeCloseTo(expected, 9);
    expect(Math.abs(exploding / expected - 1)).toBeLessThan(begins.signal ** 2);
  });

  test("Euler ancestral without noise is Euler", () => {
    expectEqual(eulerAncestral({ eta: 0 })(schedule, 20), euler()(schedule, 20), 15);
  });

  test("a dynamic shift of mu is a shift of e^mu", () => {
    const sigmas = (n: number): number[] => Array.from({ length: n }, (_, i) => 1 - i / n);
    const [a, b] = [flowMatchEuler({ shift: Math.exp(0.7), sigmas })(flow, 30), flowMatchEuler({ dynamic: { mu: 0.7 }, sigmas })(flow, 30)];
    for (const [i, step] of a.entries()) expect(step.level.noise).toBeCloseTo(b[i]!.level.noise, 6);
    expect([dynamicShift(256), dynamicShift(4096)]).toEqual([0.5, 1.15]);
  });
});

describe("plans", () => {
  const all: readonly (readonly [string, Scheduler])[] = [
    ["ddpm", ddpm()],
    ["ddim", ddim({ eta: 0.5 })],
    ["euler", euler()],
    ["eulerAncestral", eulerAncestral()],
    ["heun", heun()],
    ["dpmSolver", dpmSolver({ order: 3 })],
    ["dpmSolver of noise", dpmSolver({ order: 3, algorithm: "dpmsolver", finalSigma: "sigma_min" })],
    ["uniPC", uniPC({ order: 3 })],
    ["uniPC, corrected here and there", uniPC({ order: 3, lowerOrderFinal: false, disableCorrector: [0, 3, 4] })],
    ["lcm", lcm()],
    ["pndm", pndm({ stepsOffset: 0 })],
    ["flowMatchEuler", (_, steps, skip) => flowMatchEuler({ shift: 3 })(flow, steps, skip)],
    ["uniPC of a flow", (_, steps, skip) => uniPC({ order: 3, flow: { shift: 3 } })(flow, steps, skip)],
    ["dpmSolver of a flow", (_, steps, skip) => dpmSolver({ flow: { shift: 3 } })(flow, steps, skip)],
  ];

  test.each(all)("%s: every plan is finite, descends, and reads only what was remembered", (_, scheduler) => {
    for (const steps of [1, 2, 3, 4, 5, 14, 15, 16, 50])
      for (const skip of [0, 1, 2, 3, steps - 1].filter(s => s >= 0 && s < steps)) {
        const plan = scheduler(schedule, steps, skip);
        const { states } = runPlan(
          plan,
          [1, -2],
          xs => xs.map(x => 0.1 * x + 0.3),
          () => [0.5, -0.5],
        ); // throws where memory is not there
        expect(states.flat().every(Number.isFinite)).toBe(true);
        const ratios = plan.map(({ level }) => level.noise / level.signal);
        for (const [i, r] of ratios.entries()) if (i > 0) expect(r).toBeLessThanOrEqual(ratios[i - 1]!);
      }
  });

  // PNDM takes its first step twice, wherever it begins
  test.each(all.filter(([name]) => name !== "pndm"))("%s: a plan from the middle visits what the whole plan visits there, and begins anew", (_, scheduler) => {
    const whole = scheduler(schedule, 10),
      rest = scheduler(schedule, 10, 4);
    const tail = whole.slice(-rest.length);
    expect(rest.map(({ timestep, level, denoised }) => ({ timestep, level, denoised }))).toEqual(
      tail.map(({ timestep, level, denoised }) => ({ timestep, level, denoised })),
    );
    expect((rest[0]!.update.memory ?? []).every(m => m === 0)).toBe(true);
    if (whole.every(step => step.remember === undefined)) expect(rest).toEqual(tail);
  });

  test("what the model sees of Euler's sample has the variance that is preserved", () => {
    for (const { level, inputScale } of euler({ sigmaSpacing: "karras" })(schedule, 20))
      expect((level.signal * inputScale!) ** 2 + (level.noise * inputScale!) ** 2).toBeCloseTo(1, 12);
  });
});

test("every prediction type gives back clean sample and noise", () => {
  const x0 = 0.3,
    n = -1.7;
  for (const kind of ["epsilon", "v_prediction", "sample", "flow_prediction"] as const)
    for (const level of [
      { signal: 0.999, noise: Math.sqrt(1 - 0.999 ** 2) },
      { signal: 0.6, noise: 0.8 },
      { signal: 0.7, noise: 0.3 },
    ]) {
      const x = level.signal * x0 + level.noise * n,
        form = targetForm(kind, level),
        output = form.clean * x0 + form.noise * n;
      const clean = cleanSample(kind, level),
        noise = predictedNoise(kind, level);
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
  expect(trainSigmas(zero).at(-1)).toBeCloseTo(4096, 2); // not infinite
});

describe("spacings", () => {
  test("sigmas run from end to end; Karras' are even in sigma^(1/7), exponential ones in log sigma", () => {
    for (const kind of ["karras", "exponential", "beta"] as const) {
      const sigmas = respaced(kind, 0.03, 14.6, 20);
      expect(sigmas[0]).toBeCloseTo(14.6, 10);
      expect(sigmas.at(-1)).toBeCloseTo(0.03, 10);
      for (const [i, s] of sigmas.slice(1).entries()) expect(s).toBeLessThan(sigmas[i]!);
    }
    const steps = (of: (s: number) => number, kind: "karras" | "exponential"): number[] => {
      const values = respaced(kind, 0.03, 14.6, 20).map(of);
      return values.slice(1).map((v, i) => v - values[i]!);
    };
    for (const d of steps(s => s ** (1 / 7), "karras")) expect(d).toBeCloseTo((0.03 ** (1 / 7) - 14.6 ** (1 / 7)) / 19, 12);
    for (const d of steps(Math.log, "exponential")) expect(d).toBeCloseTo(Math.log(0.03 / 14.6) / 19, 12);
  });

  test("the beta quantile is that of scipy.stats.beta(0.6, 0.6)", () => {
    const known = [
      [1e-9, 1.85588246249141e-15],
      [1e-4, 3.998377158137721e-7],
      [0.1, 0.03958440558878085],
      [0.3, 0.23401700387523572],
      [0.99, 0.9991387611784571],
    ];
    for (const [p, x] of known) expect(Math.abs(betaQuantile(p!) / x! - 1)).toBeLessThan(1e-14);
    expect([betaQuantile(0), betaQuantile(1)]).toEqual([0, 1]);
    expect(betaQuantile(0.5)).toBeCloseTo(0.5, 14);
  });

  test("the timestep of a training sigma is its own", () => {
    const sigmas = trainSigmas(schedule),
      logs = sigmas.map(Math.log);
    for (const t of [0, 1, 500, 998, 999]) expect(timestepOfSigma(sigmas[t]!, logs)).toBeCloseTo(t, 6);
    expect(timestepOfSigma(0, logs)).toBe(0);
    expect(timestepOfSigma(1e6, logs)).toBe(999);
  });
});

test("what cannot be sampled or scheduled is refused by name", () => {
  const refused = (make: () => unknown, message: string): void => {
    expect(make).toThrow(ConfigError);
    expect(make).toThrow(message);
  };
  refused(() => spacedTimesteps(1000, 0, "leading", 0), "expected steps");
  refused(() => spacedTimesteps(1000, 1001, "leading", 0), "expected steps to be an integer in [1, 1000], received 1001");
  refused(() => spacedTimesteps(1000, 1000, "leading", 1), "expected stepsOffset to be a whole number below 1 for 1000 steps, received 1");
  refused(() => fractionalTimesteps(1000, 2.5, "linspace", 0), "expected steps");
  refused(() => solverTimesteps(1000, 1000, "leading", 0), "expected steps to be an integer in [1, 999]");
  refused(() => ddim({ eta: 2 }), "expected eta to be in [0, 1], received 2");
  refused(() => ddim({ clip: 0 }), "ddim: expected clip to be > 0, received 0");
  refused(() => ddim()(schedule, 10, 10), "ddim: expected skip to be an integer in [0, 10), received 10");
  refused(() => ddpm({ variance: "learned" as "fixed_small" }), "expected variance");
  refused(() => eulerAncestral({ eta: -1 }), "expected eta");
  refused(() => euler({ sigmaSpacing: "karras", sigmaMin: 2, sigmaMax: 1 })(schedule, 5), "0 < sigmaMin < sigmaMax, received [2, 1]");
  refused(() => dpmSolver({ algorithm: "dpmsolver" }), `expected finalSigma to be "sigma_min" where algorithm is dpmsolver, received "zero"`);
  refused(() => dpmSolver({ algorithm: "sde-dpmsolver++", order: 3 }), "expected order to be a whole number in [1, 2] of sde-dpmsolver++, received 3");
  refused(() => dpmSolver({ algorithm: "dpmsolver", finalSigma: "sigma_min", clip: 1 }), "expected clip to be absent");
  refused(() => dpmSolver({ algorithm: "deis" as "dpmsolver" }), "expected algorithm");
  refused(() => dpmSolver({ solverType: "bh2" as "heun" }), "expected solverType to be midpoint or heun");
  refused(() => dpmSolver({ flow: {}, sigmaSpacing: "karras" })(flow, 5), "expected sigmaSpacing to be absent where flow is given");
  refused(() => uniPC({ order: 4 as 3 }), "expected order to be 1, 2 or 3, received 4");
  refused(() => uniPC({ predictX0: false })(schedule, 5), "expected finalSigma");
  refused(() => uniPC({ flow: { shift: 0 } })(flow, 5), "expected flow.shift to be > 0, received 0");
  refused(() => lcm({ originalSteps: 50 })(schedule, 51), "lcm: expected steps to be an integer in [1, 50], received 51");
  refused(() => lcm({ originalSteps: 2000 })(schedule, 4), "expected originalSteps to be at most 1000");
  refused(() => flowMatchEuler()(schedule, 4), "expected predictionType to be flow_prediction");
  refused(() => flowMatchEuler({ shift: -1 }), "expected shift to be > 0, received -1");
  refused(() => flowMatchEuler({ sigmas: () => [0.5, 0.7] })(flow, 2), "expected sigmas to be 2 numbers that descend in (0, 1]");
  refused(() => noiseSchedule({ rescaleBetasZeroSnr: true }), "predictionType");
  refused(() => noiseSchedule({ betaStart: 0.02, betaEnd: 0.01 }), "betaStart");
});
