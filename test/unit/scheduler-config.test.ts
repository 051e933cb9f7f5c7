/** scheduler_config.json as diffusers writes and reads it: classes, defaults, and every field that would change results and is not supported. */

import { noiseSchedule, noiseScheduleFromConfig } from "../../lib/diffusion/noise-schedule.js";
import { ddimFromConfig, ddpmFromConfig, type SchedulerArguments, schedulerFromConfig } from "../../lib/diffusion/scheduler-config.js";
import { ConfigError, DataError } from "../../lib/errors.js";
import { ddim } from "../../lib/schedulers/ddim.js";
import { ddpm } from "../../lib/schedulers/ddpm.js";
import { dpmSolver } from "../../lib/schedulers/dpm-solver.js";
import { euler } from "../../lib/schedulers/euler.js";
import { eulerAncestral } from "../../lib/schedulers/euler-ancestral.js";
import { flowMatchEuler } from "../../lib/schedulers/flow-match-euler.js";
import { heun } from "../../lib/schedulers/heun.js";
import { lcm } from "../../lib/schedulers/lcm.js";
import { pndm } from "../../lib/schedulers/pndm.js";
import type { Scheduler } from "../../lib/schedulers/scheduler.js";
import { uniPC } from "../../lib/schedulers/unipc.js";
import { parsePythonJson } from "../../lib/util/python-json.js";

type Config = Record<string, unknown>;
const schedule = noiseSchedule();
const flow = noiseSchedule({ predictionType: "flow_prediction" });

/** What each class means where its config says nothing but its name, and where it says something. */
const cases: readonly (readonly [string, Config, Scheduler, SchedulerArguments?])[] = [
  ["DDIMScheduler", {}, ddim({ clip: 1, stepsOffset: 0, setAlphaToOne: true })],
  ["DDIMScheduler", { clip_sample: false, set_alpha_to_one: false, steps_offset: 1 }, ddim({ eta: 0.3 }), { eta: 0.3 }],
  ["DDPMScheduler", {}, ddpm({ clip: 1, stepsOffset: 0 })],
  ["DDPMScheduler", { variance_type: "fixed_large", clip_sample_range: 2 }, ddpm({ clip: 2, stepsOffset: 0, variance: "fixed_large" })],
  ["PNDMScheduler", { skip_prk_steps: true, steps_offset: 1, clip_sample: false }, pndm()],
  ["EulerDiscreteScheduler", {}, euler({ spacing: "linspace" })],
  [
    "EulerDiscreteScheduler",
    { use_exponential_sigmas: true, sigma_min: 0.1, sigma_max: 9, final_sigmas_type: "sigma_min" },
    euler({ spacing: "linspace", sigmaSpacing: "exponential", sigmaMin: 0.1, sigmaMax: 9, finalSigma: "sigma_min" }),
  ],
  ["EulerAncestralDiscreteScheduler", { timestep_spacing: "trailing" }, eulerAncestral({ spacing: "trailing" })],
  ["HeunDiscreteScheduler", { use_karras_sigmas: true }, heun({ spacing: "linspace", sigmaSpacing: "karras" })],
  ["HeunDiscreteScheduler", { clip_sample: true }, heun({ spacing: "linspace", clip: 1 })],
  ["DPMSolverMultistepScheduler", { lambda_min_clipped: Number.NEGATIVE_INFINITY }, dpmSolver()],
  [
    "DPMSolverMultistepScheduler",
    { solver_order: 3, solver_type: "heun", lower_order_final: false, euler_at_final: true, use_beta_sigmas: true },
    dpmSolver({ order: 3, solverType: "heun", lowerOrderFinal: false, eulerAtFinal: true, sigmaSpacing: "beta" }),
  ],
  [
    "DPMSolverMultistepScheduler",
    { algorithm_type: "sde-dpmsolver", final_sigmas_type: "sigma_min", timestep_spacing: "leading", steps_offset: 1 },
    dpmSolver({ algorithm: "sde-dpmsolver", finalSigma: "sigma_min", spacing: "leading", stepsOffset: 1 }),
  ],
  ["UniPCMultistepScheduler", {}, uniPC()],
  [
    "UniPCMultistepScheduler",
    { solver_order: 3, solver_type: "bh1", disable_corrector: [0, 1], lower_order_final: false },
    uniPC({ order: 3, solverType: "bh1", disableCorrector: [0, 1], lowerOrderFinal: false }),
  ],
  ["LCMScheduler", { original_inference_steps: 40, timestep_scaling: 5 }, lcm({ originalSteps: 40, timestepScaling: 5 })],
];

for (const [name, config, expected, args = {}] of cases)
  test(`${name} ${JSON.stringify(config)}`, () => {
    for (const steps of [1, 4, 20])
      expect(schedulerFromConfig({ _class_name: name, ...config }, "test", args)(schedule, steps)).toEqual(expected(schedule, steps));
  });

const flows: readonly (readonly [string, Config, Scheduler, SchedulerArguments?])[] = [
  ["FlowMatchEulerDiscreteScheduler", {}, flowMatchEuler()],
  [
    "FlowMatchEulerDiscreteScheduler",
    { shift: 3, shift_terminal: 0.1, stochastic_sampling: true },
    flowMatchEuler({ shift: 3, shiftTerminal: 0.1, stochastic: true }),
  ],
  [
    "FlowMatchEulerDiscreteScheduler",
    { use_dynamic_shifting: true, time_shift_type: "linear" },
    flowMatchEuler({ dynamic: { mu: 2, kind: "linear" } }),
    { mu: 2 },
  ],
  ["UniPCMultistepScheduler", { use_flow_sigmas: true, flow_shift: 3 }, uniPC({ flow: { shift: 3 } })],
  ["DPMSolverMultistepScheduler", { use_flow_sigmas: true, flow_shift: 3 }, dpmSolver({ flow: { shift: 3 } })],
];
for (const [name, config, expected, args = {}] of flows)
  test(`${name} ${JSON.stringify(config)} of a flow`, () => {
    for (const steps of [2, 20]) expect(schedulerFromConfig({ _class_name: name, ...config }, "test", args)(flow, steps)).toEqual(expected(flow, steps));
  });

test("what is not supported is refused, all of it in one error; what a class does not know is ignored", () => {
  const refused = (config: Config, ...parts: readonly string[]): void => {
    const make = () => schedulerFromConfig(config, "scheduler_config.json");
    expect(make).toThrow(ConfigError);
    for (const part of ["scheduler_config.json: ", ...parts]) expect(make).toThrow(part);
  };
  const [ddimClass, dpm, unipc] = ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"];
  refused({ _class_name: "DEISMultistepScheduler" }, "expected _class_name to be one of DDIMScheduler, DDPMScheduler", `received "DEISMultistepScheduler"`);
  refused({ _class_name: "toString" }, "_class_name");
  refused({}, "_class_name");
  refused({ _class_name: ddimClass, thresholding: true }, "expected thresholding to be false, received true");
  refused(
    { _class_name: ddimClass, timestep_spacing: "even", trained_betas: [0.1] },
    "trained_betas: null",
    `timestep_spacing: "leading" or "trailing" or "linspace"`,
    "[0.1]",
  );
  refused({ _class_name: ddimClass, steps_offset: "1" }, "expected steps_offset to be a number");
  refused({ _class_name: "DDPMScheduler", variance_type: "learned_range" }, "variance_type");
  refused({ _class_name: "PNDMScheduler" }, "skip_prk_steps");
  refused({ _class_name: "EulerDiscreteScheduler", timestep_type: "continuous", interpolation_type: "log_linear" }, "interpolation_type, timestep_type");
  refused({ _class_name: "EulerDiscreteScheduler", use_karras_sigmas: true, use_beta_sigmas: true }, "one spacing at most");
  refused({ _class_name: dpm, solver_type: "bh2", use_lu_lambdas: true, lambda_min_clipped: -5.1 }, "use_lu_lambdas, lambda_min_clipped, solver_type");
  expect(() => schedulerFromConfig({ _class_name: dpm, algorithm_type: "dpmsolver" }, "test")).toThrow(`expected finalSigma to be "sigma_min"`);
  refused({ _class_name: dpm, beta_schedule: "squaredcos_cap_v2", use_karras_sigmas: true }, "expected use_karras_sigmas to be false where beta_schedule");
  refused({ _class_name: unipc, solver_p: {}, solver_order: 4 }, "solver_p, solver_order");
  refused({ _class_name: unipc, disable_corrector: 1 }, "disable_corrector");
  refused({ _class_name: "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting: true }, "expected mu to be given where use_dynamic_shifting is set");
  refused({ _class_name: "FlowMatchEulerDiscreteScheduler", invert_sigmas: true }, "invert_sigmas");
  // written for another class, or by another version
  const stray = {
    _class_name: "EulerDiscreteScheduler",
    _diffusers_version: "0.19.0",
    skip_prk_steps: true,
    set_alpha_to_one: false,
    clip_sample: false,
    solver_type: "?",
  };
  expect(schedulerFromConfig(stray, "test")(schedule, 4)).toEqual(euler({ spacing: "linspace" })(schedule, 4));
});

test("DDIM and DDPM of another class's config", () => {
  const config = { _class_name: "PNDMScheduler", clip_sample: false, steps_offset: 1, set_alpha_to_one: false };
  expect(ddimFromConfig(config, "test", { eta: 1 })(schedule, 4)).toEqual(ddim({ eta: 1 })(schedule, 4));
  expect(ddpmFromConfig(config, "test")(schedule, 4)).toEqual(ddpm()(schedule, 4));
});

test("the forward process of a config", () => {
  expect(noiseScheduleFromConfig({ _class_name: "FlowMatchEulerDiscreteScheduler", num_train_timesteps: 500 }, "test")).toMatchObject({
    steps: 500,
    predictionType: "flow_prediction",
  });
  expect(noiseScheduleFromConfig({ _class_name: "LCMScheduler" }, "test").alphasCumprod).toEqual(schedule.alphasCumprod);
  expect(noiseScheduleFromConfig({ _class_name: "DDIMScheduler" }, "test").betas.at(-1)).toBeCloseTo(0.02, 8);
  expect(() => noiseScheduleFromConfig({ prediction_type: "score" }, "test")).toThrow("one of epsilon, v_prediction, sample, flow_prediction");
  expect(() => noiseScheduleFromConfig({ beta_start: "0.1" }, "test")).toThrow("expected beta_start to be a number");
});

test("JSON as Python writes it", () => {
  const read = (text: string): unknown => parsePythonJson(Buffer.from(text), "file.json");
  expect(read('{"a": -Infinity, "b": [Infinity, NaN], "c": "NaN, \\"-Infinity\\" é", "d": -1.5e-3}')).toEqual({
    a: Number.NEGATIVE_INFINITY,
    b: [Number.POSITIVE_INFINITY, null],
    c: 'NaN, "-Infinity" é',
    d: -0.0015,
  });
  for (const text of ["{", '{"a": Infinit}', '{"a": 1, "a": 2}', '{"a": NaNs}']) expect(() => read(text)).toThrow(DataError);
});
