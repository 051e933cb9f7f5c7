/** The arguments of `npm run demo` and `npm run demo:pretrain`. */

import { parseArgs } from "node:util";
import { ConfigError } from "../../lib/errors.js";

export const methods = ["dspo", "dpo", "sft"] as const;
export type Method = (typeof methods)[number];

export interface DemoOptions {
  readonly command: "align" | "pretrain" | "help";
  readonly method: Method;
  /** Optimizer steps; undefined: the method's default. */
  readonly steps: number | undefined;
  /** Undefined: the method's own. */
  readonly learningRate: number | undefined;
  readonly seed: number;
  readonly output: string;
  /** Whether pictures are certified. */
  readonly certify: boolean;
  /** A preference file to align to in place of the synthetic annotator. */
  readonly pairs: string | undefined;
  /** Number of pairs to show in the browser; undefined: the annotator is synthetic. */
  readonly annotate: number | undefined;
}

export const usage = `npm run demo -- [options]

  --method dspo|dpo|sft   objective (dspo); SFT is always run beside it as the baseline
  --annotate              you are the annotator: opens a page on this machine, then aligns to your clicks
  --count N               with --annotate: pairs to show (40)
  --pairs FILE            aligns to a file of {"prompt", "chosen", "rejected"} lines with 16 x 16 PNG pictures
  --steps N               optimizer steps (200; 60 for your own pairs)
  --learning-rate X       the method's own (dspo, sft 1e-4; dpo 2e-5, and 1e-4 shows reward hacking)
  --seed N                seed of split, labels, noise and samples (0)
  --output DIR            where the report goes (runs/demo)
  --no-certify            leaves out which pictures can be trusted, and the over-optimised model that shows it (about half of the time)

npm run demo:pretrain -- [--steps N] [--seed N] [--output DIR]
                          trains the base model that alignment starts from (about ten minutes)
`;

/** Throws ConfigError for anything it does not understand. */
export function parseCli(args: readonly string[]): DemoOptions {
  const { values, positionals } = parsed(args);
  const [command = "align", ...rest] = positionals;
  if (values.help) return { ...defaults, command: "help" };
  if ((command !== "align" && command !== "pretrain") || rest.length > 0)
    throw new ConfigError("demo", "command", "align or pretrain", positionals.join(" "), "run it with --help for the options");
  if (values.count !== undefined && !values.annotate) throw new ConfigError("demo", "--count", "given together with --annotate", values.count);
  if (values.annotate && values.pairs !== undefined) throw new ConfigError("demo", "--pairs", "absent with --annotate", values.pairs);
  return {
    command,
    method: methodOf(values.method),
    steps: values.steps === undefined ? undefined : integer("--steps", values.steps, 1),
    learningRate: values["learning-rate"] === undefined ? undefined : positive("--learning-rate", values["learning-rate"]),
    seed: integer("--seed", values.seed ?? "0", 0),
    certify: !values["no-certify"],
    output: values.output ?? (command === "pretrain" ? "examples/emoji-align/base" : defaults.output),
    pairs: values.pairs,
    annotate: values.annotate ? integer("--count", values.count ?? "40", 4) : undefined,
  };
}

const defaults = {
  method: "dspo",
  steps: undefined,
  learningRate: undefined,
  seed: 0,
  output: "runs/demo",
  certify: true,
  pairs: undefined,
  annotate: undefined,
} as const;

function parsed(args: readonly string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        method: text,
        steps: text,
        "learning-rate": text,
        seed: text,
        output: text,
        pairs: text,
        count: text,
        annotate: flag,
        "no-certify": flag,
        help: flag,
      },
    });
  } catch (cause) {
    throw new ConfigError("demo", "arguments", "those listed by --help", args.join(" "), (cause as Error).message);
  }
}

function methodOf(name = "dspo"): Method {
  const method = methods.find(m => m === name);
  if (!method) throw new ConfigError("demo", "--method", methods.join(", "), name);
  return method;
}

function integer(option: string, text: string, least: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value) || value < least) throw new ConfigError("demo", option, `an integer from ${least}`, text);
  return value;
}

function positive(option: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value > 0 && Number.isFinite(value))) throw new ConfigError("demo", option, "a number above 0", text);
  return value;
}
