"use strict";
// The table of CUDA kernels, from what nvcc and the host machine say of them: registers and spills (ptxas, kept by scripts/nvcc-log.cjs), tensor-core instructions
// (PTX), block size and dynamic shared memory (the launches that simt saw), and from these the blocks that fit on a multiprocessor. Writes native/cuda/KERNELS.md.
//   node scripts/kernel-table.cjs <build folder> [--launches file] [--ptx folder] [--output file] [--check]
// Fails where a kernel spills or uses a stack, or where ptxas has given up on a fast form ("Potential Performance Loss": serialised wgmma); with --check also
// where the committed table is another. The launches file is what ATTUNE_SIMT="launches=file" wrote (native/simt/launch_log.h), of as many runs as one likes.
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const root = path.join(__dirname, "..");
const [build, ...rest] = process.argv.slice(2);
if (!build) throw new Error("usage: kernel-table.cjs <build folder> [--launches file] [--ptx folder] [--output file] [--check]");
const option = name => (rest.includes(name) ? rest[rest.indexOf(name) + 1] : undefined);
const check = rest.includes("--check");

/** Register file, threads, blocks and shared memory of a multiprocessor. */
const limits = {
  sm_80: { registers: 65536, threads: 2048, blocks: 32, shared: 164 * 1024 },
  sm_90a: { registers: 65536, threads: 2048, blocks: 32, shared: 228 * 1024 },
};

function walk(folder, ending) {
  if (!fs.existsSync(folder)) return [];
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const full = path.join(folder, entry.name);
    return entry.isDirectory() ? walk(full, ending) : entry.name.endsWith(ending) ? [full] : [];
  });
}

// Logs of sources that are there no more may still lie in the folder.
const sources = new Set(fs.readdirSync(path.join(root, "native", "cuda")).filter(name => name.endsWith(".cu")));
const folder = path.join(build, "CMakeFiles", "attune_cuda.dir");
const logs = walk(folder, ".cu.o.ptxas.json").filter(log => sources.has(path.basename(log).replace(".o.ptxas.json", "")));
if (logs.length === 0) throw new Error(`${folder}: no *.cu.o.ptxas.json; build the target attune_cuda there first`);
const kernels = new Map();
const files = [];
const problems = [];
for (const log of logs.sort()) {
  const file = path.basename(log).replace(".o.ptxas.json", "");
  const { seconds, kernels: compiled, warnings = [] } = JSON.parse(fs.readFileSync(log, "utf8"));
  for (const warning of new Set(warnings)) problems.push(`${file}: ${warning}`);
  if (compiled.length > 0) files.push({ file, seconds, entries: new Set(compiled.map(k => k.name)).size });
  for (const k of compiled) {
    const known = kernels.get(k.name) ?? { file, name: k.name, archs: {} };
    known.archs[k.arch] = k;
    kernels.set(k.name, known);
  }
}

/** Tensor-core instructions of each entry, by PTX. */
const tensorCore = new Map();
for (const file of option("--ptx") ? walk(option("--ptx"), ".ptx") : []) {
  let entry;
  for (const line of fs.readFileSync(file, "utf8").split("\n")) {
    const found = /\.entry\s+(\S+?)\(/.exec(line);
    if (found) entry = found[1];
    const count = tensorCore.get(entry) ?? { mma: 0, wgmma: 0 };
    if (/^\s*mma\.sync/.test(line)) count.mma++;
    if (/wgmma\.mma_async/.test(line)) count.wgmma++;
    if (entry) tensorCore.set(entry, count);
  }
}

/** Largest block and shared memory with which each kernel was started: lines of "name threads shared ...". */
const launches = new Map();
for (const line of option("--launches") ? fs.readFileSync(option("--launches"), "utf8").split("\n") : []) {
  const [name, threads, shared] = line.split(" ");
  if (!name) continue;
  const known = launches.get(name) ?? { threads: 0, shared: 0 };
  launches.set(name, { threads: Math.max(known.threads, Number(threads)), shared: Math.max(known.shared, Number(shared)) });
}

/** As cuda_occupancy.h counts: a warp's registers come in units of 256 from one of four register files, shared memory in units of 128 bytes with 1 KiB for the
 *  system, out of all that a multiprocessor has. */
function residentBlocks(arch, registers, { threads, shared }) {
  const limit = limits[arch];
  const warps = Math.ceil(threads / 32);
  const perWarp = Math.ceil((registers * 32) / 256) * 256;
  return Math.min(
    limit.blocks,
    Math.floor(limit.threads / (warps * 32)),
    Math.floor((Math.floor(limit.registers / 4 / perWarp) * 4) / warps),
    Math.floor(limit.shared / (Math.ceil((shared + 1024) / 128) * 128)),
  );
}

/** A demangled name without its return type, its namespace and its parameter list: what the last ")" closes. */
function shorten(name) {
  const plain = name.replace(/^void /, "").replace(/attune::cuda::/g, "");
  let depth = 0;
  for (let i = plain.length - 1; i >= 0; i--) {
    depth += plain[i] === ")" ? 1 : plain[i] === "(" ? -1 : 0;
    if (plain[i] === "(" && depth === 0) return plain.slice(0, i);
  }
  return plain;
}

const names = [...kernels.keys()];
const demangled = execFileSync("c++filt", { input: names.join("\n"), encoding: "utf8" })
  .trim()
  .split("\n");
const short = new Map(names.map((name, i) => [name, shorten(demangled[i])]));

const rows = [...kernels.values()]
  .sort((a, b) => a.file.localeCompare(b.file) || short.get(a.name).localeCompare(short.get(b.name)))
  .map(k => {
    for (const [arch, { stack, spilled }] of Object.entries(k.archs))
      if (stack > 0 || spilled > 0) problems.push(`${short.get(k.name)} (${arch}): ${stack} bytes of stack, ${spilled} spilled`);
    const launch = launches.get(k.name);
    if (launch && !Object.entries(k.archs).some(([arch, { registers }]) => limits[arch] && residentBlocks(arch, registers, launch) > 0))
      problems.push(`${short.get(k.name)}: a block of ${launch.threads} threads and ${launch.shared} bytes fits nowhere`);
    const cell = arch => {
      const one = k.archs[arch];
      if (!one) return "";
      if (!launch) return `${one.registers}`;
      const blocks = residentBlocks(arch, one.registers, launch);
      if (blocks < 1) return `${one.registers}`; // started on larger devices only
      return `${one.registers} / ${blocks} / ${blocks * Math.ceil(launch.threads / 32)}`;
    };
    const tensor = tensorCore.get(k.name);
    const instructions = tensor ? [tensor.mma && `${tensor.mma} mma`, tensor.wgmma && `${tensor.wgmma} wgmma`].filter(Boolean).join(", ") : "";
    const started = option("--launches") ? ` ${launch?.threads ?? ""} | ${launch?.shared ?? ""} |` : "";
    return `| ${k.file.replace(".cu", "")} | \`${short.get(k.name)}\` |${started} ${cell("sm_80")} | ${cell("sm_90a")} | ${instructions} |`;
  });

const started = option("--launches")
  ? `After them, the blocks and the warps that fit on a multiprocessor at once with the largest block and dynamic shared memory (bytes) that the
cases of native/test/device start a kernel with; of a multiprocessor's 64 warps. Nothing stands where that block is larger than the multiprocessor. `
  : "";
const text = `# CUDA kernels

Made by \`npm run kernels\`: ${kernels.size} kernels in ${files.length} files, none of which spills or uses a stack on any architecture of the build; CI fails where one does. Registers of a thread. ${started}The
last column counts tensor-core instructions in the PTX for compute_80 and compute_90a, where it was given.

| file | kernel |${started ? " threads | shared |" : ""} sm_80 | sm_90a | tensor cores |
|---|---|---|---|---|${started ? "---|---|" : ""}
${rows.join("\n")}
`;
const target = option("--output") ?? path.join(root, "native", "cuda", "KERNELS.md");
const before = fs.existsSync(target) ? fs.readFileSync(target, "utf8") : "";
fs.writeFileSync(target, text);
const seconds = files.reduce((sum, f) => sum + f.seconds, 0);
console.log(
  `${kernels.size} kernels in ${files.length} files, ${seconds.toFixed(0)} s of compiling; slowest: ${files
    .sort((a, b) => b.seconds - a.seconds)
    .slice(0, 3)
    .map(f => `${f.file} ${f.seconds.toFixed(0)} s`)
    .join(", ")}`,
);
for (const p of problems) console.error(p);
if (check && before !== text) console.error("native/cuda/KERNELS.md was not up to date: commit the new one");
process.exit(problems.length > 0 || (check && before !== text) ? 1 : 0);
