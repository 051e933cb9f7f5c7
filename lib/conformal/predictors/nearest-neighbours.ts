/** k nearest neighbours (Fix & Hodges 1951): the share of aligned ones among the k training rows next to a row, by brute force. */

import { ConfigError } from "../../errors.js";
import type { FittedPredictor, Predictor } from "./predictor.js";
import { type Columns, checkRows, constantPredictor, trainingColumns } from "./training-data.js";

export interface NearestNeighboursOptions {
  /** Neighbours, by weight where rows have weights. Default 15; at most all of the training weight is used. */
  readonly k?: number;
}

/** Euclidean distance between features as given: standardise them first. Rows at equal distance share what is left of k in proportion to their weight, so
 *  neither the order of rows nor repeating a row instead of weighting it changes a score. Labels may be numbers in [0, 1]. */
export function nearestNeighbours({ k = 15 }: NearestNeighboursOptions = {}): Predictor {
  if (!(Number.isInteger(k) && k >= 1)) throw new ConfigError("nearestNeighbours", "k", "a whole number >= 1", k);
  return {
    name: "nearestNeighbours",
    fit(data, { signal } = {}): FittedPredictor {
      signal?.throwIfAborted();
      const training = trainingColumns("nearestNeighbours", data, { fractions: true });
      if (training.single !== undefined) return constantPredictor("nearestNeighbours", training.width, training.single);
      const distances = new Float64Array(training.rows);
      return {
        predict(x) {
          checkRows("nearestNeighbours", x, training.width);
          return Float64Array.from(x, row => {
            squaredDistances(training, row, distances);
            return share(training, distances, k);
          });
        },
      };
    },
  };
}

function squaredDistances({ columns, rows }: Columns, row: Float64Array, out: Float64Array): void {
  out.fill(0);
  for (const [f, column] of columns.entries()) {
    const v = row[f]!;
    for (let i = 0; i < rows; i++) out[i]! += (column[i]! - v) ** 2;
  }
}

function share({ y, weights, rows }: Columns, distances: Float64Array, k: number): number {
  const limit = radius(distances, weights, k);
  let inside = 0,
    aligned = 0,
    edge = 0,
    edgeAligned = 0;
  for (let i = 0; i < rows; i++) {
    if (distances[i]! > limit) continue;
    const w = weights ? weights[i]! : 1;
    if (distances[i]! < limit) {
      inside += w;
      aligned += w * y[i]!;
    } else {
      edge += w;
      edgeAligned += w * y[i]!;
    }
  }
  const taken = Math.min(edge, k - inside);
  return (aligned + (taken * edgeAligned) / edge) / (inside + taken);
}

/** The least distance within which there is weight k, or the largest distance. */
function radius(distances: Float64Array, weights: Float64Array | undefined, k: number): number {
  if (!weights) return distances.slice().sort()[Math.min(k, distances.length) - 1]!;
  const order = [...distances.keys()].sort((a, b) => distances[a]! - distances[b]!);
  let mass = 0;
  for (const i of order) {
    mass += weights[i]!;
    if (mass >= k) return distances[i]!;
  }
  return distances[order.at(-1)!]!;
}
