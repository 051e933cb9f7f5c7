/** `npm run bench`: every kernel, calls of `attune/kernels`, the training step of the demo model, conformal selection. `-- --filter conv3x3` for some of them,
 *  `-- --json` for machines, `-- --device cuda --dtype bf16` for a GPU. Exits 1 when a number is wrong; a slow kernel is not an error. */

import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { openDevice } from "../lib/device.js";
import { ConfigError } from "../lib/errors.js";
import { benchCases } from "./cases.js";
import { benchConformal, describeConformal } from "./conformal.js";
import { benchCalls, type Call, describeCall } from "./kernels.js";
import { type Bed, ceilings, describe, measure, type Row } from "./ops.js";
import { benchStep, type StepReport } from "./step.js";

const stepName = "training step";
const conformalName = "conformal selection";

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      filter: { type: "string", default: "" },
      json: { type: "boolean", default: false },
      device: { type: "string", default: "cpu" },
      dtype: { type: "string", default: "f32" },
    },
  });
  const { filter } = values;
  const say = (text: string): void => {
    if (!values.json) console.log(text);
  };
  const bed = await bedOf(values.device, values.dtype);
  const ceiling = await measured(bed);
  const machine = { device: bed.device.description, dtype: bed.dtype, threads: cpus().length, node: process.version };
  const tensor = ceiling.tensorGflops === undefined ? "" : `, ${ceiling.tensorGflops.toFixed(0)} on tensor cores`;
  say(`${machine.device}: ${ceiling.gflops.toFixed(0)} GFLOP/s multiply-add in f32${tensor}, ${ceiling.gbytes.toFixed(1)} GB/s copy\n`);
  const rows: Row[] = [];
  for (const c of benchCases.filter(one => one.name.includes(filter))) {
    const row = await measure(c, ceiling, bed);
    rows.push(row);
    say(describe(row));
  }
  const calls: Call[] = [];
  for await (const call of benchCalls(bed, ceiling, filter)) {
    if (calls.length === 0) say("\ncalls of attune/kernels, as a caller sees them");
    calls.push(call);
    say(describeCall(call));
  }
  const step = bed.device.kind === "cpu" && stepName.includes(filter) ? await benchStep(ceiling) : undefined;
  if (step) say(describeStep(step));
  const conformal = conformalName.includes(filter) ? benchConformal().rows : undefined;
  if (conformal) say(`\n${conformalName}, 10^6 calibration and 10^6 test units\n${conformal.map(describeConformal).join("\n")}`);
  if (values.json) console.log(JSON.stringify({ machine, ceiling, rows, calls, ...(step && { step }), ...(conformal && { conformal }) }, null, 1));
  if (rows.some(row => !(row.error <= row.bound))) process.exitCode = 1;
}

async function bedOf(device: string, dtype: string): Promise<Bed> {
  if (dtype !== "f32" && dtype !== "bf16") throw new ConfigError("bench", "--dtype", "f32 or bf16", dtype);
  const opened = await openDevice(device as Parameters<typeof openDevice>[0]);
  if (dtype === "bf16" && opened.kind === "cpu") throw new ConfigError("bench", "--dtype", "f32 on the cpu", dtype);
  return { device: opened, dtype };
}

async function measured({ device }: Bed) {
  await using session = device.openSession();
  return await ceilings(session);
}

function describeStep({ name, milliseconds, pairsPerSecond, gflops, share, instructions, ops }: StepReport): string {
  const where = ops.slice(0, 8).map(o => `${o.op} ${(100 * o.share).toFixed(0)} %`);
  return `\n${name}: ${milliseconds.toFixed(1)} ms, ${pairsPerSecond.toFixed(0)} pairs/s, ${gflops.toFixed(1)} GFLOP/s (${(100 * share).toFixed(0)} %), ${instructions} instructions\n  ${where.join(", ")}`;
}

void main();
