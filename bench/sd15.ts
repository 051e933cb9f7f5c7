/** `npm run bench:sd15`: a UNet of Stable Diffusion 1.5's size with random weights on this machine: forward passes, DSPO steps with LoRA, and the planned memory
 *  against what the process takes. Needs about 4 GiB and two minutes. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openDevice } from "../lib/device.js";
import { noiseSchedule } from "../lib/diffusion/noise-schedule.js";
import { unetDenoiser } from "../lib/diffusion/unet-denoiser.js";
import { UNet } from "../lib/models/unet-model.js";
import { dspo } from "../lib/objectives/dspo.js";
import { tensorPairs } from "../lib/train/pair-data.js";
import { PreferenceTrainer } from "../lib/train/trainer.js";
import { type HostTensor, hostTensor } from "../lib/util/host-tensor.js";

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;

/** Numbers of about unit variance; only their size matters here. */
function waves(...shape: number[]): HostTensor {
  const size = shape.reduce((n, d) => n * d, 1);
  return hostTensor(
    "f32",
    shape,
    Float32Array.from({ length: size }, (_, i) => Math.SQRT2 * Math.sin(12.9898 * i)),
  );
}

async function forward(unet: UNet, size: number): Promise<void> {
  const inputs = { sample: waves(2, 4, size, size), timestep: hostTensor("i32", [2], [10, 900]), encoderHiddenStates: waves(2, 77, 768) };
  const seconds: number[] = [];
  for (let run = 0; run < 4; run++) {
    const began = performance.now();
    await unet.forward(inputs);
    seconds.push((performance.now() - began) / 1e3);
  }
  const sorted = seconds.slice(1).sort((a, b) => a - b); // the first run grows the arena
  console.log(`forward, batch 2, ${size}x${size} latents: ${sorted[1]!.toFixed(2)} s`);
}

async function steps(unet: UNet, size: number): Promise<void> {
  const trainer = new PreferenceTrainer({
    model: { denoiser: unetDenoiser(unet.config, { height: size, width: size }), store: unet.store, session: unet.session },
    data: tensorPairs({ winners: waves(2, 4, size, size), losers: waves(2, 4, size, size), condition: { encoderHiddenStates: waves(2, 77, 768) } }),
    objective: dspo(),
    schedule: noiseSchedule(),
    lora: { rank: 4 },
    optimizer: { learningRate: 1e-5 },
    steps: 4,
  });
  for await (const event of trainer.run()) {
    if (event.type === "plan") console.log(`DSPO, LoRA rank 4, 1 pair at ${size}x${size}: ${gib(event.memory.bytes)} planned`);
    if (event.type === "step" && event.step === event.steps) console.log(`  ${(1 / event.samplesPerSecond).toFixed(2)} s a step`);
  }
}

async function main(): Promise<void> {
  const device = await openDevice("cpu");
  console.log(device.description);
  const path = join(__dirname, "..", "..", "..", "bench", "configs", "sd15-unet.json");
  const unet = await UNet.create(JSON.parse(readFileSync(path, "utf8")), { device, seed: 1 });
  try {
    await steps(unet, 32);
    console.log(`  ${gib(process.resourceUsage().maxRSS * 1024)} resident at most, ${gib(unet.session.memory().total)} of it the session's`);
    await forward(unet, 32);
    await forward(unet, 64);
  } finally {
    await unet.close();
  }
}

void main();
