/** The demo's own parts: who is held out, who is wrong, what counts as coloured, what a person's clicks become. */

import { mkdtempSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Annotation, startAnnotation } from "../../examples/emoji-align/annotation-server.js";
import { annotate, splitConcepts } from "../../examples/emoji-align/annotator.js";
import { parseCli } from "../../examples/emoji-align/cli.js";
import { conceptNames, type Drawings, loadDrawings, side } from "../../examples/emoji-align/drawings.js";
import { ConceptFidelity, colourfulness, isColoured } from "../../examples/emoji-align/measures.js";
import { readPairs, writePairs } from "../../examples/emoji-align/preference-files.js";
import { certifyPictures, type JudgedPictures, measureTrust } from "../../examples/emoji-align/trust.js";
import { promptLength, Vocabulary } from "../../examples/emoji-align/vocabulary.js";
import * as conformal from "../../lib/conformal/index.js";
import type { Image } from "../../lib/data/image.js";
import { ConfigError, DataError } from "../../lib/errors.js";
import { Rng } from "../support/rng.js";

const folder = () => mkdtempSync(join(tmpdir(), "attune-emoji-"));
const flat = (r: number, g: number, b: number): Image => ({
  width: side,
  height: side,
  channels: 3,
  data: Uint8Array.from({ length: side * side * 3 }, (_, i) => [r, g, b][i % 3]!),
});

describe("annotator", () => {
  test("the split leaks nothing, covers everything and follows the seed", () => {
    const { training, heldOut } = splitConcepts({ concepts: 457, seed: 0 });
    expect(heldOut).toHaveLength(137);
    expect([...training, ...heldOut].sort((a, b) => a - b)).toEqual(Array.from({ length: 457 }, (_, i) => i));
    expect(splitConcepts({ concepts: 457, seed: 0 })).toEqual({ training, heldOut });
    expect(splitConcepts({ concepts: 457, seed: 1 }).heldOut).not.toEqual(heldOut);
  });

  test("exactly one label in ten is wrong, and says so", () => {
    const { training } = splitConcepts({ concepts: 457, seed: 5 });
    const labels = annotate({ concepts: training, seed: 5 });
    expect(labels.map(l => l.concept)).toEqual(training);
    expect(labels.filter(l => l.flipped)).toHaveLength(32);
    expect(labels.every(l => (l.chosen === "line") === l.flipped)).toBe(true);
    expect(annotate({ concepts: training, seed: 5 })).toEqual(labels);
  });
});

describe("drawings", () => {
  const cache = folder();
  let drawings: Drawings;
  beforeAll(async () => {
    drawings = await loadDrawings({ cache });
  });

  test("both styles of every concept, in the order of the names, the same from the cache", async () => {
    const pixels = (of: Drawings) => Buffer.concat(of.drawings.map(d => d.image.data)).toString("base64");
    const again = await loadDrawings({ cache });
    expect(again.concepts).toEqual(drawings.concepts);
    expect(pixels(again) === pixels(drawings)).toBe(true);
    expect(conceptNames().toSorted()).toEqual(conceptNames());
    expect(drawings.concepts).toHaveLength(conceptNames().length);
    expect(drawings.concepts.length).toBeGreaterThan(400);
    expect(drawings.drawings.map(d => d.concept)).toEqual(Array.from({ length: 2 * drawings.concepts.length }, (_, i) => Math.floor(i / 2)));
  });

  test("line drawings have no colour, most colour drawings have", () => {
    const of = (style: string) => drawings.drawings.filter(d => d.style === style);
    expect(of("line").every(d => colourfulness(d.image) === 0)).toBe(true);
    expect(of("colour").filter(d => isColoured(d.image)).length / drawings.concepts.length).toBeGreaterThan(0.7);
  });

  test("every drawing shows its own concept, and a blank page shows few", () => {
    const fidelity = new ConceptFidelity(drawings.drawings);
    expect(drawings.drawings.slice(0, 60).every(({ image, concept }) => fidelity.shows(image, concept))).toBe(true);
    const blank = drawings.concepts.filter((_, c) => fidelity.shows(flat(255, 255, 255), c));
    expect(blank.length).toBeLessThanOrEqual(10); // ten drawings are the nearest
  });

  test("every concept fits the prompt, every word has an id above 0", () => {
    const vocabulary = Vocabulary.of(drawings.concepts);
    const ids = vocabulary.encode(drawings.concepts);
    expect(ids).toHaveLength(drawings.concepts.length * promptLength);
    for (const [c, concept] of drawings.concepts.entries()) {
      const words = [...ids.subarray(c * promptLength, (c + 1) * promptLength)].filter(id => id > 0).map(id => vocabulary.words[id - 1]);
      expect(words.join(" ")).toBe(concept);
    }
    expect(Math.max(...ids)).toBe(vocabulary.size - 1);
  });
});

describe("vocabulary", () => {
  const vocabulary = Vocabulary.of(["red apple", "green apple"]);
  test("the empty prompt is all zeros, case and hyphens do not matter", () => {
    expect([...vocabulary.encode([""])]).toEqual(Array(promptLength).fill(0));
    expect(vocabulary.encode(["Red-Apple"])).toEqual(vocabulary.encode(["red apple"]));
  });
  test("unknown words and long prompts are refused by name", () => {
    expect(() => vocabulary.encode(["blue apple"])).toThrow(/never seen the word "blue"/);
    expect(() => vocabulary.encode(["apple ".repeat(9)])).toThrow(/at most 8 words, received 9/);
  });
});

test("colourfulness is the mean channel spread in [-1, 1] units", () => {
  expect(colourfulness(flat(9, 9, 9))).toBe(0);
  expect(colourfulness(flat(255, 0, 127))).toBe(2);
  expect(colourfulness(flat(51, 0, 0))).toBeCloseTo(0.4, 12);
});

describe("pair files", () => {
  test("pairs come back as they were written, equal pictures once on disk", () => {
    const pairs = [
      { prompt: "a", chosen: flat(1, 2, 3), rejected: flat(4, 5, 6) },
      { prompt: "b", chosen: flat(4, 5, 6), rejected: flat(7, 8, 9) },
    ];
    expect(readPairs({ file: writePairs({ folder: folder(), pairs }), side })).toEqual(pairs);
  });

  test("what is missing or of another size is named with its row", () => {
    const dir = folder();
    const file = writePairs({ folder: dir, pairs: [{ prompt: "a", chosen: flat(1, 2, 3), rejected: flat(4, 5, 6) }] });
    expect(() => readPairs({ file, side: 32 })).toThrow(/expected 32 x 32 pixels, received 16 x 16/);
    writeFileSync(file, '{"prompt": "a", "chosen": 3}\n');
    expect(() => readPairs({ file, side })).toThrow(DataError);
    expect(() => readPairs({ file, side })).toThrow(/row 0.*chosen to be a string/);
    writeFileSync(file, '{"prompt": "a", "chosen": "nowhere.png", "rejected": "nowhere.png"}');
    expect(() => readPairs({ file, side })).toThrow(/nowhere\.png \(row 0\): expected a readable file, received ENOENT/);
  });
});

describe("trust", () => {
  /** Pictures of `count` prompts whose spread says more or less about whether they are right. */
  function judged(model: string, count: number, noise: number, right: number): JudgedPictures {
    const rng = new Rng(count, model);
    const shows = Array.from({ length: count }, () => Number(rng.uniform() < right));
    const spread = shows.map(y => 5 - 2 * y + noise * rng.normal());
    return { model, shows, features: conformal.featureTable({ spread: spread, colourfulness: shows.map(() => rng.uniform()) }) };
  }

  test("what is certified is wrong at most as often as asked, and a score that knows little certifies little", () => {
    const [sharp, dull] = [judged("sharp", 400, 1, 0.7), judged("dull", 400, 20, 0.7)].map(j => measureTrust(j, { seed: 1 }));
    for (const { levels, calibration, test: size } of [sharp!, dull!]) {
      expect([calibration, size]).toEqual([200, 200]);
      for (const { alpha, wrong } of levels) expect(wrong).toBeLessThanOrEqual(alpha + 0.03); // halves of one set of 400: a draw of labels may be unlucky by its sd / sqrt(2)
    }
    expect(sharp!.levels[0]!.certified).toBeGreaterThan(5 * dull!.levels[0]!.certified);
    expect(sharp!.auc.score).toBeCloseTo(1 - sharp!.auc.spread!, 12);
    expect(sharp!.shows).toBeCloseTo(0.7, 1);
  });

  test("calibrated with a better model, a certificate lets through more than it says", () => {
    const { levels } = measureTrust(judged("changed", 400, 1, 0.3), { seed: 1, calibrator: judged("before", 400, 1, 0.95) });
    expect(levels[0]!.wrong).toBeGreaterThan(0.3);
  });

  test("the certificate on file is that of the first halves, and verifies", async () => {
    const pictures = judged("sharp", 120, 0.5, 0.7);
    const certificate = await certifyPictures(pictures, { prompts: pictures.shows.map((_, i) => `prompt ${i}`), alpha: 0.1, seed: 4 });
    expect(certificate.units).toMatchObject({ calibration: 60, test: 60 });
    expect(certificate.result.k).toBeGreaterThan(20);
    const wrong = certificate.result.selected.filter(({ id }) => pictures.shows[Number(id.slice(7))] === 0).length;
    expect(wrong / certificate.result.k).toBeLessThan(0.3);
    expect((await conformal.verifyCertificate(certificate)).valid).toBe(true);
  });
});

describe("arguments", () => {
  test("defaults", () => {
    expect(parseCli([])).toEqual({
      command: "align",
      method: "dspo",
      steps: undefined,
      learningRate: undefined,
      seed: 0,
      output: "runs/demo",
      certify: true,
      pairs: undefined,
      annotate: undefined,
    });
    expect(parseCli(["pretrain"]).command).toBe("pretrain");
    expect(parseCli(["--no-certify"]).certify).toBe(false);
    expect(parseCli(["--annotate"]).annotate).toBe(40);
    expect(parseCli(["--method", "dpo", "--steps", "20", "--seed", "3", "--output", "x", "--annotate", "--count", "12"])).toMatchObject({
      method: "dpo",
      steps: 20,
      seed: 3,
      output: "x",
      annotate: 12,
    });
  });
  test.each([
    ["--method", "ppo"],
    ["--steps", "0"],
    ["--steps", "1e3"],
    ["--seed", "-1"],
    ["--frobnicate"],
    ["dance"],
    ["align", "now"],
    ["--count", "9"],
    ["--learning-rate", "-1"],
    ["--annotate", "--pairs", "a.jsonl"],
  ])("%s %s is refused", (...args) => {
    expect(() => parseCli(args)).toThrow(ConfigError);
  });
});

describe("annotation server", () => {
  const candidates = ["red apple", "<script>"].map(prompt => ({ prompt, left: flat(200, 0, 0), right: flat(0, 0, 0) }));
  let annotation: Annotation;
  let seen: unknown[];
  const post = (path: string, body: unknown) => fetch(annotation.url + path, { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) });
  beforeEach(async () => {
    seen = [];
    annotation = await startAnnotation(candidates, { onChoice: labels => seen.push([...labels]) });
  });
  afterEach(() => annotation.close());

  test("the page and its pairs are served, prompts as data, never as HTML", async () => {
    expect(annotation.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/[0-9a-f]{24}\/$/);
    const page = await fetch(annotation.url);
    const html = await page.text();
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(html).not.toContain("red apple");
    const pairs = (await (await fetch(`${annotation.url}pairs`)).json()) as { prompt: string; left: string }[];
    expect(pairs.map(p => p.prompt)).toEqual(["red apple", "<script>"]);
    expect(pairs[0]!.left).toMatch(/^data:image\/png;base64,/);
  });

  test("clicks and corrections become the result", async () => {
    expect((await post("labels", { index: 0, choice: "left" })).status).toBe(204);
    expect((await post("labels", { index: 0, choice: "tie" })).status).toBe(204);
    expect((await post("finish", {})).status).toBe(204);
    expect(await annotation.result).toEqual(["tie", undefined]);
    expect(seen).toEqual([
      ["left", undefined],
      ["tie", undefined],
    ]);
  });

  test("nonsense is refused and changes nothing", async () => {
    for (const body of [
      "{",
      "null",
      '"left"',
      { index: 2, choice: "left" },
      { index: -1, choice: "left" },
      { index: 0.5, choice: "left" },
      { index: 0, choice: "best" },
      "x".repeat(5000),
    ])
      expect((await post("labels", body)).status).toBe(400);
    expect(seen).toEqual([]);
  });

  test("another path, key, method or Host header finds nothing", async () => {
    const { port } = new URL(annotation.url);
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(404);
    expect((await fetch(`http://127.0.0.1:${port}/${"0".repeat(24)}/pairs`)).status).toBe(404);
    expect((await fetch(`${annotation.url}finish`)).status).toBe(404);
    expect((await fetch(`${annotation.url}../../etc/passwd`)).status).toBe(404);
    const rebound = await new Promise<number | undefined>((resolve, reject) =>
      request({ host: "127.0.0.1", port, path: `${new URL(annotation.url).pathname}pairs`, headers: { host: `evil.example:${port}` } }, reply =>
        resolve(reply.resume().statusCode),
      )
        .on("error", reject)
        .end(),
    );
    expect(rebound).toBe(404);
  });

  test("an abort ends the wait with its reason", async () => {
    const stop = new AbortController();
    const other = await startAnnotation(candidates, { signal: stop.signal });
    stop.abort(new Error("enough"));
    await expect(other.result).rejects.toThrow("enough");
    await other.close();
  });
});
