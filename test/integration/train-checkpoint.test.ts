/** A checkpoint is whole or absent, whatever happens while it is written or to what lies on disk. */

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { readSafetensors } from "../../lib/data/safetensors.js";
import { CheckpointError } from "../../lib/errors.js";
import { latestCheckpoint, listCheckpoints, openCheckpoint, saveCheckpoint } from "../../lib/train/checkpoint.js";
import { checkIdentity } from "../../lib/train/train-state.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { Random } from "../../lib/util/random.js";
import { stateAt } from "./invented-state.js";
import { temporaryFolder } from "./train-support.js";

const scratch = temporaryFolder();
const folder = (name: string): string => path.join(scratch.path, name);
const values = (n: number) => new Map([["x", hostTensor("f32", [8], new Float32Array(8).fill(n))]]);
const save = (at: string, step: number, keep = 3): Promise<string> =>
  saveCheckpoint(at, { state: stateAt(step), tensors: { parameters: values(step) } }, { keep });

function contents(file: string): number[] {
  const opened = readSafetensors(file);
  const values = Array.from(opened.tensor("x").data as Float32Array);
  opened.close();
  return values;
}

/** Runs the writer from step `first` and kills it after `milliseconds`. Returns the last step that it reported. */
async function writeUntilKilled(at: string, first: number, milliseconds: number): Promise<number> {
  const writer = spawn(process.execPath, [path.join(__dirname, "checkpoint-writer.js"), at, String(first)], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  writer.stdout.on("data", chunk => (said += chunk));
  const ended = new Promise<void>(resolve => writer.once("close", () => resolve()));
  await Promise.race([new Promise(resolve => writer.stdout.once("data", resolve)), ended]); // at least one is saved: the time to start Node does not count
  await new Promise(resolve => setTimeout(resolve, milliseconds));
  writer.kill("SIGKILL");
  await ended;
  return Number(/saved (\d+)\n(?!.*saved \d+\n)/s.exec(said)?.[1]);
}

test("killed at any moment, the writer leaves the last reported checkpoint or a later one, whole", async () => {
  const at = folder("killed");
  const random = new Random(3);
  let step = 1;
  for (let kill = 0; kill < 12; kill++) {
    const reported = await writeUntilKilled(at, step, random.uniform() * 60);
    const { checkpoint } = await latestCheckpoint(at);
    expect(checkpoint!.state.step).toBeGreaterThanOrEqual(reported);
    step = checkpoint!.state.step;
    for (const name of ["parameters", "exp_avg"]) expect(contents(checkpoint!.file(name))).toEqual(new Array(4096).fill(step));
    step++;
  }
  await save(at, step);
  expect(fs.readdirSync(at).filter(name => name.includes(".tmp"))).toEqual([]); // leftovers of the dead go with the next save
});

test("the newest whole checkpoint is taken, and what is wrong with newer ones is told", async () => {
  const at = folder("damaged");
  for (const step of [1, 2, 3, 4, 5]) await save(at, step, 5);
  const file = (step: number, name: string): string => path.join(at, `checkpoint-${step}`, name);
  fs.rmSync(file(5, "manifest.json"));
  fs.truncateSync(file(4, "parameters.safetensors"), 100);
  const bytes = fs.readFileSync(file(3, "parameters.safetensors"));
  bytes[bytes.length - 1]! ^= 1;
  fs.writeFileSync(file(3, "parameters.safetensors"), bytes);
  const { checkpoint, passedOver } = await latestCheckpoint(at);
  expect(checkpoint!.state).toEqual(stateAt(2));
  expect(passedOver.map(error => error.message)).toEqual([
    expect.stringMatching(/checkpoint-5: expected a readable manifest.json/),
    expect.stringMatching(/checkpoint-4: expected parameters.safetensors of \d+ bytes, received 100 bytes/),
    expect.stringMatching(/checkpoint-3: expected parameters.safetensors with SHA-256 [0-9a-f]+, received other contents/),
  ]);
});

test("a folder that is only half there is no checkpoint, and an empty or missing one has none", async () => {
  const at = folder("half");
  expect(await latestCheckpoint(at)).toEqual({ checkpoint: undefined, passedOver: [] });
  await save(at, 1);
  fs.renameSync(path.join(at, "checkpoint-1"), path.join(at, "checkpoint-1.tmp-1"));
  expect(await listCheckpoints(at)).toEqual([]);
});

test("the newest are kept, the older ones go", async () => {
  const at = folder("kept");
  for (const step of [8, 9, 10, 11]) await save(at, step, 2);
  expect((await listCheckpoints(at)).map(p => path.basename(p))).toEqual(["checkpoint-11", "checkpoint-10"]);
  expect(fs.readdirSync(at).sort()).toEqual(["checkpoint-10", "checkpoint-11"]);
});

test("a step saved again replaces what was there", async () => {
  const at = folder("again");
  await save(at, 4);
  fs.rmSync(path.join(at, "checkpoint-4", "manifest.json"));
  await save(at, 4);
  expect((await latestCheckpoint(at)).checkpoint!.state.step).toBe(4);
});

test("a manifest cannot point out of its folder, and states are checked field by field", async () => {
  const at = await save(folder("hostile"), 1);
  const manifest = path.join(at, "manifest.json");
  const good = fs.readFileSync(manifest, "utf8");
  fs.writeFileSync(manifest, good.replace("parameters.safetensors", "../parameters.safetensors"));
  await expect(openCheckpoint(at)).rejects.toThrow("plain file names");
  const itself = { bytes: fs.statSync(at).size, sha256: "" };
  fs.writeFileSync(manifest, good.replace('"files": {', `"files": { ".": ${JSON.stringify(itself)},`));
  await expect(openCheckpoint(at)).rejects.toThrow(/expected \. of \d+ bytes, received no such file/);
  fs.writeFileSync(manifest, good.replace('"format": 1', '"format": 2'));
  await expect(openCheckpoint(at)).rejects.toThrow("format 1, received 2");
  fs.writeFileSync(manifest, good.replace(/"state.json": \{[^}]*\}/, '"other": { "bytes": 0, "sha256": "" }').replace("other", "missing"));
  await expect(openCheckpoint(at)).rejects.toThrow(CheckpointError);
});

test("another run's checkpoint is refused, naming every difference", () => {
  const { format, step, updates, skippedSteps, skippedInARow, ...identity } = stateAt(3);
  expect(() => checkIdentity(stateAt(3), identity, "p")).not.toThrow();
  expect(() => checkIdentity(stateAt(3), { ...identity, seed: 8, objective: "sft" }, "p")).toThrow(
    'objective "dspo", this run has "sft"; seed 7, this run has 8',
  );
});
