/** The options of every command as data: what a config file may hold, what the command line takes, and what `parseConfig` checks for callers who read their options
 *  from JSON. Defaults that belong to a library function are not repeated here: an option that is absent stays absent. */

import { z } from "zod";
import { ConfigError } from "../errors.js";

const whole = (least: number) => z.coerce.number().int().min(least);
const share = z.coerce.number().gt(0).max(1);

const device = z
  .string()
  .regex(/^(auto|cpu|cuda(:\d+)?)$/, "auto, cpu, cuda or cuda:<index>")
  .default("auto")
  .describe("auto, cpu, cuda or cuda:1");
const dtype = z.enum(["f32", "bf16"]).default("f32").describe("dtype of arithmetic; bf16 needs a GPU");
const model = z.string().min(1);
const variant = z.string().min(1).optional().describe('"fp16" reads files with .fp16 in their names');

const lora = z
  .strictObject({
    rank: whole(1).describe("width of the adapter"),
    alpha: z.coerce.number().gt(0).optional().describe("numerator of its scaling; the rank by default"),
    rankStabilized: z.coerce.boolean().optional().describe("scaling alpha / sqrt(rank)"),
    targets: z.array(z.string()).optional().describe("modules, by the end of their names; attention projections by default"),
  })
  .optional();

const objective = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("sft") }),
  z.strictObject({ type: z.literal("dspo"), beta: z.coerce.number() }),
  z.strictObject({ type: z.literal("dspo-sdxl"), beta: z.coerce.number() }),
  z.strictObject({ type: z.literal("diffusion-dpo"), beta: z.coerce.number() }),
]);

export const schemas = {
  doctor: z.strictObject({}),
  inspect: z.strictObject({ path: z.string().min(1).describe("a weights file, or a model's or pipeline's folder") }),
  plan: z.strictObject({
    model: model.describe("a pipeline's or UNet's folder"),
    pairs: whole(1).default(1).describe("pairs in a micro-batch"),
    height: whole(8).optional().describe("of the pictures, in pixels"),
    width: whole(8).optional(),
    dtype,
    recompute: z.enum(["none", "blocks"]).default("none").describe("blocks: build them again in the backward pass"),
    lora,
  }),
  train: z.strictObject({
    model: model.describe("a pipeline's or UNet's folder"),
    data: z.string().min(1).describe("safetensors with winners, losers, encoderHiddenStates (SDXL: textEmbeds, timeIds), one row a pair"),
    objective: objective.describe("type: sft, dspo, dspo-sdxl or diffusion-dpo; beta"),
    output: z.string().min(1).describe("folder for checkpoints and the adapter"),
    steps: whole(1),
    learningRate: z.coerce.number().gt(0),
    warmup: whole(0).optional().describe("steps over which the rate rises"),
    batchSize: whole(1).optional().describe("pairs in a micro-batch"),
    gradientAccumulationSteps: whole(1).optional(),
    maxGradNorm: z.coerce.number().gt(0).optional(),
    conditionDropout: z.coerce.number().min(0).lt(1).optional(),
    checkpointEvery: whole(1).optional(),
    keepCheckpoints: whole(1).optional(),
    resume: z.string().optional().describe('"latest", or a checkpoint'),
    seed: whole(0).default(0),
    recompute: z.enum(["none", "blocks"]).default("none"),
    device,
    dtype,
    variant,
    lora,
  }),
  sample: z.strictObject({
    model: model.describe("a pipeline's folder, or its name in the local Hugging Face cache"),
    prompt: z.array(z.string()).min(1).describe("may be repeated"),
    negativePrompt: z.string().optional(),
    output: z.string().min(1).default("runs/sample").describe("folder for the pictures"),
    imagesPerPrompt: whole(1).optional(),
    seed: whole(0).default(0),
    steps: whole(1).optional(),
    guidanceScale: z.coerce.number().optional(),
    guidanceRescale: z.coerce.number().min(0).max(1).optional(),
    height: whole(8).optional(),
    width: whole(8).optional(),
    clipSkip: whole(0).optional(),
    image: z.string().optional().describe("a picture to begin with"),
    mask: z.string().optional().describe("white is painted anew"),
    strength: share.optional(),
    lora: z.array(z.string()).optional().describe("adapter file or folder, with its strength after @ (style.safetensors@0.8); may be repeated"),
    batchSize: whole(1).optional(),
    device,
    dtype,
    variant,
  }),
  convert: z.strictObject({
    from: z.string().min(1).describe("a single-file checkpoint (.safetensors, .ckpt) or a diffusers folder"),
    to: z.string().min(1).describe("the folder or file to write"),
    format: z.enum(["diffusers", "single-file"]).describe("of what is written"),
    configs: z.string().optional().describe("a diffusers folder of the same architecture, for models that are not of a published size"),
    predictionType: z.enum(["epsilon", "v_prediction"]).optional().describe("needed for SD 2.x files, which do not say"),
  }),
  certify: z.strictObject({
    table: z.string().min(1).optional().describe("a .csv, .jsonl or .ndjson file, a row an output"),
    label: z.string().min(1).optional().describe("column of the human judgement; rows where it is empty are to be certified"),
    cutoff: z.coerce.number().optional().describe("a row is good where its label exceeds this; without it labels are 0, 1, true or false"),
    score: z.string().optional().describe("column of a score, larger for better rows"),
    features: z.array(z.string()).optional().describe("in place of a score, columns to learn one from; may be repeated"),
    predictor: z.enum(["logistic", "forest", "boosting"]).optional().describe("what learns from features; logistic by default"),
    id: z.string().optional().describe("column that names a row; its line by default"),
    group: z.string().optional().describe("column: one certificate for each of its values, calibrated on its own rows"),
    alpha: z.coerce.number().gt(0).lt(1).default(0.1).describe("bound on the expected share of wrong rows among the selected"),
    ties: z.enum(["deterministic", "random", "lexicographic"]).optional(),
    repetitions: whole(0).optional().describe("of the rehearsal on labelled rows; 200 by default"),
    seed: whole(0).default(0),
    title: z.string().optional(),
    output: z.string().min(1).optional().describe("certificate to write, JSON; without it the selected rows are printed"),
    html: z.string().min(1).optional().describe("page to write"),
    verify: z.string().min(1).optional().describe("a certificate to check, in place of a table"),
    inputHash: z.string().optional().describe("with --verify: the hash of inputs that you know"),
  }),
} as const;

export type CommandName = keyof typeof schemas;
export type CommandConfig<N extends CommandName> = z.output<(typeof schemas)[N]>;

/** The options of a command, checked and with defaults. Throws a ConfigError that names the first problem, and the others after it. */
export function parseConfig<N extends CommandName>(command: N, config: unknown, source: string = command): CommandConfig<N> {
  const result = schemas[command].safeParse(config);
  if (result.success) return result.data as CommandConfig<N>;
  const [first, ...others] = result.error.issues.map(issue => problemOf(issue, config));
  const also = others.map(({ option, expected, received }) => `${option} must be ${expected}, received ${JSON.stringify(received) ?? "undefined"}`);
  throw new ConfigError(source, first!.option, first!.expected, first!.received, also.length > 0 ? `also ${also.join("; ")}` : undefined);
}

function problemOf(issue: z.core.$ZodIssue, config: unknown): { readonly option: string; readonly expected: string; readonly received: unknown } {
  const at = issue.path.join(".");
  if (issue.code === "unrecognized_keys")
    return { option: [...issue.path, issue.keys[0]].join("."), expected: "absent: there is no such option", received: "it" };
  const received = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], config);
  const expected = /expected (.*?)(?:, received .*)?$/i.exec(issue.message)?.[1] ?? issue.message;
  return { option: at === "" ? "the options" : at, expected: received === undefined ? "given" : expected, received };
}
