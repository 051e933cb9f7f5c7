/** Rectified flow as a noise schedule: the path, its velocity, what pairs share, and which levels are drawn. */

import { flowSchedule, logitNormalDensity, uniformDensity } from "../../lib/diffusion/flow.js";
import { noiseSchedule, snr } from "../../lib/diffusion/noise-schedule.js";
import { addNoise, drawTimesteps, noisePairs } from "../../lib/diffusion/noising.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { Session } from "../../lib/graph/session.js";
import { typed } from "../../lib/graph/tensor.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { Rng } from "../support/rng.js";
import { runOnce } from "../support/run.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 1 });
});
afterAll(() => session.close());

const shape = [2, 3, 4, 2];
function normals(seed: number) {
  const rng = new Rng(seed);
  return hostTensor(
    "f64",
    shape,
    Float64Array.from({ length: 48 }, () => rng.normal()),
  );
}

test("levels rise to pure noise, and a shift moves them as diffusers does", () => {
  const { sigmas } = flowSchedule({ shift: 3 }).flow;
  expect(sigmas.length).toBe(1000);
  expect(sigmas[999]).toBe(1);
  for (const t of [0, 400, 998]) {
    const level = (t + 1) / 1000;
    expect(sigmas[t]).toBe(Math.fround((3 * level) / (1 + 2 * level)));
    expect(snr(flowSchedule({ shift: 3 }), t)).toBeCloseTo(((1 - sigmas[t]!) / sigmas[t]!) ** 2, 6);
  }
});

test("winner and loser go towards one noise; the velocity leads from sample to noise", async () => {
  const schedule = flowSchedule();
  const [winners, losers] = [normals(1), normals(2)];
  const index = hostTensor("i32", [2], Int32Array.from([249, 999]));
  const inputs = { winners, losers, index };
  const run = async () =>
    runOnce(
      session,
      graph => {
        const map = (name: string) => input(name, typed("f64", ...shape));
        const noised = noisePairs(schedule, { winners: map("winners"), losers: map("losers"), timestep: input("index", typed("i32", 2)), stream: 1 });
        for (const name of ["noisy", "target", "timestep"] as const) graph.output(name, noised[name]);
      },
      { inputs, scalars: { seed: 3, step: 1, sampleOffset: 0 } },
    );
  const { noisy, target, timestep } = await run();
  expect(Array.from(timestep!.data as Float32Array)).toEqual([250, 1000, 250, 1000]);
  const clean = [...(winners.data as Float64Array), ...(losers.data as Float64Array)];
  const noise = clean.map((x, i) => x + Number(target!.data[i]));
  for (let i = 0; i < 48; i++) expect(noise[i]).toBeCloseTo(noise[48 + i]!, 12);
  for (const [i, x] of clean.entries()) {
    const sigma = Math.floor(i / 24) % 2 === 0 ? 0.25 : 1;
    expect(Number(noisy!.data[i])).toBeCloseTo((1 - sigma) * x + sigma * noise[i]!, 6); // sigma is a float32
  }
  expect((await run()).noisy!.data).toEqual(noisy!.data);
});

test("both coefficients lead back: x0 and the noise from the true velocity", async () => {
  const schedule = flowSchedule({ shift: 3 });
  const t = 600;
  const { noisy, target } = await runOnce(
    session,
    graph => {
      const map = (name: string) => input(name, typed("f64", ...shape));
      const noised = addNoise(schedule, map("clean"), { noise: map("noise"), timestep: input("index", typed("i32", 2)) });
      graph.output("noisy", noised.noisy);
      graph.output("target", noised.target);
    },
    { inputs: { clean: normals(1), noise: normals(2), index: hostTensor("i32", [2], Int32Array.from([t, t])) } },
  );
  const at = (form: { sample: number; output: number }, i: number): number => form.sample * Number(noisy!.data[i]) + form.output * Number(target!.data[i]);
  for (let i = 0; i < 48; i++) {
    expect(at(schedule.cleanSample(t), i)).toBeCloseTo(Number(normals(1).data[i]), 12);
    expect(at(schedule.predictedNoise(t), i)).toBeCloseTo(Number(normals(2).data[i]), 12);
  }
});

test.each([
  ["uniform", uniformDensity, (x: number) => x],
  ["logit-normal", logitNormalDensity({ mean: 0.5, deviation: 1.5 }), (x: number) => normalCdf((Math.log(x / (1 - x)) - 0.5) / 1.5)],
] as const)("levels are drawn %s", async (_name, density, cdf) => {
  const count = 20000;
  const { t } = await runOnce(session, graph => graph.output("t", drawTimesteps(flowSchedule({ density }), count)), {
    scalars: { seed: 1, step: 0, sampleOffset: 0 },
  });
  const drawn = Array.from(t!.data as Int32Array);
  expect(Math.min(...drawn)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...drawn)).toBeLessThan(1000);
  // Kolmogorov and Smirnov: beyond 1.95 / sqrt(n) once in a thousand
  for (const level of [0.1, 0.25, 0.5, 0.75, 0.9]) {
    const below = drawn.filter(x => x < 1000 * level).length / count;
    expect(Math.abs(below - cdf(level))).toBeLessThan(1.95 / Math.sqrt(count));
  }
});

test("flow prediction without a flow is refused", () => {
  const schedule = noiseSchedule({ predictionType: "flow_prediction" });
  return expect(
    runOnce(session, graph => {
      const clean = input("clean", typed("f64", ...shape));
      graph.output("x", addNoise(schedule, clean, { noise: clean, timestep: input("index", typed("i32", 2)) }).target);
    }),
  ).rejects.toThrow(/schedule of flowSchedule, received "flow_prediction"/);
});

/** Abramowitz and Stegun 7.1.26, to 1.5e-7. */
function normalCdf(x: number): number {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * z);
  const erf = 1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * Math.exp(-z * z);
  return x > 0 ? (1 + erf) / 2 : (1 - erf) / 2;
}
