/** The arithmetic of every objective, in loss and gradient, against numbers made in float64 by code that agrees with the authors' to 1e-10. A log-ratio r is
 *  -kappa D; beta kappa is half the beta of an objective on Diffusion-DPO's scale. */

import fs from "node:fs";
import path from "node:path";
import { compileGraph } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { add, mean, neg, scale } from "../../lib/graph/ops/elementwise.js";
import { constant, input } from "../../lib/graph/ops/leaf.js";
import { pairSums } from "../../lib/graph/ops/preference.js";
import { concat, reshape, slice, stopGradient as stop } from "../../lib/graph/ops/shape.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Tensor } from "../../lib/graph/tensor.js";
import { adpoLoss } from "../../lib/objectives/adpo.js";
import { adpoGroupLoss, plackettLuceGroupLoss } from "../../lib/objectives/adpo-listwise.js";
import { conservativeDpoLoss } from "../../lib/objectives/conservative-dpo.js";
import { diffusionDpoLoss } from "../../lib/objectives/diffusion-dpo.js";
import { alphaDivergence, type Divergence, forwardKl, jensenShannon, reverseKl } from "../../lib/objectives/divergences.js";
import { fDpoLoss } from "../../lib/objectives/f-dpo.js";
import { hingeLoss } from "../../lib/objectives/hinge.js";
import { ipoLoss } from "../../lib/objectives/ipo.js";
import { ldDpoLoss } from "../../lib/objectives/ld-dpo.js";
import { mcmDpoLoss } from "../../lib/objectives/mcm-dpo.js";
import { modpoLoss } from "../../lib/objectives/modpo.js";
import { type ErrorSums, type ObjectiveContext, type ObjectiveResult, perSample } from "../../lib/objectives/objective.js";
import { ofsDpoLoss } from "../../lib/objectives/ofs-dpo.js";
import { rdpoLoss } from "../../lib/objectives/rdpo.js";
import { rewardWeightedLoss } from "../../lib/objectives/reward-weighted.js";
import { robustDpoLoss } from "../../lib/objectives/robust-dpo.js";
import { tdpoLoss } from "../../lib/objectives/tdpo.js";
import { tgdpoLoss } from "../../lib/objectives/tgdpo.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { type Numbers, runStage } from "../support/scalar-stage.js";

type Values = readonly number[] | readonly (readonly number[])[];
interface Params {
  readonly [name: string]: unknown;
}
interface Case {
  readonly name: string;
  readonly params: Params;
  readonly inputs: Readonly<Record<string, Values>>;
  readonly outputs: { readonly loss: number; readonly grad: Readonly<Record<string, Values>> };
}
type Leaves = Readonly<Record<string, Tensor>>;
type Loss = (x: Leaves, params: Params) => { readonly loss: Tensor };

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 1 });
});
afterAll(() => session.close());

/** Sums of arms whose log-ratios, with kappa = 1, are these; E, P and C are those given or D again. */
function sumsOf(logRatios: readonly Tensor[], others: Partial<ErrorSums> = {}): ErrorSums {
  const D = neg(concat(logRatios, 0));
  return { E: D, D, P: D, C: D, ...others };
}
const pair = ({ rw, rl }: Leaves): ObjectiveContext => ({ sums: sumsOf([rw!, rl!]) });
const number = (params: Params, name: string): number => params[name] as number;

const divergenceOf = ({ divergence, alpha }: Params): Divergence =>
  divergence === "alpha" ? alphaDivergence(alpha as number) : { reverse_kl: reverseKl, forward_kl: forwardKl, js: jensenShannon }[divergence as string]!;

const pairwise: Readonly<Record<string, (ctx: ObjectiveContext, params: Params) => ObjectiveResult>> = {
  dpo: (ctx, p) => diffusionDpoLoss(ctx, 2 * number(p, "beta")),
  cdpo: (ctx, p) => conservativeDpoLoss(ctx, { beta: 2 * number(p, "beta"), labelNoise: number(p, "label_smoothing") }),
  robust: (ctx, p) => robustDpoLoss(ctx, { beta: 2 * number(p, "beta"), labelNoise: number(p, "label_smoothing") }),
  ipo: (ctx, p) => ipoLoss(ctx, { tau: number(p, "tau"), kappa: 1 }),
  hinge: (ctx, p) => hingeLoss(ctx, 2 * number(p, "beta")),
  fdpo: (ctx, p) => fDpoLoss(ctx, { divergence: divergenceOf(p), beta: number(p, "beta"), kappa: 1 }),
};

/** Segment means whose shares of the log-ratio are these. */
function segmentsOf(winner: Tensor, loser: Tensor): ErrorSums {
  const D = scale(concat([winner, loser], 0), -winner.shape[1]!);
  return { E: D, D, P: D, C: D };
}
const columns = (table: Tensor): Tensor[] =>
  Array.from({ length: table.shape[1]! }, (_, i) => reshape(slice(table, { axis: 1, start: i, length: 1 }), [table.shape[0]!]));

function segmented(x: Leaves, [winner, loser]: readonly [string, string]): ObjectiveContext {
  const segments = segmentsOf(x[winner]!, x[loser]!);
  return { sums: perSample(segments), segments };
}

const modpoCase: Loss = ({ rw, rl, mw, ml }, { beta, w }) =>
  modpoLoss({ ...pair({ rw: rw!, rl: rl! }), inputs: { margins: add(mw!, neg(ml!)) } }, { weights: w as [number, ...number[]], beta: 2 * (beta as number) });

/** Loss of each file's cases. */
const files: Readonly<Record<string, Loss>> = {
  pairwise: (x, p) => pairwise[p.kind as string]!(pair(x), p),
  modpo: modpoCase,
  tdpo: ({ rw, rl, kw, kl }, { version, beta, alpha }) =>
    tdpoLoss(
      { sums: sumsOf([rw!, rl!], { P: concat([kw!, kl!], 0) }) },
      { beta: 2 * (beta as number), alpha: (alpha as number | null) ?? 1, detachWinner: version === 2 },
    ),
  tgdpo: (x, { beta, alpha }) =>
    tgdpoLoss({ ...segmented(x, ["rw", "rl"]), guide: segmentsOf(stop(x.gw!), stop(x.gl!)) }, { beta: 2 * (beta as number), alpha: alpha as number }),
  lddpo: (x, { beta, alpha }) =>
    ldDpoLoss({ ...segmented(x, ["tw", "tl"]), inputs: { winnerLength: x.lw!, loserLength: x.ll! } }, { beta: 2 * (beta as number), alpha: alpha as number }),
  rdpo: ({ rw, rl, ralt }, { beta }) => rdpoLoss({ sums: sumsOf([rw!, rl!, ralt!]) }, 2 * (beta as number)),
  mcmdpo: (x, { beta, weights, norm }) => {
    // answer, image, both, context, context and answer, context and image, all three wrong
    const arms = ["www", "wwl", "wlw", "wll", "lww", "lwl", "llw", "lll"];
    const shares = ["r3", "r2", "r5", "r1", "r4", "r6", "r7"].map(name => (weights as Record<string, number>)[name]! / (norm as number));
    return mcmDpoLoss({ sums: sumsOf(arms.map(name => x[name]!)) }, { shares, beta: 2 * (beta as number) });
  },
  ofsdpo: ({ mF, mS }, { role, beta, alpha }) => {
    const [own, other] = role === "fast" ? [mF!, mS!] : [mS!, mF!];
    const zero = scale(own, 0);
    const guide = segmentsOf(reshape(other, [-1, 1]), reshape(zero, [-1, 1]));
    return ofsDpoLoss({ sums: sumsOf([own, zero]), guide }, { beta: 2 * (beta as number), alpha: alpha as number, role: role === "fast" ? 1 : -1 });
  },
  adpo: ({ r, adv, q }, { kind, tau, beta_r: temperature }) => {
    if (q) {
      const [winner, loser] = columns(r!) as [Tensor, Tensor];
      return adpoLoss({ sums: sumsOf([winner, loser]), inputs: { preference: columns(stop(q))[0]! } }, 2 / (tau as number));
    }
    const scores = columns(scale(r!, 1 / (tau as number)));
    const rewards = columns(stop(adv!));
    return { loss: mean(kind === "pl" ? plackettLuceGroupLoss(scores, rewards) : adpoGroupLoss(scores, rewards, temperature as number)) };
  },
  reward_weighted: ({ e, w, e_pre: pre }, { beta }) => {
    const repeated = concat([pre!, pre!], 0); // as many as there are rewarded samples; the mean is the same
    const E = concat([e!, repeated], 0);
    return rewardWeightedLoss({ sums: { E, D: E, P: E, C: E }, inputs: { reward: stop(w!) } }, beta as number);
  },
};

/** Cases whose loss is another than ours, and says so in the objective's header. */
const others = (name: string): boolean => name.startsWith("pl official defaults");
/** Read by other tests, or of other parts than the objectives. */
const elsewhere = new Set(
  "fused mapping builders calibration ches distill erase fkc nash_md online_ipo overopt prefpaint radd rewardmath selective_labels unlikelihood".split(" "),
);

describeSets("objectives", folder => {
  const names = fs
    .readdirSync(folder)
    .filter(file => file.endsWith(".json"))
    .map(file => file.slice(0, -5));
  const read = (name: string) => JSON.parse(fs.readFileSync(path.join(folder, `${name}.json`), "utf8")) as { cases: Case[] };

  test("every file is read, or known to be of another part", () => {
    expect(names.filter(name => !(name in files) && !elsewhere.has(name))).toEqual([]);
    expect(names.filter(name => name in files).length).toBeGreaterThan(0);
  });

  for (const name of names.filter(file => file in files))
    for (const { name: title, params, inputs, outputs } of read(name).cases.filter(c => !others(c.name)))
      test(`${name}: ${title}`, async () => {
        const { loss, gradients } = await runStage(session, inputs as Numbers, x => files[name]!(x, params));
        expect(Math.abs(loss - outputs.loss)).toBeLessThanOrEqual(1e-11 * Math.abs(outputs.loss));
        for (const [of, expected] of Object.entries(outputs.grad)) expectWithin(gradients[of]!, (expected as number[]).flat(), `${title}: gradient of ${of}`);
      });

  if (names.includes("fused"))
    describe("from maps", () => {
      const fused = JSON.parse(fs.readFileSync(path.join(folder, "fused.json"), "utf8")) as Fused;
      for (const { name, outputs } of fused.cases)
        for (const dtype of ["f64", "f32"] as const)
          test(`${name} in ${dtype}`, async () => {
            const { loss, gradient } = await fromMaps(fused, name, dtype);
            const [lossBound, bound] = dtype === "f64" ? [1e-11, 1e-11] : [2e-5, 1e-4];
            expect(Math.abs(loss - outputs.loss)).toBeLessThanOrEqual(lossBound * Math.abs(outputs.loss));
            expectClose(gradient, [...byPatch(outputs.grad_pred_w), ...byPatch(outputs.grad_pred_l)], bound, name);
          });
    });
});

/** To 1e-11 of the largest, as the set's README has it. */
function expectWithin(actual: ArrayLike<number>, expected: readonly number[], label: string): void {
  const largest = Math.max(...expected.map(Math.abs));
  for (const [i, x] of expected.entries())
    if (!(Math.abs(actual[i]! - x) <= 1e-11 * largest)) throw new Error(`${label}: at [${i}] of ${expected.length}: expected ${x}, received ${actual[i]}`);
}

type Maps = readonly (readonly (readonly (readonly number[])[])[])[];
interface Fused {
  readonly params: { readonly kappa: number; readonly modpo_w: [number, ...number[]]; readonly mw: number[][]; readonly ml: number[][] };
  readonly tensors: Readonly<Record<string, Maps>>;
  readonly cases: readonly { readonly name: string; readonly outputs: { readonly loss: number; readonly grad_pred_w: Maps; readonly grad_pred_l: Maps } }[];
}

/** [B, C, 4, 4] with its four patches of 2 x 2 one after the other, [B, 16, 1, C]: rows are then patches' pixels, and patches runs of rows. */
function byPatch(maps: Maps): number[] {
  const out: number[] = [];
  for (const sample of maps)
    for (const patch of [0, 1, 2, 3])
      for (const pixel of [0, 1, 2, 3]) {
        const [y, x] = [2 * (patch >> 1) + (pixel >> 1), 2 * (patch & 1) + (pixel & 1)];
        for (const channel of sample) out.push(channel[y]![x]!);
      }
  return out;
}

async function fromMaps({ params, tensors }: Fused, name: string, dtype: "f32" | "f64"): Promise<{ loss: number; gradient: Float64Array }> {
  const host = (winner: string, loser: string): HostTensor => hostTensor(dtype, [4, 16, 1, 2], [...byPatch(tensors[winner]!), ...byPatch(tensors[loser]!)]);
  const segments = name.startsWith("tgdpo") ? 4 : 1;
  const graph = buildGraph(g => {
    const [prediction, target, reference, guide] = ["prediction", "target", "reference", "guide"].map(x => input(x, { dtype, shape: [4, 16, 1, 2] })) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    const sums = pairSums({ prediction, target, reference, segments });
    const margins = constant(
      params.mw.map((row, i) => row[0]! - params.ml[i]![0]!),
      [2],
      "f64",
    );
    const ctx: ObjectiveContext = {
      sums: perSample(sums),
      segments: sums,
      guide: pairSums({ prediction: guide, target, reference, segments }),
      inputs: { margins, preference: constant([0.9, 0.9], [2], "f64") },
    };
    const { loss } = headOf(name, params)(ctx);
    g.output("loss", loss);
    g.output("gradient", grad(loss, [prediction])[0]!);
  });
  const inputs = {
    prediction: host("pred_w", "pred_l"),
    target: host("target", "target"),
    reference: host("ref_w", "ref_l"),
    guide: host("guide_w", "guide_l"),
  };
  const { loss, gradient } = await session.run(session.compile(compileGraph(graph, { name: "fused" })), { inputs });
  return { loss: Number(loss!.data[0]), gradient: gradient!.data as Float64Array };
}

/** "tdpo2 beta=.2 alpha=.5" -> the loss; log-ratios are kappa times errors. */
function headOf(name: string, { kappa, modpo_w: weights }: Fused["params"]): (ctx: ObjectiveContext) => ObjectiveResult {
  const [head = "", ...words] = name.split(" ");
  const option = (key: string): number => Number(words.find(word => word.startsWith(`${key}=`))?.slice(key.length + 1));
  const beta = 2 * kappa * option("beta");
  const heads: Readonly<Record<string, (ctx: ObjectiveContext) => ObjectiveResult>> = {
    dpo: ctx => diffusionDpoLoss(ctx, beta),
    ipo: ctx => ipoLoss(ctx, { tau: option("tau"), kappa }),
    hinge: ctx => hingeLoss(ctx, beta),
    fdpo: ctx => fDpoLoss(ctx, { divergence: divergenceOf({ divergence: words[0], alpha: Number(words[1]) }), beta: option("beta"), kappa }),
    modpo: ctx => modpoLoss(ctx, { weights, beta }),
    tdpo1: ctx => tdpoLoss(ctx, { beta, alpha: 1, detachWinner: false }),
    tdpo2: ctx => tdpoLoss(ctx, { beta, alpha: option("alpha"), detachWinner: true }),
    tgdpo: ctx => tgdpoLoss(ctx, { beta, alpha: option("alpha") }),
    adpo: ctx => adpoLoss(ctx, (2 * kappa) / option("tau")),
  };
  const found = heads[head];
  if (!found) throw new Error(`no objective for ${name}`);
  return found;
}
