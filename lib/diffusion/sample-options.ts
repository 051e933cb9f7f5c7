/** Checks what a sampling run is given and brings it inside: [B, H, W, C], of the sampler's dtype, one for every sample of the batch. */

import { ConfigError, ShapeError } from "../errors.js";
import { convert, type HostTensor, hostTensor, toInside } from "../util/host-tensor.js";
import type { SampleOptions } from "./sampler.js";

export interface PreparedSample {
  readonly batch: number;
  /** [B, H, W, C] of the samples. */
  readonly shape: readonly number[];
  readonly condition: Readonly<Record<string, HostTensor>>;
  /** With the names of the program's inputs; present where the run is guided. */
  readonly uncondition?: Readonly<Record<string, HostTensor>>;
  readonly noise?: HostTensor;
  readonly init?: HostTensor;
  /** [B, H, W, 1] */
  readonly mask?: HostTensor;
  readonly extra?: HostTensor;
  /** Steps of the scheduler that are left out. */
  readonly skip: number;
  /** Whether the run begins with noise alone, whatever it begins from. */
  readonly pureNoise: boolean;
}

const subject = "Sampler.sample";

/** @throws ConfigError naming the option, ShapeError naming the tensor. */
export function prepareSample(options: SampleOptions, [height, width, channels]: readonly [number, number, number], dtype: "f32" | "f64"): PreparedSample {
  const batch = batchOf(options);
  const inside = (name: "latents" | "init" | "mask" | "extraChannels", wanted: number | undefined): HostTensor | undefined => {
    const host = options[name];
    if (!host) return undefined;
    const count = wanted ?? host.shape[1];
    const fits = host.shape.length === 4 && (host.shape[0] === batch || host.shape[0] === 1) && host.shape[1] === count;
    if (!fits || host.shape[2] !== height || host.shape[3] !== width)
      throw new ShapeError(subject, `expected ${name} [${batch} or 1, ${count ?? "E"}, ${height}, ${width}], received [${host.shape}]`);
    return repeated(toInside(convert(host, dtype), "bchw"), batch);
  };
  const extra = inside("extraChannels", undefined),
    sampleChannels = channels - (extra?.shape[3] ?? 0);
  if (sampleChannels < 1) throw new ShapeError(subject, `extraChannels [${options.extraChannels!.shape}] leave no channel of the model's ${channels}`);
  const noise = inside("latents", sampleChannels),
    init = inside("init", sampleChannels),
    mask = inside("mask", 1);
  checkNumbers(options, batch);
  const { strength = 1, steps } = options;
  const skip = steps - Math.min(Math.floor(steps * strength), steps);
  if (skip === steps && steps > 0) throw new ConfigError(subject, "strength", `at least 1 / ${steps}, one step of ${steps}`, strength);
  const uncondition = unconditionOf(options, batch);
  const optional = { ...(noise && { noise }), ...(init && { init }), ...(mask && { mask }), ...(extra && { extra }), ...(uncondition && { uncondition }) };
  const shape = [batch, height, width, sampleChannels];
  return { batch, shape, condition: options.condition, skip, pureNoise: !init || (mask !== undefined && strength === 1), ...optional };
}

function checkNumbers(
  { init, mask, strength = 1, seed, seeds, sampleOffset, guidanceScale = 1, guidanceRescale = 0, guidanceInterval }: SampleOptions,
  batch: number,
): void {
  const refuse = (option: string, expected: string, received: unknown): never => {
    throw new ConfigError(subject, option, expected, received);
  };
  if (!(strength > 0 && strength <= 1)) refuse("strength", "in (0, 1]", strength);
  if (!init && strength !== 1) refuse("strength", "1 where no init is given", strength);
  if (!init && mask) refuse("init", "given where mask is", init);
  if (mask && !Array.from(mask.data as Float32Array).every(m => m >= 0 && m <= 1)) refuse("mask", "in [0, 1]", "a number outside");
  if ((seed === undefined) === (seeds === undefined)) refuse("seed, seeds", "one of them given", [seed, seeds]);
  if (seeds && sampleOffset !== undefined) refuse("sampleOffset", "absent where seeds are given", sampleOffset);
  if (seeds && seeds.length !== batch) refuse("seeds", `${batch} numbers, one for each sample`, seeds);
  if (!Number.isFinite(guidanceScale)) refuse("guidanceScale", "a number", guidanceScale);
  if (!(guidanceRescale >= 0 && guidanceRescale <= 1)) refuse("guidanceRescale", "in [0, 1]", guidanceRescale);
  if (guidanceInterval && !(guidanceInterval[0] >= 0 && guidanceInterval[0] <= guidanceInterval[1]))
    refuse("guidanceInterval", "two noise levels in order, >= 0", guidanceInterval);
}

function batchOf({ condition, seeds }: SampleOptions): number {
  const sizes = new Set(Object.values(condition).map(t => t.shape[0]));
  if (sizes.size === 0 && seeds) return seeds.length;
  const [size] = sizes;
  if (sizes.size !== 1 || size === undefined) throw new ConfigError(subject, "condition", "tensors of one batch size", [...sizes]);
  return size;
}

function unconditionOf({ condition, uncondition, guidanceScale = 1 }: SampleOptions, batch: number): Record<string, HostTensor> | undefined {
  if (guidanceScale === 1) return undefined;
  if (!uncondition) throw new ConfigError(subject, "uncondition", "given where guidanceScale is not 1", uncondition);
  const fitting = Object.entries(uncondition).map(([name, host]) => {
    if (host.shape[0] !== batch && host.shape[0] !== 1)
      throw new ShapeError(
        subject,
        `expected uncondition.${name} of batch ${batch} or 1, as condition.${name} [${condition[name]?.shape}], received [${host.shape}]`,
      );
    return [`uncond/${name}`, repeated(host, batch)] as const;
  });
  return Object.fromEntries(fitting);
}

/** One sample for all of the batch. */
function repeated(host: HostTensor, batch: number): HostTensor {
  return host.shape[0] === batch ? host : stackSamples(Array.from({ length: batch }, () => host));
}

/** Joins tensors along their first axis. */
export function stackSamples(hosts: readonly HostTensor[]): HostTensor {
  const [first] = hosts as readonly [HostTensor];
  const stacked = hostTensor(
    first.dtype,
    first.shape.with(
      0,
      hosts.reduce((n, h) => n + h.shape[0]!, 0),
    ),
  );
  let at = 0;
  for (const { data } of hosts) {
    (stacked.data as Float32Array).set(data as Float32Array, at);
    at += data.length;
  }
  return stacked;
}

/** a x + b y, rounded once. */
export function mix(x: HostTensor, a: number, y: HostTensor, b: number): HostTensor {
  const [xs, ys] = [x.data as Float64Array, y.data as Float64Array];
  const mixed = hostTensor(x.dtype, x.shape),
    data = mixed.data as Float64Array;
  for (let i = 0; i < data.length; i++) data[i] = a * xs[i]! + (b === 0 ? 0 : b * ys[i]!);
  return mixed;
}

/** mask x + (1 - mask) y, with a mask [B, H, W, 1]. */
export function blend(x: HostTensor, y: HostTensor, mask: HostTensor): HostTensor {
  const [xs, ys, ms] = [x.data, y.data, mask.data] as [Float64Array, Float64Array, Float64Array];
  const blended = hostTensor(x.dtype, x.shape),
    data = blended.data as Float64Array,
    channels = x.shape[3]!;
  for (let i = 0; i < data.length; i++) {
    const m = ms[Math.floor(i / channels)]!;
    data[i] = m * xs[i]! + (1 - m) * ys[i]!;
  }
  return blended;
}
