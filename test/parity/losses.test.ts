/** Losses, metrics and gradients of the objectives against the authors' released code run in float64, and the laws that tie the methods to each other. */

import fs from "node:fs";
import path from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { ConfigError } from "../../lib/errors.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { mean, scale, sub } from "../../lib/graph/ops/elementwise.js";
import { constant, input } from "../../lib/graph/ops/leaf.js";
import { pairSums } from "../../lib/graph/ops/preference.js";
import { type Executable, Session } from "../../lib/graph/session.js";
import { buildGraph } from "../../lib/graph/tensor.js";
import { diffusionDpo, diffusionDpoLoss } from "../../lib/objectives/diffusion-dpo.js";
import { dspo, dspoLoss } from "../../lib/objectives/dspo.js";
import { dspoSdxl, dspoSdxlLoss } from "../../lib/objectives/dspo-sdxl.js";
import { hingeLoss } from "../../lib/objectives/hinge.js";
import { ipoLoss } from "../../lib/objectives/ipo.js";
import {
  balancedOffset,
  convexUtility,
  type KtoOffset,
  type KtoUtility,
  ktoLoss,
  lossAverseUtility,
  meanOffset,
  prospectUtility,
  riskSeekingUtility,
} from "../../lib/objectives/kto.js";
import { mapoLoss } from "../../lib/objectives/mapo.js";
import { type ObjectiveContext, type ObjectiveResult, pairOf, perSample } from "../../lib/objectives/objective.js";
import { negativeError, orpoLoss } from "../../lib/objectives/orpo.js";
import { sft } from "../../lib/objectives/sft.js";
import { convert, type HostTensor, hostTensor, insideShape } from "../../lib/util/host-tensor.js";
import { Random } from "../../lib/util/random.js";
import { expectClose, relL2 } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";

type Loss = (ctx: ObjectiveContext) => ObjectiveResult;
type DType = "f32" | "f64";

/** The set was made with weights of 1.2 and 0.8, which the code multiplies with flags: in float32. */
const kto =
  (utility: KtoUtility, offset: KtoOffset) =>
  (beta: number, labels: readonly number[]): Loss =>
  ({ sums }) =>
    ktoLoss(
      { sums, inputs: { desirable: constant(labels, [labels.length], "f64") } },
      { beta, utility, offset, desirableWeight: Math.fround(1.2), undesirableWeight: Math.fround(0.8) },
    );

/** Method of the goldens -> the loss with that beta (and labels of single samples). The margins of diffusers' script have no factor 1/2. */
const losses: Readonly<Record<string, (beta: number, labels: readonly number[]) => Loss>> = {
  dspo: beta => ctx => dspoLoss(ctx, beta),
  "dspo-sdxl": beta => ctx => dspoSdxlLoss(ctx, beta),
  dpo: beta => ctx => diffusionDpoLoss(ctx, beta),
  "hf/sigmoid": beta => ctx => diffusionDpoLoss(ctx, 2 * beta),
  "hf/hinge": beta => ctx => hingeLoss(ctx, 2 * beta),
  "hf/ipo": beta => ctx => ipoLoss(ctx, { tau: beta, kappa: 1 }),
  orpo: beta => ctx => turned(ctx, beta),
  mapo: beta => ctx => mapoLoss(ctx, { beta, snr: 0.5, steps: 1000 }),
  "kto/sigmoid/none": kto(prospectUtility, meanOffset),
  "kto/sigmoid/sigmoid": kto(prospectUtility, balancedOffset),
  "kto/loss_averse/none": kto(lossAverseUtility, meanOffset),
  "kto/loss_averse/sigmoid": kto(lossAverseUtility, balancedOffset),
  "kto/risk_seeking_1/none": kto(riskSeekingUtility, meanOffset),
  "kto/risk_seeking_1/sigmoid": kto(riskSeekingUtility, balancedOffset),
  "kto/risk_seeking_3/none": kto(convexUtility, meanOffset),
  "kto/risk_seeking_3/sigmoid": kto(convexUtility, balancedOffset),
  sft: () => sft().loss,
};

/** diffusers' ORPO from ours: its margin has the other sign, and softplus(-z) = softplus(z) - z. */
function turned(ctx: ObjectiveContext, beta: number): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const { loss } = orpoLoss(ctx, { beta, logOdds: negativeError });
  return { loss: sub(loss, scale(mean(sub(winner.E, loser.E)), beta)), metrics: {} };
}

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 1 });
});
afterAll(() => session.close());

interface Inputs {
  readonly prediction: HostTensor;
  readonly target: HostTensor;
  readonly reference: HostTensor;
}

interface Outcome {
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
  /** d loss / d prediction, [B, C, H, W]. */
  readonly gradient: ArrayLike<number>;
}

function compileLoss(loss: Loss, shape: readonly number[], dtype: DType): Executable {
  const graph = buildGraph(g => {
    const map = (name: string) => input(name, { dtype, shape: insideShape(shape, "bchw") }, "bchw");
    const [prediction, target, reference] = [map("prediction"), map("target"), map("reference")];
    const result = loss({ sums: perSample(pairSums({ prediction, target, reference })) });
    g.output("loss", result.loss);
    for (const [name, metric] of Object.entries(result.metrics)) g.output(name, metric);
    g.output("gradient", grad(result.loss, [prediction])[0]!, "bchw");
  });
  return session.compile(compileGraph(graph, { name: "loss" }));
}

async function run(executable: Executable, { prediction, target, reference }: Inputs): Promise<Outcome> {
  const { loss, gradient, ...metrics } = await session.run(executable, { inputs: { prediction, target, reference } });
  const numbers = Object.fromEntries(Object.entries(metrics).map(([name, t]) => [name, Number(t.data[0])]));
  return { loss: Number(loss!.data[0]), metrics: numbers, gradient: gradient!.data as Float64Array };
}

const evaluate = (loss: Loss, inputs: Inputs, dtype: DType = "f64"): Promise<Outcome> => run(compileLoss(loss, inputs.prediction.shape, dtype), inputs);

/** Random predictions whose reference is `gap` away. */
function randomInputs(pairs: number, gap: number, seed = 1): Inputs {
  const random = new Random(seed);
  const shape = [2 * pairs, 3, 4, 5];
  const n = 2 * pairs * 60;
  const normals = (): Float64Array => Float64Array.from({ length: n }, () => random.normal());
  const prediction = normals();
  const target = normals();
  const step = normals();
  const reference = prediction.map((x, i) => x + gap * step[i]!);
  return { prediction: hostTensor("f64", shape, prediction), target: hostTensor("f64", shape, target), reference: hostTensor("f64", shape, reference) };
}

describeSets("losses", folder => {
  const meta = JSON.parse(fs.readFileSync(path.join(folder, "meta.json"), "utf8")) as { shapes: number[][]; cases: Record<string, unknown> };
  const inputs = readSafetensors(path.join(folder, "inputs.safetensors"));
  const outputs = new Map<string, SafetensorsFile>();
  afterAll(() => {
    for (const file of [inputs, ...outputs.values()]) file.close();
  });

  const truth = (method: string): SafetensorsFile => {
    const name = `out_${method.split("/")[0]}.safetensors`;
    if (!outputs.has(name)) outputs.set(name, readSafetensors(path.join(folder, name)));
    return outputs.get(name)!;
  };
  const number = (method: string, key: string): number[] => Array.from(truth(method).tensor(key).data as Float64Array, Number);
  const programs = new Map<string, Executable>();
  /** Which samples are liked, 1 or 0: the code's sign of their reward is in the file, the labels are not. */
  const labelsOf = (method: string, name: string): number[] => {
    if (!method.startsWith("kto")) return [];
    const [scaled, reward] = [number(method, `${name}|out.label_scale_g`), number(method, `${name}|out.g_term`)];
    return scaled.map((x, i) => Number(x / reward[i]! > 0));
  };

  const cases = Object.keys(meta.cases)
    .map(name => ({ name, ...parse(name) }))
    .filter(({ method }) => method in losses);

  test("covers all shapes and methods", () => {
    expect(new Set(cases.map(c => c.method))).toEqual(new Set(Object.keys(meta.cases).map(name => parse(name).method)));
    expect(new Set(cases.map(c => c.shape)).size).toBe(meta.shapes.length);
  });

  // f32: what the set's README allows. f64: truths are float64 runs whose gradients were stored in float32 (2^-24 = 6e-8 per element).
  for (const [dtype, lossBound, gradientBound] of [
    ["f64", 1e-9, 1e-7],
    ["f32", 1e-5, 1e-5],
  ] as const)
    for (const method of Object.keys(losses))
      test(`${method} in ${dtype}`, async () => {
        for (const { name, shape, gap, beta } of cases.filter(c => c.method === method)) {
          const key = `${method} ${shape} ${beta} ${dtype}`;
          if (!programs.has(key)) programs.set(key, compileLoss(losses[method]!(beta, labelsOf(method, name)), meta.shapes[shape]!, dtype));
          const of = (what: string): HostTensor => convert(inputs.tensor(`s${shape}.${what}`), dtype);
          const outcome = await run(programs.get(key)!, {
            prediction: of("model_pred"),
            target: of("target"),
            reference: of(gap === "equal" ? "model_pred" : `ref.${gap}`),
          });
          const saturated = beta >= 1000 && gap === "large";
          expectNumber(outcome.loss, number(method, `${name}|loss`)[0]!, dtype === "f32" && saturated ? 1e-4 : lossBound, `${name} loss`);
          expectGradient(outcome.gradient, number(method, `${name}|grad.model_pred`), gradientBound, name);
          if (truth(method).tensors.has(`${name}|out.inside_term`)) checkMetrics(outcome, name, lossBound);
        }
      });

  /** The code's implicit_acc counts a tie as 0 (diffusers': one half), ours one half. */
  function checkMetrics({ metrics }: Outcome, name: string, bound: number): void {
    const { method, gap, beta } = parse(name);
    const out = (what: string): number[] => number(method, `${name}|out.${what}`);
    const mean = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0) / xs.length;
    const inside = out("inside_term");
    // Their E - R cancels: what it lost of 1e-16 is multiplied by beta / 2.
    expect(Math.abs(metrics.margin! - mean(inside))).toBeLessThanOrEqual(bound * Math.max(...inside.map(Math.abs)) + 1e-15 * beta);
    expectNumber(metrics.modelMse!, out("raw_model_loss")[0]!, bound, `${name} modelMse`);
    expectNumber(metrics.referenceMse!, out("raw_ref_loss")[0]!, bound, `${name} referenceMse`);
    expectNumber(metrics.winnerError!, mean(out("model_losses_w")), bound, `${name} winnerError`);
    expectNumber(metrics.loserError!, mean(out("model_losses_l")), bound, `${name} loserError`);
    expect(metrics.implicitAccuracy).toBeCloseTo(gap === "equal" ? 0.5 : out("implicit_acc")[0]!, 12);
  }
});

/** "dspo|s0|small|b0.001" */
function parse(name: string): { method: string; shape: number; gap: string; beta: number } {
  const [method = "", shape = "", gap = "", beta = ""] = name.split("|");
  return { method, shape: Number(shape.slice(1)), gap, beta: Number(beta.slice(1)) };
}

/** Relative error; saturated truths below 1e-30 only have to be as small. */
function expectNumber(actual: number, expected: number, bound: number, label: string): void {
  const close = Math.abs(expected) <= 1e-30 ? Math.abs(actual) <= 1e-30 : Math.abs(actual - expected) <= bound * Math.abs(expected);
  if (!close) throw new Error(`${label}: expected ${expected}, received ${actual}`);
}

function expectGradient(actual: ArrayLike<number>, expected: readonly number[], bound: number, label: string): void {
  if (expected.every(x => Math.abs(x) <= 1e-30)) expect(Array.from(actual).every(x => Math.abs(x) <= 1e-30)).toBe(true);
  else expectClose(actual, expected, bound, `${label} gradient`);
}

describe("laws", () => {
  test("dspo with beta -> 0 is supervised fine-tuning on the winners, value and gradient", async () => {
    const inputs = randomInputs(4, 0.3);
    const half = (t: HostTensor): HostTensor => hostTensor("f64", [4, ...t.shape.slice(1)], (t.data as Float64Array).slice(0, t.data.length / 2));
    const winners = await evaluate(sft().loss, { prediction: half(inputs.prediction), target: half(inputs.target), reference: half(inputs.reference) });
    // The loss moves by beta times something of the size of C: first order in beta.
    for (const beta of [1e-6, 1e-9]) {
      const { loss, gradient } = await evaluate(ctx => dspoLoss(ctx, beta), inputs);
      expect(Math.abs(loss - winners.loss)).toBeLessThan(beta);
      const n = winners.gradient.length;
      expect(relL2(Array.from(gradient).slice(0, n), winners.gradient)).toBeLessThan(beta);
      expect(Math.max(...Array.from(gradient).slice(n).map(Math.abs))).toBeLessThan(beta * beta); // losers enter through the weight alone
    }
  });

  test("at policy == reference: Diffusion-DPO is ln 2 to the last bit, dspoSdxl 1/4, dspo the winners' error", async () => {
    for (const dtype of ["f32", "f64"] as const) {
      const inputs = randomInputs(4, 0);
      expect((await evaluate(ctx => diffusionDpoLoss(ctx, 5000), inputs, dtype)).loss).toBe(Math.LN2);
      expect((await evaluate(ctx => dspoSdxlLoss(ctx, 5000), inputs, dtype)).loss).toBe(0.25);
      const { loss, metrics } = await evaluate(ctx => dspoLoss(ctx, 0.5), inputs, dtype);
      expect(loss).toBe(metrics.winnerError);
      expect(metrics.implicitAccuracy).toBe(0.5);
    }
  });

  test("at policy == reference dspoSdxl steps half as far as Diffusion-DPO", async () => {
    const inputs = randomInputs(3, 0);
    const [dpo, brier] = [await evaluate(ctx => diffusionDpoLoss(ctx, 1000), inputs), await evaluate(ctx => dspoSdxlLoss(ctx, 1000), inputs)];
    expectClose(
      brier.gradient,
      Array.from(dpo.gradient, x => x / 2),
      1e-14,
      "half",
    );
  });

  test("at policy == reference the winner's slope in dspo is 2 - beta: it turns at beta 2", async () => {
    const inputs = randomInputs(3, 0);
    const still = await evaluate(ctx => dspoLoss(ctx, 2), inputs);
    const sftLike = await evaluate(ctx => dspoLoss(ctx, 1e-12), inputs);
    expect(relL2(still.gradient, sftLike.gradient)).toBeCloseTo(1, 10);
    const ascending = await evaluate(ctx => dspoLoss(ctx, 5), inputs);
    expectClose(
      ascending.gradient,
      Array.from(sftLike.gradient, x => -1.5 * x),
      1e-11,
      "ascending",
    );
  });

  test("swapping winners and losers flips the margin", async () => {
    const inputs = randomInputs(4, 0.05);
    const swapped = (t: HostTensor): HostTensor => {
      const data = t.data as Float64Array;
      const n = data.length / 2;
      return hostTensor("f64", t.shape, Float64Array.from([...data.slice(n), ...data.slice(0, n)]));
    };
    const loss: Loss = ctx => diffusionDpoLoss(ctx, 100);
    const [a, b] = [
      await evaluate(loss, inputs),
      await evaluate(loss, { prediction: swapped(inputs.prediction), target: swapped(inputs.target), reference: swapped(inputs.reference) }),
    ];
    expect(b.metrics.margin).toBe(-a.metrics.margin!);
    expect(b.metrics.implicitAccuracy).toBe(1 - a.metrics.implicitAccuracy!);
  });

  test("a pairwise loss pulls winners and pushes losers by the same weight", async () => {
    const inputs = randomInputs(1, 0.05);
    const { gradient } = await evaluate(ctx => diffusionDpoLoss(ctx, 100), inputs);
    const n = gradient.length / 2;
    const weight = (i: number): number => gradient[i]! / ((inputs.prediction.data as Float64Array)[i]! - (inputs.target.data as Float64Array)[i]!);
    for (let i = 0; i < n; i++) expect(weight(i) / weight(n + i)).toBeCloseTo(-1, 9);
  });

  test("the margin does not change when prediction, target and reference move together, and scales with their square", async () => {
    const inputs = randomInputs(2, 0.1);
    const loss: Loss = ctx => diffusionDpoLoss(ctx, 10);
    const mapped = (f: (x: number) => number): Inputs => ({
      prediction: hostTensor("f64", inputs.prediction.shape, (inputs.prediction.data as Float64Array).map(f)),
      target: hostTensor("f64", inputs.target.shape, (inputs.target.data as Float64Array).map(f)),
      reference: hostTensor("f64", inputs.reference.shape, (inputs.reference.data as Float64Array).map(f)),
    });
    const { metrics } = await evaluate(loss, inputs);
    expect(
      (
        await evaluate(
          loss,
          mapped(x => x + 0.75),
        )
      ).metrics.margin,
    ).toBeCloseTo(metrics.margin!, 12);
    expect(
      (
        await evaluate(
          loss,
          mapped(x => 2 * x),
        )
      ).metrics.margin,
    ).toBe(4 * metrics.margin!);
  });
});

describe("a beta of another method's scale is refused, with the scale named", () => {
  test.each([5000, 1, 0, -1, Number.NaN])("dspo: %p", beta => {
    expect(() => dspo({ beta })).toThrow(ConfigError);
    expect(() => dspo({ beta })).toThrow(/in \(0, 1\).*scale of diffusionDpo/);
  });
  test.each([0.001, 1, -5000, Number.NaN, Number.POSITIVE_INFINITY])("diffusionDpo and dspoSdxl: %p", beta => {
    expect(() => diffusionDpo({ beta })).toThrow(/>= 10.*dspo's scale/);
    expect(() => dspoSdxl({ beta })).toThrow(/>= 10.*dspo's scale/);
  });
  test("defaults are in range", () => {
    expect([dspo(), diffusionDpo(), dspoSdxl()].map(o => o.name)).toEqual(["dspo", "diffusion-dpo", "dspo-sdxl"]);
  });
});
