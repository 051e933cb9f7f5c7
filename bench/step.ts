/** The training step of the demo model, whole: a DSPO step on 16 pairs with random weights, where its time goes, and its rate against the multiply-add ceiling. */

import { createModel } from "../examples/emoji-align/model.js";
import { Vocabulary } from "../examples/emoji-align/vocabulary.js";
import { openDevice } from "../lib/device.js";
import { compileGraph } from "../lib/graph/compile.js";
import { programFlops } from "../lib/graph/print.js";
import type { Trace } from "../lib/graph/session.js";
import { Params } from "../lib/nn/params.js";
import { dspo } from "../lib/objectives/dspo.js";
import { adamW } from "../lib/train/optimizer.js";
import { microGraph, updateGraph } from "../lib/train/step.js";
import { hostTensor } from "../lib/util/host-tensor.js";
import type { Ceilings } from "./ops.js";

export interface StepReport {
  readonly name: string;
  readonly milliseconds: number;
  readonly pairsPerSecond: number;
  readonly gflops: number;
  readonly share: number;
  readonly instructions: number;
  /** Share of the time by op, largest first. */
  readonly ops: readonly { readonly op: string; readonly count: number; readonly share: number }[];
}

const pairs = 16;

export async function benchStep({ gflops: ceiling }: Ceilings): Promise<StepReport> {
  const model = await createModel({ vocabulary: new Vocabulary(["a", "b", "c"]), device: await openDevice("cpu"), seed: 1 });
  try {
    const { denoiser, store, session, schedule } = model;
    const gradients = store.mirror("gradients"),
      optimizer = adamW({ learningRate: 1e-5 });
    const objective = dspo({ beta: 0.5 }),
      policy = new Params(store),
      reference = new Params(store.mirror("reference"));
    const shared = { denoiser, objective, schedule, policy, reference, trainable: store, gradients, batch: pairs, accumulation: 1 };
    const arenas = { [store.arena]: store.bytes, gradients: store.bytes, reference: store.bytes };
    const micro = session.compile(compileGraph(microGraph({ ...shared, noise: "drawn", conditionDropout: 0.1 }), { name: "micro", arenas }));
    const update = session.compile(
      compileGraph(updateGraph({ trainable: store, gradients, optimizer, state: optimizer.state(store), maxGradNorm: 1 }), { name: "update", arenas }),
    );
    const size = pairs * denoiser.sampleShape.reduce((n, d) => n * d, 1);
    const [height, width, channels] = denoiser.sampleShape;
    const map = hostTensor(
      "f32",
      [pairs, channels, height, width],
      Float32Array.from({ length: size }, (_, i) => Math.sin(i)),
    );
    const inputs = { winners: map, losers: map, ids: hostTensor("i32", [pairs, 8], new Int32Array(pairs * 8).fill(1)) };
    const step = async (n: number): Promise<number> => {
      const began = performance.now();
      await session.run(micro, { inputs, scalars: { seed: 1, step: n, sampleOffset: 0 } });
      await session.run(update, { scalars: optimizer.scalars(n, 1e-5) });
      return performance.now() - began;
    };
    for (let n = 1; n <= 3; n++) await step(n);
    session.trace(micro, "time");
    session.trace(update, "time");
    const times: number[] = [];
    for (let n = 4; n < 34; n++) times.push(await step(n));
    const milliseconds = times.sort((a, b) => a - b)[times.length >> 1]!;
    const gflops = programFlops(micro.program) / milliseconds / 1e6;
    return {
      name: `DSPO step of the demo model, ${pairs} pairs`,
      milliseconds,
      pairsPerSecond: (1e3 * pairs) / milliseconds,
      gflops,
      share: gflops / ceiling,
      instructions: micro.program.instructions.length + update.program.instructions.length,
      ops: shares(session.trace(micro, "off"), session.trace(update, "off")),
    };
  } finally {
    await model.close();
  }
}

function shares(...traces: readonly Trace[]): StepReport["ops"] {
  const ops = traces.flatMap(t => t.ops.map(o => ({ op: o.op, count: o.count / t.runs, seconds: o.seconds })));
  const total = ops.reduce((sum, o) => sum + o.seconds, 0);
  return ops.map(({ op, count, seconds }) => ({ op, count, share: seconds / total })).sort((a, b) => b.share - a.share);
}
