/** UniPC, Zhao et al. 2023, arXiv:2302.04867, the B(h) form of its predictor (eq. 3, UniP) and corrector (eq. 9, UniC), as diffusers' UniPCMultistepScheduler. The
 *  corrector improves the sample with the evaluation that the next step needs anyway; the memory holds the last corrected sample, then the newest estimates. */

import { ConfigError } from "../errors.js";
import { memory, minus, plus, state, times } from "./combination.js";
import { type ClipOptions, type Combination, checkClip, type Level, type Remembered, type Scheduler, type SchedulerStep } from "./scheduler.js";
import { estimate, type GridRules, lambda, type SolverOptions, solverGrid } from "./solver.js";
import { linspace } from "./timesteps.js";

export interface UniPCOptions extends SolverOptions, ClipOptions {
  /** Steps that the predictor looks at, 1 to 3. The corrector gains one order. */
  readonly order?: 1 | 2 | 3;
  /** B(h) is h ("bh1") or e^h - 1 ("bh2"). */
  readonly solverType?: "bh1" | "bh2";
  /** Over the clean estimate (true) or the noise. */
  readonly predictX0?: boolean;
  /** Lowers the order towards the end. True by default; a last step to clean data is of order 1 in any case. */
  readonly lowerOrderFinal?: boolean;
  /** Steps whose result is not corrected. */
  readonly disableCorrector?: readonly number[];
}

export function uniPC(options: UniPCOptions = {}): Scheduler {
  const { order = 2, predictX0 = true, lowerOrderFinal = true, disableCorrector = [] } = options;
  checkOptions(options);
  const clip = checkClip("uniPC", options.clip);
  return (process, steps, skip = 0) => {
    const { timesteps, levels } = solverGrid("uniPC", process, { steps, skip, rules }, options);
    if (!predictX0 && levels.at(-1)!.noise === 0) throw new ConfigError("uniPC", "finalSigma", `"sigma_min" where predictX0 is false`, "zero");
    const orderOf = (i: number): number => {
      if (levels[i + 1]!.noise === 0 || levels[i + 1]!.noise === levels[i]!.noise) return 1;
      return Math.min(lowerOrderFinal ? Math.min(order, steps - i) : order, i - skip + 1);
    };
    return timesteps.slice(skip).map((timestep, age): SchedulerStep => {
      const i = skip + age,
        level = levels[i]!;
      const m = estimate(process, level, predictX0 ? "data" : "noise");
      const stretch = (from: number, used: number): Stretch => ({ options, to: levels[from + 1]!, history: levels.slice(from - used + 1, from + 1).reverse() });
      const corrects = age > 0 && !disableCorrector.includes(i - 1) && levels[i]!.noise !== levels[i - 1]!.noise;
      const corrected = corrects ? corrector(stretch(i - 1, orderOf(i - 1)), m) : state;
      return {
        timestep,
        level,
        denoised: process.cleanSample(level),
        ...clip,
        update: predictor(stretch(i, orderOf(i)), corrected, m),
        remember: remembered(corrects ? corrected : "state", predictX0 ? "denoised" : m, age, order),
      };
    });
  };
}

const rules: GridRules = { flowSigmas: (total, steps) => linspace(1, 1 / total, steps + 1).slice(0, -1), endsAtOwnLast: true };

/** A step to `to`; history holds the level where it begins and those before it whose estimates it uses. */
interface Stretch {
  readonly options: UniPCOptions;
  readonly to: Level;
  readonly history: readonly [Level, ...Level[]] | readonly Level[];
}

function predictor({ options, to, history }: Stretch, x: Combination, m0: Combination): Combination {
  const { first, c0, scale, ratios, moments } = expansion(options, to, history);
  const order = history.length;
  const rhos = order === 1 ? [] : order === 2 ? [0.5] : solve(powers(ratios, order - 1), moments.slice(0, order - 1));
  // estimates before the newest follow the last sample in the memory
  const residual = rhos.map((rho, k) => times(rho / ratios[k]!, minus(memory(k + 1), m0)));
  return plus(times(first, x), times(c0, m0), ...residual.map(r => times(scale, r)));
}

/** The sample where the last step led, made again with the estimate found there. */
function corrector({ options, to, history }: Stretch, found: Combination): Combination {
  const { first, c0, scale, ratios, moments } = expansion(options, to, history);
  const order = history.length,
    m0 = memory(1);
  const rhos = order === 1 ? [0.5] : solve(powers([...ratios, 1], order), moments);
  const residual = ratios.map((r, k) => times(rhos[k]! / r, minus(memory(k + 2), m0)));
  return plus(times(first, memory(0)), times(c0, m0), ...[...residual, times(rhos.at(-1)!, minus(found, m0))].map(r => times(scale, r)));
}

interface Expansion {
  readonly first: number;
  readonly c0: number;
  /** What multiplies the residual: -signal B(h) or -noise B(h). */
  readonly scale: number;
  /** Places of older estimates in units of the step, negative. */
  readonly ratios: readonly number[];
  /** b_i = i! phi_(i+1)(h) h / B(h), one per order. */
  readonly moments: readonly number[];
}

function expansion({ predictX0 = true, solverType = "bh2" }: UniPCOptions, to: Level, history: readonly Level[]): Expansion {
  const [from, ...older] = history as [Level, ...Level[]];
  const h = lambda(to) - lambda(from),
    hh = predictX0 ? -h : h,
    e = Math.expm1(hh),
    b = solverType === "bh1" ? hh : e;
  const moments: number[] = [];
  let phi = e / hh - 1;
  for (let i = 1, factorial = 1; i <= history.length; i++) {
    moments.push((phi * factorial) / b);
    factorial *= i + 1;
    phi = phi / hh - 1 / factorial;
  }
  const [kept, lost] = predictX0 ? [to.noise / from.noise, to.signal] : [to.signal / from.signal, to.noise];
  return { first: kept, c0: -lost * e, scale: -lost * b, ratios: older.map(level => (lambda(level) - lambda(from)) / h), moments };
}

/** Rows i = 0 .. n - 1 of the i-th powers of n numbers. */
function powers(of: readonly number[], n: number): number[][] {
  return Array.from({ length: n }, (_, i) => of.slice(0, n).map(r => r ** i));
}

/** Solves a small regular system by elimination with the largest pivot. */
function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  const n = rows.length;
  for (let c = 0; c < n; c++) {
    const pivot = rows.reduce((best, row, r) => (r >= c && Math.abs(row[c]!) > Math.abs(rows[best]![c]!) ? r : best), c);
    [rows[c], rows[pivot]] = [rows[pivot]!, rows[c]!];
    for (let r = 0; r < n; r++) {
      if (r === c) continue;
      const factor = rows[r]![c]! / rows[c]![c]!;
      for (let k = c; k <= n; k++) rows[r]![k]! -= factor * rows[c]![k]!;
    }
  }
  return rows.map((row, i) => row[n]! / row[i]!);
}

/** The corrected sample, the newest estimate, and older ones: a corrector of order p looks back at p of them. */
function remembered(sample: Remembered, newest: Remembered, age: number, order: number): Remembered[] {
  return [sample, newest, ...Array.from({ length: Math.min(order - 1, age) }, (_, k) => k + 1)];
}

function checkOptions({ order = 2, solverType = "bh2", disableCorrector = [] }: UniPCOptions): void {
  if (!(Number.isSafeInteger(order) && order >= 1 && order <= 3)) throw new ConfigError("uniPC", "order", "1, 2 or 3", order);
  if (solverType !== "bh1" && solverType !== "bh2") throw new ConfigError("uniPC", "solverType", "bh1 or bh2", solverType);
  if (!disableCorrector.every(Number.isSafeInteger)) throw new ConfigError("uniPC", "disableCorrector", "numbers of steps", disableCorrector);
}
