/** Run as a process of its own by train-checkpoint.test.ts: saves checkpoints without end and says so, until it is killed.
 *  Every number in checkpoint k is k. */

import { saveCheckpoint } from "../../lib/train/checkpoint.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { stateAt } from "./invented-state.js";

async function main(folder: string, first: number): Promise<never> {
  for (let step = first; ; step++) {
    const filled = (): Map<string, ReturnType<typeof hostTensor>> => new Map([["x", hostTensor("f32", [4096], new Float32Array(4096).fill(step))]]);
    await saveCheckpoint(folder, { state: stateAt(step), tensors: { parameters: filled(), exp_avg: filled() } }, { keep: 2 });
    process.stdout.write(`saved ${step}\n`);
  }
}

void main(process.argv[2]!, Number(process.argv[3]));
