/** Holding results against the float64 truth of a golden set. */

import { existsSync } from "node:fs";
import { readSafetensors } from "../../lib/data/safetensors.js";
import { convert, type HostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, norm, relL2 } from "./compare.js";

export const numbers = (t: HostTensor): Float64Array => convert(t, "f64").data as Float64Array;

/** Relative L2 by which a result may miss `truth`. In float32: ten times what float32 PyTorch misses by, and no less than `least`, as the sets' READMEs say.
 *  In float64: rounding, and what the truth lost where it was stored in F32, 2^-24 of each number. */
export function tolerance(dtype: "f64" | "f32", truth: HostTensor, torch: number, least = 5e-6): number {
  if (dtype === "f32") return Math.max(10 * torch, least);
  return 1e-12 + (truth.dtype === "f32" ? 2 ** -24 : 0);
}

/** `floor`: gradients that are all but zero are rounding noise in any arithmetic, and are judged by the largest. */
export function compareGradient(actual: Float64Array, truth: Float64Array, bound: number, floor: number, name: string): void {
  if (norm(truth) > floor) expectClose(actual, truth, bound, name);
  else if (!(norm(actual.map((x, i) => x - truth[i]!)) <= floor)) throw new Error(`${name}: relative L2 ${relL2(actual, truth)} of a gradient near zero`);
}

/** Names of a file's tensors that begin with `prefix`, without it: none where there is no file. Tests are declared by it before they run. */
export function storedUnder(path: string, prefix: string): string[] {
  if (!existsSync(path)) return [];
  const file = readSafetensors(path);
  file.close();
  return [...file.tensors.keys()].filter(name => name.startsWith(prefix)).map(name => name.slice(prefix.length));
}
