/** The methods of bench/methods.ts with their settings on the demo's task: defaults, at a learning rate of 1e-4 where the loss holds a denoising error, and
 *  2e-5 where it is made of margins, as the demo has them for SFT, DSPO and Diffusion-DPO. */

import { adpo } from "../lib/objectives/adpo.js";
import { conservativeDpo } from "../lib/objectives/conservative-dpo.js";
import { diffusionDpo } from "../lib/objectives/diffusion-dpo.js";
import { alphaDivergence, forwardKl, jensenShannon } from "../lib/objectives/divergences.js";
import { dmpo } from "../lib/objectives/dmpo.js";
import { dspo } from "../lib/objectives/dspo.js";
import { dspoSdxl } from "../lib/objectives/dspo-sdxl.js";
import { dspoTwoTemperature } from "../lib/objectives/dspo-two-temperature.js";
import { fDpo } from "../lib/objectives/f-dpo.js";
import { hinge } from "../lib/objectives/hinge.js";
import { ipo } from "../lib/objectives/ipo.js";
import { kto } from "../lib/objectives/kto.js";
import { mapo } from "../lib/objectives/mapo.js";
import type { Objective } from "../lib/objectives/objective.js";
import { orpo } from "../lib/objectives/orpo.js";
import { rdpo } from "../lib/objectives/rdpo.js";
import { rewardWeighted } from "../lib/objectives/reward-weighted.js";
import { robustDpo } from "../lib/objectives/robust-dpo.js";
import { sdpo } from "../lib/objectives/sdpo.js";
import { sft } from "../lib/objectives/sft.js";
import { smpo } from "../lib/objectives/smpo.js";
import { tdpo } from "../lib/objectives/tdpo.js";
import { minSnr, weightErrors } from "../lib/objectives/weighting.js";
import type { PairBatch } from "../lib/train/pair-data.js";
import { type HostTensor, hostTensor } from "../lib/util/host-tensor.js";

export interface MethodRow {
  readonly name: string;
  readonly objective: () => Objective;
  readonly learningRate: number;
  /** Default: the demo's 16 pairs. */
  readonly batchSize?: number;
  /** What becomes of the demo's pairs. */
  readonly data?: (pairs: PairBatch) => PairBatch;
}

const [fast, slow] = [1e-4, 2e-5];

export const methodRows: readonly MethodRow[] = [
  { name: "sft", objective: sft, learningRate: fast },
  { name: "dspo", objective: () => dspo({ beta: 0.9 }), learningRate: fast },
  { name: "dspoTwoTemperature", objective: dspoTwoTemperature, learningRate: fast },
  { name: "dspoSdxl", objective: dspoSdxl, learningRate: slow },
  { name: "diffusionDpo", objective: diffusionDpo, learningRate: slow },
  { name: "fDpo jensenShannon", objective: () => fDpo({ divergence: jensenShannon }), learningRate: slow },
  { name: "fDpo forwardKl", objective: () => fDpo({ divergence: forwardKl }), learningRate: slow },
  { name: "fDpo alpha 0.5", objective: () => fDpo({ divergence: alphaDivergence(0.5) }), learningRate: slow },
  { name: "ipo", objective: ipo, learningRate: slow },
  { name: "hinge", objective: hinge, learningRate: slow },
  { name: "conservativeDpo", objective: conservativeDpo, learningRate: slow },
  { name: "robustDpo", objective: robustDpo, learningRate: slow },
  { name: "adpo", objective: adpo, learningRate: slow },
  { name: "smpo", objective: smpo, learningRate: slow },
  { name: "dmpo", objective: dmpo, learningRate: slow },
  { name: "tdpo", objective: tdpo, learningRate: slow },
  { name: "sdpo diffusionDpo", objective: () => sdpo(diffusionDpo()), learningRate: slow },
  { name: "diffusionDpo minSnr", objective: () => weightErrors(diffusionDpo(), minSnr()), learningRate: slow },
  { name: "rdpo", objective: rdpo, learningRate: slow },
  { name: "kto", objective: kto, learningRate: slow, batchSize: 32, data: unpaired },
  { name: "mapo", objective: mapo, learningRate: fast },
  { name: "orpo", objective: orpo, learningRate: fast },
  { name: "rewardWeighted", objective: rewardWeighted, learningRate: fast, batchSize: 32, data: unpaired },
];

/** Preferred and other pictures as one set, each with its label: the same pictures that pairs hold. */
function unpaired({ winners, losers, condition }: PairBatch): PairBatch {
  const pairs = winners.shape[0]!;
  const labels = (): HostTensor =>
    hostTensor(
      "f32",
      [2 * pairs],
      Float32Array.from({ length: 2 * pairs }, (_, i) => Number(i < pairs)),
    );
  return {
    winners: joined(winners, losers!),
    condition: Object.fromEntries(Object.entries(condition).map(([name, t]) => [name, joined(t, t)])),
    extras: { desirable: labels(), reward: labels() },
  };
}

function joined(a: HostTensor, b: HostTensor): HostTensor {
  const out = hostTensor(a.dtype, [a.shape[0]! + b.shape[0]!, ...a.shape.slice(1)]);
  (out.data as Float32Array).set(a.data as Float32Array);
  (out.data as Float32Array).set(b.data as Float32Array, a.data.length);
  return out;
}
