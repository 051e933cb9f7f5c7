/** Measures kernels: time, GFLOP/s or GB/s, the share of a ceiling measured in the same run, and the error against f64 on the cpu backend. */

import type { Device } from "../lib/device.js";
import { compileGraph } from "../lib/graph/compile.js";
import { defineOp } from "../lib/graph/op.js";
import { fmaCeiling } from "../lib/graph/ops/ceiling.js";
import { parameter } from "../lib/graph/ops/leaf.js";
import { assign } from "../lib/graph/ops/optimizer.js";
import { type Executable, Session } from "../lib/graph/session.js";
import { buildGraph, dtypeBytes, numel, type Tensor, typed } from "../lib/graph/tensor.js";
import { convert, type HostTensor, hostTensor } from "../lib/util/host-tensor.js";
import { type BenchCase, leaves } from "./cases.js";

export interface Row {
  readonly name: string;
  readonly milliseconds: number;
  readonly gflops?: number;
  readonly gbytes?: number;
  /** Of the multiply-add rate, or of the copy bandwidth, measured in this run. */
  readonly share: number;
  readonly error: number;
  readonly bound: number;
}

export interface Ceilings {
  /** Multiply-adds in f32 from registers. */
  readonly gflops: number;
  readonly gbytes: number;
  /** Tensor cores on registers; undefined where the backend has none. */
  readonly tensorGflops?: number;
}

/** What a run measures on, and in which dtype: bf16 where the device is a GPU. */
export interface Bed {
  readonly device: Device;
  readonly dtype: "f32" | "bf16";
}

/** The same of tensor cores as `fmaCeiling` is of multiply-adds; CUDA alone has a kernel. */
const mmaCeilingOp = defineOp({ name: "mma_ceiling", infer: (_: { tasks: number; iterations: number }) => [typed("f32", 1)] });

const scalars = { learningRate: 1e-4, correction1: 0.1, correction2: 0.001 };
const median = (xs: readonly number[]): number => [...xs].sort((a, b) => a - b)[xs.length >> 1]!;

/** Seconds that instructions of `ops` take, median over repeated runs. */
async function timed(session: Session, executable: Executable, ops: readonly string[], seconds = 0.4): Promise<number> {
  await session.run(executable, { scalars });
  const times: number[] = [],
    end = performance.now() + 1000 * seconds;
  session.trace(executable, "time");
  do {
    await session.run(executable, { scalars });
    times.push(session.trace(executable, "time").ops.reduce((sum, t) => sum + (ops.includes(t.op) ? t.seconds : 0), 0));
  } while (times.length < 3 || (performance.now() < end && times.length < 200));
  return median(times);
}

export async function ceilings(session: Session): Promise<Ceilings> {
  const onGpu = session.target.backend === "cuda";
  const [tasks, iterations] = onGpu ? [1024, 4096] : [64, 200_000];
  const rate = async (name: string, build: () => Tensor): Promise<number> => {
    const program = session.compile(
      compileGraph(
        buildGraph(g => g.output("flops", build())),
        { name, target: session.target },
      ),
    );
    const perRound = Number((await session.run(program, {})).flops!.data[0]);
    return (perRound * tasks * iterations) / (await timed(session, program, [name], 1)) / 1e9;
  };
  const size = 1 << 25; // 128 MiB each way, beyond any cache
  const copy = session.compile(
    compileGraph(
      buildGraph(() => {
        const leaf = (name: string) => parameter({ arena: name, name, dtype: "f32", shape: [size], offset: 0 });
        assign(leaf("copyTarget"), leaf("copySource"));
      }),
      { name: "copy", target: session.target },
    ),
  );
  return {
    gflops: await rate("fma_ceiling", () => fmaCeiling({ tasks, iterations, dtype: "f32" })),
    gbytes: (8 * size) / (await timed(session, copy, ["assign"], 1)) / 1e9,
    ...(session.target.kernels.has("mma_ceiling") && { tensorGflops: await rate("mma_ceiling", () => mmaCeilingOp({ tasks, iterations })[0]) }),
  };
}

/** A program of the case, its inputs written; results are outputs only where `keep` asks for them. */
function prepared(session: Session, c: BenchCase, dtype: "f32" | "f64" | "bf16", keep: boolean): Executable {
  let layout = { offsets: [] as number[], bytes: 0 };
  const graph = buildGraph(g => {
    const { tensors, ...rest } = leaves(c.inputs, dtype);
    layout = rest;
    const outputs = c.build(tensors);
    if (keep) for (const [i, y] of outputs.entries()) g.output(`y${i}`, y);
    else for (const [i, y] of outputs.entries()) assign(parameter({ arena: `sink${i}`, name: `sink${i}`, dtype: y.dtype, shape: y.shape, offset: 0 }), y);
  });
  const executable = session.compile(
    compileGraph(graph, { name: c.name, fuse: false, target: c.fused ? session.target : { ...session.target, kernels: new Set() } }),
  );
  for (const [i, shape] of c.inputs.entries()) session.write("inputs", layout.offsets[i]!, convert(normal(shape, i + 1, c.scale ?? 1), dtype).data);
  return executable;
}

/** Numbers that bf16 holds, so that they are the same in every dtype. */
function normal(shape: readonly number[], seed: number, scale: number): HostTensor {
  const out = new Float32Array(numel(shape));
  let state = seed * 2654435761;
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let i = 0; i < out.length; i++) out[i] = (next() + next() + next() + next() - 2) * Math.sqrt(3) * scale;
  return convert(convert(hostTensor("f32", shape, out), "bf16"), "f32");
}

function relativeError(actual: Readonly<Record<string, HostTensor>>, truth: Readonly<Record<string, HostTensor>>): number {
  let worst = 0;
  for (const [name, t] of Object.entries(truth)) {
    const a = convert(actual[name]!, "f64").data as Float64Array,
      b = t.data as Float64Array;
    let difference = 0,
      norm = 0;
    for (let i = 0; i < b.length; i++) {
      difference += (a[i]! - b[i]!) ** 2;
      norm += b[i]! ** 2;
    }
    worst = Math.max(worst, Number.isNaN(difference) ? Infinity : Math.sqrt(difference / norm));
  }
  return worst;
}

export async function measure(c: BenchCase, ceiling: Ceilings, { device, dtype: wanted }: Bed): Promise<Row> {
  const dtype = c.master ? "f32" : wanted;
  const run = async (session: Session, as: Bed["dtype"] | "f64"): Promise<Record<string, HostTensor>> => {
    await using own = session;
    return await own.run(prepared(own, c, as, true), { scalars });
  };
  const error = relativeError(await run(device.openSession(), dtype), await run(Session.open({ backend: "cpu" }), "f64"));
  await using session = device.openSession();
  const seconds = await timed(session, prepared(session, c, dtype, false), c.ops);
  // Roundings of a sum of n terms accumulate like a random walk; a factor 8 covers the few operations around it. In bf16 the sum is f32, and what is rounded is an operand of the second op.
  const bound = 8 * 2 ** -24 * Math.sqrt(c.terms + 1) + (dtype === "bf16" ? 8 * 2 ** -9 : 0);
  const base = { name: c.name, milliseconds: seconds * 1e3, error, bound };
  const most = dtype === "bf16" ? (ceiling.tensorGflops ?? ceiling.gflops) : ceiling.gflops;
  if (c.flops > 0) return { ...base, gflops: c.flops / seconds / 1e9, share: c.flops / seconds / 1e9 / most };
  const gbytes = (dtypeBytes[dtype] * c.elements) / seconds / 1e9;
  return { ...base, gbytes, share: gbytes / ceiling.gbytes };
}

export function describe(row: Row): string {
  const rate = row.gflops === undefined ? `${row.gbytes!.toFixed(1)} GB/s` : `${row.gflops.toFixed(1)} GFLOP/s`;
  const wrong = row.error <= row.bound ? "" : `  WRONG, bound ${row.bound.toExponential(1)}`;
  return `${row.name.padEnd(44)} ${row.milliseconds.toFixed(3).padStart(10)} ms ${rate.padStart(15)} ${(100 * row.share).toFixed(0).padStart(4)} %   error ${row.error.toExponential(1)}${wrong}`;
}
