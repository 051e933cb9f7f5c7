/** `npm run demo` and `npm run demo:pretrain`. */

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { openDevice } from "../../lib/device.js";
import { AttuneError, ConfigError } from "../../lib/errors.js";
import { type DemoOptions, parseCli, usage } from "./cli.js";
import { runDemo } from "./demo.js";
import { loadDrawings } from "./drawings.js";
import { annotateInBrowser, labelsOfFile } from "./own-labels.js";
import { pretrain } from "./pretrain.js";
import { type Labels, syntheticLabels } from "./synthetic.js";

const defaultSteps = { pretrain: 3000, synthetic: 200, own: 60 };

async function main(args: readonly string[], signal: AbortSignal): Promise<void> {
  const options = parseCli(args);
  if (options.command === "help") return console.log(usage);
  const example = join(packageRoot(__dirname), "examples", "emoji-align");
  const { seed, output } = options;
  const drawings = await loadDrawings({ cache: join(example, ".cache") });
  if (options.command === "pretrain")
    return pretrain({ drawings, device: await openDevice("auto"), seed, steps: options.steps ?? defaultSteps.pretrain, output, signal });

  const base = join(example, "base");
  if (!existsSync(join(base, "unet", "config.json")))
    throw new ConfigError("demo", "the base model", `in ${base}`, "nothing", "npm run demo:pretrain makes it");
  const own = options.annotate !== undefined || options.pairs !== undefined;
  const labels = own ? await ownLabels(options, { drawings, base, signal }) : syntheticLabels({ drawings, seed, output });
  console.log(labels.annotator);
  const steps = options.steps ?? (own ? defaultSteps.own : defaultSteps.synthetic);
  await runDemo({
    ...labels,
    drawings,
    base,
    device: await openDevice("auto"),
    method: options.method,
    steps,
    learningRate: options.learningRate,
    seed,
    output,
    certify: options.certify,
    signal,
  });
}

async function ownLabels(
  { annotate, pairs, seed, output }: DemoOptions,
  rest: { drawings: Awaited<ReturnType<typeof loadDrawings>>; base: string; signal: AbortSignal },
): Promise<Labels> {
  const file = annotate === undefined ? pairs! : await annotateInBrowser({ ...rest, device: await openDevice("auto"), count: annotate, seed, output });
  return labelsOfFile({ file, drawings: rest.drawings, seed });
}

/** The nearest folder above with a package.json: compiled files lie below it at another depth than sources. */
function packageRoot(folder: string): string {
  return existsSync(join(folder, "package.json")) ? folder : packageRoot(dirname(folder));
}

const stop = new AbortController();
process.once("SIGINT", () => stop.abort(new Error("interrupted"))); // a second one ends the process at once
main(process.argv.slice(2), stop.signal).catch((error: unknown) => {
  console.error(error instanceof AttuneError || stop.signal.aborted ? (error as Error).message : error);
  process.exitCode = stop.signal.aborted ? 130 : error instanceof ConfigError ? 2 : 1;
});
