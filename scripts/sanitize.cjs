// Memory errors, undefined behaviour and data races: native tests, sessions and device kernels under sanitizers, built in build/sanitize. Expects compiled tests in
// build/ts.
//   address,undefined   every program of native/test, the addon inside Node with the tests named below, and the device kernels on fibers
//   thread              thread pool, sessions, weights on their way to and from files; device kernels, each CUDA thread a thread of the sanitizer's
// On fibers a sanitizer watches kernels alone (native/simt/sanitizer.h). simt_test first shows, on planted bugs, that it sees what it should. The kernels then run
// every Nth case of native/test/device with simt's own checks off: an independent opinion on bounds and on what happens before what, not the only one.
// Leaks are not looked for here (Node keeps what it keeps): test/integration/session-lifetime.test.ts does that by counting.
"use strict";
const { execFileSync, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const root = path.join(__dirname, "..");
const jobs = String(os.availableParallelism());
const options = {
  ASAN_OPTIONS: "detect_leaks=0:abort_on_error=1:quarantine_size_mb=8",
  UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
  TSAN_OPTIONS: "halt_on_error=1:history_size=0", // a long history of every CUDA thread would take gigabytes
};
const nodeTests = ["integration/session", "integration/pipeline", "unit/device", "ops/ops", "ops/errors", "property/hostile"];

function run(command, args, env = {}) {
  console.log(`> ${[path.relative(root, command) || command, ...args].join(" ")}`);
  const { status, signal } = spawnSync(command, args, { cwd: root, stdio: "inherit", env: { ...process.env, ...options, ...env } });
  if (status === 0) return;
  console.error(`sanitize: ${path.basename(command)} ended with ${signal ?? `status ${status}`}`);
  process.exit(1);
}

function build(folder, settings, targets) {
  run("cmake", ["-S", ".", "-B", folder, "-DATTUNE_CUDA=OFF", ...settings]);
  run("cmake", ["--build", folder, "--parallel", jobs, "--target", ...targets]);
}

function runPrograms(folder, names) {
  const programs = path.join(root, folder, "native-tests");
  for (const name of names ?? fs.readdirSync(programs).sort()) run(path.join(programs, name), []);
}

/** Device cases by both engines of products: sm_80's, and sm_90a's boxes and warpgroup multiplies. */
function runKernels(folder, every) {
  const program = path.join(root, folder, "device_test");
  const object = path.join(root, folder, "Release", "attune_simt.so");
  for (const arch of [80, 90])
    run(program, [object, "--every", String(every)], { ATTUNE_SIMT: `arch=${arch},order=random,seed=${arch},copies=random,checks=off,blocks=ordered` });
}

build("build/sanitize/address", ["-DATTUNE_SANITIZE=address,undefined"], ["attune", "attune_native_tests", "attune_simt", "device_test"]);
runPrograms("build/sanitize/address");
runKernels("build/sanitize/address", 7);
const libasan = execFileSync("g++", ["-print-file-name=libasan.so"], { encoding: "utf8" }).trim();
run(process.execPath, ["node_modules/jest/bin/jest.js", "--runInBand", "--testTimeout=600000", ...nodeTests], {
  LD_PRELOAD: libasan,
  ATTUNE_ADDON: path.join(root, "build/sanitize/address/Release/attune.node"),
});

build(
  "build/sanitize/thread",
  ["-DATTUNE_SANITIZE=thread", "-DATTUNE_ISAS=generic"],
  ["thread_pool_test", "session_test", "transfer_test", "simt_test", "attune_simt", "device_test"],
);
runPrograms("build/sanitize/thread", ["session_test", "thread_pool_test", "transfer_test", "simt_test"]);
runKernels("build/sanitize/thread", 23);
console.log("sanitize: no complaint");
