/** What nvcc says of kernels must reach the table of kernels, and what is bad of it must fail: a stand-in for nvcc prints what ptxas prints. */

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { projectRoot } from "../support/goldens.js";
import { scratchFolder } from "../support/scratch.js";

const symbol = "_ZN6attune4cuda14softmax_kernelIfEEvPKT_PS2_i";
const compiled = (arch: string, registers: number, spilled = 0): string[] => [
  `ptxas info    : Compiling entry function '${symbol}' for '${arch}'`,
  `    0 bytes stack frame, ${spilled} bytes spill stores, ${spilled} bytes spill loads`,
  `ptxas info    : Used ${registers} registers, used 1 barriers`,
];
const serialised = `ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient register resources in the function '${symbol}'`;

const at = scratchFolder();
let builds = 0;

const run = (script: string, ...args: string[]) => spawnSync(process.execPath, [path.join(projectRoot, "scripts", script), ...args], { encoding: "utf8" });

/** The table of one kernel for which nvcc prints these lines, and how the script that makes it ended. */
function table(lines: readonly string[], launches?: string): { text: string; status: number | null; errors: string } {
  const build = at(`build-${++builds}`);
  const objects = path.join(build, "CMakeFiles", "attune_cuda.dir", "native", "cuda");
  fs.mkdirSync(objects, { recursive: true });
  const stand = path.join(build, "nvcc.cjs");
  fs.writeFileSync(stand, `process.stderr.write(${JSON.stringify(`${lines.join("\n")}\n`)});`);
  const log = run("nvcc-log.cjs", process.execPath, stand, "-c", "softmax.cu", "-o", path.join(objects, "softmax.cu.o"));
  expect(log.status).toBe(0);
  const output = path.join(build, "table.md");
  const file = path.join(build, "launches.txt");
  fs.writeFileSync(file, launches ?? "");
  const { status, stderr } = run("kernel-table.cjs", build, "--output", output, ...(launches ? ["--launches", file] : []));
  return { text: fs.readFileSync(output, "utf8"), status, errors: `${log.stderr}${stderr}` };
}

test("registers of a clean kernel stand in the table", () => {
  const { text, status } = table([...compiled("sm_80", 40), ...compiled("sm_90a", 42)]);
  expect(status).toBe(0);
  expect(text).toContain("| softmax | `softmax_kernel<float>` | 40 | 42 |");
});

test("a kernel that spills fails", () => {
  const { status, errors } = table(compiled("sm_80", 255, 8));
  expect(status).toBe(1);
  expect(errors).toContain("softmax_kernel<float> (sm_80): 0 bytes of stack, 16 spilled");
});

test("serialised wgmma fails, though ptxas calls it an info", () => {
  const { status, errors } = table([...compiled("sm_90a", 168), serialised]);
  expect(status).toBe(1);
  expect(errors).toContain("softmax.cu: ptxas info    : (C7510)");
});

test("occupancy is bounded by threads, registers or shared memory, whichever is least", () => {
  const cells = (registers: number, threads: number, shared: number): string =>
    table(compiled("sm_80", registers), `${symbol} ${threads} ${shared} 1 1 1 1\n`)
      .text.split("\n")
      .find(line => line.includes("softmax_kernel"))!;
  expect(cells(32, 256, 0)).toContain("| 256 | 0 | 32 / 8 / 64 |"); // threads: 2048 / 256
  expect(cells(128, 256, 0)).toContain("| 128 / 2 / 16 |"); // registers: 16 warps
  expect(cells(88, 96, 0)).toContain("| 88 / 6 / 18 |"); // registers: five warps in each of four files, not 65536 / (88 * 96) = 7 blocks
  expect(cells(32, 128, 80 * 1024)).toContain("| 32 / 2 / 8 |"); // shared: 164 KiB hold two of 81
  expect(table(compiled("sm_80", 32), `${symbol} 128 ${200 * 1024} 1 1 1 1\n`).status).toBe(1);
});
