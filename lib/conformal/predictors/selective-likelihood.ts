/** The likelihood of labels that were seen only where somebody chose to look, after "Domain constraints improve risk prediction when outcome data is
 *  missing" (Balachandar, Garg & Pierson 2024): uniform unobservables, closed under quadrature. */

import { sigmoid } from "./vector.js";

/** Gauss-Legendre on 32 nodes: the integrands' poles lie pi away from the real line, so on [0, 10] it is exact to rounding. The closed form divides a difference
 *  of softplus by k - 1 and loses its digits where both risks are close. */
const count = 32;
const { nodes, weights } = gaussLegendre();

/** Of one unit, divided by s: risk, test and label as functions of a = x.bY and b = a + x.bD. */
export interface UnitLikelihood {
  /** -log p of what was seen. */
  readonly loss: number;
  /** d loss / d a, d b, d s. */
  readonly a: number;
  readonly b: number;
  readonly s: number;
}

/** What was seen: `tested` 0 (label unknown) or 1 with its label. Risk sig(a + Z), test sig(b + Z), Z ~ U(0, s), independent given Z. */
export function unitLikelihood(a: number, b: number, s: number, tested: number, label: number): UnitLikelihood {
  // Every factor is sig(+-(a + z)) or sig(+-(b + z)): positive, so nothing cancels.
  let p = 0,
    da = 0,
    db = 0,
    ds = 0;
  for (let k = 0; k < count; k++) {
    const z = nodes[k]! * s,
      sa = label === 1 ? 1 : -1,
      sb = tested === 1 ? 1 : -1;
    const risk = tested === 1 ? sigmoid(sa * (a + z)) : 1,
      test = sigmoid(sb * (b + z));
    const f = weights[k]! * risk * test;
    const fa = tested === 1 ? f * sa * (1 - risk) : 0,
      fb = f * sb * (1 - test);
    p += f;
    da += fa;
    db += fb;
    ds += nodes[k]! * (fa + fb);
  }
  return { loss: -Math.log(p), a: -da / p, b: -db / p, s: -ds / p };
}

/** E sig(a + Z), and its derivatives by a and s. */
export function marginalRisk(a: number, s: number): { readonly risk: number; readonly a: number; readonly s: number } {
  let risk = 0,
    da = 0,
    ds = 0;
  for (let k = 0; k < count; k++) {
    const p = sigmoid(a + nodes[k]! * s),
      slope = weights[k]! * p * (1 - p);
    risk += weights[k]! * p;
    da += slope;
    ds += nodes[k]! * slope;
  }
  return { risk, a: da, s: ds };
}

/** Nodes in (0, 1) and weights summing to 1: roots of the Legendre polynomial by Newton's method. */
function gaussLegendre(): { readonly nodes: Float64Array; readonly weights: Float64Array } {
  const nodes = new Float64Array(count),
    weights = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    let x = Math.cos((Math.PI * (i + 0.75)) / (count + 0.5)),
      slope = 0;
    for (let step = 0; step < 20; step++) {
      let [before, now] = [1, x];
      for (let n = 2; n <= count; n++) [before, now] = [now, ((2 * n - 1) * x * now - (n - 1) * before) / n];
      slope = (count * (x * now - before)) / (x * x - 1);
      x -= now / slope;
    }
    nodes[i] = (1 + x) / 2;
    weights[i] = 1 / ((1 - x * x) * slope * slope);
  }
  return { nodes, weights };
}
