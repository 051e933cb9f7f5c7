"use strict";
// Builds what proves the CUDA kernels without a GPU, in the build folder of the addon: attune_simt.so and the programs that compare its kernels with the cpu backend.
// With names on the command line, those targets. Where there is no CMake it says so and leaves those tests to be skipped.
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const root = path.join(__dirname, "..");
const targets = process.argv.slice(2);
if (!fs.existsSync(path.join(root, "build", "CMakeCache.txt"))) {
  console.log("attune: the addon was not built with CMake: tests of the CUDA kernels on the host are skipped");
  process.exit(0);
}
const args = ["--build", "build", "--parallel", String(os.availableParallelism()), "--target", ...(targets.length > 0 ? targets : ["attune_simt"])];
const { status, stdout, stderr } = spawnSync("cmake", args, { cwd: root, encoding: "utf8", maxBuffer: 1 << 26 });
if (status !== 0) console.error(`${stdout}${stderr}`);
process.exit(status ?? 1);
