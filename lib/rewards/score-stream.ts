/** Scoring of more pictures than memory holds: lazily, in batches, by several processes, resumable. Each score is one line of a log that is only appended to;
 *  a run that finds a log goes on behind it, and pictures that it names are neither decoded nor scored again. */

import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readSync } from "node:fs";
import type { Image } from "../data/image.js";
import { ConfigError, DataError } from "../errors.js";
import { JsonLines, readJsonLines } from "../report/jsonl.js";
import { checkReward, type Reward, type RewardOptions, type RewardScale, scoreItems } from "./reward.js";

export interface StreamItem {
  /** Distinct; it names the item in the log. */
  readonly id: string;
  readonly prompt: string;
  /** The picture, or how to get it: called only where its score is not known yet. */
  readonly image: Image | (() => Image | Promise<Image>);
}

export interface StreamScore {
  readonly id: string;
  readonly score: number;
  readonly model: string;
  readonly version: string;
  /** Read from the log rather than computed. */
  readonly logged: boolean;
}

export interface ScoreStreamOptions extends RewardOptions {
  /** JSONL file. Without it nothing is kept. */
  readonly log?: string;
  /** Which part of the items is scored here: those whose id hashes to `index` of `of`, whatever the order they come in. */
  readonly shard?: { readonly index: number; readonly of: number };
  /** Items held and scored at once; 32 by default. */
  readonly batchSize?: number;
}

/** Scores of the shard's items, in their order. The source is read one batch ahead of what is consumed, no more.
 *  Throws ConfigError for a bad option; DataError for an id that comes twice, and for a log of another reward, version or scale: their numbers do not compare. */
export async function* scoreStream(
  reward: Reward,
  items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
  { log, shard = { index: 0, of: 1 }, batchSize = 32, signal }: ScoreStreamOptions = {},
): AsyncGenerator<StreamScore, void, undefined> {
  checkOptions(reward, shard, batchSize);
  const known = log !== undefined && existsSync(log) ? readLog(log, reward) : new Map<string, number>();
  const lines = log === undefined ? undefined : new JsonLines(log);
  try {
    if (lines && known.size === 0) lines.append(headerOf(reward));
    const seen = new Set<string>();
    let batch: StreamItem[] = [];
    for await (const item of items) {
      signal?.throwIfAborted();
      if (!isOf(shard, item.id)) continue;
      if (seen.has(item.id)) throw new DataError(reward.name, "expected distinct ids, received one twice", { field: item.id });
      seen.add(item.id);
      if (batch.push(item) < batchSize) continue;
      yield* await scored(reward, batch, { known, lines, signal });
      batch = [];
    }
    if (batch.length > 0) yield* await scored(reward, batch, { known, lines, signal });
  } finally {
    lines?.close();
  }
}

interface Progress {
  readonly known: ReadonlyMap<string, number>;
  readonly lines: JsonLines | undefined;
  readonly signal: AbortSignal | undefined;
}

/** One batch: what is not in the log is scored, and stands there before it is given out. */
async function scored(reward: Reward, batch: readonly StreamItem[], { known, lines, signal }: Progress): Promise<StreamScore[]> {
  const open = batch.filter(({ id }) => !known.has(id));
  const loaded = await Promise.all(open.map(async ({ prompt, image }) => ({ prompt, image: typeof image === "function" ? await image() : image })));
  const { scores } = await scoreItems(reward, loaded, { signal });
  const fresh = new Map(open.map(({ id }, i) => [id, scores[i]!]));
  for (const [id, score] of fresh) lines?.append({ id, score });
  lines?.sync();
  const whose = { model: reward.name, version: reward.version ?? "" };
  return batch.map(({ id }) => ({ id, score: known.get(id) ?? fresh.get(id)!, ...whose, logged: known.has(id) }));
}

function checkOptions(reward: Reward, { index, of }: { index: number; of: number }, batchSize: number): void {
  checkReward(reward);
  if (!(Number.isSafeInteger(of) && of >= 1)) throw new ConfigError("scoreStream", "shard.of", "a whole number >= 1", of);
  if (!(Number.isSafeInteger(index) && index >= 0 && index < of)) throw new ConfigError("scoreStream", "shard.index", `a whole number in [0, ${of})`, index);
  if (!(Number.isSafeInteger(batchSize) && batchSize >= 1)) throw new ConfigError("scoreStream", "batchSize", "a whole number >= 1", batchSize);
}

/** By the id's hash (FNV-1a), so that no item is lost between shards that list a folder in different orders. */
function isOf({ index, of }: { readonly index: number; readonly of: number }, id: string): boolean {
  if (of === 1) return true;
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(id)) h = Math.imul(h ^ byte, 0x01000193) >>> 0;
  return ((h ^ (h >>> 16)) >>> 0) % of === index; // the low bits of FNV alone are poor
}

function headerOf({ name, version = "", scale }: Reward): { readonly model: string; readonly version: string; readonly scale: RewardScale } {
  return { model: name, version, scale };
}

/** Scores by id. The first line says whose they are. */
function readLog(path: string, reward: Reward): Map<string, number> {
  cutUnfinishedLine(path);
  const [header, ...rows] = readJsonLines(path);
  if (!header) return new Map();
  const own = headerOf(reward);
  for (const field of ["model", "version", "scale"] as const)
    if (JSON.stringify(header[field]) !== JSON.stringify(own[field]))
      throw new DataError(path, `expected scores of ${JSON.stringify(own[field])}, received ${JSON.stringify(header[field])}`, { row: 0, field });
  const known = new Map<string, number>();
  for (const [row, { id, score }] of rows.entries()) {
    if (typeof id !== "string" || typeof score !== "number") throw new DataError(path, "expected { id, score }, received something else", { row: row + 1 });
    known.set(id, score);
  }
  return known;
}

/** A line without its newline is a write that was cut off: what is appended behind it would be lost with it. */
function cutUnfinishedLine(path: string): void {
  const fd = openSync(path, "r+");
  try {
    const { size } = fstatSync(fd);
    const tail = new Uint8Array(1 << 16);
    for (let end = size; end > 0; ) {
      const begin = Math.max(0, end - tail.length);
      const n = readSync(fd, tail, 0, end - begin, begin);
      const newline = tail.subarray(0, n).lastIndexOf(10);
      if (newline >= 0) return void (begin + newline + 1 < size && ftruncateSync(fd, begin + newline + 1));
      end = begin;
    }
    ftruncateSync(fd, 0);
  } finally {
    closeSync(fd);
  }
}
