/** AdamW, clipping, averages, signal-to-noise ratios and reduced precision against PyTorch and diffusers, through the programs that training runs. */

import fs from "node:fs";
import path from "node:path";
import { readSafetensors } from "../../lib/data/safetensors.js";
import { noiseSchedule, snr } from "../../lib/diffusion/noise-schedule.js";
import { ConfigError } from "../../lib/errors.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { cast, mul } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { assign } from "../../lib/graph/ops/optimizer.js";
import { broadcast } from "../../lib/graph/ops/reduce.js";
import { type Executable, Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph } from "../../lib/graph/tensor.js";
import { readParameter, writeParameter } from "../../lib/models/load.js";
import { reserve } from "../../lib/nn/init.js";
import { ParameterStore } from "../../lib/nn/params.js";
import { averageGraph, type EmaOptions, emaDecay } from "../../lib/train/ema.js";
import { adamW, type Optimizer } from "../../lib/train/optimizer.js";
import { updateGraph } from "../../lib/train/step.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 1 });
});
afterAll(() => session.close());

type DType = "f32" | "f64";
let arenas = 0;

/** A store with parameters of these shapes, named p0, p1, ..., in an arena of its own. */
function storeOf(shapes: readonly (readonly number[])[], dtype: DType): ParameterStore {
  const store = new ParameterStore({ arena: `optim${arenas++}`, dtype, trainable: true });
  buildGraph(() => shapes.forEach((shape, k) => void store.tensor(`p${k}`, shape, { init: { value: 0 } })));
  store.seal();
  return store;
}

function write(store: ParameterStore, values: readonly HostTensor[]): void {
  for (const [k, value] of values.entries()) writeParameter(session, store, store.entries.get(`p${k}`)!, value);
}

async function read(store: ParameterStore, k: number): Promise<ArrayLike<number>> {
  return (await readParameter(session, store, store.entries.get(`p${k}`)!)).data as Float64Array;
}

function ready(graph: Graph, ...stores: ParameterStore[]): Executable {
  return session.compile(compileGraph(graph, { name: "test", arenas: Object.fromEntries(stores.map(s => [s.arena, s.bytes])) }));
}

interface Stores {
  readonly trainable: ParameterStore;
  readonly gradients: ParameterStore;
  readonly update: Executable;
}

function prepare(
  optimizer: Optimizer,
  shapes: readonly (readonly number[])[],
  dtype: DType,
  maxGradNorm?: number,
): Stores & { state: Readonly<Record<string, ParameterStore>> } {
  const trainable = storeOf(shapes, dtype);
  const gradients = trainable.mirror(`${trainable.arena}/gradient`);
  const state = optimizer.state(trainable);
  for (const store of [trainable, gradients, ...Object.values(state)]) reserve(session, store);
  return {
    trainable,
    gradients,
    state,
    update: ready(updateGraph({ trainable, gradients, optimizer, state, maxGradNorm }), trainable, gradients, ...Object.values(state)),
  };
}

/** Keeps the gradient that reaches it, scaled: what clipping leaves. */
const recorder: Optimizer = {
  name: "recorder",
  learningRate: 1,
  state: parameters => ({ seen: parameters.mirror(`${parameters.arena}/seen`) }),
  update({ gradients, state, gradScale }) {
    const g = gradients.flat();
    assign(state.seen!.flat(), mul(g, broadcast(cast(gradScale, g.dtype), g.shape)));
  },
  scalars: () => ({}),
};

interface Run {
  readonly cls: string;
  readonly lr: number;
  readonly betas?: [number, number];
  readonly eps?: number;
  readonly weight_decay?: number;
  readonly amsgrad?: boolean;
}
type Ema = { decay: number; decays: number[]; min_decay?: number; update_after_step?: number; use_ema_warmup?: boolean; inv_gamma?: number; power?: number };

describeSets("optim", folder => {
  const meta = JSON.parse(fs.readFileSync(path.join(folder, "meta.json"), "utf8")) as Record<string, unknown> & { runs: Record<string, Run> };
  const golden = readSafetensors(path.join(folder, "optim.safetensors"));
  afterAll(() => golden.close());
  const values = (name: string): number[] => Array.from(golden.tensor(name).data as Float64Array, Number);
  const count = [...golden.tensors.keys()].filter(name => /^p\d+\.init$/.test(name)).length;
  const all = (name: (k: number) => string): HostTensor[] => Array.from({ length: count }, (_, k) => golden.tensor(name(k)));
  const shapes = all(k => `p${k}.init`).map(t => t.shape);
  const steps = [...golden.tensors.keys()].filter(name => /^g0\.\d+$/.test(name)).length;

  const runs = Object.entries(meta.runs).filter(([, run]) => run.cls === "AdamW" && !run.amsgrad);
  // 1e-5: what the set's README allows a float32 port. f64 repeats a float64 run, up to the order of a few operations per step.
  for (const [dtype, bound] of [
    ["f64", 1e-12],
    ["f32", 1e-5],
  ] as const)
    test.each(runs)(`%s in ${dtype}`, async (name, { lr, betas, eps, weight_decay }) => {
      const optimizer = adamW({
        learningRate: lr,
        ...(betas && { betas }),
        ...(eps && { eps }),
        ...(weight_decay !== undefined && { weightDecay: weight_decay }),
      });
      const { trainable, gradients, update } = prepare(optimizer, shapes, dtype);
      write(
        trainable,
        all(k => `p${k}.init`),
      );
      for (let step = 0; step < steps; step++) {
        write(
          gradients,
          all(k => `g${k}.${step}`),
        );
        await session.run(update, { scalars: optimizer.scalars(step + 1, lr) });
        for (let k = 0; k < count; k++) expectClose(await read(trainable, k), values(`${name}|p${k}.${step}`), bound, `${name} p${k} after step ${step}`);
      }
      for (let k = 0; k < count; k++) expect(Array.from(await read(gradients, k)).every(g => g === 0)).toBe(true);
    });

  test.each(["clip0", "clip1"])("%s: global norm and clipped gradients", async clip => {
    const factor = meta[`${clip}_scale_of_g.0`] as number;
    const { gradients, state, update } = prepare(recorder, shapes, "f64", 1);
    const scaled = all(k => `g${k}.0`).map(t =>
      hostTensor(
        "f64",
        t.shape,
        Float64Array.from(t.data as Float32Array, x => Math.fround(x * factor)),
      ),
    );
    write(gradients, scaled);
    const { gradNorm } = await session.run(update, {});
    expectClose(gradNorm!.data as Float64Array, values(`${clip}|norm`), 1e-6, "norm");
    for (let k = 0; k < count; k++) expectClose(await read(state.seen!, k), values(`${clip}|g${k}`), 1e-6, `g${k}`);
  });

  test.each(Object.keys(meta).filter(name => /^ema\d+$/.test(name)))("%s: decays and shadows", async name => {
    const { decay, decays, min_decay, update_after_step, use_ema_warmup, inv_gamma, power } = meta[name] as Ema;
    const options: EmaOptions = {
      decay,
      ...(min_decay !== undefined && { minDecay: min_decay }),
      ...(update_after_step !== undefined && { updateAfterStep: update_after_step }),
      ...(use_ema_warmup && { warmup: { invGamma: inv_gamma!, power: power! } }),
    };
    const decayOf = emaDecay(options);
    const weights = storeOf([[2, 3]], "f64");
    const shadow = weights.mirror(`${weights.arena}/ema`);
    reserve(session, shadow);
    const average = ready(averageGraph(shadow, weights), weights, shadow);
    const w = Float64Array.from({ length: 6 }, (_, i) => i);
    write(shadow, [hostTensor("f64", [2, 3], w)]);
    for (const [s, expected] of decays.entries()) {
      for (const i of w.keys()) w[i]! += 0.1 * (s + 1);
      write(weights, [hostTensor("f64", [2, 3], w)]);
      expect(decayOf(s + 1)).toBeCloseTo(expected, 14);
      await session.run(average, { scalars: { emaDecay: decayOf(s + 1) } });
      expectClose(await read(shadow, 0), values(`${name}|shadow.${s}`), 1e-6, `${name} shadow ${s}`);
    }
  });

  test("signal-to-noise ratio of the Stable Diffusion schedule", () => {
    const schedule = noiseSchedule();
    for (const [i, t] of values("snr|timesteps").entries()) {
      const expected = values("snr|snr")[i]!;
      // 1 - a in float32 has lost up to log2(1 / (1 - a)) bits of the table's entry.
      expect(Math.abs(snr(schedule, t) - expected)).toBeLessThanOrEqual(4 * 2 ** -24 * expected * (1 + expected));
    }
  });

  for (const dtype of ["bf16", "f16"] as const) {
    const from = (): HostTensor => golden.tensor(`${dtype}|in`);
    const expected = (): number[] => values(`${dtype}|out`).map(bits => bits & 0xffff);
    test(`${dtype} rounding of the host`, () => expectBits(convert(from(), dtype), expected(), dtype));
    test(`${dtype} rounding of the cast op`, async () => {
      const graph = buildGraph(g => g.output("y", cast(input("x", { dtype: "f32", shape: from().shape }), dtype)));
      expectBits((await session.run(ready(graph), { inputs: { x: from() } })).y!, expected(), dtype);
    });
  }
});

/** Equal bits; any NaN for a NaN. */
function expectBits({ data }: HostTensor, expected: readonly number[], dtype: "bf16" | "f16"): void {
  const infinity = dtype === "bf16" ? 0x7f80 : 0x7c00;
  const canonical = (bits: number): number => ((bits & 0x7fff) > infinity ? 0x7fff : bits);
  expect(Array.from(data as Uint16Array, canonical)).toEqual(expected.map(canonical));
}

describe("a gradient that is not finite", () => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
    for (const maxGradNorm of [1, undefined])
      test(`${bad} with ${maxGradNorm ? "clipping" : "no clipping"}: weights and moments stay, the gradient is cleared`, async () => {
        const optimizer = adamW({ learningRate: 0.1 });
        const { trainable, gradients, state, update } = prepare(optimizer, [[5], [2, 3]], "f32", maxGradNorm);
        const filled = (x: number) => [hostTensor("f32", [5], new Float32Array(5).fill(x)), hostTensor("f32", [2, 3], new Float32Array(6).fill(x))];
        write(trainable, filled(1));
        write(gradients, filled(0.5));
        await session.run(update, { scalars: optimizer.scalars(1, 0.1) });
        const stores = [trainable, ...Object.values(state)];
        const before = await Promise.all(stores.map(store => session.read(store.arena, 0, store.bytes)));
        write(gradients, [hostTensor("f32", [5], Float32Array.of(1, 2, bad, 3, 4))]);
        const { gradNorm } = await session.run(update, { scalars: optimizer.scalars(2, 0.1) });
        expect(Number.isFinite(gradNorm!.data[0])).toBe(false);
        for (const [i, store] of stores.entries())
          expect(Buffer.from(await session.read(store.arena, 0, store.bytes)).equals(Buffer.from(before[i]!))).toBe(true);
        expect(Array.from(await read(gradients, 0))).toEqual([0, 0, 0, 0, 0]);
        write(gradients, filled(0.5));
        await session.run(update, { scalars: optimizer.scalars(2, 0.1) });
        expect(Array.from(await read(trainable, 0)).every(x => Number.isFinite(x) && x < 1)).toBe(true);
      });
});

test("options are checked", () => {
  expect(() => adamW({ learningRate: 0 })).toThrow(ConfigError);
  expect(() => adamW({ learningRate: 1, betas: [0.9, 1] })).toThrow(/betas to be two numbers in \[0, 1\)/);
  expect(() => emaDecay({ decay: 1 })).toThrow(ConfigError);
  expect(() => emaDecay({ decay: 0.5, minDecay: 0.6 })).toThrow(/minDecay/);
});
