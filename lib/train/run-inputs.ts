/** A batch as the inputs of the `micro` program: what the objective asks for, under the program's names, checked. */

import { DataError } from "../errors.js";
import { armsOf, type Objective, type PairInput } from "../objectives/objective.js";
import { convert, type HostTensor } from "../util/host-tensor.js";
import { conditionInput, sampleInput } from "./arms.js";
import { extraInput } from "./objective-context.js";
import type { PairBatch } from "./pair-data.js";

/** Parts that the objective does not ask for are left out. Throws DataError where one is missing, or a number is out of its range. */
export function runInputs(objective: Objective, batch: PairBatch): Record<string, HostTensor> {
  const { condition, conditions = {}, extras = {} } = batch;
  const arms = armsOf(objective);
  const inputs: Record<string, HostTensor> = { ...condition };
  for (const { sample } of arms) inputs[sampleInput(sample)] = present(sampleOf(batch, sample), fieldOf(sample), objective);
  for (const name of new Set(arms.map(arm => arm.condition).filter(set => set !== undefined)))
    for (const [key, t] of Object.entries(present(conditions[name], `conditions.${name}`, objective))) inputs[conditionInput(name, key)] = t;
  for (const [name, spec] of Object.entries(objective.inputs ?? {}))
    inputs[extraInput(name)] = checked(present(extras[name], `extras.${name}`, objective), name, spec, batch.winners.shape[0]!);
  return inputs;
}

function sampleOf({ winners, losers, samples = {} }: PairBatch, name: string): HostTensor | undefined {
  return name === "winners" ? winners : name === "losers" ? losers : samples[name];
}

const fieldOf = (sample: string): string => (sample === "winners" || sample === "losers" ? sample : `samples.${sample}`);

function present<T>(value: T | undefined, field: string, { name }: Objective): T {
  if (value === undefined) throw new DataError("pairs", `expected ${field} in every batch, which the objective ${name} asks for, received none`, { field });
  return value;
}

/** In f64, of the declared shape and range. */
function checked(tensor: HostTensor, name: string, { size = 1, least = -Infinity, most = Infinity }: PairInput, rows: number): HostTensor {
  const field = `extras.${name}`;
  const { shape, data, dtype } = convert(tensor, "f64");
  const fits = shape[0] === rows && shape.slice(1).reduce((a, b) => a * b, 1) === size;
  if (!fits) throw new DataError("pairs", `expected ${field} to be [${rows}${size > 1 ? `, ${size}` : ""}], received [${shape}]`, { field });
  for (const [i, value] of (data as Float64Array).entries())
    if (!(Number.isFinite(value) && value >= least && value <= most))
      throw new DataError("pairs", `expected ${field} to be ${rangeOf(least, most)}, received ${value}`, { field, row: Math.floor(i / size) });
  return { dtype, shape: size > 1 ? [rows, size] : [rows], data };
}

function rangeOf(least: number, most: number): string {
  if (least === -Infinity && most === Infinity) return "finite";
  return most === Infinity ? `finite and at least ${least}` : `in [${least}, ${most}]`;
}
