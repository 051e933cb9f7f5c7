/** The second step of selections whose auxiliary sets R_j differ from unit to unit (Jin & Candes 2023b, algorithm 1): of the units that pass the first
 *  step, keep the largest r such that r of them have xi_j |R_j| <= r. */

import { ConfigError } from "../errors.js";
import { checkLength, checkRange } from "./check.js";

/** xi_j: independent uniforms ("hete"), one uniform for all ("homo", the best default), or 1 ("dtm": no randomness, less power). */
export type Pruning = "hete" | "homo" | "dtm";

/** Selected indices among the candidates, ascending. `sizes`: |R_j| of every unit; `uniforms`: one per unit for hete, at least one for homo. */
export function prune(candidates: Uint32Array, sizes: ArrayLike<number>, pruning: Pruning, uniforms: ArrayLike<number>): Uint32Array {
  const xi = factors(sizes.length, pruning, uniforms);
  const values = Float64Array.from(candidates, j => xi(j) * sizes[j]!);
  const ordered = values.slice().sort();
  let kept = 0;
  for (let r = 1; r <= ordered.length; r++) if (ordered[r - 1]! <= r) kept = r;
  return candidates.filter((_, i) => values[i]! <= kept);
}

function factors(units: number, pruning: Pruning, uniforms: ArrayLike<number>): (unit: number) => number {
  if (pruning === "dtm") return () => 1;
  if (pruning !== "hete" && pruning !== "homo") throw new ConfigError("prune", "pruning", '"hete", "homo" or "dtm"', pruning);
  if (pruning === "hete") checkLength("prune", "uniforms", uniforms, units);
  else if (units > 0 && !(uniforms.length >= 1)) throw new ConfigError("prune", "uniforms.length", "at least 1", uniforms.length);
  const xi = checkRange("prune", "uniforms", uniforms, 0, 1);
  return pruning === "hete" ? unit => xi[unit]! : () => xi[0]!;
}
