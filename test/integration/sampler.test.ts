/** Sampling in the executor equals the same arithmetic on the host; a sample depends on its seed and its place in the set, not on the batch it was drawn in. */

import type { Denoiser } from "../../lib/diffusion/denoiser.js";
import { noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { type SampleOptions, Sampler } from "../../lib/diffusion/sampler.js";
import { ConfigError, ShapeError } from "../../lib/errors.js";
import { add, cast, mean, mul, scale, sin, square } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { reshape, slice } from "../../lib/graph/ops/shape.js";
import { Session } from "../../lib/graph/session.js";
import { typed } from "../../lib/graph/tensor.js";
import { ParameterStore } from "../../lib/nn/params.js";
import { ddim } from "../../lib/schedulers/ddim.js";
import { ddpm } from "../../lib/schedulers/ddpm.js";
import { dpmSolver } from "../../lib/schedulers/dpm-solver.js";
import { euler } from "../../lib/schedulers/euler.js";
import { eulerAncestral } from "../../lib/schedulers/euler-ancestral.js";
import { flowMatchEuler } from "../../lib/schedulers/flow-match-euler.js";
import { heun } from "../../lib/schedulers/heun.js";
import { lcm } from "../../lib/schedulers/lcm.js";
import type { Scheduler, SchedulerStep } from "../../lib/schedulers/scheduler.js";
import { uniPC } from "../../lib/schedulers/unipc.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, expectSame } from "../support/compare.js";
import { runPlan } from "../support/plan.js";

/** out = 0.1 x + c x / 20 + 0.01 sin(0.01 t), with one number c per sample as its condition. */
const toy: Denoiser = {
  sampleShape: [3, 2, 4],
  condition: batch => ({ c: input("c", typed("f64", batch)) }),
  predict(sample, timestep, { c }) {
    const perSample = (t: typeof sample) => reshape(cast(t, sample.dtype), [sample.shape[0]!, 1, 1, 1]);
    return add(add(scale(sample, 0.1), scale(mul(sample, perSample(c!)), 0.05)), scale(sin(scale(perSample(timestep), 0.01)), 0.01));
  },
};
const toyOnHost = (x: number, c: number, t: number): number => 0.1 * x + (c * x) / 20 + 0.01 * Math.sin(0.01 * t);

const schedule = noiseSchedule();
const flow = noiseSchedule({ predictionType: "flow_prediction" });
const session = Session.open({ backend: "cpu" });
const samplerOf = (denoiser: Denoiser, dtype: "f32" | "f64") =>
  new Sampler({ session, denoiser, store: new ParameterStore({ arena: "none", dtype, trainable: false }), schedule, dtype });
const sampler = samplerOf(toy, "f64");
afterAll(() => session.close());

const condition = (values: readonly number[]) => ({ c: hostTensor("f64", [values.length], values) });
const size = 3 * 2 * 4;
type Options = Partial<SampleOptions> & Pick<SampleOptions, "condition">;
const sample = async (options: Options): Promise<Float64Array> =>
  (await sampler.sample({ scheduler: ddim(), steps: 7, ...(options.seeds ? {} : { seed: 5 }), ...options })).data as Float64Array;

/** A plan that leaves x as it began, and one that makes it the noise of its last step. */
const still = { timestep: 0, level: { signal: 0, noise: 1 }, denoised: { sample: 0, output: 0 } };
const keep: Scheduler = () => [{ ...still, update: { state: 1 } }];
const onlyNoise: Scheduler = (_, steps) => Array.from({ length: steps }, () => ({ ...still, update: { noise: 1 } }));

/** What `sample` draws for the first x (0) and for each step. */
async function draws(count: number, options: Options): Promise<Float64Array[]> {
  const all = [await sample({ ...options, scheduler: keep })];
  for (let steps = 1; steps <= count; steps++) all.push(await sample({ ...options, scheduler: onlyNoise, steps }));
  return all;
}

const onHost =
  (cs: readonly number[]) =>
  (x: readonly number[], { timestep }: SchedulerStep) =>
    x.map((v, i) => toyOnHost(v, cs[Math.floor(i / size)]!, timestep));

const everyKind: readonly (readonly [string, Scheduler])[] = [
  ["DDIM, clipped", ddim({ clip: 1 })],
  ["DDIM with noise", ddim({ eta: 0.5 })],
  ["DDPM", ddpm({ variance: "fixed_large" })],
  ["Euler", euler()],
  ["Euler ancestral", eulerAncestral()],
  ["Heun", heun({ sigmaSpacing: "karras" })],
  ["DPM-Solver++(2M)", dpmSolver()],
  ["DPM-Solver++(3M), clipped", dpmSolver({ order: 3, lowerOrderFinal: false, clip: 2 })],
  ["DPM-Solver(3M)", dpmSolver({ algorithm: "dpmsolver", order: 3, finalSigma: "sigma_min", lowerOrderFinal: false })],
  ["SDE-DPM-Solver++(2M)", dpmSolver({ algorithm: "sde-dpmsolver++" })],
  ["UniPC-3", uniPC({ order: 3 })],
  ["UniPC-2 over noise", uniPC({ predictX0: false, finalSigma: "sigma_min", solverType: "bh1" })],
  ["LCM", lcm()],
  ["flow matching", (_, steps, skip) => flowMatchEuler({ shift: 3 })(flow, steps, skip)],
  ["UniPC-2 of a flow", (_, steps, skip) => uniPC({ flow: { shift: 3 } })(flow, steps, skip)],
];

test.each(everyKind)("%s: a run equals the plan's arithmetic on the host", async (_, scheduler) => {
  const cs = [0.5, -1];
  const plan = scheduler(schedule, 7);
  const [first, ...noise] = await draws(plan.length, { condition: condition(cs) });
  const start = Array.from(first!, v => v * (plan[0]!.start ?? 1));
  const { states, clean } = runPlan(plan, start, onHost(cs), i => noise[i]!);
  const cleans: HostTensor[] = [];
  const ours = await sample({ scheduler, condition: condition(cs), onStep: (_step, _steps, now) => void cleans.push(now()) });
  expectClose(ours, states.at(-1)!, 1e-13, "samples");
  expect(cleans.length).toBe(plan.length);
  for (const [i, estimate] of cleans.entries()) expectClose(estimate.data as Float64Array, clean[i]!, 1e-12, `clean estimate of step ${i}`);
});

test("float32 differs from float64 by its roundings", async () => {
  for (const [name, scheduler] of everyKind) {
    const options = { scheduler, steps: 7, seed: 5, condition: condition([0.5, -1]) };
    const [single, double] = [await samplerOf(toy, "f32").sample(options), await sampler.sample(options)];
    // each of 7 steps rounds the model's terms and its own, about 6 of the size of x, by at most 2^-24 of it
    expectClose(single.data as Float32Array, double.data as Float64Array, 7 * 6 * 2 ** -24, name);
  }
});

test.each(everyKind)("%s: sample i of a batch is sample i of the set, or the one its own seed draws", async (_, scheduler) => {
  const all = await sample({ scheduler, condition: condition([1, 2, 3]) });
  expectSame(await sample({ scheduler, condition: condition([3]), sampleOffset: 2 }), all.subarray(2 * size), "with its offset");
  const seeds = [11, 12, 11],
    own = await sample({ scheduler, condition: condition([1, 2, 1]), seeds });
  for (const [i, c] of [1, 2, 1].entries()) {
    const alone = await sample({ scheduler, condition: condition([c]), seed: seeds[i]! });
    expectSame(own.subarray(i * size, (i + 1) * size), alone, `sample ${i}`);
  }
  expect([...own.subarray(0, size)]).not.toEqual([...own.subarray(size, 2 * size)]);
});

test("plans of the same terms share a program; a deterministic one holds no noise, a first-order one no memory", async () => {
  const compile = jest.spyOn(session, "compile");
  const fresh = samplerOf(toy, "f64");
  const run = (scheduler: Scheduler, steps: number, guidanceScale = 1) =>
    fresh.sample({ scheduler, steps, seed: 1, condition: condition([1]), uncondition: condition([0]), guidanceScale });
  await run(euler(), 4);
  await run(euler({ sigmaSpacing: "karras" }), 9);
  expect(compile.mock.calls.map(([program]) => program.inputs.map(port => port.name))).toEqual([[], ["x", "c"]]);
  await run(dpmSolver(), 5);
  await run(dpmSolver({ solverType: "heun" }), 8);
  expect(compile.mock.calls.slice(2).map(([program]) => program.inputs.map(port => port.name))).toEqual([["x", "c", "memory0"]]);
  await run(dpmSolver(), 5, 2);
  expect(compile.mock.calls.length).toBe(4);
  compile.mockRestore();
});

const guidedBy = (options: Partial<SampleOptions>) => sample({ condition: condition([1, -2]), uncondition: condition([0, 0]), ...options });

test("guidance mixes the two predictions", async () => {
  // The toy's prediction is linear in c, so uncond + g (cond - uncond) is the prediction at g c.
  const [mixed, direct] = [await guidedBy({ guidanceScale: 3 }), await sample({ condition: condition([3, -6]) })];
  expectClose(mixed, direct, 1e-12, "guided");
  expectSame(await guidedBy({ guidanceScale: 1 }), await sample({ condition: condition([1, -2]) }), "guidance of 1");
  expectSame(await guidedBy({ guidanceScale: 3, uncondition: condition([0]) }), mixed, "one negative condition for all");
});

test("a rescaled prediction has the conditional one's standard deviation", async () => {
  // one step whose result is the model's output
  const output: Scheduler = () => [{ ...still, timestep: 300, update: { output: 1 } }];
  const std = (x: Float64Array): number => {
    const mean = x.reduce((a, b) => a + b) / x.length;
    return Math.sqrt(x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / x.length);
  };
  // a prediction that bends with the condition: the deviations of a channel and of the whole are not in one ratio
  const bent: Denoiser = { ...toy, predict: (x, t, c, p) => add(toy.predict(x, t, c, p), mul(square(x), reshape(c.c!, [-1, 1, 1, 1]))) };
  const sampler = samplerOf(bent, "f64");
  const run = async (options: Partial<SampleOptions>) => {
    const given = { scheduler: output, steps: 1, seed: 5, condition: condition([1, -1]), uncondition: condition([0]), ...options };
    return (await sampler.sample(given)).data as Float64Array;
  };
  const [cond, guided] = [await run({ guidanceScale: 1 }), await run({ guidanceScale: 4 })];
  const [full, half] = [await run({ guidanceScale: 4, guidanceRescale: 1 }), await run({ guidanceScale: 4, guidanceRescale: 0.5 })];
  for (const at of [0, size]) {
    const part = (x: Float64Array): Float64Array => x.subarray(at, at + size);
    const ratio = std(part(cond)) / std(part(guided));
    expect(Math.abs(ratio - 1)).toBeGreaterThan(0.1);
    expectClose(
      part(full),
      part(guided).map(v => v * ratio),
      1e-12,
      "phi 1",
    );
    expectClose(
      part(half),
      part(guided).map(v => (v * (1 + ratio)) / 2),
      1e-12,
      "phi 0.5",
    );
  }
});

test("guidance applies within its interval of noise levels", async () => {
  const everywhere = await guidedBy({ guidanceScale: 3 });
  expectSame(await guidedBy({ guidanceScale: 3, guidanceInterval: [0, 1e9] }), everywhere, "everywhere");
  expectSame(await guidedBy({ guidanceScale: 3, guidanceInterval: [1e8, 1e9] }), await guidedBy({ guidanceScale: 1 }), "nowhere");
  const plan = ddim()(schedule, 7);
  const middle = plan.map(({ level }) => level.noise / level.signal > 0.5 && level.noise / level.signal < 3);
  const [first] = await draws(0, { condition: condition([1, -2]) });
  let i = 0;
  const { states } = runPlan(plan, [...first!], (x, step) => {
    const g = middle[i++] ? 3 : 1;
    return onHost([g, -2 * g])(x, step);
  });
  expectClose(await guidedBy({ guidanceScale: 3, guidanceInterval: [0.5, 3] }), states.at(-1)!, 1e-12, "in the middle");
});

describe("image to image", () => {
  const init = hostTensor(
    "f64",
    [2, 4, 3, 2],
    Float64Array.from({ length: 2 * size }, (_, i) => Math.sin(i)),
  );
  const both = { condition: condition([0.5, -1]), init };

  test.each(everyKind)("%s: a run of strength 0.6 is the plan's last steps on the noised original", async (_, scheduler) => {
    const plan = scheduler(schedule, 10, 4);
    const noise = await draws(plan.length + 4, { condition: condition([0.5, -1]) });
    const { signal, noise: sigma } = plan[0]!.level;
    const start = Array.from(noise[0]!, (n, i) => signal * (init.data as Float64Array)[i]! + sigma * n);
    const { states } = runPlan(plan, start, onHost([0.5, -1]), i => noise[1 + 4 + i]!);
    expectClose(await sample({ ...both, scheduler, steps: 10, strength: 0.6 }), states.at(-1)!, 1e-12, "samples");
  });

  test("given noise replaces what the seed draws", async () => {
    const drawn = hostTensor("f64", [2, 4, 3, 2], (await draws(0, { condition: condition([0.5, -1]) }))[0]!);
    for (const scheduler of [ddim(), euler()]) {
      const plain = await sample({ condition: condition([0.5, -1]), scheduler });
      expectSame(await sample({ condition: condition([0.5, -1]), scheduler, latents: drawn, seed: 77 }), plain, "from noise");
      const noised = await sample({ ...both, scheduler, strength: 0.5 });
      expectSame(await sample({ ...both, scheduler, strength: 0.5, latents: drawn, seed: 77 }), noised, "from a noised original");
    }
  });

  test("a mask keeps the original where it is 0, and changes nothing where it is 1", async () => {
    const mask = (of: (i: number) => number) =>
      hostTensor(
        "f64",
        [1, 1, 3, 2],
        Float64Array.from({ length: 6 }, (_, i) => of(i)),
      );
    for (const scheduler of [ddim(), euler(), dpmSolver(), uniPC()]) {
      const run = (of: (i: number) => number, strength: number) => sample({ ...both, scheduler, strength, mask: mask(of) });
      expectSame(await run(() => 0, 0.7), init.data as Float64Array, "all kept");
      expectSame(await run(() => 1, 0.7), await sample({ ...both, scheduler, strength: 0.7 }), "nothing kept");
      // with strength 1 nothing of the original is left in what the run begins with
      expectSame(await run(() => 1, 1), await sample({ condition: both.condition, scheduler }), "nothing kept, from noise alone");
      const part = await run(i => (i < 3 ? 0 : 1), 1);
      for (const [i, v] of (init.data as Float64Array).entries()) if (i % 6 < 3) expect(part[i]).toBe(v);
    }
  });

  test("what is kept is noised to the level of the next step", async () => {
    // a model that looks at the whole picture sees what the mask keeps
    const looking: Denoiser = { ...toy, predict: (x, t, c, p) => add(toy.predict(x, t, c, p), mean(x, [1, 2, 3])) };
    const plan = ddim()(schedule, 5);
    const [noise] = await draws(0, { condition: condition([0.5, -1]) });
    const mask = Float64Array.of(0, 1, 0, 0.5, 1, 1),
      original = init.data as Float64Array;
    let x = Array.from(noise!);
    for (const [i, step] of plan.entries()) {
      const mean = (s: number): number => x.slice(s * size, (s + 1) * size).reduce((a, b) => a + b) / size;
      const out = x.map((v, j) => toyOnHost(v, [0.5, -1][Math.floor(j / size)]!, step.timestep) + mean(Math.floor(j / size)));
      const { states } = runPlan([step], x, () => out);
      const { signal, noise: sigma } = plan[i + 1]?.level ?? { signal: 1, noise: 0 };
      x = states[1]!.map((v, j) => mask[j % 6]! * v + (1 - mask[j % 6]!) * (signal * original[j]! + sigma * noise![j]!));
    }
    const options = { ...both, mask: hostTensor("f64", [1, 1, 3, 2], mask), scheduler: ddim(), steps: 5, seed: 5 };
    expectClose((await samplerOf(looking, "f64").sample(options)).data as Float64Array, x, 1e-12, "samples");
  });
});

test("extra channels are joined to what the model sees, in both halves", async () => {
  // sees 4 + 2 channels, predicts 4: the toy's output plus the first extra channel
  const wide: Denoiser = {
    ...toy,
    sampleShape: [3, 2, 6],
    predict: (x, t, c, p) => add(toy.predict(slice(x, { axis: 3, start: 0, length: 4 }), t, c, p), slice(x, { axis: 3, start: 4, length: 1 })),
  };
  const extra = Float64Array.from({ length: 2 * 2 * 6 }, (_, i) => Math.cos(i));
  const cs = [0.5, -1];
  for (const scheduler of [ddim(), euler()]) {
    const plan = scheduler(schedule, 7);
    const [first] = await draws(0, { condition: condition(cs) });
    const start = Array.from(first!, v => v * (plan[0]!.start ?? 1));
    const model = (x: readonly number[], step: SchedulerStep) => onHost([1, -2])(x, step).map((v, i) => v + extra[Math.floor(i / size) * 12 + (i % 6)]!);
    const { states } = runPlan(plan, start, model);
    const options = { scheduler, steps: 7, seed: 5, condition: condition(cs), uncondition: condition([0]), guidanceScale: 2 };
    const ours = await samplerOf(wide, "f64").sample({ ...options, extraChannels: hostTensor("f64", [2, 2, 3, 2], extra) });
    expect(ours.shape).toEqual([2, 4, 3, 2]);
    expectClose(ours.data as Float64Array, states.at(-1)!, 1e-12, "samples");
  }
});

test("seeds differ, repeats do not", async () => {
  const [a, again, other] = [
    await sample({ condition: condition([1]) }),
    await sample({ condition: condition([1]) }),
    await sample({ condition: condition([1]), seed: 6 }),
  ];
  expectSame(a, again, "again");
  expect([...a]).not.toEqual([...other]);
});

test("an aborted run rejects with the signal's reason", async () => {
  const stop = new AbortController();
  const run = sample({ condition: condition([1]), steps: 500, signal: stop.signal, onStep: step => step === 3 && stop.abort(new Error("enough")) });
  await expect(run).rejects.toThrow("enough");
  await expect(sample({ condition: condition([1]), signal: AbortSignal.abort(new Error("before")) })).rejects.toThrow("before");
});

test("wrong options are named", async () => {
  const refused = (options: Partial<SampleOptions>, message: string) => expect(sample({ condition: condition([1]), ...options })).rejects.toThrow(message);
  const map = (shape: readonly number[], value = 0) => hostTensor("f64", shape, new Float64Array(shape.reduce((a, b) => a * b)).fill(value));
  await expect(sample({ condition: condition([1]), guidanceScale: 2 })).rejects.toThrow(ConfigError);
  await expect(sample({ condition: condition([1]), init: map([1, 4, 2, 3]) })).rejects.toThrow(ShapeError);
  await refused({ condition: { c: hostTensor("f64", [1], [1]), d: hostTensor("f64", [2], [1, 1]) } }, "tensors of one batch size");
  await refused({ init: map([1, 4, 2, 3]) }, "expected init [1 or 1, 4, 3, 2], received [1,4,2,3]");
  await refused({ latents: map([2, 4, 3, 2]) }, "expected latents");
  await refused({ init: map([1, 4, 3, 2]), strength: 0 }, "expected strength to be in (0, 1], received 0");
  await refused({ init: map([1, 4, 3, 2]), strength: 0.1 }, "expected strength to be at least 1 / 7");
  await refused({ strength: 0.5 }, "expected strength to be 1 where no init is given");
  await refused({ mask: map([1, 1, 3, 2]) }, "expected init to be given where mask is");
  await refused({ mask: map([1, 1, 3, 2], 2), init: map([1, 4, 3, 2]) }, "expected mask to be in [0, 1]");
  await refused({ extraChannels: map([1, 4, 3, 2]) }, "leave no channel of the model's 4");
  await refused({ seeds: [1, 2] }, "expected seeds to be 1 numbers");
  await refused({ seeds: [1], seed: 1 }, "expected seed, seeds to be one of them given");
  await refused({ seeds: [1], sampleOffset: 1 }, "expected sampleOffset to be absent");
  await refused({ guidanceScale: 2, uncondition: condition([1]), guidanceRescale: 2 }, "expected guidanceRescale to be in [0, 1], received 2");
  await refused({ guidanceScale: 2, uncondition: condition([1, 2, 3]) }, "expected uncondition.c of batch 1 or 1");
  await refused({ guidanceInterval: [2, 1] }, "expected guidanceInterval");
  await refused({ steps: 0 }, "expected steps to be an integer in [1, 1000], received 0");
});
