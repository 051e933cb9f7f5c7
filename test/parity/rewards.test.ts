/** Numbers made of rewards against the golden set "rewards" and, where ATTUNE_TEST_DATA names them, against published files: TextNorm, losses with their gradients,
 *  measures of rankings. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { areaUnderRoc, averagePrecision } from "../../lib/conformal/metrics-ranking.js";
import { resizeBicubic } from "../../lib/data/float-resample.js";
import { readSafetensors } from "../../lib/data/safetensors.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Tensor, typed } from "../../lib/graph/tensor.js";
import { composition, counting } from "../../lib/rewards/contrast.js";
import { loadAestheticHead } from "../../lib/rewards/load.js";
import { bradleyTerryLoss, hpsLoss, pickScoreLoss, promptClassificationLoss, reflLoss, scaledCosine } from "../../lib/rewards/losses.js";
import { expectedBestOfN, inversionScore, pairAccuracy, strictPairs, tieAccuracy } from "../../lib/rewards/pair-metrics.js";
import { type AlignmentMeasures, alignmentMeasures, averagePrecisionAtK, evaluateAlignment, kendall, spearman } from "../../lib/rewards/rank-metrics.js";
import { ensembleLower, ensembleMean, ensembleMin, normalizedScore } from "../../lib/rewards/text-norm.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { numbers } from "../support/gradients.js";

const read = <T>(...path: string[]): T => JSON.parse(readFileSync(join(...path), "utf8")) as T;
const data = process.env.ATTUNE_TEST_DATA === undefined ? undefined : join(process.env.ATTUNE_TEST_DATA, "data");
/** Published files: tests of them are skipped, with the reason in their name, where there are none. */
const withData = (file: string, name: string, body: (path: string) => void): void => {
  const path = data === undefined ? "" : join(data, file);
  if (path !== "" && existsSync(path)) test(name, () => body(path));
  else test.skip(`${name} (ATTUNE_TEST_DATA/data/${file} is not there)`, () => undefined);
};
const near = (actual: number, expected: number, bound: number, label: string): void => {
  if (!(Math.abs(actual - expected) <= bound * Math.max(1, Math.abs(expected)))) throw new Error(`${label}: expected ${expected}, received ${actual}`);
};

describeSets("rewards", folder => {
  interface TextNormCase {
    readonly name: string;
    readonly scale: number;
    readonly rewards: number[][][];
    readonly normalised: number[][];
    readonly mean: number[];
    readonly min: number[];
    readonly uwo_var: Record<string, number[]>;
    readonly lcb_std: Record<string, number[]>;
    readonly best_image: number;
  }
  test.each(read<{ cases: TextNormCase[] }>(folder, "textnorm.json").cases)("TextNorm, $name at scale $scale", c => {
    const images = c.mean.map((_, i) => i);
    const normalised = c.rewards.map(model =>
      images.map(i => {
        const scores = Float64Array.from(model, prompt => prompt[i]!);
        expect(normalizedScore(scores, { temperature: 1 / c.scale })).toBeCloseTo(normalizedScore(scores, { scale: c.scale }), 11);
        return normalizedScore(scores, { scale: c.scale });
      }),
    );
    for (const [m, own] of normalised.entries()) expectClose(own, c.normalised[m]!, 1e-12, "normalised");
    const members = images.map(i => Float64Array.from(normalised, own => own[i]!));
    expectClose(members.map(ensembleMean), c.mean, 1e-12, "mean");
    expectClose(members.map(ensembleMin), c.min, 1e-12, "min");
    for (const lambda of Object.keys(c.uwo_var)) {
      expectClose(members.map(ensembleLower({ lambda: Number(lambda) })), c.uwo_var[lambda]!, 1e-12, `variance ${lambda}`);
      expectClose(members.map(ensembleLower({ lambda: Number(lambda), spread: "deviation" })), c.lcb_std[lambda]!, 1e-12, `deviation ${lambda}`);
    }
  });

  interface Ranked {
    readonly y: number[];
    readonly votes: number[];
    readonly score: number[];
    readonly [metric: string]: number | number[];
  }
  interface Exact {
    readonly labels_by_rank: number[];
    readonly auroc: number;
    readonly auprc: number;
    readonly ap5: number;
    readonly ap10: number;
    readonly ap25: number;
  }
  const metrics = read<{ synthetic: (Ranked & { name: string })[]; tia2_exact: Exact[] }>(folder, "metrics.json");
  test.each(metrics.synthetic)("measures of a ranking, $name", c => {
    const [s, y] = [Float64Array.from(c.score), Float64Array.from(c.y)];
    near(areaUnderRoc(s, y), c.auroc as number, 1e-12, "auroc");
    near(averagePrecision(s, y), c.ap as number, 1e-12, "ap");
    for (const k of [5, 10, 25]) near(averagePrecisionAtK(s, y, k), c[`ap${k}`] as number, 1e-12, `ap${k}`);
    near(spearman(s, c.votes), c.spearman_votes as number, 1e-12, "spearman");
    near(kendall(s, c.votes), c.kendall_b_votes as number, 1e-12, "kendall");
  });

  test("rankings that TextNorm's published numbers determine give those numbers", () => {
    for (const c of metrics.tia2_exact) {
      const y = Float64Array.from(c.labels_by_rank);
      const s = y.map((_, i) => -i);
      near(areaUnderRoc(s, y), c.auroc, 1e-9, "auroc");
      near(averagePrecision(s, y), c.auprc, 1e-9, "auprc");
      for (const k of [5, 10, 25] as const) near(averagePrecisionAtK(s, y, k), c[`ap${k}`], 1e-9, `ap${k}`);
    }
    expect(metrics.tia2_exact.length).toBeGreaterThan(0);
  });

  interface Losses {
    readonly cases: ({ readonly name: string; readonly loss: number } & Readonly<Record<string, number[] & number[][] & number>>)[];
    readonly tie_accuracy: { readonly probs: [number, number][]; readonly label_0: number[]; readonly by_threshold: Readonly<Record<string, number>> };
    readonly best_of_n: { readonly gold: number[]; readonly proxy: number[]; readonly expected: Readonly<Record<string, number>> };
  }
  const losses = read<Losses>(folder, "losses.json");
  const named = (name: string) => losses.cases.find(c => c.name === name)!;

  describe("losses and their gradients", () => {
    let session: Session;
    beforeAll(() => {
      session = Session.open({ backend: "cpu", threads: 1 });
    });
    afterAll(() => session.close());

    /** The loss, and its gradient with respect to each of the first `wrt` inputs. */
    async function evaluate(
      inputs: Readonly<Record<string, number | number[] | number[][]>>,
      wrt: readonly string[],
      loss: (t: Readonly<Record<string, Tensor>>) => Tensor,
    ) {
      const feeds = Object.fromEntries(
        Object.entries(inputs).map(([name, v]) => {
          const shape = typeof v === "number" ? [1] : Array.isArray(v[0]) ? [v.length, v[0].length] : [v.length];
          return [name, hostTensor("f64", shape, Float64Array.from([v].flat(2)))];
        }),
      );
      const graph = buildGraph(g => {
        const tensors = Object.fromEntries(Object.entries(feeds).map(([name, { shape }]) => [name, input(name, typed("f64", ...shape))]));
        const value = loss(tensors);
        g.output("loss", value);
        const grads = grad(
          value,
          wrt.map(name => tensors[name]!),
        );
        for (const [i, name] of wrt.entries()) g.output(`d ${name}`, grads[i]!);
      });
      const results = await session.run(session.compile(compileGraph(graph, { name: "loss", target: session.target })), { inputs: feeds });
      return { loss: numbers(results.loss!)[0]!, grads: Object.fromEntries(wrt.map(name => [name, numbers(results[`d ${name}`]!)])) };
    }

    const choices = (t: Readonly<Record<string, Tensor>>) => ({ first: t.first!, second: t.second!, firstLabel: t.firstLabel!, secondLabel: t.secondLabel! });

    test("PickScore: ties cost nothing, prompts count alike", async () => {
      const c = named("pickscore");
      const weights = (c.num_examples_per_prompt as number[]).map(n => 1 / n);
      const { loss, grads } = await evaluate(
        { first: c.s0!, second: c.s1!, firstLabel: c.label_0!, secondLabel: c.label_1!, weights },
        ["first", "second"],
        t => pickScoreLoss(choices(t), t.weights!),
      );
      near(loss, c.loss, 1e-12, "loss");
      expectClose(grads.first!, c.grad_s0!, 1e-10, "first");
      expectClose(grads.second!, c.grad_s1!, 1e-10, "second");
    });

    test("PickScore's loss is 0 where the model is as undecided as people", async () => {
      const { loss } = await evaluate({ first: [3, -7], second: [3, -7], firstLabel: [0.5, 0.5], secondLabel: [0.5, 0.5] }, [], t => pickScoreLoss(choices(t)));
      expect(loss).toBe(0);
    });

    test("PickScore from embeddings, down to the logarithm of the factor", async () => {
      const c = named("pickscore_from_embeddings");
      const labels = c.label_0 as number[];
      const { loss, grads } = await evaluate(
        {
          ...{ text: c.text!, image0: c.image_0!, image1: c.image_1!, logScale: c.logit_scale_log!, firstLabel: labels, secondLabel: labels.map(l => 1 - l) },
          weights: (c.num_examples_per_prompt as number[]).map(n => 1 / n),
        },
        ["text", "image0", "image1", "logScale"],
        t => {
          const score = (image: Tensor): Tensor => scaledCosine(t.text!, image, t.logScale!);
          return pickScoreLoss({ ...choices({ ...t, first: score(t.image0!), second: score(t.image1!) }) }, t.weights!);
        },
      );
      near(loss, c.loss, 1e-12, "loss");
      expectClose(grads.text!, (c.grad_text as number[][]).flat(), 1e-10, "text");
      expectClose(grads.image0!, (c.grad_image_0 as number[][]).flat(), 1e-10, "image 0");
      expectClose(grads.image1!, (c.grad_image_1 as number[][]).flat(), 1e-10, "image 1");
      expectClose(grads.logScale!, [c.grad_logit_scale_log!], 1e-10, "log scale");
    });

    test("HPSv2", async () => {
      const c = named("hpsv2");
      const { loss, grads } = await evaluate({ first: c.s0!, second: c.s1!, firstLabel: c.label_0!, secondLabel: c.label_1! }, ["first", "second"], t =>
        hpsLoss(choices(t)),
      );
      near(loss, c.loss, 1e-12, "loss");
      expectClose(grads.first!, c.grad_s0!, 1e-10, "first");
      expectClose(grads.second!, c.grad_s1!, 1e-10, "second");
    });

    test.each(["imagereward_bt", "imagereward_bt_extreme"])("Bradley and Terry, %s", async name => {
      const c = named(name);
      const { loss, grads } = await evaluate({ better: c.better!, worse: c.worse! }, ["better", "worse"], t => bradleyTerryLoss(t.better!, t.worse!));
      near(loss, c.loss, 1e-12, "loss");
      expectClose(grads.better!, c.grad_better!, 1e-10, "better");
      expectClose(grads.worse!, c.grad_worse!, 1e-10, "worse");
    });

    test("Lee et al.: squares plus telling the prompt from its perturbations, over good pictures alone", async () => {
      const rewards = [
        [0.9, 0.2, 0.4],
        [0.1, 0.8, 0.3],
        [0.6, 0.55, 0.9],
      ];
      const labels = [1, 0, 1];
      const [lambda, temperature] = [0.5, 0.3];
      const { loss, grads } = await evaluate({ rewards, labels }, ["rewards"], t =>
        promptClassificationLoss({ rewards: t.rewards!, labels: t.labels! }, { lambda, temperature }),
      );
      const told = rewards.map(row => row.map(r => Math.exp(r / temperature) / row.reduce((sum, x) => sum + Math.exp(x / temperature), 0)));
      const squares = rewards.reduce((sum, row, i) => sum + (row[0]! - labels[i]!) ** 2, 0) / 3;
      near(loss, squares - (lambda * (Math.log(told[0]![0]!) + Math.log(told[2]![0]!))) / 2, 1e-12, "loss");
      const slope = (i: number, k: number): number =>
        (k === 0 ? (2 * (rewards[i]![0]! - labels[i]!)) / 3 : 0) + (labels[i]! * lambda * (told[i]![k]! - Number(k === 0))) / (2 * temperature);
      expectClose(
        grads.rewards!,
        rewards.flatMap((row, i) => row.map((_, k) => slope(i, k))),
        1e-10,
        "rewards",
      );
      const none = await evaluate({ rewards, labels: [0, 0, 0] }, ["rewards"], t =>
        promptClassificationLoss({ rewards: t.rewards!, labels: t.labels! }, { lambda, temperature }),
      );
      near(none.loss, rewards.reduce((sum, row) => sum + row[0]! ** 2, 0) / 3, 1e-12, "no good picture");
    });

    test("ReFL", async () => {
      const c = named("refl");
      const { loss, grads } = await evaluate({ rewards: c.rewards! }, ["rewards"], t => reflLoss(t.rewards!, { weight: c.grad_scale! }));
      near(loss, c.loss, 1e-12, "loss");
      expectClose(grads.rewards!, c.grad!, 1e-10, "rewards");
    });
  });

  test("accuracy with ties, by threshold", () => {
    const { probs, label_0, by_threshold } = losses.tie_accuracy;
    const judged = probs.map((p, i) => ({ p, label: [label_0[i]!, 1 - label_0[i]!] as const }));
    for (const [threshold, expected] of Object.entries(by_threshold)) near(tieAccuracy(judged, Number(threshold)), expected, 1e-12, threshold);
  });

  test("the expected best of n", () => {
    const { gold, proxy, expected } = losses.best_of_n;
    for (const [n, value] of Object.entries(expected)) near(expectedBestOfN(gold, proxy, Number(n)), value, 1e-12, n);
  });

  withData("imagereward/test.json", "ImageReward's rankings: 6,399 strict pairs, accuracy and inversions", path => {
    const prompts = read<{ ranking: number[] }[]>(path);
    const golden = read<{ rewards: number[][]; pair_accuracy: number; pairs: number; mean_inversion_score: number; n_pairs_per_prompt: number[] }>(
      folder,
      "ranking.json",
    );
    const ranked = prompts.map(({ ranking: ranks }, i) => ({ ranks, scores: golden.rewards[i]! }));
    expect(ranked.map(({ ranks }) => strictPairs(ranks).length)).toEqual(golden.n_pairs_per_prompt);
    const { accuracy, pairs } = pairAccuracy(ranked);
    expect(pairs).toBe(6399);
    near(accuracy, golden.pair_accuracy, 1e-12, "accuracy");
    near(inversionScore(ranked), golden.mean_inversion_score, 1e-12, "inversions");
  });

  withData("aesthetic/sac+logos+ava1-l14-linearMSE.pth", "the released aesthetic head, multiplied out, scores as it does layer by layer", path => {
    const { weight, bias } = loadAestheticHead(path);
    const file = readSafetensors(join(folder, "aesthetic_cases.safetensors"));
    const [x, scores] = ["embeddings", "scores_f64"].map(name => numbers(file.tensor(name)));
    expectClose(weight, numbers(file.tensor("collapsed_weight")), 1e-12, "weight");
    near(bias, numbers(file.tensor("collapsed_bias"))[0]!, 1e-12, "bias");
    file.close();
    const own = [...scores!.keys()].map(i => weight.reduce((sum, w, c) => sum + w * x![i * weight.length + c]!, bias));
    expectClose(own, scores!, 1e-12, "scores");
  });

  test("the aesthetic head's cases are what its collapsed form gives", () => {
    const file = readSafetensors(join(folder, "aesthetic_cases.safetensors"));
    const [weight, bias, x, scores] = ["collapsed_weight", "collapsed_bias", "embeddings", "scores_f64"].map(name => numbers(file.tensor(name)));
    file.close();
    const collapsed = [...scores!.keys()].map(i => weight!.reduce((sum, w, c) => sum + w * x![i * weight!.length + c]!, bias![0]!));
    expectClose(collapsed, scores!, 1e-12, "scores");
  });
});

describeSets("float-resample", folder => {
  interface Resampled {
    readonly width: number;
    readonly height: number;
    readonly toWidth: number;
    readonly toHeight: number;
    readonly antialias: boolean;
    readonly input: number[];
    readonly output: number[];
  }
  test.each(read<{ cases: Resampled[] }>(folder, "cases.json").cases)(
    "torch's bicubic of $width x $height to $toWidth x $toHeight, antialias $antialias",
    ({ width, height, toWidth, toHeight, antialias, input, output }) => {
      const image = { width, height, channels: 2, data: Float32Array.from(input, v => v / 255) };
      const { data } = resizeBicubic(image, toWidth, toHeight, { antialias });
      expectClose(data, output, 2e-7, "pixels"); // two roundings to f32 of numbers in [0, 1]
    },
  );
});

interface Tia2Prompt {
  readonly id: number;
  readonly set: string;
  readonly prompt: string;
  readonly contrastive: string[];
}

withData("tia2/tia2_prompts.json", "the rules give TextNorm's published near misses: all of 150 counts, the first twelve of 300 compositions", path => {
  const prompts = read<Tia2Prompt[]>(path);
  const [counts, pairs] = ["counting", "composition"].map(set => prompts.filter(p => p.set === set));
  expect([counts!.length, pairs!.length]).toEqual([150, 300]);
  for (const { prompt, contrastive } of counts!) expect(counting()(prompt)).toEqual(contrastive);
  for (const { prompt, contrastive } of pairs!) expect(composition()(prompt)).toEqual(contrastive.slice(0, 12));
});

/** Votes per picture by prompt: how many annotators said 1. */
function readVotes(path: string): Map<number, number[]> {
  const votes = new Map<number, number[]>();
  for (const line of readFileSync(path, "utf8").trim().split(/\r?\n/).slice(1)) {
    const [, id = "", , ...labels] = line.split(",");
    const own = votes.get(Number(id)) ?? [];
    votes.set(Number(id), own);
    own.push(labels.filter(label => label === "1").length);
  }
  return votes;
}

type Published = Record<string, AlignmentMeasures> & { readonly prompt_id: number; readonly set: string; readonly human: number };

withData("tia2/tia2_alignment_scores.json", "TIA2: people's shares and which prompts have measures", path => {
  const published = read<Published[]>(path);
  const votes = readVotes(join(path, "../tia2_labels.csv"));
  const byPrompt = new Map(published.map(p => [p.prompt_id, p]));
  for (const [id, own] of votes) {
    const share = own.filter(v => v >= 2).length / own.length;
    if (byPrompt.has(id)) near(share, byPrompt.get(id)!.human, 1e-12, `share of prompt ${id}`);
    else expect([0, 1]).toContain(share);
  }
  const { used, perPrompt } = evaluateAlignment([...votes.values()].map(v => ({ votes: v, scores: v.map((_, i) => i) })));
  expect(used).toBe(published.length);
  expect([...votes.keys()].filter((_, i) => perPrompt[i] !== undefined).sort((a, b) => a - b)).toEqual(published.map(p => p.prompt_id).sort((a, b) => a - b));
});

test("measures of one prompt are what the single measures give", () => {
  const [scores, votes] = [
    [3, 1, 2, 0.5, 2.5],
    [3, 0, 2, 1, 0],
  ];
  const m = alignmentMeasures({ scores, votes });
  expect(m.auroc).toBeCloseTo(5 / 6, 12); // of 6 pairs only (2, 2.5) is the wrong way round
  expect(m.ap5).toBeCloseTo((1 + 2 / 3) / 2, 12);
  expect(m.kendall).toBeCloseTo(kendall(scores, votes), 15);
});
