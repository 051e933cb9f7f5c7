/** Every objective, as tests walk them: with its defaults, or the least that it needs to be told. */

import { adpo } from "../../lib/objectives/adpo.js";
import { adpoListwise, plackettLuce } from "../../lib/objectives/adpo-listwise.js";
import { conservativeDpo } from "../../lib/objectives/conservative-dpo.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { alphaDivergence, forwardKl, jensenShannon, reverseKl } from "../../lib/objectives/divergences.js";
import { dmpo } from "../../lib/objectives/dmpo.js";
import { dspo } from "../../lib/objectives/dspo.js";
import { dspoSdxl } from "../../lib/objectives/dspo-sdxl.js";
import { dspoTwoTemperature } from "../../lib/objectives/dspo-two-temperature.js";
import { fDpo } from "../../lib/objectives/f-dpo.js";
import { flowDpo } from "../../lib/objectives/flow-dpo.js";
import { hinge } from "../../lib/objectives/hinge.js";
import { ipo } from "../../lib/objectives/ipo.js";
import { balancedOffset, kto, lossAverseUtility } from "../../lib/objectives/kto.js";
import { ldDpo } from "../../lib/objectives/ld-dpo.js";
import { mapo } from "../../lib/objectives/mapo.js";
import { mcmDpo } from "../../lib/objectives/mcm-dpo.js";
import { modpo } from "../../lib/objectives/modpo.js";
import type { Objective } from "../../lib/objectives/objective.js";
import { cofsDpo, ofsFast, ofsSlow } from "../../lib/objectives/ofs-dpo.js";
import { orpo } from "../../lib/objectives/orpo.js";
import { rdpo } from "../../lib/objectives/rdpo.js";
import { rewardWeighted } from "../../lib/objectives/reward-weighted.js";
import { robustDpo } from "../../lib/objectives/robust-dpo.js";
import { sdpo } from "../../lib/objectives/sdpo.js";
import { sft } from "../../lib/objectives/sft.js";
import { smpo } from "../../lib/objectives/smpo.js";
import { tdpo, tdpo1 } from "../../lib/objectives/tdpo.js";
import { tgdpo } from "../../lib/objectives/tgdpo.js";
import { givenWeight, minSnr, minSnrVelocity, weightErrors, weightLosses } from "../../lib/objectives/weighting.js";

export interface ObjectiveRow {
  readonly objective: Objective;
  /** Whether some value is a number without gradient, so that differences of the loss are not its gradient. */
  readonly detached?: true;
  /** What training lowers, where it is not the loss. */
  readonly goal?: string;
  /** Loss at policy == reference, where it is a constant. */
  readonly atReference?: number;
}

const ln2 = Math.LN2;
const dmpoStart = -ln2 - 0.5 * Math.log(0.99 * 0.01);

export const objectiveTable: readonly ObjectiveRow[] = [
  { objective: sft() },
  { objective: diffusionDpo(), atReference: ln2 },
  { objective: dspo({ beta: 0.9 }) },
  { objective: dspoSdxl(), atReference: 0.25 },
  { objective: dspoTwoTemperature() },
  ...[reverseKl, forwardKl, jensenShannon, alphaDivergence(0.5)].map(divergence => ({ objective: fDpo({ divergence, kappa: 200 }), atReference: ln2 })),
  { objective: ipo(), atReference: 4 },
  { objective: hinge({ beta: 100 }), atReference: 1 },
  { objective: conservativeDpo(), atReference: ln2 },
  { objective: robustDpo(), atReference: ln2 },
  { objective: dmpo(), atReference: dmpoStart },
  { objective: smpo({ beta: 200 }), atReference: ln2 },
  { objective: kto({ beta: 200 }), detached: true, atReference: 0.5 },
  { objective: kto({ beta: 200, utility: lossAverseUtility, offset: balancedOffset }), detached: true, atReference: 1 + ln2 },
  { objective: mapo() },
  { objective: orpo() },
  { objective: adpo() },
  { objective: adpoListwise({ size: 2, beta: 500 }) },
  { objective: adpoListwise({ size: 4, beta: 500 }) },
  { objective: plackettLuce({ size: 4, beta: 500 }), atReference: Math.log(4 * 3 * 2) / 3 },
  { objective: modpo({ weights: [0.6, 0.3, 0.1] }) },
  { objective: tdpo(), detached: true, atReference: ln2 },
  { objective: tdpo1(), atReference: ln2 },
  { objective: tgdpo({ segments: 3, beta: 500 }), atReference: ln2 },
  { objective: ldDpo({ segments: 6 }), atReference: ln2 },
  { objective: rdpo(), atReference: 2 * ln2 },
  { objective: mcmDpo(), atReference: ln2 },
  { objective: rewardWeighted() },
  { objective: rewardWeighted({ beta: 0.5 }) },
  { objective: flowDpo(), atReference: ln2 },
  { objective: ofsFast({ alpha: 0.5 }), detached: true },
  { objective: ofsSlow({ alpha: 0.5 }), detached: true },
  { objective: cofsDpo({ memoryWeight: 2 }) },
  { objective: sdpo(diffusionDpo()), detached: true, atReference: ln2, goal: "winnerError" },
  { objective: sdpo(dspo({ beta: 0.5 }), { mu: 0.2 }), detached: true },
  { objective: weightErrors(diffusionDpo(), minSnr()), atReference: ln2 },
  { objective: weightLosses(diffusionDpo(), minSnrVelocity()) },
  { objective: weightLosses(mapo(), givenWeight) },
];
