/** Folders of models whose weights went through a change, and models that are closed after the test. */

import { cpSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import type { HostTensor } from "../../lib/util/host-tensor.js";

/** All tensors of a file. */
export function readAll(path: string): Map<string, HostTensor> {
  const file = readSafetensors(path);
  const weights = new Map([...file.tensors.keys()].map(name => [name, file.tensor(name)]));
  file.close();
  return weights;
}

/** A copy of a model's folder at `target`, its weights (`<baseName>.safetensors`) changed and stored as `<as>.safetensors`. */
export async function alteredFolder(
  source: string,
  target: string,
  { baseName, as = baseName, change }: { baseName: string; as?: string; change: (weights: Map<string, HostTensor>) => void },
): Promise<string> {
  if (!existsSync(target)) mkdirSync(target);
  cpSync(join(source, "config.json"), join(target, "config.json"));
  const weights = readAll(join(source, `${baseName}.safetensors`));
  change(weights);
  await writeSafetensors(join(target, `${as}.safetensors`), weights);
  return target;
}

/** Passes a model on and closes it after the test. */
export function closedAfterTest<T extends { close(): Promise<void> }>(): <M extends T>(model: M) => M {
  let opened: T[] = [];
  afterEach(async () => {
    for (const model of opened) await model.close();
    opened = [];
  });
  return model => {
    opened.push(model);
    return model;
  };
}
