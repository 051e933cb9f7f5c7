/** Minimises a smooth function of a few variables: BFGS with a dense inverse Hessian and a backtracking search (Nocedal & Wright 2006, algorithm 6.1). */

import { dot, norm } from "./vector.js";

export interface Evaluation {
  readonly value: number;
  readonly gradient: Float64Array;
}

/** A point where the gradient's largest entry is below `tolerance` * (1 + |value|), or where no step lowers the value by more than its rounding. */
export function minimise(f: (x: Float64Array) => Evaluation, start: Float64Array, { tolerance = 1e-9, steps = 500 } = {}): Float64Array {
  const n = start.length;
  let x = start,
    now = f(x),
    inverse = identity(n, 1 / Math.max(1, norm(now.gradient))),
    fresh = true;
  for (let step = 0; step < steps; step++) {
    if (now.gradient.every(g => Math.abs(g) <= tolerance * (1 + Math.abs(now.value)))) break;
    let direction = Float64Array.from(inverse, row => -dot(row, now.gradient));
    if (!(dot(direction, now.gradient) < 0)) {
      inverse = identity(n, 1 / Math.max(1, norm(now.gradient))); // curvature was lost to rounding
      direction = Float64Array.from(inverse, row => -dot(row, now.gradient));
      fresh = true;
    }
    if (-dot(direction, now.gradient) < 1e-13 * (1 + Math.abs(now.value))) break; // a decrease that rounding would hide: values are long sums
    const next = descend(f, x, now, direction);
    if (!next || next.at.value >= now.value) break;
    const s = next.x.map((v, i) => v - x[i]!),
      y = next.at.gradient.map((v, i) => v - now.gradient[i]!);
    if (fresh && dot(s, y) > 0) inverse = identity(n, dot(s, y) / dot(y, y)); // the scale of the curvature that was just seen
    fresh = false;
    update(inverse, s, y);
    [x, now] = [next.x, next.at];
  }
  return x;
}

function descend(f: (x: Float64Array) => Evaluation, x: Float64Array, now: Evaluation, direction: Float64Array) {
  const slope = dot(direction, now.gradient);
  for (let scale = 1; scale > 1e-14; scale /= 2) {
    const point = x.map((v, i) => v + scale * direction[i]!),
      at = f(point);
    if (at.value <= now.value + 1e-4 * scale * slope) return { x: point, at };
  }
  return undefined;
}

/** H <- (I - r s y') H (I - r y s') + r s s', r = 1 / y's; skipped where y's is not positive. */
function update(inverse: Float64Array[], s: Float64Array, y: Float64Array): void {
  const curvature = dot(s, y);
  if (!(curvature > 1e-12 * norm(s) * norm(y))) return;
  const hy = Float64Array.from(inverse, row => dot(row, y)),
    r = 1 / curvature,
    factor = r * (1 + r * dot(y, hy));
  for (let i = 0; i < s.length; i++) for (let j = 0; j < s.length; j++) inverse[i]![j]! += factor * s[i]! * s[j]! - r * (hy[i]! * s[j]! + s[i]! * hy[j]!);
}

const identity = (n: number, scale: number): Float64Array[] =>
  Array.from({ length: n }, (_, i) => Float64Array.from({ length: n }, (_, j) => (i === j ? scale : 0)));
