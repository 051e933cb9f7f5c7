/** Functions that objectives are made of, against plain arithmetic: where series take over, where exponentials end, and what weights are worth. */

import { noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Tensor, typed } from "../../lib/graph/tensor.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { alphaDivergence, forwardKl, jensenShannon, reverseKl } from "../../lib/objectives/divergences.js";
import { decay } from "../../lib/objectives/mapo.js";
import { exponentialOdds } from "../../lib/objectives/orpo.js";
import { sft } from "../../lib/objectives/sft.js";
import { givenWeight, minSnr, minSnrVelocity, type PairWeight, weightErrors, weightLosses } from "../../lib/objectives/weighting.js";
import { objectiveContext } from "../../lib/train/objective-context.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { runObjective, stageInputs } from "../support/objective-stage.js";
import { runStage } from "../support/scalar-stage.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 1 });
});
afterAll(() => session.close());

/** Values and derivatives of f at each x. */
async function curve(f: (x: Tensor) => Tensor, x: readonly number[]): Promise<{ value: number; slope: number }[]> {
  return Promise.all(
    x.map(async at => {
      const { loss, gradients } = await runStage(session, { x: [at] }, leaves => ({ loss: f(leaves.x!) }));
      return { value: loss, slope: gradients.x![0]! };
    }),
  );
}

function expectRelative(actual: number, expected: number, bound: number, label: string): void {
  if (!(Math.abs(actual - expected) <= bound * Math.abs(expected))) throw new Error(`${label}: expected ${expected}, received ${actual}`);
}

test("decay is x / (e^x - 1), with its slope, from errors that vanish to errors of any size", async () => {
  const xs = [1e-12, 1e-8, 1e-4, 0.003, 0.0099, 0.0101, 0.05, 0.7, 3, 12];
  for (const [i, { value, slope }] of (await curve(decay, xs)).entries()) {
    const x = xs[i]!;
    const e = Math.expm1(x);
    expect(Math.abs(value - x / e)).toBeLessThan(4 * Number.EPSILON * Math.max(1, x));
    // (e - x e^x) / e^2, as a series where it cancels
    const expected = x < 0.05 ? -0.5 + x / 6 - x ** 3 / 180 + x ** 5 / 5040 : (e - x * (e + 1)) / e ** 2;
    expect(Math.abs(slope - expected)).toBeLessThan(1e-13); // 1 / x cancels down to x = 0.01: EPSILON / 0.01, a few times
  }
  const [large] = await curve(decay, [60]);
  expect(Math.abs(large!.value)).toBeLessThan(60 * Number.EPSILON); // 60 e^-60, below the rounding of 60 / 2
});

test("odds are those of e^-kappa E; for small errors their margin is the ratio of errors", async () => {
  for (const kappa of [1, 30]) {
    const xs = [1e-7, 1e-3, 0.2, 1.5, 20].map(x => x / kappa);
    for (const [i, { value, slope }] of (await curve(exponentialOdds(kappa), xs)).entries()) {
      const x = kappa * xs[i]!;
      expectRelative(value, -(x + Math.log(-Math.expm1(-x))), 1e-9, `odds(${x})`);
      expectRelative(slope, kappa / Math.expm1(-x), 1e-8, `odds'(${x})`);
    }
  }
  const [a, b] = await curve(exponentialOdds(), [1e-6, 3e-6]);
  expect(a!.value - b!.value).toBeCloseTo(Math.log(3), 5);
});

test("divergences: f' of the likelihood ratio, and no overflow of the exponential ones", async () => {
  const rs = [-3, -0.2, 0, 0.5, 4];
  const truths = [
    [reverseKl, (r: number) => r],
    [forwardKl, (r: number) => -Math.exp(-r)],
    [jensenShannon, (r: number) => -Math.log1p(Math.exp(-r))],
    [alphaDivergence(0.3), (r: number) => -Math.exp(-0.3 * r) / 0.3],
  ] as const;
  for (const [divergence, truth] of truths)
    for (const [i, { value, slope }] of (await curve(divergence.score, rs)).entries()) {
      expect(value).toBeCloseTo(truth(rs[i]!), 12);
      expect(slope).toBeGreaterThan(0); // a likelier sample scores higher
    }
  const far = await curve(forwardKl.score, [-80.5, -1e6, 1e6]);
  expect(far.map(({ value }) => Number.isFinite(value))).toEqual([true, true, true]);
  expect(far.map(({ slope }) => slope === 0)).toEqual([true, true, true]);
});

test("min-SNR weights are those of the published table", async () => {
  const at = [0, 50, 100, 200, 999];
  const index = hostTensor("i32", [at.length], Int32Array.from(at));
  const valuesOf = async (weight: PairWeight): Promise<number[]> => {
    const graph = buildGraph(g => {
      const map = (name: string) => input(name, typed("f64", at.length, 1, 1, 1));
      const objective = weightLosses(sft(), weight);
      const context = objectiveContext({
        objective,
        schedule: noiseSchedule(),
        batch: at.length,
        index: input("index", typed("i32", at.length)),
        prediction: map("prediction"),
        target: map("target"),
      });
      g.output("weights", weight.of(context));
    });
    const program = compileGraph(graph, { name: "weight" });
    const { weights } = await session.run(session.compile(program), {
      inputs: { index, prediction: hostTensor("f64", [at.length, 1, 1, 1]), target: hostTensor("f64", [at.length, 1, 1, 1]) },
    });
    return Array.from(weights!.data as Float64Array);
  };
  const noise = await valuesOf(minSnr());
  for (const [i, expected] of [0.0043, 0.2544, 0.5914, 1, 1].entries()) expect(noise[i]).toBeCloseTo(expected, 4);
  const velocity = await valuesOf(minSnrVelocity());
  for (const [i, t] of at.entries()) {
    const alpha = noiseSchedule().alphasCumprod[t]!;
    const snr = alpha / (1 - alpha);
    expect(velocity[i]).toBeCloseTo(Math.min(snr, 5) / (snr + 1), 12);
  }
});

test("a weight inside the sigmoid is a larger beta, one outside a larger loss", async () => {
  const inside = weightErrors(diffusionDpo({ beta: 100 }), givenWeight);
  const outside = weightLosses(diffusionDpo({ beta: 100 }), givenWeight);
  const inputs = { ...stageInputs(inside, 2), "extras/weight": hostTensor("f64", [2], Float64Array.from([2, 2])) };
  const [a, b] = [await runObjective(session, inside, inputs), await runObjective(session, outside, inputs)];
  expect(a.loss).toBeCloseTo((await runObjective(session, diffusionDpo({ beta: 200 }), inputs)).loss, 12);
  expect(b.loss).toBeCloseTo(2 * (await runObjective(session, diffusionDpo({ beta: 100 }), inputs)).loss, 12);
  const both = weightLosses(outside, { ...givenWeight, name: "again" });
  expect((await runObjective(session, both, inputs)).loss).toBeCloseTo(2 * b.loss, 12);
});
