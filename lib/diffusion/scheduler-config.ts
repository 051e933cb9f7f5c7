/** Schedulers as a pipeline's scheduler_config.json describes them, by diffusers' class names. A field that the class knows, that would change results and that
 *  is not supported is an error; fields that the class does not know have no effect there and none here. */

import { ConfigError } from "../errors.js";
import { ConfigReader } from "../models/config-reader.js";
import { ddim } from "../schedulers/ddim.js";
import { ddpm } from "../schedulers/ddpm.js";
import { type DpmSolverAlgorithm, dpmSolver } from "../schedulers/dpm-solver.js";
import { euler } from "../schedulers/euler.js";
import { eulerAncestral } from "../schedulers/euler-ancestral.js";
import { type FlowMatchEulerOptions, flowMatchEuler } from "../schedulers/flow-match-euler.js";
import { heun } from "../schedulers/heun.js";
import { lcm } from "../schedulers/lcm.js";
import { pndm } from "../schedulers/pndm.js";
import type { Scheduler } from "../schedulers/scheduler.js";
import type { FinalSigma, SigmaSpacing } from "../schedulers/sigmas.js";
import type { TimestepSpacing } from "../schedulers/timesteps.js";
import { uniPC } from "../schedulers/unipc.js";

type Config = Readonly<Record<string, unknown>>;

/** What diffusers takes as arguments of sampling, not from the config. */
export interface SchedulerArguments {
  /** Of DDIM: 0 deterministic, 1 as much noise as DDPM. */
  readonly eta?: number;
  /** Of flow matching, where the config has use_dynamic_shifting: made from the size of the picture (dynamicShift). */
  readonly mu?: number;
  /** Of flow matching: sigmas of a run of n steps, before they are shifted. */
  sigmas?(steps: number): readonly number[];
}

/** The scheduler of a parsed scheduler_config.json (parsePythonJson reads its infinities); `source` is the name that errors begin with.
 *  @throws ConfigError for a class that is not supported, and one that lists every unsupported field. */
export function schedulerFromConfig(config: Config, source: string, args: SchedulerArguments = {}): Scheduler {
  const name = config._class_name;
  const make = typeof name === "string" && Object.hasOwn(classes, name) ? classes[name] : undefined;
  if (!make) throw new ConfigError(source, "_class_name", `one of ${Object.keys(classes).join(", ")}`, name);
  return read(config, source, reader => make(reader, args));
}

/** DDIM, whatever class the config names. `eta` is an argument of sampling in diffusers. */
export function ddimFromConfig(config: Config, source: string, { eta = 0 }: { eta?: number } = {}): Scheduler {
  return read(config, source, reader => readDdim(reader, { eta }));
}

/** DDPM, whatever class the config names. */
export function ddpmFromConfig(config: Config, source: string): Scheduler {
  return read(config, source, readDdpm);
}

const classes: Readonly<Record<string, (reader: ConfigReader, args: SchedulerArguments) => Scheduler>> = {
  DDIMScheduler: readDdim,
  DDPMScheduler: readDdpm,
  DPMSolverMultistepScheduler: readDpmSolver,
  EulerAncestralDiscreteScheduler: reader => eulerAncestral(spacing(reader, "linspace")),
  EulerDiscreteScheduler: readEuler,
  FlowMatchEulerDiscreteScheduler: readFlowMatch,
  HeunDiscreteScheduler: reader => heun({ ...spacing(reader, "linspace"), ...sigmaSpacing(reader), ...clip(reader, false) }),
  LCMScheduler: readLcm,
  PNDMScheduler: readPndm,
  UniPCMultistepScheduler: readUniPC,
};

/** Gathers every problem into one error before the scheduler checks its own options. */
function read(config: Config, source: string, make: (reader: ConfigReader) => Scheduler): Scheduler {
  const reader = new ConfigReader(config, source);
  reader.ignore(...Object.keys(config));
  reader.only("trained_betas", null);
  reader.only("thresholding", false);
  let scheduler: Scheduler | undefined, problem: unknown;
  try {
    scheduler = make(reader);
  } catch (error) {
    problem = error;
  }
  reader.finish();
  if (scheduler) return scheduler;
  throw problem;
}

function readDdim(reader: ConfigReader, { eta = 0 }: SchedulerArguments): Scheduler {
  return ddim({ eta, ...spacing(reader, "leading"), ...clip(reader, true), setAlphaToOne: reader.boolean("set_alpha_to_one", true) });
}

function readDdpm(reader: ConfigReader): Scheduler {
  const variance = oneOf(reader, "variance_type", "fixed_small", "fixed_large");
  return ddpm({ variance, ...spacing(reader, "leading"), ...clip(reader, true) });
}

function readEuler(reader: ConfigReader): Scheduler {
  reader.only("interpolation_type", "linear");
  reader.only("timestep_type", "discrete");
  return euler({ ...spacing(reader, "linspace"), ...sigmaSpacing(reader), ...sigmaRange(reader), ...finalSigma(reader) });
}

function readLcm(reader: ConfigReader): Scheduler {
  return lcm({ originalSteps: reader.count("original_inference_steps", 50), timestepScaling: reader.number("timestep_scaling", 10), ...clip(reader, false) });
}

function readPndm(reader: ConfigReader): Scheduler {
  const skips = reader.boolean("skip_prk_steps", false);
  if (!skips) reader.problem("skip_prk_steps", "true: a start by Runge-Kutta is not supported", skips);
  return pndm({ ...spacing(reader, "leading"), setAlphaToOne: reader.boolean("set_alpha_to_one", false) });
}

function readDpmSolver(reader: ConfigReader): Scheduler {
  reader.only("use_lu_lambdas", false);
  reader.only("variance_type", null);
  reader.only("lambda_min_clipped", Number.NEGATIVE_INFINITY);
  // released code cuts the fraction off those timesteps alone
  if (reader.raw("beta_schedule") === "squaredcos_cap_v2" && reader.raw("use_karras_sigmas") === true)
    reader.problem("use_karras_sigmas", "false where beta_schedule is squaredcos_cap_v2", true);
  const algorithm = oneOf<DpmSolverAlgorithm>(reader, "algorithm_type", "dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver");
  return dpmSolver({
    algorithm,
    order: order(reader),
    solverType: oneOf(reader, "solver_type", "midpoint", "heun"),
    lowerOrderFinal: reader.boolean("lower_order_final", true),
    eulerAtFinal: reader.boolean("euler_at_final", false),
    ...solver(reader),
  });
}

function readUniPC(reader: ConfigReader): Scheduler {
  reader.only("solver_p", null);
  reader.only("shift_terminal", null);
  const disabled = reader.raw("disable_corrector") ?? [];
  if (!Array.isArray(disabled)) reader.problem("disable_corrector", "an array of numbers of steps", disabled);
  return uniPC({
    order: order(reader),
    solverType: oneOf(reader, "solver_type", "bh2", "bh1"),
    predictX0: reader.boolean("predict_x0", true),
    lowerOrderFinal: reader.boolean("lower_order_final", true),
    disableCorrector: Array.isArray(disabled) ? disabled : [],
    ...solver(reader),
    ...sigmaRange(reader),
  });
}

function readFlowMatch(reader: ConfigReader, { mu, sigmas }: SchedulerArguments): Scheduler {
  reader.only("invert_sigmas", false);
  const dynamic = reader.boolean("use_dynamic_shifting", false);
  if (dynamic && mu === undefined) throw new ConfigError(reader.source, "mu", "given where use_dynamic_shifting is set", mu);
  const shiftTerminal = reader.number("shift_terminal", 0);
  const options: FlowMatchEulerOptions = {
    shift: reader.number("shift", 1),
    stochastic: reader.boolean("stochastic_sampling", false),
    ...(dynamic && mu !== undefined && { dynamic: { mu, kind: oneOf(reader, "time_shift_type", "exponential", "linear") } }),
    ...(shiftTerminal !== 0 && { shiftTerminal }),
    ...sigmaSpacing(reader),
    ...(sigmas && { sigmas }),
  };
  return flowMatchEuler(options);
}

function spacing(reader: ConfigReader, fallback: TimestepSpacing): { spacing: TimestepSpacing; stepsOffset: number } {
  const others = (["leading", "trailing", "linspace"] as const).filter(name => name !== fallback);
  return { spacing: oneOf<TimestepSpacing>(reader, "timestep_spacing", fallback, ...others), stepsOffset: reader.number("steps_offset", 0) };
}

function sigmaSpacing(reader: ConfigReader): { sigmaSpacing?: SigmaSpacing } {
  const chosen = (["karras", "exponential", "beta"] as const).filter(name => reader.boolean(`use_${name}_sigmas`, false));
  if (chosen.length > 1) reader.problem("use_..._sigmas", "one spacing at most", chosen);
  return chosen[0] ? { sigmaSpacing: chosen[0] } : {};
}

function sigmaRange(reader: ConfigReader): { sigmaMin?: number; sigmaMax?: number } {
  const [min, max] = [reader.number("sigma_min", 0), reader.number("sigma_max", 0)]; // 0, as null: the process's own
  return { ...(min > 0 && { sigmaMin: min }), ...(max > 0 && { sigmaMax: max }) };
}

function finalSigma(reader: ConfigReader): { finalSigma: FinalSigma } {
  return { finalSigma: oneOf<FinalSigma>(reader, "final_sigmas_type", "zero", "sigma_min") };
}

/** Fields of the two exponential integrators. */
function solver(reader: ConfigReader) {
  reader.only("use_dynamic_shifting", false);
  const flow = reader.boolean("use_flow_sigmas", false);
  return {
    ...spacing(reader, "linspace"),
    ...sigmaSpacing(reader),
    ...finalSigma(reader),
    ...(flow && { flow: { shift: reader.number("flow_shift", 1) } }),
  };
}

function clip(reader: ConfigReader, fallback: boolean): { clip?: number } {
  return reader.boolean("clip_sample", fallback) ? { clip: reader.number("clip_sample_range", 1) } : {};
}

function order(reader: ConfigReader): 1 | 2 | 3 {
  return oneOf<1 | 2 | 3>(reader, "solver_order", 2, 1, 3);
}

/** A field of which these values are supported; the first is what absence means. */
function oneOf<const T extends string | number>(reader: ConfigReader, field: string, ...values: readonly [T, ...T[]]): T {
  reader.only(field, ...values);
  const value = reader.raw(field) as T;
  return values.includes(value) ? value : values[0];
}
