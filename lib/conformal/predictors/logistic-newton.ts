/** The minimiser behind logistic regression and Platt scaling: Newton's method with a Cholesky solve, on centred columns. */

import { DataError } from "../../errors.js";
import type { Columns } from "./training-data.js";
import { dot, sigmoid, softplus } from "./vector.js";

export interface LogisticFit {
  readonly coefficients: Float64Array;
  readonly intercept: number;
  /** Newton steps taken. */
  readonly steps: number;
}

const mostSteps = 200;

/** argmin of l2/2 |w|^2 + sum of weight * log loss(y, sigmoid(x.w + b)), b free; y in [0, 1]. The optimum is unique where l2 > 0 and both classes occur.
 *  Columns are centred for the solve (which changes b alone, and b is free), so features far from 0 cost no digits. */
export function minimiseLogistic(subject: string, { columns, y, weights, rows, width }: Columns, l2: number): LogisticFit {
  const mean = columns.map(column => column.reduce((a, b) => a + b, 0) / rows);
  const centred = columns.map((column, f) => column.map(v => v - mean[f]!));
  const state: State = { columns: centred, y, weight: weights ?? new Float64Array(rows).fill(1), l2, parameters: new Float64Array(width + 1) };
  let { margin, objective } = evaluate(state, state.parameters);
  let steps = 0,
    before = Infinity;
  for (; steps < mostSteps; steps++) {
    const { gradient, hessian } = expand(state, margin);
    const step = solve(subject, hessian, gradient);
    const decrease = dot(gradient, step); // twice the predicted decrease
    // Near the optimum a step squares the distance to it; where it no longer shrinks, what is left is the rounding of the gradient.
    if (!(decrease > 0) || (decrease < 1e-12 * (1 + objective) && decrease > before / 4)) break;
    before = decrease;
    const next = search(state, step, decrease, objective);
    if (!next) break; // no digit left to win
    [state.parameters, margin, objective] = [next.parameters, next.margin, next.objective];
  }
  const coefficients = state.parameters.slice(0, width);
  const intercept = state.parameters[width]! - dot(coefficients, Float64Array.from(mean));
  if (steps === mostSteps || !Number.isFinite(intercept))
    throw new DataError(subject, `Newton's method did not converge in ${mostSteps} steps: features too far from unit scale`);
  return { coefficients, intercept, steps };
}

interface State {
  readonly columns: readonly Float64Array[];
  readonly y: Float64Array;
  readonly weight: Float64Array;
  readonly l2: number;
  /** Coefficients, then the intercept. */
  parameters: Float64Array;
}

interface Point {
  readonly parameters: Float64Array;
  readonly margin: Float64Array;
  readonly objective: number;
}

function evaluate({ columns, y, weight, l2 }: State, parameters: Float64Array): Point {
  const margin = new Float64Array(y.length).fill(parameters.at(-1)!);
  let objective = 0;
  for (const [f, column] of columns.entries()) {
    const w = parameters[f]!;
    objective += (l2 / 2) * w * w;
    for (let i = 0; i < margin.length; i++) margin[i]! += w * column[i]!;
  }
  for (let i = 0; i < margin.length; i++) objective += weight[i]! * (softplus(margin[i]!) - y[i]! * margin[i]!);
  return { parameters, margin, objective };
}

/** Gradient [width + 1] and Hessian [width + 1, width + 1], lower half. */
function expand({ columns, y, weight, l2, parameters }: State, margin: Float64Array): { gradient: Float64Array; hessian: Float64Array[] } {
  const rows = y.length,
    ones = new Float64Array(rows).fill(1),
    all = [...columns, ones];
  const residual = new Float64Array(rows),
    curvature = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    const p = sigmoid(margin[i]!);
    residual[i] = weight[i]! * (p - y[i]!);
    curvature[i] = weight[i]! * p * sigmoid(-margin[i]!); // 1 - p without cancellation
  }
  const gradient = Float64Array.from(all, (column, f) => dot(column, residual) + (f < columns.length ? l2 * parameters[f]! : 0));
  const hessian = all.map((column, f) => {
    const scaled = curvature.map((c, i) => c * column[i]!);
    const row = Float64Array.from(all.slice(0, f + 1), other => dot(scaled, other));
    if (f < columns.length) row[f]! += l2;
    return row;
  });
  return { gradient, hessian };
}

/** Halves the step until the objective falls by the Armijo share; undefined where no step lowers it. */
function search(state: State, step: Float64Array, decrease: number, objective: number): Point | undefined {
  for (let scale = 1; scale > 1e-10; scale /= 2) {
    const next = evaluate(
      state,
      state.parameters.map((p, f) => p - scale * step[f]!),
    );
    // Near the optimum the predicted fall is below one rounding of the objective: there a full step is taken on trust, once it does not rise by more.
    const rounding = 4 * Number.EPSILON * (1 + Math.abs(objective));
    if (next.objective <= objective - 1e-4 * scale * decrease || (scale === 1 && decrease < 1e-8 && next.objective <= objective + rounding)) return next;
  }
  return undefined;
}

/** Cholesky after scaling to a unit diagonal. A column without curvature (constant, and not penalised) keeps its coefficient. */
function solve(subject: string, hessian: readonly Float64Array[], gradient: Float64Array): Float64Array {
  const n = gradient.length,
    scale = Float64Array.from(hessian, (row, i) => (row[i]! > 0 ? 1 / Math.sqrt(row[i]!) : 0));
  const factor = hessian.map((row, i) => row.map((v, j) => v * scale[i]! * scale[j]!));
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let v = factor[i]![j]!;
      for (let k = 0; k < j; k++) v -= factor[i]![k]! * factor[j]![k]!;
      if (i === j) factor[i]![j] = v > Number.EPSILON ? Math.sqrt(v) : scale[i] === 0 ? 1 : Math.sqrt(Number.EPSILON);
      else factor[i]![j] = v / factor[j]![j]!;
    }
  const x = gradient.map((g, i) => g * scale[i]!);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i]! -= factor[i]![k]! * x[k]!;
    x[i]! /= factor[i]![i]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i]! -= factor[k]![i]! * x[k]!;
    x[i]! /= factor[i]![i]!;
  }
  if (x.some(v => !Number.isFinite(v))) throw new DataError(subject, "the Hessian overflows: features too far from unit scale");
  return x.map((v, i) => v * scale[i]!);
}
