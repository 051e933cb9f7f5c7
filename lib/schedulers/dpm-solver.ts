/** Multistep DPM-Solver: Lu et al. 2022, arXiv:2206.00927 ("dpmsolver", over the predicted noise) and arXiv:2211.01095 ("dpmsolver++", over the predicted clean
 *  sample, algorithm 2), and their SDE forms, as diffusers' DPMSolverMultistepScheduler. With h the step in lambda, m the estimate and D1, D2 its divided
 *  differences: x <- first x + c0 m + c1 D1 + c2 D2 + noise N. */

import { ConfigError } from "../errors.js";
import { memory, minus, plus, state, times } from "./combination.js";
import type { ClipOptions, Combination, Level, Remembered, Scheduler } from "./scheduler.js";
import { checkClip } from "./scheduler.js";
import { estimate, type GridRules, lambda, type SolverOptions, solverGrid } from "./solver.js";
import { linspace } from "./timesteps.js";

export type DpmSolverAlgorithm = "dpmsolver++" | "dpmsolver" | "sde-dpmsolver++" | "sde-dpmsolver";

export interface DpmSolverOptions extends SolverOptions, ClipOptions {
  readonly algorithm?: DpmSolverAlgorithm;
  /** Steps that it looks at, 1 to 3 (1 or 2 of an SDE): DPM-Solver++(2M) by default. */
  readonly order?: 1 | 2 | 3;
  /** The second-order rule; "midpoint" by default. */
  readonly solverType?: "midpoint" | "heun";
  /** Order 3 as released weighs the second difference by half of what its integral is, and so converges with order 2. True weighs it whole. */
  readonly exactThird?: boolean;
  /** Lowers the order towards the end of a run of less than 15 steps. True by default. */
  readonly lowerOrderFinal?: boolean;
  /** The last step is of order 1 in any case; a last step to clean data always is. */
  readonly eulerAtFinal?: boolean;
}

export function dpmSolver(options: DpmSolverOptions = {}): Scheduler {
  const { algorithm = "dpmsolver++", order = 2, solverType = "midpoint", finalSigma = "zero" } = options;
  const data = algorithm === "dpmsolver++" || algorithm === "sde-dpmsolver++";
  checkOptions(algorithm, order, solverType);
  if (!data && finalSigma === "zero") throw new ConfigError("dpmSolver", "finalSigma", `"sigma_min" where algorithm is ${algorithm}`, finalSigma);
  const clip = checkClip("dpmSolver", options.clip);
  if (!data && clip.clip !== undefined)
    throw new ConfigError("dpmSolver", "clip", `absent where algorithm is ${algorithm}, which has no clean estimate`, clip.clip);
  return (process, steps, skip = 0) => {
    const { timesteps, levels } = solverGrid("dpmSolver", process, { steps, skip, rules }, { ...options, finalSigma });
    return timesteps.slice(skip).map((timestep, age) => {
      const i = skip + age,
        level = levels[i]!;
      const m = estimate(process, level, data ? "data" : "noise");
      const used = Math.min(stepOrder(options, steps, i, levels), age + 1);
      const history = levels.slice(i - used + 1, i + 1).reverse();
      return {
        timestep,
        level,
        denoised: process.cleanSample(level),
        ...clip,
        update: multistep(rule(options, used, level, levels[i + 1]!), m, [levels[i + 1]!, ...history].map(lambda)),
        remember: remembered(data ? "denoised" : m, Math.min(order, age + 2)),
      };
    });
  };
}

const rules: GridRules = {
  flowSigmas(total, steps) {
    const signals = linspace(1, 1 / total, steps + 1);
    return signals
      .slice(1)
      .reverse()
      .map(signal => 1 - signal);
  },
  endsAtOwnLast: false,
};

/** The order of step i, but for a run that has just begun. */
function stepOrder(options: DpmSolverOptions, steps: number, i: number, levels: readonly Level[]): number {
  const { order = 2, lowerOrderFinal = true, eulerAtFinal = false } = options;
  const fewSteps = lowerOrderFinal && steps < 15;
  if (levels[i + 1]!.noise === levels[i]!.noise) return 1; // a step of no length: its differences are 0 / 0
  if (i === steps - 1 && (eulerAtFinal || fewSteps || levels[steps]!.noise === 0)) return 1;
  return i === steps - 2 && fewSteps ? Math.min(order, 2) : order;
}

interface Rule {
  readonly first: number;
  readonly c0: number;
  readonly c1: number;
  readonly c2: number;
  readonly noise: number;
}

/** Coefficients of one step from `from` to `to`, from z, the span of lambda, and e^z - 1. Those of "heun" and order 3 are the integrals of the differences
 *  against e^z, those of "midpoint" halve c0. */
function rule({ algorithm = "dpmsolver++", solverType = "midpoint", exactThird = false }: DpmSolverOptions, order: number, from: Level, to: Level): Rule {
  const h = lambda(to) - lambda(from);
  const weights = (z: number, scale: number): Pick<Rule, "c0" | "c1" | "c2"> => {
    const e = Math.expm1(z),
      c0 = scale * e;
    if (order === 1) return { c0, c1: 0, c2: 0 };
    const c1 = solverType === "heun" || order === 3 ? scale * (e / z - 1) : c0 / 2;
    return { c0, c1, c2: (exactThird ? 2 : 1) * scale * ((e - z) / (z * z) - 0.5) };
  };
  if (algorithm === "dpmsolver++") return { first: to.noise / from.noise, ...weights(-h, -to.signal), noise: 0 };
  if (algorithm === "dpmsolver") return { first: to.signal / from.signal, ...weights(h, -to.noise), noise: 0 };
  if (algorithm === "sde-dpmsolver") return { first: to.signal / from.signal, ...weights(h, -2 * to.noise), noise: to.noise * Math.sqrt(Math.expm1(2 * h)) };
  return { first: (to.noise / from.noise) * Math.exp(-h), ...weights(-2 * h, -to.signal), noise: to.noise * Math.sqrt(-Math.expm1(-2 * h)) };
}

/** lambdas: where the step leads, where it begins, and one before that for every older estimate that it uses. */
function multistep({ first, c0, c1, c2, noise }: Rule, m0: Combination, lambdas: readonly number[]): Combination {
  const [to, l0, l1, l2] = lambdas as [number, number, number?, number?];
  const base = plus(times(first, state), times(c0, m0), { noise });
  if (l1 === undefined) return base;
  const h = to - l0,
    r0 = (l0 - l1) / h;
  const recent = times(1 / r0, minus(m0, memory(0)));
  if (l2 === undefined) return plus(base, times(c1, recent));
  const r1 = (l1 - l2) / h;
  const older = times(1 / r1, minus(memory(0), memory(1)));
  const second = times(1 / (r0 + r1), minus(recent, older));
  return plus(base, times(c1, plus(recent, times(r0, second))), times(c2, second));
}

/** The newest estimates: as many as a next step of this order looks back at. */
function remembered(newest: Remembered, order: number): Remembered[] {
  return Array.from({ length: order - 1 }, (_, k) => (k === 0 ? newest : k - 1));
}

function checkOptions(algorithm: DpmSolverAlgorithm, order: number, solverType: string): void {
  if (!["dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"].includes(algorithm))
    throw new ConfigError("dpmSolver", "algorithm", "dpmsolver++, dpmsolver, sde-dpmsolver++ or sde-dpmsolver", algorithm);
  const most = algorithm.startsWith("sde") ? 2 : 3;
  if (!(Number.isSafeInteger(order) && order >= 1 && order <= most))
    throw new ConfigError("dpmSolver", "order", `a whole number in [1, ${most}] of ${algorithm}`, order);
  if (solverType !== "midpoint" && solverType !== "heun") throw new ConfigError("dpmSolver", "solverType", "midpoint or heun", solverType);
}
