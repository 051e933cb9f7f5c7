/** Conformal selection against stored reference results: index sets and counts exactly, p-values to 1e-15 (weighted 1e-12, conditional bounds 1e-10 relative). */

import fs from "node:fs";
import path from "node:path";
import { adjustedPValues, benjaminiHochberg, benjaminiYekutieli } from "../../lib/conformal/bh.js";
import { type ConditionalBounds, calibrationConditionalPValues, dkwmBounds, simesBounds } from "../../lib/conformal/calibration-conditional.js";
import { clip, conformityPValues } from "../../lib/conformal/conformity.js";
import { derandomised } from "../../lib/conformal/derandomise.js";
import { eBh, eValues, thresholdEValues } from "../../lib/conformal/e-values.js";
import { jointLabel, jointScore } from "../../lib/conformal/multi-criteria.js";
import { lond, lordGamma, lordPlusPlus, type OnlineProcedure, powerGamma, saffron } from "../../lib/conformal/online.js";
import { EValueStream, type OnlineDecision, OnlineStream } from "../../lib/conformal/online-stream.js";
import { optCs } from "../../lib/conformal/optcs.js";
import { superuniformPValues } from "../../lib/conformal/p-value-kinds.js";
import { alignmentPValues, lexicographicPValues, NullScores, randomisedPValues } from "../../lib/conformal/p-values.js";
import type { Pruning } from "../../lib/conformal/pruning.js";
import { riskThreshold } from "../../lib/conformal/risk-control.js";
import { scoreThreshold } from "../../lib/conformal/threshold.js";
import { weightedConformalSelection } from "../../lib/conformal/wcs.js";
import { weightedPValues } from "../../lib/conformal/weighted.js";
import { describeSets } from "../support/goldens.js";

/** A golden is JSON whose shape its README gives. */
// biome-ignore lint/suspicious/noExplicitAny: the comparisons themselves check the shape
type Golden = any;

const prunings: readonly Pruning[] = ["hete", "homo", "dtm"];

function close(actual: ArrayLike<number>, expected: readonly number[], tolerance: number, relative = false): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, e] of expected.entries()) {
    const bound = relative ? tolerance * Math.abs(e) : tolerance;
    if (!(Math.abs(actual[i]! - e) <= bound)) throw new Error(`index ${i}: expected ${e}, received ${actual[i]}, tolerance ${bound}`);
  }
}

const list = (values: ArrayLike<number>): number[] => Array.from(values);

function expectSelection(golden: Golden, selected: Uint32Array, aligned: readonly number[]): void {
  expect(list(selected)).toEqual(golden.selected);
  expect(selected.length).toBe(golden.k);
  const right = list(selected).filter(j => aligned[j] === 1).length;
  const total = aligned.filter(label => label === 1).length;
  close([(selected.length - right) / Math.max(1, selected.length), right / Math.max(1, total)], [golden.fdp, golden.power], 1e-15);
}

describeSets("conformal", folder => {
  const read = (name: string): Golden => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8"));

  for (const c of read("pvalues.json").cases as Golden[]) {
    const calibration = { scores: c.s_cal, aligned: c.y_cal };
    test(`p-values of ${c.name}`, () => {
      const nulls = NullScores.of(calibration, "alignment");
      expect((c.s_test as number[]).map(s => nulls.atLeast(s))).toEqual(c.count_null_ge);
      expect((c.s_test as number[]).map(s => nulls.above(s))).toEqual(c.count_null_gt);
      const deterministic = alignmentPValues(calibration, c.s_test);
      close(deterministic.values, c.p_deterministic, 1e-15);
      close(randomisedPValues(calibration, c.s_test, c.u).values, c.p_random, 1e-15);
      close(lexicographicPValues(calibration, c.s_test, { calibration: c.xi_cal, test: c.xi_test }).values, c.p_lexicographic, 1e-15);
      close(alignmentPValues(calibration, c.s_test, "null-only").values, c.p_null_deterministic, 1e-15);
      close(randomisedPValues(calibration, c.s_test, c.u, "null-only").values, c.p_null_random, 1e-15);
      close(adjustedPValues(deterministic), c.adjusted_deterministic, 1e-15);
    });
    test(`selections of ${c.name}`, () => {
      const deterministic = alignmentPValues(calibration, c.s_test);
      const random = randomisedPValues(calibration, c.s_test, c.u);
      const measured = conformityPValues({ scores: c.s_cal, alignment: c.y_cal, cutoff: 0.5 }, { scores: c.s_test, cutoff: 0.5 }, clip);
      expect(list(measured.values)).toEqual(list(deterministic.values));
      for (const golden of c.select_deterministic) {
        const { selected, threshold } = benjaminiHochberg(deterministic, golden.alpha);
        expectSelection(golden, selected, c.y_test);
        close([threshold], [golden.p_threshold], 1e-15);
        const rule = scoreThreshold(calibration, c.s_test, golden.alpha);
        expect(rule.k).toBe(golden.k);
        if (golden.k > 0) expect(rule.threshold).toBe(golden.score_threshold);
      }
      for (const golden of c.select_random) expectSelection(golden, benjaminiHochberg(random, golden.alpha).selected, c.y_test);
    });
  }

  for (const c of read("bh.json").cases as Golden[]) {
    test(`step-up on ${c.name}`, () => {
      const p = superuniformPValues(c.p);
      close(adjustedPValues(p), c.adjusted, 1e-15);
      for (const golden of c.results) {
        const { selected, k, threshold } = benjaminiHochberg(p, golden.alpha);
        expect([k, list(selected)]).toEqual([golden.k, golden.bh]);
        close([threshold], [golden.threshold], 1e-15);
        const by = benjaminiYekutieli(p, golden.alpha);
        expect([by.k, list(by.selected)]).toEqual([golden.k_by, golden.by]);
      }
    });
  }

  for (const c of read("weighted.json").cases as Golden[]) {
    test(`weighted selection on ${c.name}`, () => {
      const calibration = { scores: c.s_cal, aligned: c.y_cal },
        weights = { calibration: c.w_cal, test: c.w_test };
      for (const [ties, uniforms] of [["deterministic", undefined] as const, ["random", c.u as number[]] as const]) {
        const p = weightedPValues(calibration, c.s_test, weights, uniforms);
        close(p.values, c[`p_${ties}`], 1e-12);
        for (const golden of c.results) {
          expect(list(benjaminiHochberg(p, golden.alpha).selected)).toEqual(golden[`bh_${ties}`]);
          for (const pruning of prunings) {
            const input = { calibration, test: c.s_test, weights, alpha: golden.alpha, pruning, xi: c.xi, ...(uniforms && { uniforms }) };
            const wcs = weightedConformalSelection(input);
            expect(list(wcs.sizes)).toEqual(golden.R0);
            expect(list(wcs.candidates)).toEqual(golden[`first_${ties}`]);
            expect(list(wcs.selected)).toEqual(golden[`wcs_${pruning}_${ties}`]);
          }
        }
      }
    });
  }

  const e = read("evalues.json");
  for (const c of e.cases as Golden[]) {
    test(`e-values of ${c.name}`, () => {
      const calibration = { scores: c.s_cal, aligned: c.y_cal };
      const runs = (c.rep_s_cal as number[][]).map((scores, r) => ({ calibration: { scores, aligned: c.y_cal }, test: c.rep_s_test[r] as number[] }));
      for (const golden of c.results) {
        const values = thresholdEValues(calibration, c.s_test, golden.alpha);
        close(values.values, golden.e, 1e-12);
        expect(list(eBh(values, golden.alpha).selected)).toEqual(golden.ebh);
        expect(list(benjaminiHochberg(alignmentPValues(calibration, c.s_test), golden.alpha).selected)).toEqual(golden.ebh);
        const mean = derandomised(runs, golden.alpha, { innerAlpha: golden.alpha_inner });
        close(mean.e.values, golden.e_mean, 1e-12);
        expect(list(mean.selected)).toEqual(golden.derandomised);
      }
    });
  }
  for (const c of e.ebh_cases as Golden[]) {
    test(`e-BH on ${c.name}`, () => {
      for (const golden of c.results) {
        const { selected, k } = eBh(eValues(c.e), golden.alpha);
        expect([k, list(selected)]).toEqual([golden.k, golden.selected]);
      }
    });
  }

  for (const c of read("optcs.json").cases as Golden[]) {
    test(`choice among scores on ${c.name}`, () => {
      for (const golden of c.results) {
        for (const pruning of prunings) {
          const input = { calibration: { scores: c.S_cal, aligned: c.y_cal }, test: { scores: c.S_test }, alpha: golden.alpha, pruning, xi: c.xi };
          const result = optCs(input);
          expect(list(result.sizes)).toEqual(golden.R);
          expect(list(result.chosen)).toEqual(golden.theta);
          close(result.p, golden.p, 1e-15);
          expect(list(result.selected)).toEqual(golden[pruning]);
        }
      }
    });
  }

  for (const c of read("condcal.json").cases as Golden[]) {
    test(`calibration-conditional p-values, n = ${c.n}`, () => {
      const calibration = { scores: c.s_null as number[], aligned: (c.s_null as number[]).map(() => 0) };
      const compare = (name: string, bounds: ConditionalBounds): void => {
        close(bounds(c.n, c.delta), c[`bounds_${name}`], 1e-10, true);
        close(calibrationConditionalPValues(calibration, c.s_test, { delta: c.delta, bounds }).values, c[`p_${name}`], 1e-10, true);
      };
      compare("simes", simesBounds);
      compare("dkwm", dkwmBounds);
    });
  }

  for (const c of read("crc.json").cases as Golden[]) {
    test(`risk control on ${c.name}`, () => {
      for (const golden of c.results) {
        expect(riskThreshold({ scores: c.s, losses: c.loss, alpha: golden.alpha, bound: c.B })).toBe(golden.threshold ?? Infinity);
      }
    });
  }

  const online = read("online.json");
  test("spending sequences", () => {
    const ten = Array.from({ length: 10 }, (_, i) => i + 1);
    close(ten.map(lordGamma), online.gamma_lord_first10, 1e-12);
    close(ten.map(powerGamma), online.gamma_power_first10, 1e-12);
  });
  for (const c of online.cases as Golden[]) {
    const p = superuniformPValues(c.p);
    const compare = (decisions: readonly OnlineDecision[], golden: Golden): void => {
      expect(decisions.flatMap(({ selected }, t) => (selected ? [t] : []))).toEqual(golden.rejected);
      close(
        decisions.map(({ level }) => level),
        golden.levels,
        1e-12,
      );
    };
    test(`stream ${c.name}`, () => {
      for (const golden of c.results) {
        const { alpha } = golden;
        const run = (procedure: OnlineProcedure<"superuniform">): OnlineDecision[] => new OnlineStream(procedure).push(p);
        compare(run(lond({ alpha }) as OnlineProcedure<"superuniform">), golden.lond);
        compare(run(lordPlusPlus({ alpha }) as OnlineProcedure<"superuniform">), golden.lordpp);
        compare(run(saffron({ alpha }) as OnlineProcedure<"superuniform">), golden.saffron);
        compare(new EValueStream({ alpha }).push(eValues(c.e)), golden.elond);
      }
    });
  }

  for (const c of read("e2e.json").cases as Golden[]) {
    test(`from predicted scores to selections: ${c.name}`, () => {
      const calibration = { scores: c.s_cal, aligned: (c.calibration as number[]).map(i => c.y[i] as number) };
      const truth = (c.test as number[]).map(i => c.y[i] as number);
      const [p, random] = [alignmentPValues(calibration, c.s_test), randomisedPValues(calibration, c.s_test, c.u)];
      close(p.values, c.p_deterministic, 1e-15);
      close(random.values, c.p_random, 1e-15);
      for (const golden of c.select_deterministic) expectSelection(golden, benjaminiHochberg(p, golden.alpha).selected, truth);
      for (const golden of c.select_random) expectSelection(golden, benjaminiHochberg(random, golden.alpha).selected, truth);
    });
  }

  for (const c of read("multicriteria.json").cases as Golden[]) {
    test(`several criteria: ${c.name}`, () => {
      for (const golden of c.results) {
        const calibration = { scores: jointScore(c.prob_cal, golden.mode), aligned: jointLabel(c.criteria_cal, golden.mode) };
        const p = alignmentPValues(calibration, jointScore(c.prob_test, golden.mode));
        close(p.values, golden.p, 1e-15);
        const truth = list(jointLabel(c.criteria_test, golden.mode));
        for (const one of golden.select) expectSelection(one, benjaminiHochberg(p, one.alpha).selected, truth);
      }
    });
  }

  test("replayed repetitions: FDP, power and size of each, and their means", () => {
    const golden = read("replay.json");
    const totals = (golden.alphas as number[]).map(() => [0, 0]);
    for (const rep of golden.reps as Golden[]) {
      const p = alignmentPValues({ scores: rep.s_cal, aligned: rep.y_cal }, rep.s_test);
      for (const [a, alpha] of (golden.alphas as number[]).entries()) {
        const [fdp, power, k] = rep.result[a];
        const { selected } = benjaminiHochberg(p, alpha);
        expectSelection({ selected: list(selected), fdp, power, k }, selected, rep.y_test);
        totals[a]![0]! += fdp / golden.reps.length;
        totals[a]![1]! += power / golden.reps.length;
      }
    }
    close(
      totals.map(([fdp]) => fdp!),
      golden.mean_fdp,
      1e-14,
    );
    close(
      totals.map(([, power]) => power!),
      golden.mean_power,
      1e-14,
    );
  });
});
