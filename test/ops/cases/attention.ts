/** Attention: self, cross, causal, masked, one key, peaky logits, every head width of the models. */

import { attention } from "../../../lib/graph/ops/attention.js";
import { get, type Nd, nd, total } from "../../support/nd.js";
import type { OpCase } from "../case.js";

interface Heads {
  readonly batch: number;
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
  readonly width: number;
  readonly causal?: true;
  readonly mask?: "per sample" | "shared";
  /** Standard deviation of q and k. */
  readonly spread?: number;
  readonly scale?: number;
}

const settings: readonly Heads[] = [
  { batch: 1, heads: 1, queries: 1, keys: 1, width: 1 },
  { batch: 2, heads: 2, queries: 16, keys: 16, width: 8 },
  { batch: 1, heads: 3, queries: 37, keys: 37, width: 40 },
  { batch: 1, heads: 1, queries: 19, keys: 19, width: 80 },
  { batch: 1, heads: 2, queries: 9, keys: 9, width: 160 },
  { batch: 2, heads: 2, queries: 25, keys: 77, width: 20 },
  { batch: 1, heads: 2, queries: 31, keys: 7, width: 64 },
  { batch: 1, heads: 2, queries: 17, keys: 1, width: 8 },
  { batch: 1, heads: 1, queries: 130, keys: 70, width: 5 },
  { batch: 2, heads: 3, queries: 33, keys: 33, width: 8, causal: true },
  { batch: 1, heads: 1, queries: 77, keys: 77, width: 16, causal: true },
  { batch: 2, heads: 2, queries: 13, keys: 13, width: 12, mask: "per sample" },
  { batch: 2, heads: 1, queries: 5, keys: 21, width: 8, mask: "shared" },
  { batch: 2, heads: 1, queries: 18, keys: 18, width: 8, mask: "per sample", causal: true },
  { batch: 1, heads: 2, queries: 18, keys: 23, width: 8, spread: 3 },
  { batch: 1, heads: 2, queries: 11, keys: 6, width: 4, scale: 0.25 },
  { batch: 1, heads: 1, queries: 70, keys: 70, width: 512 }, // the middle of an autoencoder
  { batch: 1, heads: 1, queries: 200, keys: 400, width: 4 }, // several blocks of queries and keys
  { batch: 1, heads: 1, queries: 210, keys: 210, width: 4, causal: true },
];

export const attentionCases = settings.map((s): OpCase => {
  const { batch, heads, queries, keys, width, causal = false, mask, spread = 1, scale = width ** -0.5 } = s;
  const extra = [causal ? "causal" : "", mask ? `mask ${mask}` : "", s.spread ? "peaky" : "", s.scale ? `scale ${scale}` : ""].filter(Boolean).join(", ");
  return {
    name: `attention ${batch} x ${heads} heads of ${width}, ${queries} queries, ${keys} keys${extra && `, ${extra}`}`,
    inputs: [
      { shape: [batch, queries, heads * width], values: random => spread * random.normal() },
      { shape: [batch, keys, heads * width], values: random => spread * random.normal() },
      { shape: [batch, keys, heads * width] },
      ...(mask ? [{ shape: [mask === "shared" ? 1 : batch, 1, 1, keys], values: maskValues, frozen: true as const }] : []),
    ],
    build: ([q, k, v, m]) => [attention(q!, k!, v!, { heads, causal, ...(s.scale && { scale }) }, m)],
    reference: ([q, k, v, m]) => [attended(q!, k!, v!, m, heads, causal, scale)],
    roundings: 16 + 8 * spread ** 2 * Math.sqrt(width), // an error of a logit is a relative error of its probability
    terms: Math.max(queries, keys, width),
  };
});

/** Mostly open, now and then closed; the first key stays open. */
function maskValues(random: { uniform(): number }, i: number): number {
  const closed = random.uniform() < 0.3;
  return i > 0 && closed ? -10000 : 0;
}

export function attended(q: Nd, k: Nd, v: Nd, mask: Nd | undefined, heads: number, causal: boolean, scale: number): Nd {
  const [batch = 0, queries = 0, wide = 0] = q.shape;
  const keys = k.shape[1]!;
  const width = wide / heads;
  const logits = nd([batch, heads, queries, keys], (b, h, i, j) => {
    if (causal && j > i) return Number.NEGATIVE_INFINITY;
    return scale * total([width], c => get(q, b, i, h * width + c) * get(k, b, j, h * width + c)) + (mask ? get(mask, b, 0, 0, j) : 0);
  });
  const largest = nd([batch, heads, queries], (b, h, i) => Math.max(...Array.from({ length: keys }, (_, j) => get(logits, b, h, i, j))));
  const power = nd(logits.shape, (b, h, i, j) => Math.exp(get(logits, b, h, i, j) - get(largest, b, h, i)));
  const norm = nd([batch, heads, queries], (b, h, i) => total([keys], j => get(power, b, h, i, j)));
  return nd(q.shape, (b, i, c) => {
    const h = Math.floor(c / width);
    return total([keys], j => get(power, b, h, i, j) * get(v, b, j, c)) / get(norm, b, h, i);
  });
}
