/** Sampling in the executor equals the same arithmetic on the host; a sample depends on its seed and its place in the set, not on the batch it was drawn in. */

import type { Denoiser } from "../../lib/diffusion/denoiser.js";
import { noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { type SampleOptions, Sampler } from "../../lib/diffusion/sampler.js";
import { ConfigError } from "../../lib/errors.js";
import { add, cast, mul, scale, sin } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { reshape } from "../../lib/graph/ops/shape.js";
import { Session } from "../../lib/graph/session.js";
import { typed } from "../../lib/graph/tensor.js";
import { ParameterStore } from "../../lib/nn/params.js";
import { ddim } from "../../lib/schedulers/ddim.js";
import { ddpm } from "../../lib/schedulers/ddpm.js";
import { hostTensor } from "../../lib/util/host-tensor.js";

/** out = 0.1 x + c x / 20 + 0.01 sin(0.01 t), with one number c per sample as its condition. */
const toy: Denoiser = {
  sampleShape: [3, 2, 4],
  condition: batch => ({ c: input("c", typed("f64", batch)) }),
  predict(sample, timestep, { c }) {
    const perSample = (t: typeof sample) => reshape(cast(t, "f64"), [sample.shape[0]!, 1, 1, 1]);
    return add(add(scale(sample, 0.1), scale(mul(sample, perSample(c!)), 0.05)), scale(sin(scale(perSample(timestep), 0.01)), 0.01));
  },
};
const toyOnHost = (x: number, c: number, t: number): number => 0.1 * x + (c * x) / 20 + 0.01 * Math.sin(0.01 * t);

const schedule = noiseSchedule();
const session = Session.open({ backend: "cpu" });
const sampler = new Sampler({ session, denoiser: toy, store: new ParameterStore({ arena: "none", dtype: "f64", trainable: false }), schedule, dtype: "f64" });
afterAll(() => session.close());

const condition = (values: readonly number[]) => ({ c: hostTensor("f64", [values.length], values) });
const size = 3 * 2 * 4;
const sample = async (options: Partial<SampleOptions> & Pick<SampleOptions, "condition">): Promise<Float64Array> =>
  (await sampler.sample({ scheduler: ddim(), steps: 7, seed: 5, ...options })).data as Float64Array;

test("a run equals the scheduler's arithmetic on the host", async () => {
  const scheduler = ddim({ clip: 1 });
  const cs = [0.5, -1];
  const plan = scheduler(schedule, 7);
  // The start of the run is what a "sampler" of no denoising would return: one step whose update keeps x.
  const keep = () => [{ timestep: 0, level: { signal: 0, noise: 1 }, denoised: { sample: 0, output: 0 }, update: { state: 1 } }];
  const x = await sample({ scheduler: keep, condition: condition(cs) });
  for (const { timestep, denoised, clip = Infinity, update } of plan)
    for (const [i, v] of x.entries()) {
      const out = toyOnHost(v, cs[Math.floor(i / size)]!, timestep);
      const d = Math.max(-clip, Math.min(clip, denoised.sample * v + denoised.output * out));
      x[i] = update.state! * v + update.denoised! * d + update.output! * out;
    }
  const ours = await sample({ scheduler, condition: condition(cs) });
  for (const [i, v] of ours.entries()) expect(Math.abs(v - x[i]!)).toBeLessThan(1e-12);
});

test.each([
  ["ddim", ddim()],
  ["ddpm", ddpm()],
])("%s: sample i of a batch is sample i of the set", async (_, scheduler) => {
  const all = await sample({ scheduler, condition: condition([1, 2, 3]) });
  const last = await sample({ scheduler, condition: condition([3]), sampleOffset: 2 });
  expect([...last]).toEqual([...all.subarray(2 * size)]);
  expect([...all.subarray(0, size)]).not.toEqual([...last]);
});

test("guidance mixes the two predictions", async () => {
  const guided = (guidanceScale: number) => sample({ condition: condition([1, -2]), uncondition: condition([0, 0]), guidanceScale });
  // The toy's prediction is linear in c, so uncond + g (cond - uncond) is the prediction at g c.
  const [mixed, direct] = [await guided(3), await sample({ condition: condition([3, -6]) })];
  for (const [i, v] of mixed.entries()) expect(Math.abs(v - direct[i]!)).toBeLessThan(1e-12);
  expect([...(await guided(1))]).toEqual([...(await sample({ condition: condition([1, -2]) }))]);
});

test("seeds differ, repeats do not", async () => {
  const [a, again, other] = [
    await sample({ condition: condition([1]) }),
    await sample({ condition: condition([1]) }),
    await sample({ condition: condition([1]), seed: 6 }),
  ];
  expect([...a]).toEqual([...again]);
  expect([...a]).not.toEqual([...other]);
});

test("an aborted run rejects with the signal's reason; wrong options are named", async () => {
  const stop = new AbortController();
  const run = sample({ condition: condition([1]), steps: 500, signal: stop.signal, onStep: step => step === 3 && stop.abort(new Error("enough")) });
  await expect(run).rejects.toThrow("enough");
  await expect(sample({ condition: condition([1]), guidanceScale: 2 })).rejects.toThrow(ConfigError);
  await expect(sample({ condition: { c: hostTensor("f64", [1], [1]), d: hostTensor("f64", [2], [1, 1]) } })).rejects.toThrow("tensors of one batch size");
});
