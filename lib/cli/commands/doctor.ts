/** What this machine offers: the addon, the CPU's kernels, memory, and what stands between it and a GPU. */

import os from "node:os";
import { openDevice } from "../../device.js";
import { AttuneError } from "../../errors.js";
import { formatBytes } from "../../util/bytes.js";
import { defineCommand } from "../command.js";

export const doctor = defineCommand({
  name: "doctor",
  summary: "says what this machine can compute on, and what is missing",
  async run(_, io) {
    const devices: Record<string, string> = {};
    for (const name of ["cpu", "cuda"] as const) devices[name] = await describe(name);
    const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("ATTUNE_")));
    const report = {
      node: process.version,
      platform: `${process.platform} ${process.arch}`,
      memory: { free: os.freemem(), total: os.totalmem() },
      devices,
      environment,
    };
    const set = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    io.result(
      report,
      [
        `node      ${report.node} on ${report.platform}`,
        `memory    ${formatBytes(report.memory.free)} free of ${formatBytes(report.memory.total)}`,
        `cpu       ${devices.cpu}`,
        `cuda      ${devices.cuda}`,
        ...(set.length > 0 ? [`settings  ${set.join(", ")}`] : []),
      ].join("\n"),
    );
  },
});

/** A device's own line, or why there is none. */
async function describe(name: "cpu" | "cuda"): Promise<string> {
  try {
    return (await openDevice(name)).description.replace(/^(cpu|cuda:\d+): /, "");
  } catch (error) {
    if (error instanceof AttuneError) return `none: ${error.message}`;
    throw error;
  }
}
