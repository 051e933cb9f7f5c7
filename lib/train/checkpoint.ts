/** Checkpoints that are whole or absent. A checkpoint is a folder `checkpoint-<step>` of safetensors files, `state.json` and, written last, `manifest.json` with the
 *  size and SHA-256 of every file. It is written under a temporary name, synced, and renamed; a reader takes only folders whose manifest holds. */

import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { type DeferredTensor, writeSafetensors } from "../data/safetensors.js";
import { CheckpointError } from "../errors.js";
import { syncFolder, writeAtomically } from "../util/atomic-file.js";
import type { HostTensor } from "../util/host-tensor.js";
import { parseStrictJson } from "../util/strict-json.js";
import { parseState, type TrainState } from "./train-state.js";

export interface CheckpointContents {
  readonly state: TrainState;
  /** File name without extension -> its tensors. */
  readonly tensors: Readonly<Record<string, ReadonlyMap<string, HostTensor | DeferredTensor>>>;
}

export interface Checkpoint {
  readonly path: string;
  readonly state: TrainState;
  /** Path of a file of tensors. Throws CheckpointError if the checkpoint has none of that name. */
  file(name: string): string;
}

interface Manifest {
  readonly format: 1;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

/** Writes `folder/checkpoint-<step>` and then deletes all but the newest `keep`. Returns its path. Killed at any moment, it leaves the earlier ones as they were. */
export async function saveCheckpoint(folder: string, { state, tensors }: CheckpointContents, { keep }: { readonly keep: number }): Promise<string> {
  await mkdir(folder, { recursive: true });
  await removeLeftovers(folder);
  const path = join(folder, `checkpoint-${state.step}`);
  const temporary = `${path}.tmp-${process.pid}`;
  await mkdir(temporary);
  try {
    for (const [name, file] of Object.entries(tensors)) await writeSafetensors(join(temporary, `${name}.safetensors`), file);
    await writeJson(join(temporary, "state.json"), state);
    await writeJson(join(temporary, "manifest.json"), await describe(temporary));
    if (existsSync(path)) await discard(path); // of an earlier run to this step, or damaged
    await rename(temporary, path);
    await syncFolder(folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
  for (const old of (await listCheckpoints(folder)).slice(keep)) await discard(old);
  return path;
}

/** Paths of the checkpoint folders, newest first, whole or not. */
export async function listCheckpoints(folder: string): Promise<string[]> {
  if (!existsSync(folder)) return [];
  const steps = (await readdir(folder)).map(name => /^checkpoint-(\d+)$/.exec(name)).filter(match => match !== null);
  return steps.sort((a, b) => Number(b[1]) - Number(a[1])).map(match => join(folder, match[0]));
}

/** The newest whole checkpoint, and why any newer one was passed over; undefined if there is none. */
export async function latestCheckpoint(
  folder: string,
): Promise<{ readonly checkpoint: Checkpoint | undefined; readonly passedOver: readonly CheckpointError[] }> {
  const passedOver: CheckpointError[] = [];
  for (const path of await listCheckpoints(folder)) {
    try {
      return { checkpoint: await openCheckpoint(path), passedOver };
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      passedOver.push(error);
    }
  }
  return { checkpoint: undefined, passedOver };
}

/** Checks every file of a checkpoint against its manifest. Throws CheckpointError naming the file that is missing or damaged. */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const manifest = parseManifest(await readJson(path, "manifest.json"), path);
  for (const [name, expected] of Object.entries(manifest.files)) {
    const file = join(path, name);
    const size = await stat(file).then(
      s => (s.isFile() ? s.size : undefined), // a folder has a size too, and no contents
      () => undefined,
    );
    if (size !== expected.bytes)
      throw new CheckpointError(path, `expected ${name} of ${expected.bytes} bytes, received ${size === undefined ? "no such file" : `${size} bytes`}`);
    if ((await sha256(file)) !== expected.sha256) throw new CheckpointError(path, `expected ${name} with SHA-256 ${expected.sha256}, received other contents`);
  }
  if (!manifest.files["state.json"]) throw new CheckpointError(path, "expected the manifest to list state.json");
  const state = parseState(await readJson(path, "state.json"), path);
  const file = (name: string): string => {
    if (!manifest.files[`${name}.safetensors`])
      throw new CheckpointError(path, `expected ${name}.safetensors, received ${Object.keys(manifest.files).join(", ")}`);
    return join(path, `${name}.safetensors`);
  };
  return { path, state, file };
}

/** Renamed first: a folder half deleted must not look like a checkpoint. */
async function discard(path: string): Promise<void> {
  const leftover = `${path}.tmp-${process.pid}-old`;
  await rename(path, leftover);
  await rm(leftover, { recursive: true, force: true });
}

/** Deletes what processes that no longer run had begun. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const owner = /^checkpoint-\d+\.tmp-(\d+)(-old)?$/.exec(name)?.[1];
    if (owner && (Number(owner) === process.pid || !isAlive(Number(owner)))) await rm(join(folder, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // it runs, and belongs to somebody else
  }
}

async function describe(folder: string): Promise<Manifest> {
  const files: Record<string, { bytes: number; sha256: string }> = {};
  for (const name of (await readdir(folder)).sort()) files[name] = { bytes: (await stat(join(folder, name))).size, sha256: await sha256(join(folder, name)) };
  return { format: 1, files };
}

async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeAtomically(path, file => file.writeFile(`${JSON.stringify(value, null, 2)}\n`));
}

async function readJson(folder: string, name: string): Promise<unknown> {
  try {
    return parseStrictJson(await readFile(join(folder, name)), join(folder, name));
  } catch (cause) {
    throw new CheckpointError(folder, `expected a readable ${name}, received ${(cause as Error).message}`, { cause });
  }
}

function parseManifest(json: unknown, path: string): Manifest {
  const { format, files } = (json ?? {}) as Partial<Manifest>;
  if (format !== 1) throw new CheckpointError(path, `expected a manifest of format 1, received ${JSON.stringify(format)}`);
  const sound =
    typeof files === "object" &&
    files !== null &&
    Object.entries(files).every(([name, file]) => name === basename(name) && Number.isSafeInteger(file?.bytes) && typeof file?.sha256 === "string");
  if (!sound) throw new CheckpointError(path, "expected manifest.files to map plain file names to { bytes, sha256 }");
  return { format, files };
}
