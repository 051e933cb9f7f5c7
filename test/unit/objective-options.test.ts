/** Options that would train nothing, or destroy the model, are refused where they are given, with the option and the right scale named. */

import { flowSchedule, logitNormalDensity } from "../../lib/diffusion/flow.js";
import { ConfigError } from "../../lib/errors.js";
import * as attune from "../../lib/index.js";
import type { Objective } from "../../lib/objectives/objective.js";

const {
  adpo,
  adpoListwise,
  alphaDivergence,
  cofsDpo,
  conservativeDpo,
  diffusionDpo,
  dmpo,
  dspo,
  dspoSdxl,
  dspoTwoTemperature,
  exponentialOdds,
  fDpo,
  flowDpo,
  hinge,
  ipo,
  kto,
  ldDpo,
  mapo,
  mcmDpo,
  minSnr,
  modpo,
  ofsFast,
  ofsSlow,
  orpo,
  plackettLuce,
  rdpo,
  rewardWeighted,
  robustDpo,
  sdpo,
  sft,
  smpo,
  tdpo,
  tdpo1,
  tgdpo,
  weightErrors,
} = attune;

/** Methods whose beta is Diffusion-DPO's. */
const errorScaled: Readonly<Record<string, (beta: number) => Objective>> = {
  adpo: beta => adpo({ beta }),
  adpoListwise: beta => adpoListwise({ size: 3, beta }),
  cofsDpo: beta => cofsDpo({ beta }),
  conservativeDpo: beta => conservativeDpo({ beta }),
  diffusionDpo: beta => diffusionDpo({ beta }),
  dmpo: beta => dmpo({ beta }),
  dspoSdxl: beta => dspoSdxl({ beta }),
  dspoTwoTemperature: beta => dspoTwoTemperature({ beta }),
  flowDpo: beta => flowDpo({ beta }),
  hinge: beta => hinge({ beta }),
  kto: beta => kto({ beta }),
  ldDpo: beta => ldDpo({ segments: 4, beta }),
  mcmDpo: beta => mcmDpo({ beta }),
  modpo: beta => modpo({ weights: [1, 1], beta }),
  ofsFast: beta => ofsFast({ beta }),
  ofsSlow: beta => ofsSlow({ beta }),
  plackettLuce: beta => plackettLuce({ size: 3, beta }),
  rdpo: beta => rdpo({ beta }),
  robustDpo: beta => robustDpo({ beta }),
  smpo: beta => smpo({ beta }),
  tdpo: beta => tdpo({ beta }),
  tdpo1: beta => tdpo1({ beta }),
  tgdpo: beta => tgdpo({ beta }),
};

describe.each(Object.entries(errorScaled))("%s", (name, make) => {
  test.each([0.001, 1, 9.99, 0, -2000, Number.NaN, Number.POSITIVE_INFINITY])("refuses beta %p, which is dspo's scale or none", beta => {
    expect(() => make(beta)).toThrow(ConfigError);
    expect(() => make(beta)).toThrow(new RegExp(`^${name}: expected beta to be a finite number >= 10 .*dspo's scale`));
  });
  test.each([10, 500, 5000])("takes beta %p", beta => {
    expect(make(beta).usesReference).toBe(true);
  });
});

/** Methods where Diffusion-DPO's beta would be the mistake. */
const otherwiseScaled: Readonly<Record<string, (value: number) => unknown>> = {
  dspo: beta => dspo({ beta }),
  fDpo: beta => fDpo({ beta }),
  ipo: tau => ipo({ tau }),
  mapo: beta => mapo({ beta }),
  orpo: beta => orpo({ beta }),
  rewardWeighted: beta => rewardWeighted({ beta }),
};
test.each(Object.entries(otherwiseScaled))("%s refuses Diffusion-DPO's beta and names its scale", (name, make) => {
  for (const value of [500, 2000, 5000]) expect(() => make(value)).toThrow(new RegExp(`^${name}: .*500 to 5000 is the scale of diffusionDpo`));
  for (const value of [-1, Number.NaN]) expect(() => make(value)).toThrow(ConfigError);
});

const refused: readonly (readonly [string, () => unknown, RegExp])[] = [
  ["conservativeDpo labelNoise 0.5", () => conservativeDpo({ labelNoise: 0.5 }), /labelNoise to be a finite number >= 0 and < 0.5, received 0.5/],
  ["robustDpo labelNoise 0.5", () => robustDpo({ labelNoise: 0.5 }), /labelNoise/],
  ["dmpo smoothing 0", () => dmpo({ smoothing: 0 }), /smoothing to be a finite number > 0 and < 0.5/],
  ["smpo sharpness 0", () => smpo({ sharpness: 0 }), /sharpness/],
  ["kto negative weight", () => kto({ undesirableWeight: -1 }), /undesirableWeight/],
  ["fDpo kappa 0", () => fDpo({ kappa: 0 }), /kappa to be a finite number >= 1/],
  ["ipo kappa NaN", () => ipo({ kappa: Number.NaN }), /kappa/],
  ["alphaDivergence 1", () => alphaDivergence(1), /its ends are reverseKl and forwardKl/],
  ["dspoTwoTemperature scoreBeta 1", () => dspoTwoTemperature({ scoreBeta: 1 }), /scoreBeta to be in \(0, 1\)/],
  ["mapo snr 0", () => mapo({ snr: 0 }), /snr/],
  ["exponentialOdds 0", () => exponentialOdds(0), /kappa/],
  ["adpoListwise of one", () => adpoListwise({ size: 1 }), /size to be a finite number >= 2 and <= 16/],
  ["plackettLuce of 2.5", () => plackettLuce({ size: 2.5 }), /size/],
  ["adpoListwise temperature 0", () => adpoListwise({ size: 2, rewardTemperature: 0 }), /rewardTemperature/],
  ["modpo without own weight", () => modpo({ weights: [0, 1] }), /weights/],
  ["modpo of one weight", () => modpo({ weights: [1] }), /weights/],
  ["tdpo alpha -1", () => tdpo({ alpha: -1 }), /alpha/],
  ["tgdpo half a segment", () => tgdpo({ segments: 0.5 }), /segments/],
  ["ldDpo alpha 2", () => ldDpo({ segments: 4, alpha: 2 }), /alpha/],
  ["mcmDpo without answer", () => mcmDpo({ weights: { image: 1 } }), /weights.answer/],
  ["mcmDpo negative weight", () => mcmDpo({ weights: { answer: 1, image: -1 } }), /weights.image/],
  ["mcmDpo norm 0", () => mcmDpo({ norm: 0 }), /norm/],
  ["ofsFast alpha 1", () => ofsFast({ alpha: 1 }), /alpha/],
  ["cofsDpo memoryWeight -1", () => cofsDpo({ memoryWeight: -1 }), /memoryWeight/],
  ["sdpo mu 1", () => sdpo(diffusionDpo(), { mu: 1 }), /mu/],
  ["sdpo over single samples", () => sdpo(sft()), /pairs of winner and loser, received "sft"/],
  ["sdpo over three arms", () => sdpo(rdpo()), /received "rdpo"/],
  ["minSnr 0", () => minSnr(0), /gamma/],
  ["weightErrors over segments", () => weightErrors(ldDpo({ segments: 2 }), minSnr()), /weightLosses takes any/],
  ["flowSchedule shift 0", () => flowSchedule({ shift: 0 }), /shift/],
  ["logitNormalDensity deviation 0", () => logitNormalDensity({ deviation: 0 }), /deviation/],
];
test.each(refused)("%s", (_name, make, message) => {
  expect(make).toThrow(ConfigError);
  expect(make).toThrow(message);
});

test("names of objectives tell methods apart", () => {
  const names = [...Object.values(errorScaled).map(make => make(100)), dspo(), fDpo(), ipo(), mapo(), orpo(), sft(), rewardWeighted()].map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
});
