/** The names of the tensors in a value that torch.save wrote: the keys of a state dict; a training checkpoint's are found in its `state_dict`. */

import { DataError } from "../errors.js";
import { kindOf, PickleTuple, type PickleValue } from "./pickle-value.js";
import { TorchTensor } from "./torch-pickle.js";

const maxDepth = 32;
/** Containers entered and values seen; a value that stands in many places is seen in each. */
const maxVisits = 1 << 18;

/** Nested dicts, lists and tuples join their keys with dots: "state.0.exp_avg". A tensor saved alone is called "tensor". Throws DataError on names that meet, on values
 *  nested deeper than 32, and on values that contain themselves. */
export function namedTensors(value: PickleValue, source: string): ReadonlyMap<string, TorchTensor> {
  let root = value;
  for (let depth = 0; root instanceof Map && root.get("state_dict") instanceof Map && depth < maxDepth; depth++) root = root.get("state_dict")!;
  const found = new Map<string, TorchTensor>();
  let visits = 0;
  const visit = (item: PickleValue, name: string, depth: number): void => {
    if (++visits > maxVisits) throw new DataError(source, `expected at most ${maxVisits} values, received more`, { field: name.slice(0, 200) });
    if (item instanceof TorchTensor) {
      if (found.has(name)) throw new DataError(source, "expected one tensor of this name, received two", { field: name });
      found.set(name, item);
      return;
    }
    const children = childrenOf(item);
    if (children && depth === maxDepth)
      throw new DataError(source, `expected values nested at most ${maxDepth} deep, received deeper ones`, { field: name.slice(0, 200) });
    for (const [key, child] of children ?? []) visit(child, name === "" ? keyText(key) : `${name}.${keyText(key)}`, depth + 1);
  };
  visit(root, "", 0);
  const alone = found.get("");
  return alone && found.size === 1 ? new Map([["tensor", alone]]) : found;
}

function childrenOf(value: PickleValue): Iterable<[PickleValue, PickleValue]> | undefined {
  if (value instanceof Map) return value.entries();
  if (Array.isArray(value)) return value.entries();
  return value instanceof PickleTuple ? value.items.entries() : undefined;
}

function keyText(key: PickleValue): string {
  return typeof key === "string" ? key : kindOf(key);
}
