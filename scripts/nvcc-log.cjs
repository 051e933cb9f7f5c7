"use strict";
// Compiler launcher of CUDA sources (CMAKE_CUDA_COMPILER_LAUNCHER): runs the command that follows, keeps what ptxas says of each kernel beside the object as
// <object>.ptxas.json, with the seconds that compiling took, and passes on everything else. scripts/kernel-table.cjs reads those files. What ptxas calls an
// info may be the worst of news ("(C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ..."): such lines are kept too.
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");

const [command, ...args] = process.argv.slice(2);
const began = process.hrtime.bigint();
const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 1 << 28 });
const seconds = Number(process.hrtime.bigint() - began) / 1e9;

const kernels = [];
let current;
const rest = [];
const warnings = [];
for (const line of `${stdout ?? ""}${stderr ?? ""}`.split("\n")) {
  const entry = /Compiling entry function '([^']+)' for '(sm_\w+)'/.exec(line);
  const spill = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
  const used = /Used (\d+) registers/.exec(line);
  if (/\(C7\d{3}\)|Potential Performance Loss|ptxas warning/.test(line)) {
    warnings.push(line.trim());
    rest.push(line);
  } else if (entry) {
    current = { name: entry[1], arch: entry[2], registers: 0, stack: 0, spilled: 0 };
    kernels.push(current);
  } else if (spill && current) Object.assign(current, { stack: Number(spill[1]), spilled: Number(spill[2]) + Number(spill[3]) });
  else if (used && current) current.registers = Number(used[1]);
  else if (line.trim() !== "" && !/^ptxas info/.test(line)) rest.push(line);
}
if (rest.length > 0) process.stderr.write(`${rest.join("\n")}\n`);
const object = args[args.indexOf("-o") + 1];
if (status === 0 && args.includes("-c") && object) fs.writeFileSync(`${object}.ptxas.json`, JSON.stringify({ seconds, kernels, warnings }));
process.exit(status ?? 1);
