/** Ten steps of full and LoRA training, step by step and weight by weight, against the authors' released loop run by PyTorch in float64. The programs are those of
 *  the trainer; noise and timesteps are given. */

import fs from "node:fs";
import path from "node:path";
import { readSafetensors } from "../../lib/data/safetensors.js";
import { type Device, openDevice } from "../../lib/device.js";
import { noiseScheduleFromConfig } from "../../lib/diffusion/noise-schedule.js";
import { unetDenoiser } from "../../lib/diffusion/unet-denoiser.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { readParameter } from "../../lib/models/load.js";
import { UNet } from "../../lib/models/unet-model.js";
import { diffusionDpoLoss } from "../../lib/objectives/diffusion-dpo.js";
import { dspoLoss } from "../../lib/objectives/dspo.js";
import type { Objective } from "../../lib/objectives/objective.js";
import { sft } from "../../lib/objectives/sft.js";
import { constant, constantWithWarmup } from "../../lib/train/lr-schedule.js";
import { adamW } from "../../lib/train/optimizer.js";
import { RunWeights } from "../../lib/train/run-weights.js";
import { microGraph, updateGraph } from "../../lib/train/step.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { norm } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";

interface Step {
  readonly loss: number;
  readonly model_mse: number | null;
  readonly ref_mse: number | null;
  readonly implicit_acc: number | null;
  readonly inside_term: number[] | null;
  readonly grad_norm: number | null;
  readonly lr: number;
}

interface Run {
  readonly method: "dspo" | "dpo" | "sft";
  readonly beta: number;
  readonly lr: number;
  readonly warmup: number;
  readonly accum?: number;
  readonly lora?: { readonly r: number; readonly alpha: number };
  readonly optimizer: string;
  readonly betas: [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  readonly max_grad_norm: number;
  readonly delta_l2: number;
  readonly delta_rel_l2_f32: number;
  readonly log: Step[];
  readonly f32: Step[];
}

type DType = "f32" | "f64";

/** Factors on what float32 PyTorch reaches: those of the set's README for f32. In f64 the noising table and the timestep embedding are still float32 numbers, on both sides. */
const bounds: { readonly [K in DType]: { readonly loss: (f32: number) => number; readonly weights: (f32: number) => number } } = {
  f32: { loss: f32 => Math.max(20 * f32, 1e-5), weights: f32 => Math.max(5 * f32, 2e-3) },
  f64: { loss: () => 1e-7, weights: () => 1e-6 },
};

function objectiveOf({ method, beta }: Run): Objective {
  if (method === "sft") return sft();
  return { name: method, batch: "pair", usesReference: true, loss: ctx => (method === "dspo" ? dspoLoss(ctx, beta) : diffusionDpoLoss(ctx, beta)) };
}

let device: Device;
beforeAll(async () => {
  const cpu = await openDevice("cpu");
  device = { ...cpu, openSession: () => cpu.openSession({ threads: 1 }) }; // maps of 16 x 16: a second thread would only wait
});

describeSets("train-run", folder => {
  const schedule = noiseScheduleFromConfig(JSON.parse(fs.readFileSync(path.join(folder, "scheduler/scheduler_config.json"), "utf8")), "scheduler_config.json");
  const names = fs.readdirSync(folder).filter(name => fs.existsSync(path.join(folder, name, "run.json")));
  const runs = names
    .map(name => [name, JSON.parse(fs.readFileSync(path.join(folder, name, "run.json"), "utf8")) as Run] as const)
    .filter(([, run]) => run.optimizer === "adamw");
  const data = readSafetensors(path.join(folder, "data.safetensors"));
  afterAll(() => data.close());

  /** The inputs of micro-step i. sft takes the whole batch of winners and losers as samples of their own. */
  function inputsOf(i: number, paired: boolean): Record<string, HostTensor> {
    const whole = (name: string): HostTensor => data.tensor(`s${i}.${name}`);
    const half = (t: HostTensor, which: 0 | 1): HostTensor => {
      const size = t.data.length / 2;
      return hostTensor(t.dtype, [t.shape[0]! / 2, ...t.shape.slice(1)], t.data.slice(which * size, (which + 1) * size));
    };
    const take = (name: string): HostTensor => (paired ? half(whole(name), 0) : whole(name));
    const samples = { noise: take("noise"), timestep: take("timesteps"), encoderHiddenStates: take("encoder_hidden_states"), winners: take("latents") };
    return paired ? { ...samples, losers: half(whole("latents"), 1) } : samples;
  }

  for (const dtype of ["f64", "f32"] as const)
    test.each(runs)(`%s in ${dtype}`, async (name, run) => {
      const unet = await UNet.load(path.join(folder, "../unet-sd-tiny/unet"), { device, dtype });
      try {
        if (run.lora) await unet.loadLora(path.join(folder, name, "lora_init"));
        const objective = objectiveOf(run);
        const paired = objective.batch === "pair";
        const [samples, , height, width] = data.tensors.get("s0.latents")!.shape as [number, number, number, number];
        const tokens = data.tensors.get("s0.encoder_hidden_states")!.shape[1]!;
        const denoiser = unetDenoiser(unet.config, { height, width, tokens, dtype });
        const optimizer = adamW({ learningRate: run.lr, betas: run.betas, eps: run.eps, weightDecay: run.weight_decay });
        const weights = new RunWeights({
          model: { denoiser, store: unet.store, session: unet.session },
          lora: unet.adapter,
          optimizer,
          ema: false,
          reference: objective.usesReference,
        });
        await weights.start(0);
        const { policy, reference, trainable, gradients, state, arenas } = weights;
        const accumulation = run.accum ?? 1;
        const micro = unet.session.compile(
          compileGraph(
            microGraph({
              denoiser,
              objective,
              schedule,
              policy,
              reference,
              trainable,
              gradients,
              batch: paired ? samples / 2 : samples,
              accumulation,
              noise: "given",
              conditionDropout: 0,
            }),
            { name: "micro", arenas },
          ),
        );
        const update = unet.session.compile(
          compileGraph(updateGraph({ trainable, gradients, optimizer, state, maxGradNorm: run.max_grad_norm }), { name: "update", arenas }),
        );
        const factor = run.warmup > 0 ? constantWithWarmup({ warmup: run.warmup }) : constant();
        const start = await weightsOf(unet, trainable);
        let updates = 0;
        for (const [i, step] of run.log.entries()) {
          const outputs = await unet.session.run(micro, { inputs: inputsOf(i, paired) });
          checkStep(`${name} step ${i}`, outputs, step, run.f32[i]!, dtype);
          if ((i + 1) % accumulation !== 0) continue;
          const rate = run.lr * factor(updates);
          expect(rate).toBeCloseTo(step.lr, 14);
          const { gradNorm } = await unet.session.run(update, { scalars: optimizer.scalars(++updates, rate) });
          expectNear(
            Number(gradNorm!.data[0]),
            step.grad_norm!,
            bounds[dtype].loss(Math.abs(run.f32[i]!.grad_norm! / step.grad_norm! - 1)),
            `${name} step ${i} grad_norm`,
          );
        }
        checkWeights(name, run, start, await weightsOf(unet, trainable), dtype);
      } finally {
        await unet.close();
      }
    });

  /** Weights by name, f64. */
  async function weightsOf(unet: UNet, store: RunWeights["trainable"]): Promise<Map<string, Float64Array>> {
    const read = async (name: string): Promise<[string, Float64Array]> => [
      name,
      Float64Array.from((await readParameter(unet.session, store, store.entries.get(name)!)).data as Float64Array),
    ];
    return new Map(await Promise.all([...store.entries.keys()].map(read)));
  }

  function checkStep(label: string, outputs: Readonly<Record<string, HostTensor>>, truth: Step, f32: Step, dtype: DType): void {
    const value = (name: string): number => Number(outputs[name]!.data[0]);
    const near = (name: string, of: (step: Step) => number | null): void => {
      const expected = of(truth);
      if (expected !== null) expectNear(value(name), expected, bounds[dtype].loss(Math.abs(of(f32)! / expected - 1)), `${label} ${name}`);
    };
    near("loss", s => s.loss);
    near("modelMse", s => s.model_mse);
    if (outputs.referenceMse) near("referenceMse", s => s.ref_mse);
    if (!truth.inside_term) return;
    const mean = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0) / xs.length;
    const expected = mean(truth.inside_term);
    const spread = Math.max(...truth.inside_term.map((x, i) => Math.abs(x - f32.inside_term![i]!)));
    const scale = Math.max(...truth.inside_term.map(Math.abs));
    expect(Math.abs(value("margin") - expected)).toBeLessThanOrEqual(Math.max(bounds[dtype].loss(0) * scale, dtype === "f32" ? 20 * spread : 0, 1e-12));
    // Below 1e-3 the sign is rounding noise, says the set's README.
    if (truth.inside_term.every(x => Math.abs(x) >= 1e-3)) expect(value("implicitAccuracy")).toBeCloseTo(truth.implicit_acc!, 12);
  }

  /** || w - truth || / || truth - start || over every weight that the set holds, and the length of the whole way. */
  function checkWeights(name: string, run: Run, start: ReadonlyMap<string, Float64Array>, end: ReadonlyMap<string, Float64Array>, dtype: DType): void {
    const bound = bounds[dtype].weights(run.delta_rel_l2_f32);
    const truths = finalWeights(name, run);
    let distance = 0;
    let way = 0;
    for (const [parameter, truth] of truths) {
      const [from, to] = [start.get(parameter)!, end.get(parameter)!];
      distance += norm(to.map((x, i) => x - truth[i]!)) ** 2;
      way += norm(Float64Array.from(truth, (x, i) => x - from[i]!)) ** 2;
    }
    expect(truths.size).toBeGreaterThan(0);
    // The stored truth is rounded to float32: that alone is 2^-24 of the weights, not of the way.
    const rounding = 2 ** -24 * Math.sqrt([...truths.values()].reduce((sum, truth) => sum + norm(truth) ** 2, 0));
    expect(Math.sqrt(distance)).toBeLessThanOrEqual(bound * Math.sqrt(way) + rounding);
    const moved = Math.sqrt([...end].reduce((sum, [parameter, to]) => sum + norm(to.map((x, i) => x - start.get(parameter)![i]!)) ** 2, 0));
    expectNear(moved, run.delta_l2, bound, `${name} length of the way`);
  }

  function finalWeights(name: string, run: Run): Map<string, Float64Array> {
    const file = readSafetensors(path.join(folder, name, run.lora ? "lora_final/pytorch_lora_weights.safetensors" : "final.safetensors"));
    const prefix = run.lora ? "unet." : "w.";
    const found = [...file.tensors.keys()]
      .filter(key => key.startsWith(prefix))
      .map(key => [key.slice(prefix.length), Float64Array.from(file.tensor(key).data as Float32Array)] as const);
    file.close();
    return new Map(found);
  }
});

function expectNear(actual: number, expected: number, bound: number, label: string): void {
  if (!(Math.abs(actual - expected) <= bound * Math.abs(expected)))
    throw new Error(
      `${label}: expected ${expected}, received ${actual}: relative error ${Math.abs(actual / expected - 1).toExponential(2)} above ${bound.toExponential(2)}`,
    );
}
