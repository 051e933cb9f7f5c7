/** Which pictures can be trusted: half of the held-out prompts, whose pictures somebody has judged, calibrate; pictures of the other half are certified. The judgement, "still
 *  shows its concept", is the demo's measure and stands for a person's. The score must not know it: it is how much the model's pictures of one prompt differ from each
 *  other, chosen because it ranks best on pictures of training concepts, which take no part here. */

import * as conformal from "../../lib/conformal/index.js";
import { Random } from "../../lib/util/random.js";

/** Pictures of held-out prompts by one model, in one order for every model. */
export interface JudgedPictures {
  readonly model: string;
  readonly features: conformal.FeatureTable;
  /** 1: shows its concept. */
  readonly shows: readonly number[];
}

/** At one level, over random halves of the prompts. */
export interface TrustLevel {
  readonly alpha: number;
  /** Pictures certified on average, and the standard deviation. */
  readonly certified: number;
  readonly deviation: number;
  /** Share of the certified that do not show their concept, on average. */
  readonly wrong: number;
}

export interface Trust {
  readonly model: string;
  /** Prompts in each half. */
  readonly calibration: number;
  readonly test: number;
  /** Share of all pictures that show their concept. */
  readonly shows: number;
  /** How well each feature, and the score, ranks those above the others: 0.5 is chance, below it the feature ranks backwards. */
  readonly auc: Readonly<Record<string, number>>;
  readonly levels: readonly TrustLevel[];
}

export const trustLevels = [0.1, 0.2] as const;
const halves = 200;

/** Larger: the model's pictures of the prompt agree more with this one. */
export function trustScore({ features }: JudgedPictures): Float64Array {
  return conformal.columnOf(features, "spread").map(v => -v);
}

/** Certifies over random halves. `calibrator`: pictures of another model calibrate in place of the model's own, which is what a certificate is worth after the model has
 *  changed: nothing that it promises holds then. */
export function measureTrust(judged: JudgedPictures, { seed, calibrator = judged }: { readonly seed: number; readonly calibrator?: JudgedPictures }): Trust {
  const { features, shows } = judged,
    [scores, reference] = [trustScore(judged), trustScore(calibrator)];
  const runs = Array.from({ length: halves }, (_, r) => dealHalves(shows.length, seed, r)).map(({ calibration, test }) => {
    const p = conformal.alignmentPValues(
      { scores: calibration.map(i => reference[i]!), aligned: calibration.map(i => calibrator.shows[i]!) },
      test.map(i => scores[i]!),
    );
    return trustLevels.map(alpha => {
      const { selected, k } = conformal.benjaminiHochberg(p, alpha);
      return { k, wrong: Array.from(selected).filter(j => shows[test[j]!] === 0).length / Math.max(1, k) };
    });
  });
  const levels = trustLevels.map((alpha, at) => {
    const counts = runs.map(run => run[at]!.k),
      certified = mean(counts);
    return { alpha, certified, deviation: Math.sqrt(mean(counts.map(k => (k - certified) ** 2))), wrong: mean(runs.map(run => run[at]!.wrong)) };
  });
  const ranked = features.columns.map(name => [name, conformal.areaUnderRoc(conformal.columnOf(features, name), shows)] as const);
  const { calibration, test } = dealHalves(shows.length, seed, 0);
  return {
    ...{ model: judged.model, calibration: calibration.length, test: test.length, shows: mean(shows), levels },
    auc: { score: conformal.areaUnderRoc(scores, shows), ...Object.fromEntries(ranked) },
  };
}

/** The certificate of the first halves. */
export function certifyPictures(
  judged: JudgedPictures,
  { prompts, alpha, seed }: { readonly prompts: readonly string[]; readonly alpha: number; readonly seed: number },
) {
  const { calibration, test } = dealHalves(judged.shows.length, seed, 0),
    scores = trustScore(judged);
  return conformal.certify({
    ...{ title: `Pictures by ${judged.model} that show their concept`, alpha },
    calibration: { scores: calibration.map(i => scores[i]!), aligned: calibration.map(i => judged.shows[i]!) },
    test: { scores: test.map(i => scores[i]!), ids: test.map(i => prompts[i]!) },
  });
}

/** Indices of two halves of the prompts, in random order. */
function dealHalves(count: number, seed: number, run: number): { readonly calibration: readonly number[]; readonly test: readonly number[] } {
  const order = new Random(seed, `trust halves ${run}`).shuffle(Array.from({ length: count }, (_, i) => i)),
    half = Math.floor(count / 2);
  return { calibration: order.slice(0, half), test: order.slice(half) };
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
