/** What holds of every objective: its gradient is that of its value, fusing changes nothing, pairs may come in any order; and what ties the methods to each
 *  other and to the released code. */

import { compileGraph } from "../../lib/graph/compile.js";
import { Session } from "../../lib/graph/session.js";
import { adpo } from "../../lib/objectives/adpo.js";
import { adpoListwise, plackettLuce } from "../../lib/objectives/adpo-listwise.js";
import { conservativeDpo } from "../../lib/objectives/conservative-dpo.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { alphaDivergence, reverseKl } from "../../lib/objectives/divergences.js";
import { dspo, dspoLoss } from "../../lib/objectives/dspo.js";
import { dspoTwoTemperature, dspoTwoTemperatureLoss } from "../../lib/objectives/dspo-two-temperature.js";
import { fDpo } from "../../lib/objectives/f-dpo.js";
import { flowDpo } from "../../lib/objectives/flow-dpo.js";
import { hinge } from "../../lib/objectives/hinge.js";
import { ipo } from "../../lib/objectives/ipo.js";
import { ldDpo } from "../../lib/objectives/ld-dpo.js";
import { mcmDpo } from "../../lib/objectives/mcm-dpo.js";
import { modpo } from "../../lib/objectives/modpo.js";
import { armsOf, type Objective } from "../../lib/objectives/objective.js";
import { cofsDpo, ofsFast, ofsSlow } from "../../lib/objectives/ofs-dpo.js";
import { robustDpo } from "../../lib/objectives/robust-dpo.js";
import { sdpo } from "../../lib/objectives/sdpo.js";
import { sft } from "../../lib/objectives/sft.js";
import { smpo } from "../../lib/objectives/smpo.js";
import { tdpo } from "../../lib/objectives/tdpo.js";
import { tgdpo } from "../../lib/objectives/tgdpo.js";
import { givenWeight, weightErrors, weightLosses } from "../../lib/objectives/weighting.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { dot, expectClose, norm, relL2 } from "../support/compare.js";
import { runObjective, type StageInputs, type StageOutcome, stageGraph, stageInputs } from "../support/objective-stage.js";
import { objectiveTable } from "../support/objective-table.js";
import { Rng } from "../support/rng.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 1 });
});
afterAll(() => session.close());

const run = (objective: Objective, inputs: StageInputs): Promise<StageOutcome> => runObjective(session, objective, inputs);
const batch = 3;

/** Rows of every input in another order, the same within every arm. */
function permuted(objective: Objective, inputs: StageInputs, order: readonly number[]): StageInputs {
  const arms = armsOf(objective).length;
  return Object.fromEntries(
    Object.entries(inputs).map(([name, t]) => {
      const rows = t.shape[0] === order.length ? order : Array.from({ length: arms }, (_, arm) => order.map(i => arm * order.length + i)).flat();
      return [name, picked(t, rows)];
    }),
  );
}

function picked(t: HostTensor, rows: readonly number[]): HostTensor {
  const width = t.data.length / t.shape[0]!;
  const data = rows.flatMap(row => Array.from((t.data as Float64Array).subarray(row * width, (row + 1) * width)));
  return hostTensor(t.dtype, [rows.length, ...t.shape.slice(1)], data);
}

describe.each(objectiveTable.map(row => [row.objective.name, row] as const))("%s", (_name, { objective, detached, atReference }) => {
  const inputs = stageInputs(objective, batch);

  if (!detached)
    test("its gradient is that of its value", async () => {
      const rng = new Rng(7);
      const { gradient } = await run(objective, inputs);
      const { data, shape } = inputs.prediction!;
      const direction = Float64Array.from({ length: data.length }, () => rng.normal());
      const h = 1e-6;
      const at = async (step: number): Promise<number> => {
        const moved = (data as Float64Array).map((x, i) => x + step * direction[i]!);
        return (await run(objective, { ...inputs, prediction: hostTensor("f64", shape, moved) })).loss;
      };
      const slope = ((await at(h)) - (await at(-h))) / (2 * h);
      // Rounding of the losses over 2 h, and the third derivative: margins are of order 10 and move by 10 per unit of the direction.
      expect(Math.abs(dot(gradient, direction) - slope)).toBeLessThan(1e-6 * norm(gradient) * norm(direction) + 1e-7);
      expect(norm(gradient)).toBeGreaterThan(0);
    });

  test("fused it has the values of the plain ops", async () => {
    const plain = await run(objective, inputs);
    for (const [dtype, bound] of [
      ["f64", 1e-10],
      ["f32", 2e-5],
    ] as const) {
      const expected = dtype === "f64" ? plain : await runObjective(session, objective, inputs, { dtype });
      const fused = await runObjective(session, objective, inputs, { dtype, fused: true });
      expect(Math.abs(fused.loss - expected.loss)).toBeLessThanOrEqual(bound * Math.max(1, Math.abs(expected.loss)));
      expectClose(fused.gradient, expected.gradient, bound, "gradient");
      for (const [name, value] of Object.entries(expected.metrics))
        expect(Math.abs(fused.metrics[name]! - value)).toBeLessThanOrEqual(bound * Math.max(1, Math.abs(value)));
    }
  });

  test("pairs may come in any order", async () => {
    const order = [2, 0, 1];
    const [a, b] = [await run(objective, inputs), await run(objective, permuted(objective, inputs, order))];
    expect(b.loss).toBeCloseTo(a.loss, 12);
    expectClose(
      b.gradient,
      permuted(objective, { x: { ...inputs.prediction!, data: a.gradient as Float64Array } }, order).x!.data as Float64Array,
      1e-12,
      "gradient",
    );
  });

  test("weights of 1 change no bit, weights of 3 make all of it three times as much", async () => {
    const weighted = weightLosses(objective, { ...givenWeight, inputs: { weight: { least: 0 } } });
    const all = (value: number): StageInputs => ({ ...inputs, "extras/weight": hostTensor("f64", [batch], new Float64Array(batch).fill(value)) });
    if (objective.inputs?.weight) return; // it has a weight of that name already
    const [plain, one, three] = [await run(objective, inputs), await run(weighted, all(1)), await run(weighted, all(3))];
    expect(one.loss).toBe(plain.loss);
    expect(relL2(one.gradient, plain.gradient)).toBe(0);
    expect(three.loss).toBeCloseTo(3 * plain.loss, 12);
  });

  if (atReference !== undefined)
    test(`at the reference it is ${atReference.toFixed(4)}`, async () => {
      const { loss } = await run(objective, stageInputs(objective, batch, { gap: 0 }));
      expect(loss).toBeCloseTo(atReference, 12);
    });
});

describe("one op on a GPU", () => {
  const whole = objectiveTable.filter(({ objective }) => objective.segments === undefined && armsOf(objective).length <= 2);
  test.each(whole.map(({ objective }) => [objective.name, objective] as const))("%s", (_name, objective) => {
    const target = { backend: "cuda", kernels: new Set(["preference_loss"]) } as const;
    const ops = compileGraph(stageGraph(objective, batch, "f32"), { name: "stage", target }).instructions.map(({ op }) => op);
    expect(ops).toContain("preference_loss");
    expect(ops).not.toContain("pair_sums_vjp");
  });
});

describe("methods that are Diffusion-DPO at one end", () => {
  const beta = 400;
  const constant = (value: number): HostTensor => hostTensor("f64", [batch], new Float64Array(batch).fill(value));
  const ends: readonly (readonly [string, Objective, StageInputs])[] = [
    ["f-DPO with reverse KL", fDpo({ divergence: reverseKl, beta: 1, kappa: beta / 2 }), {}],
    ["conservative DPO without noise", conservativeDpo({ beta, labelNoise: 0 }), {}],
    ["robust DPO without noise", robustDpo({ beta, labelNoise: 0 }), {}],
    ["ADPO with hard labels", adpo({ beta }), { "extras/preference": constant(1) }],
    ["Plackett-Luce of two", plackettLuce({ size: 2, beta }), { "extras/rewards": hostTensor("f64", [batch, 2], Float64Array.from([1, 0, 5, 3, -1, -2])) }],
    ["SmPO where 10 (2 pi - 1) is 1", smpo({ beta }), { "extras/preference": constant(0.55) }],
    ["MODPO with rewards that do not differ", modpo({ beta, weights: [1, 0.7] }), { "extras/margins": constant(0) }],
    ["TDPO without KL", tdpo({ beta, alpha: 0 }), {}],
    ["TGDPO without guidance", tgdpo({ beta, alpha: 0, segments: 3 }), {}],
    ["LD-DPO of equal lengths", ldDpo({ beta, segments: 6, alpha: 0.2 }), { "extras/winnerLength": constant(6), "extras/loserLength": constant(6) }],
    ["MCM-DPO of the answer alone", mcmDpo({ beta, weights: { answer: 2 } }), {}],
    ["OFS-DPO without chase, fast", ofsFast({ beta }), {}],
    ["OFS-DPO without chase, slow", ofsSlow({ beta }), {}],
    ["COFS-DPO with memory as everything else", cofsDpo({ beta }), {}],
    ["Flow-DPO", flowDpo({ beta }), {}],
  ];
  test.each(ends)("%s", async (_name, objective, extras) => {
    const inputs = { ...stageInputs(objective, batch), ...extras };
    const [own, dpo] = [await run(objective, inputs), await run(diffusionDpo({ beta }), inputs)];
    expect(own.loss).toBeCloseTo(dpo.loss, 12);
    expectClose(own.gradient, dpo.gradient, 1e-12, "gradient");
  });

  test("ADPO with one soft label is conservative DPO less the entropy of the labels", async () => {
    const labelNoise = 0.2;
    const inputs = { ...stageInputs(adpo(), batch), "extras/preference": constant(1 - labelNoise) };
    const [soft, smoothed] = [await run(adpo({ beta }), inputs), await run(conservativeDpo({ beta, labelNoise }), inputs)];
    const entropy = -(1 - labelNoise) * Math.log(1 - labelNoise) - labelNoise * Math.log(labelNoise);
    expect(soft.loss).toBeCloseTo(smoothed.loss - entropy, 12);
    expectClose(soft.gradient, smoothed.gradient, 1e-12, "gradient");
  });

  test("alpha divergences begin at reverse KL", async () => {
    const inputs = stageInputs(fDpo(), batch);
    const [near, end] = [
      await run(fDpo({ divergence: alphaDivergence(1e-6), kappa: 100 }), inputs),
      await run(fDpo({ divergence: reverseKl, kappa: 100 }), inputs),
    ];
    expect(relL2(near.gradient, end.gradient)).toBeLessThan(1e-5); // e^(-alpha r) = 1 - alpha r to first order, |r| of some units
  });

  test("robust DPO on flipped labels is on average DPO on true ones", async () => {
    const labelNoise = 0.3;
    const inputs = stageInputs(diffusionDpo(), batch);
    const swapped = permutedArms(inputs);
    const [kept, flipped] = [await run(robustDpo({ beta, labelNoise }), inputs), await run(robustDpo({ beta, labelNoise }), swapped)];
    expect((1 - labelNoise) * kept.loss + labelNoise * flipped.loss).toBeCloseTo((await run(diffusionDpo({ beta }), inputs)).loss, 12);
  });
});

/** Winners and losers exchanged. */
function permutedArms(inputs: StageInputs): StageInputs {
  const order = [...Array(2 * batch).keys()].map(i => (i + batch) % (2 * batch));
  return Object.fromEntries(Object.entries(inputs).map(([name, t]) => [name, t.shape[0] === 2 * batch ? picked(t, order) : t]));
}

describe("other laws", () => {
  const symmetric = [diffusionDpo(), hinge(), ipo(), conservativeDpo(), robustDpo(), fDpo({ kappa: 100 }), tdpo()];
  test.each(symmetric.map(objective => [objective.name, objective] as const))(
    "%s: exchanging winners and losers turns the margin",
    async (_name, objective) => {
      const inputs = stageInputs(objective, batch);
      const [a, b] = [await run(objective, inputs), await run(objective, permutedArms(inputs))];
      expect(b.metrics.margin).toBeCloseTo(-a.metrics.margin!, 12);
      expect(b.metrics.implicitAccuracy).toBe(1 - a.metrics.implicitAccuracy!);
    },
  );

  test("dspo and its two-temperature form agree where both temperatures are one, and go to sft as the score term goes", async () => {
    const inputs = stageInputs(dspo(), batch);
    const [one, two] = [
      await run({ ...dspo(), loss: ctx => dspoLoss(ctx, 0.7) }, inputs),
      await run({ ...dspo(), loss: ctx => dspoTwoTemperatureLoss(ctx, { beta: 0.7, scoreBeta: 0.7, detachWeight: false }) }, inputs),
    ];
    expect(two.loss).toBe(one.loss);
    expect(relL2(two.gradient, one.gradient)).toBe(0);
    const winners = Object.fromEntries(Object.entries(inputs).map(([name, t]) => [name, name === "index" ? t : picked(t, [0, 1, 2])]));
    const plain = await run(sft(), winners);
    const faint = await run(dspoTwoTemperature({ scoreBeta: 1e-9 }), inputs);
    expect(relL2(Array.from(faint.gradient).slice(0, plain.gradient.length), plain.gradient)).toBeLessThan(1e-6); // scoreBeta beta C, beta 2000
  });

  test("with two temperatures pairs weigh differently, with one of 0.001 all alike", async () => {
    const pairs = 8;
    const inputs = stageInputs(dspo(), pairs);
    const width = inputs.prediction!.data.length / (2 * pairs);
    const [prediction, target] = [inputs.prediction!.data as Float64Array, inputs.target!.data as Float64Array];
    const residual = prediction.map((x, i) => x - target[i]!);
    // How much of sft's slope is left along the winner's residual: (1 - pull)(1 - pull C / E).
    const spread = async (objective: Objective): Promise<number> => {
      const { gradient } = await run(objective, inputs);
      const kept = Array.from({ length: pairs }, (_, pair) => {
        const part = <T extends ArrayLike<number>>(x: T): number[] => Array.from(x).slice(pair * width, (pair + 1) * width);
        return (dot(part(gradient), part(residual)) * pairs * width) / 2 / norm(part(residual)) ** 2;
      });
      return Math.max(...kept) - Math.min(...kept);
    };
    expect(await spread(dspo({ beta: 0.001 }))).toBeLessThan(1e-4);
    expect(await spread(dspoTwoTemperature({ scoreBeta: 0.5, detachWeight: true }))).toBeGreaterThan(0.1);
  });

  test("a detached weight leaves losers without a gradient", async () => {
    const { gradient } = await run(dspoTwoTemperature({ detachWeight: true }), stageInputs(dspo(), batch));
    expect(norm(Array.from(gradient).slice(gradient.length / 2))).toBe(0);
  });

  test("ipo steps along Diffusion-DPO at the reference, and stands still where the margin is its target", async () => {
    const inputs = stageInputs(ipo(), batch, { gap: 0 });
    const [regression, dpo] = [await run(ipo({ tau: 0.5, kappa: 300 }), inputs), await run(diffusionDpo({ beta: 600 }), inputs)];
    // IPO: -2 kappa / (2 tau) per unit of D; DPO: beta / 4.
    expectClose(
      regression.gradient,
      Array.from(dpo.gradient, x => x * (300 / 0.5 / 150)),
      1e-12,
      "gradient",
    );
    const away = stageInputs(ipo(), 1);
    const { metrics } = await run(ipo({ kappa: 1 }), away);
    const pair = metrics.margin! > 0 ? away : Object.fromEntries(Object.entries(away).map(([n, t]) => [n, t.shape[0] === 2 ? picked(t, [1, 0]) : t]));
    const settled = await run(ipo({ tau: 1, kappa: 0.5 / Math.abs(metrics.margin!) }), pair);
    expect(settled.loss).toBeLessThan(1e-20);
  });

  test("hinge: a pair that is won by more than 1 has no gradient", async () => {
    const inputs = stageInputs(hinge(), batch, { gap: 0.5 });
    const won = await run(hinge({ beta: 1e6 }), inputs);
    const { metrics } = won;
    expect(metrics.saturation).toBe(1);
    const width = won.gradient.length / (2 * batch);
    const idle = Array.from({ length: batch }, (_, i) => norm(Array.from(won.gradient).slice(i * width, (i + 1) * width)) === 0).filter(Boolean).length;
    expect(idle / batch).toBe(metrics.implicitAccuracy);
  });

  test("sdpo keeps the loss, and a step along its gradient does not raise the winners' error", async () => {
    const inputs = stageInputs(diffusionDpo(), batch, { gap: 0 });
    // losers' residuals all but the winners': where Diffusion-DPO's gradients cancel
    const half = inputs.prediction!.data.length / 2;
    const data = (inputs.prediction!.data as Float64Array).slice();
    for (let i = 0; i < half; i++) data[half + i] = data[i]! * 1.5;
    const target = (inputs.target!.data as Float64Array).slice();
    for (let i = 0; i < half; i++) target[half + i] = target[i]! * 1.5;
    const close = {
      ...inputs,
      prediction: hostTensor("f64", inputs.prediction!.shape, data),
      target: hostTensor("f64", inputs.target!.shape, target),
      reference: hostTensor("f64", inputs.prediction!.shape, data),
    };
    const [base, safe] = [await run(diffusionDpo(), close), await run(sdpo(diffusionDpo(), { mu: 0.4 }), close)];
    expect(safe.loss).toBe(base.loss);
    const scaleOf = safe.metrics.loserScale!;
    expect(scaleOf).toBeCloseTo(0.6 / 1.5, 12); // (1 - mu) <d_w, d_w> / <d_w, 1.5 d_w>
    expect(relL2(Array.from(safe.gradient).slice(0, half), Array.from(base.gradient).slice(0, half))).toBe(0);
    expectClose(
      Array.from(safe.gradient).slice(half),
      Array.from(base.gradient)
        .slice(half)
        .map(x => x * scaleOf),
      1e-12,
      "losers",
    );
  });

  test("an error weight of w is a beta w times as large", async () => {
    const objective = weightErrors(diffusionDpo({ beta: 200 }), givenWeight);
    const inputs = { ...stageInputs(objective, batch), "extras/weight": hostTensor("f64", [batch], new Float64Array(batch).fill(3)) };
    expect((await run(objective, inputs)).loss).toBeCloseTo((await run(diffusionDpo({ beta: 600 }), inputs)).loss, 12);
  });

  test("a listwise loss asks only for differences of rewards, in units of their spread", async () => {
    const objective = adpoListwise({ size: 4 });
    const inputs = stageInputs(objective, batch);
    const rewards = inputs["extras/rewards"]!;
    const moved = { ...inputs, "extras/rewards": { ...rewards, data: (rewards.data as Float64Array).map(x => 7 * x - 2) } };
    const [a, b] = [await run(objective, inputs), await run(objective, moved)];
    expect(b.loss).toBeCloseTo(a.loss, 10);
  });

  test("of two pictures a listwise loss knows that one is better: advantages 1 and -1, so odds of e^(2 / temperature)", async () => {
    const objective = adpoListwise({ size: 2, beta: 400, rewardTemperature: 0.8 });
    const inputs = stageInputs(objective, batch);
    const rewards = hostTensor("f64", [batch, 2], Float64Array.from([3, 1, 7, 2, 0.5, 0.25]));
    const odds = Math.exp(2 / 0.8);
    const preference = hostTensor("f64", [batch], new Float64Array(batch).fill(odds / (1 + odds)));
    const [list, soft] = [
      await run(objective, { ...inputs, "extras/rewards": rewards }),
      await run(adpo({ beta: 400 }), { ...inputs, "extras/preference": preference }),
    ];
    expect(list.loss).toBeCloseTo(soft.loss, 12);
    expectClose(list.gradient, soft.gradient, 1e-12, "gradient");
  });
});
