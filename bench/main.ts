/** `npm run bench`: every kernel, the training step of the demo model, conformal selection. `-- --filter conv3x3` for some of them, `-- --json` for machines.
 *  Exits 1 when a number is wrong; a slow kernel is not an error. */

import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { Session } from "../lib/graph/session.js";
import { benchCases } from "./cases.js";
import { benchConformal, describeConformal } from "./conformal.js";
import { ceilings, describe, measure, type Row } from "./ops.js";
import { benchStep, type StepReport } from "./step.js";

const stepName = "training step";
const conformalName = "conformal selection";

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { filter: { type: "string", default: "" }, json: { type: "boolean", default: false } } });
  const say = (text: string): void => {
    if (!values.json) console.log(text);
  };
  const ceiling = await measured();
  const machine = { cpu: cpus()[0]?.model ?? "unknown", threads: cpus().length, node: process.version };
  say(`${machine.cpu}, ${machine.threads} threads: ${ceiling.gflops.toFixed(0)} GFLOP/s multiply-add in f32, ${ceiling.gbytes.toFixed(1)} GB/s copy\n`);
  const rows: Row[] = [];
  for (const c of benchCases.filter(one => one.name.includes(values.filter))) {
    const row = await measure(c, ceiling);
    rows.push(row);
    say(describe(row));
  }
  const step = stepName.includes(values.filter) ? await benchStep(ceiling) : undefined;
  if (step) say(describeStep(step));
  const conformal = conformalName.includes(values.filter) ? benchConformal().rows : undefined;
  if (conformal) say(`\n${conformalName}, 10^6 calibration and 10^6 test units\n${conformal.map(describeConformal).join("\n")}`);
  if (values.json) console.log(JSON.stringify({ machine, ceiling, rows, ...(step && { step }), ...(conformal && { conformal }) }, null, 1));
  if (rows.some(row => !(row.error <= row.bound))) process.exitCode = 1;
}

async function measured() {
  await using session = Session.open({ backend: "cpu" });
  return await ceilings(session);
}

function describeStep({ name, milliseconds, pairsPerSecond, gflops, share, instructions, ops }: StepReport): string {
  const where = ops.slice(0, 8).map(o => `${o.op} ${(100 * o.share).toFixed(0)} %`);
  return `\n${name}: ${milliseconds.toFixed(1)} ms, ${pairsPerSecond.toFixed(0)} pairs/s, ${gflops.toFixed(1)} GFLOP/s (${(100 * share).toFixed(0)} %), ${instructions} instructions\n  ${where.join(", ")}`;
}

void main();
