// Builds the native addon where it is missing or older than its sources: with CMake where there is one (CUDA too, if nvcc is found), else
// with node-gyp (CPU only). Downloads nothing. ATTUNE_SKIP_BUILD=1 does nothing; --gyp takes node-gyp in any case.
"use strict";
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { sources } = require("./sources.cjs");

const root = path.join(__dirname, "..");
const addon = path.join(root, "build", "Release", "attune.node");
const cudaObject = path.join(root, "build", "Release", "attune_cuda.so");
const forceGyp = process.argv.includes("--gyp");

function say(text) {
  console.log(`attune: ${text}`);
}

/** Loads the addon in a process of its own: a broken binary must not take this one down. */
function loads() {
  return fs.existsSync(addon) && spawnSync(process.execPath, ["-e", `require(${JSON.stringify(addon)})`], { stdio: "ignore" }).status === 0;
}

function isFresh() {
  const built = fs.existsSync(addon) ? fs.statSync(addon).mtimeMs : 0;
  const lists = sources();
  const headers = ["core", "cpu", "cuda", "."].flatMap(folder => {
    const full = path.join(root, "native", folder);
    return fs.existsSync(full) ? fs.readdirSync(full).map(name => path.join("native", folder, name)) : [];
  });
  const inputs = [...lists.addon, ...lists.core, ...lists.cpu, ...headers.filter(name => /\.(h|cuh|cu|txt)$/.test(name)), "CMakeLists.txt", "binding.gyp"];
  return inputs.every(name => fs.existsSync(path.join(root, name)) && fs.statSync(path.join(root, name)).mtimeMs <= built);
}

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit", env: buildEnvironment() });
  return result.status === 0;
}

/** node-gyp would download Node's headers; a Node that was installed with them has them beside its binary. */
function buildEnvironment() {
  const prefix = path.join(path.dirname(fs.realpathSync(process.execPath)), "..");
  const hasHeaders = fs.existsSync(path.join(prefix, "include", "node", "node_api.h"));
  return hasHeaders && !process.env.npm_config_nodedir ? { ...process.env, npm_config_nodedir: prefix } : process.env;
}

function hasCMake() {
  return spawnSync("cmake", ["--version"], { stdio: "ignore" }).status === 0;
}

function buildWithCMake() {
  const tool = require.resolve("cmake-js/bin/cmake-js", { paths: [root] });
  return run(process.execPath, [tool, "compile", "--log-level", "error", "--parallel", String(os.availableParallelism())]);
}

function buildWithGyp() {
  const jobs = `--jobs=${os.availableParallelism()}`;
  const fromNpm = process.env.npm_config_node_gyp;
  if (fromNpm) return run(process.execPath, [fromNpm, "rebuild", jobs]);
  try {
    return run(process.execPath, [require.resolve("node-gyp/bin/node-gyp.js", { paths: [root] }), "rebuild", jobs]);
  } catch {
    return run("node-gyp", ["rebuild", jobs]);
  }
}

function main() {
  if (process.env.ATTUNE_SKIP_BUILD === "1") return say("ATTUNE_SKIP_BUILD=1, nothing was built");
  if (!forceGyp && isFresh() && loads()) return say("build/Release/attune.node is up to date");
  const withCMake = !forceGyp && hasCMake();
  const built = (withCMake ? buildWithCMake() : buildWithGyp()) && loads();
  const cuda = built && fs.existsSync(cudaObject) ? "with" : "without";
  if (built) say(`built build/Release/attune.node with ${withCMake ? "CMake" : "node-gyp"}, ${cuda} the CUDA backend`);
  else say("the native addon could not be built (it needs g++, and cmake or Python for node-gyp); schedulers, data and reports work without it");
  process.exitCode = built ? 0 : 1;
}

main();
