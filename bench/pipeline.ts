/** `npm run bench:pipeline -- folder`: a whole pipeline on this machine: how long it takes to load, the memory that the process needs against its weights, and a
 *  picture. Options: --size 512 --steps 4 --device auto --dtype f32 --output picture.png. A folder of random weights is made by `npm run random-pipeline`. */

import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { encodePng } from "../lib/data/image.js";
import { openDevice } from "../lib/device.js";
import { DiffusionPipeline } from "../lib/pipeline/pipeline.js";

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
/** Resident memory at its highest: "VmHWM" of this process. */
const peak = (): number => 1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);

async function main(): Promise<void> {
  const options = { size: "512", steps: "4", device: "auto", dtype: "f32", output: "" };
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: Object.fromEntries(Object.entries(options).map(([name, value]) => [name, { type: "string", default: value } as const])),
  });
  const device = await openDevice(values.device as "auto");
  console.log(device.description);
  const before = peak();
  const began = performance.now();
  await using pipeline = await DiffusionPipeline.load(positionals[0]!, { device, dtype: values.dtype as "f32" });
  const stores = [pipeline.unet.store, ...(pipeline.vae ? [pipeline.vae.store] : []), ...pipeline.textEncoders.map(e => e.model.store)];
  const weights = stores.reduce((sum, store) => sum + store.bytes, 0);
  const seconds = (performance.now() - began) / 1e3;
  console.log(
    `loaded in ${seconds.toFixed(1)} s: ${gib(weights)} of weights, ${gib(peak() - before)} more memory at the highest: ${((peak() - before) / weights).toFixed(3)}x`,
  );
  const size = Number(values.size);
  const times: number[] = [];
  let last = performance.now();
  const [picture] = await pipeline.generate({
    prompt: "a photograph of an astronaut riding a horse",
    height: size,
    width: size,
    steps: Number(values.steps),
    onStep() {
      times.push((performance.now() - last) / 1e3);
      last = performance.now();
    },
  });
  const decode = (performance.now() - last) / 1e3;
  console.log(`${size}x${size}: ${times.at(-1)!.toFixed(2)} s a guided step, ${decode.toFixed(2)} s to decode, ${gib(peak())} resident at the highest`);
  if (values.output) writeFileSync(values.output, encodePng(picture!));
}

void main();
