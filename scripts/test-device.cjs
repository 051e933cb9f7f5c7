"use strict";
// The CUDA kernels without a GPU: `node scripts/test-device.cjs simt` on fibers, `... ptxi` as the PTX that nvcc emits. Each machine first tests itself on planted bugs; then every
// kernel is compared with the cpu backend in f64, under several orders of threads and of copies that land, as sm_80 and as sm_90a; then whole steps from Node.
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const root = path.join(__dirname, "..");
const machine = process.argv[2];
const object = "build/Release/attune_simt.so";
const runs = {
  simt: { self: "build/native-tests/simt_test", settings: ["arch=80", "arch=90,order=random,seed=3,copies=random", "arch=86,order=reverse,copies=early"] },
  ptxi: { self: "build/native-tests/ptxi_test", settings: ["ptx=build/ptx,arch=80", "ptx=build/ptx,arch=90,order=random,copies=random"] },
}[machine];
if (!runs) throw new Error("usage: test-device.cjs simt|ptxi");
if (machine === "ptxi" && !fs.existsSync(path.join(root, "build", "ptx", "80"))) {
  console.log("ptxi: there is no PTX in build/ptx (nvcc was not found): skipped");
  process.exit(0);
}

function run(command, args, env = {}) {
  console.log(`> ${Object.entries(env).map(([k, v]) => `${k}=${v} `)}${[command, ...args].join(" ")}`);
  const { status, signal } = spawnSync(command, args, { cwd: root, stdio: "inherit", env: { ...process.env, ...env } });
  if (status === 0) return;
  console.error(`${machine}: ${command} ended with ${signal ?? `status ${status}`}`);
  process.exit(1);
}

run(runs.self, []);
// Single instructions, against whatever GPUs have recorded.
const results = path.join("bench", "results");
const records = fs.readdirSync(path.join(root, results)).filter(name => /^primitives-.*\.json$/.test(name));
for (const setting of runs.settings) {
  run("build/native-benches/primitives", [object], { ATTUNE_SIMT: setting });
  for (const name of records) run("build/native-benches/primitives", [object, "--compare", path.join(results, name)], { ATTUNE_SIMT: setting });
}
for (const setting of runs.settings) run("build/device_test", [object], { ATTUNE_SIMT: setting });
run(process.execPath, ["node_modules/jest/bin/jest.js", "--runInBand", "backends/simt"], { ATTUNE_SIMT: `${runs.settings[0]},threads=2` });
