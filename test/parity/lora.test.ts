/** Trained adapters of peft and diffusers: the same output from each of the four kinds of names, at full and half strength. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors } from "../../lib/data/safetensors.js";
import { openDevice } from "../../lib/device.js";
import type { UNetHostInputs } from "../../lib/models/unet-graphs.js";
import { UNet } from "../../lib/models/unet-model.js";
import { convert, type HostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, relL2 } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";

const numbers = (t: HostTensor): Float64Array => convert(t, "f64").data as Float64Array;
const base = join(goldenSet("unet-sd-tiny"), "unet");

describe.each(["dspo-lora", "dpo-lora"])("%s", run => {
  const folder = join(goldenSet("train-run"), run);
  const inputs = (): UNetHostInputs => {
    const file = readSafetensors(join(folder, "forward.safetensors"));
    const read = { sample: file.tensor("in.noisy"), timestep: file.tensor("in.timesteps"), encoderHiddenStates: file.tensor("in.encoder_hidden_states") };
    file.close();
    return read;
  };
  const truth = (strength: number): Float64Array => {
    const file = readSafetensors(join(folder, "forward.safetensors"));
    const read = numbers(file.tensor(`out.scale${strength}`));
    file.close();
    return read;
  };

  test.each([
    ["lora_final", 1],
    ["lora_final", 0.5],
    ["lora_peft_names.safetensors", 1],
    ["lora_attnproc_names.safetensors", 1],
    ["kohya.safetensors", 0.5],
  ])("%s at strength %d", async (name, strength) => {
    const path = join(folder, name);
    if (!existsSync(path)) throw new Error(`${path} is missing`);
    for (const [dtype, bound] of [
      ["f64", 1e-7],
      ["f32", 5e-6],
    ] as const) {
      const model = await UNet.load(base, { device: await openDevice("cpu"), dtype });
      try {
        const before = numbers(await model.forward(inputs()));
        expect(relL2(before, truth(strength))).toBeGreaterThan(100 * bound); // the adapter does something
        // Files without alpha mean alpha = rank: the other styles of the run with alpha 8 and rank 4 need twice the strength.
        const silent = name !== "lora_final" && name !== "kohya.safetensors" && run === "dpo-lora";
        await model.loadLora(path, { strength: silent ? 2 * strength : strength });
        expectClose(numbers(await model.forward(inputs())), truth(strength), bound, `${name} ${dtype}`);
      } finally {
        await model.close();
      }
    }
  });
});
