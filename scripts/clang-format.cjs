"use strict";
// clang-format over every tracked C++ and CUDA file: rewrites them, or with --check lists what would change and exits 1.
const { execFileSync, spawnSync } = require("node:child_process");
const path = require("node:path");
const root = path.join(__dirname, "..");
const files = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "native"], { cwd: root, encoding: "utf8" })
  .split("\n")
  .filter(name => /\.(cc|h|cu|cuh)$/.test(name));
const check = process.argv.includes("--check");
const binary = require.resolve("clang-format-node/build/cli.js");
const args = check ? ["--dry-run", "--Werror"] : ["-i"];
const run = spawnSync(process.execPath, [binary, ...args, ...files], { cwd: root, stdio: "inherit" });
process.exit(run.status ?? 1);
