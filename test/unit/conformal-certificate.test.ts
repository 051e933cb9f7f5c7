/** A certificate says what the selection was, survives its file, is found out where any of its statements was changed, and shows as a page. */

import fs from "node:fs";
import sharp from "sharp";
import { AttuneError, conformal } from "../../lib/index.js";
import { certificatePage } from "../../lib/report/certificate.js";
import { Rng } from "../support/rng.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();
const { exp } = Math;
const sigmoid = (x: number): number => 1 / (1 + exp(-x));

function input(seed = 1, n = 300, m = 150): conformal.CertificateInput {
  const rng = new Rng(seed);
  const one = (): { score: number; alignment: number } => {
    const z = rng.normal();
    return { score: sigmoid(2 * z), alignment: 3 + z + 0.8 * rng.normal() };
  };
  const reference = Array.from({ length: n }, one),
    test_ = Array.from({ length: m }, one);
  return {
    title: "Images above 3",
    cutoff: 3,
    alpha: 0.2,
    calibration: { scores: reference.map(u => u.score), alignment: reference.map(u => u.alignment) },
    test: { scores: test_.map(u => u.score), ids: test_.map((_, j) => `image-${j}`) },
    repetitions: 60,
  };
}

test("states what select finds, with ids and p-values", async () => {
  const given = input();
  const { result, units, inputHash } = await conformal.certify(given);
  const { scores, alignment } = given.calibration as { scores: number[]; alignment: number[] };
  const selection = conformal.select({ calibration: { scores, aligned: alignment.map(a => a > 3) }, test: given.test, alpha: 0.2 });
  expect(selection.k).toBeGreaterThan(10);
  expect(result.selected.map(s => s.id)).toEqual(selection.ids);
  expect(result.selected.map(s => s.pValue)).toEqual(Array.from(selection.selected, j => selection.pValues.values[j]));
  expect([result.k, result.threshold, units]).toEqual([selection.k, selection.threshold, selection.units]);
  expect(inputHash).toMatch(/^sha256:[0-9a-f]{64}$/);
});

test("the rehearsal agrees with the promise and with the threshold's own estimate of power", async () => {
  const { rehearsal, curve } = await conformal.certify({ ...input(2, 2000, 800), repetitions: 200 });
  expect([rehearsal!.calibration, rehearsal!.test, rehearsal!.repetitions]).toEqual([1200, 800, 200]);
  for (const [i, { alpha, fdp, power }] of rehearsal!.rows.entries()) {
    // Its repetitions share one calibration set of 2000: the mean has the spread of that set, about sd / sqrt(2), and not sd / sqrt(200).
    expect(fdp.mean).toBeLessThanOrEqual(alpha + 1.5 * fdp.sd);
    expect(fdp.low <= fdp.mean && fdp.mean <= fdp.high && fdp.sd > 0).toBe(true);
    expect(Math.abs(power.mean - curve[i]!.power)).toBeLessThan(3 * power.sd + 0.05);
    expect(curve[i]!.fdp).toBeLessThanOrEqual(alpha * (1 + 1e-12));
  }
});

test("a rehearsal calibrates on the other part alone: four of eight units reach no p-value below 1/5", async () => {
  const scores = [1, 2, 3, 4, 5, 6, 7, 8];
  const { rehearsal } = await conformal.certify({ alpha: 0.3, calibration: { scores, aligned: [0, 0, 0, 0, 1, 1, 1, 1] }, test: { scores } });
  expect([rehearsal!.calibration, rehearsal!.test]).toEqual([4, 4]);
  for (const { alpha, power } of rehearsal!.rows) expect([alpha, power.high > 0]).toEqual([alpha, alpha >= 0.2]);
});

test("the curve counts what it says at the lowest selected score", async () => {
  const { curve, inputs } = await conformal.certify({ ...input(), repetitions: 0 });
  const { scores, aligned } = inputs.calibration;
  for (const { alpha, k, fdp, power } of curve.filter(row => row.k > 0)) {
    const { selected } = conformal.select({ calibration: { scores: scores.map(Number), aligned }, test: { scores: inputs.test.scores.map(Number) }, alpha });
    const lowest = Math.min(...Array.from(selected, j => Number(inputs.test.scores[j])));
    const above = (label: number): number => scores.filter((s, i) => Number(s) >= lowest && aligned[i] === label).length;
    expect(k).toBe(selected.length);
    expect(fdp).toBeCloseTo((150 * (1 + above(0))) / (301 * k), 12);
    expect(power).toBeCloseTo(above(1) / aligned.filter(label => label === 1).length, 12);
  }
});

test("one input, one certificate, byte for byte; and its file verifies", async () => {
  for (const [name, change] of Object.entries<Partial<conformal.CertificateInput>>({
    plain: {},
    lexicographic: { ties: "lexicographic", seed: 9 },
    random: { ties: "random", seed: 9 },
    nullOnly: { kind: "null-only" },
    nothing: { alpha: 0.001 },
    weighted: { weights: { calibration: Array.from({ length: 300 }, (_, i) => 1 + (i % 3)), test: Array.from({ length: 150 }, (_, j) => 1 + (j % 2)) } },
  })) {
    const certificate = await conformal.certify({ ...input(), ...change });
    expect(JSON.stringify(await conformal.certify({ ...input(), ...change }))).toBe(JSON.stringify(certificate));
    await conformal.writeCertificate(at(name), certificate);
    expect(await conformal.verifyCertificate(at(name))).toEqual({ valid: true, mismatches: [] });
    expect(await conformal.verifyCertificate(at(name), { inputHash: certificate.inputHash })).toMatchObject({ valid: true });
    expect((await conformal.verifyCertificate(at(name), { inputHash: "sha256:other" })).mismatches[0]).toMatchObject({ field: "inputHash" });
  }
});

test("infinite scores, negative zero and missing labels survive the file", async () => {
  const aligned = Array.from({ length: 40 }, (_, i) => (i % 5 === 0 ? null : i % 2));
  const scores = Array.from({ length: 40 }, (_, i) => (i === 1 ? Infinity : i === 2 ? -Infinity : i === 3 ? -0 : i / 40));
  const certificate = await conformal.certify({ alpha: 0.5, calibration: { scores, aligned }, test: { scores: [Infinity, 0.5, -0, -Infinity] } });
  expect(certificate.units).toMatchObject({ calibration: 32, unlabelled: 8 });
  await conformal.writeCertificate(at("special"), certificate);
  expect(await conformal.verifyCertificate(at("special"))).toEqual({ valid: true, mismatches: [] });
});

test("every statement that is changed is named", async () => {
  const certificate = await conformal.certify({ ...input(), repetitions: 10 });
  // Every leaf but the inputs, one at a time; long lists by their first two entries.
  const paths: (string | number)[][] = [];
  const walk = (value: unknown, path: (string | number)[]): void => {
    if (typeof value !== "object" || value === null) paths.push(path);
    else if (Array.isArray(value)) for (const [i, one] of value.slice(0, 2).entries()) walk(one, [...path, i]);
    else for (const [key, one] of Object.entries(value)) if (key !== "inputs") walk(one, [...path, key]);
  };
  walk(JSON.parse(JSON.stringify(certificate)), []);
  expect(paths.length).toBeGreaterThan(60);
  for (const path of paths.filter(([first]) => first !== "format" && first !== "version")) {
    const copy = JSON.parse(JSON.stringify(certificate));
    const parent = path.slice(0, -1).reduce((value, key) => value[key], copy),
      last = path.at(-1)!;
    parent[last] = typeof parent[last] === "number" ? parent[last] + 0.25 : `${parent[last]}x`;
    const { valid, mismatches } = await conformal.verifyCertificate(copy);
    const field = path.reduce<string>((text, key) => (typeof key === "number" ? `${text}[${key}]` : text === "" ? key : `${text}.${key}`), "");
    expect({ valid, fields: mismatches.map(one => one.field) }).toEqual({ valid: false, fields: [field] });
  }
});

test("a statement that was left out, or added, is named", async () => {
  const certificate = await conformal.certify({ ...input(), repetitions: 10 });
  const { guarantee, ...rest } = JSON.parse(JSON.stringify(certificate));
  expect((await conformal.verifyCertificate(rest)).mismatches).toEqual([{ field: "guarantee", expected: guarantee, found: undefined }]);
  const more = { ...certificate, guarantee: { ...guarantee, refund: true } };
  expect((await conformal.verifyCertificate(more)).mismatches).toEqual([{ field: "guarantee.refund", expected: undefined, found: true }]);
});

test("alignment at the cutoff is not above it", async () => {
  const alignment = [3, 3.01, 2.99, 3, null];
  const { inputs } = await conformal.certify({ alpha: 0.5, cutoff: 3, calibration: { scores: [1, 2, 3, 4, 5], alignment }, test: { scores: [1] } });
  expect(inputs.calibration.aligned).toEqual([0, 1, 0, 0, null]);
});

test("an input that is changed shows in the hash, a label that contradicts its measurement by its place", async () => {
  const certificate = await conformal.certify({ ...input(), repetitions: 10 });
  const score = JSON.parse(JSON.stringify(certificate));
  score.inputs.test.scores[3] += 1e-9;
  expect((await conformal.verifyCertificate(score)).mismatches.map(m => m.field)).toContain("inputHash");
  const label = JSON.parse(JSON.stringify(certificate));
  label.inputs.calibration.aligned[5] = 1 - label.inputs.calibration.aligned[5];
  expect((await conformal.verifyCertificate(label)).mismatches).toEqual([
    expect.objectContaining({ field: "inputs.calibration.aligned[5]", expected: certificate.inputs.calibration.aligned[5] }),
  ]);
});

test("files that are no certificates are typed errors", async () => {
  const certificate = await conformal.certify({ ...input(), repetitions: 2 });
  const damage: readonly (readonly [path: string, value: unknown])[] = [
    ["format", "something else"],
    ["version", 2],
    ["inputs", undefined],
    ["inputs.calibration", null],
    ["inputs.test.scores", "many"],
    ["inputs.test.scores.0", null],
    ["inputs.calibration.scores", [0.5]],
    ["inputs.calibration.alignment.2", "high"],
    ["inputs.alpha", 2],
    ["inputs.repetitions", 1e12],
    ["inputs.weights", { calibration: 1, test: [] }],
  ];
  for (const [path, value] of damage) {
    const copy = JSON.parse(JSON.stringify(certificate)),
      keys = path.split(".");
    keys.slice(0, -1).reduce((parent, key) => parent[key], copy)[keys.at(-1)!] = value;
    fs.writeFileSync(at("bad"), JSON.stringify(copy));
    await expect(conformal.verifyCertificate(at("bad"))).rejects.toBeInstanceOf(AttuneError);
  }
  fs.writeFileSync(at("bad"), `{"format": "x", "format": "y"}`);
  await expect(conformal.verifyCertificate(at("bad"))).rejects.toThrow(/distinct keys/);
  await expect(conformal.verifyCertificate(at("absent"))).rejects.toThrow(/ENOENT/);
});

test("a rehearsal can be stopped", async () => {
  const stop = new AbortController();
  const running = conformal.certify({ ...input(), repetitions: 100_000 }, { signal: stop.signal });
  setTimeout(() => stop.abort(new Error("enough")), 20);
  await expect(running).rejects.toThrow("enough");
});

test("the page is self-contained, says what the certificate says, and its charts render", async () => {
  const certificate = await conformal.certify({ ...input(), title: "<b>Images</b> & more" });
  const html = certificatePage(certificate);
  expect(html).toContain("&#60;b&#62;Images");
  expect(html).not.toMatch(/<script|<link|https?:\/\/(?!www\.w3\.org\/2000\/svg)/);
  expect(html).toContain(certificate.inputHash);
  for (const { id } of certificate.result.selected.slice(0, 200)) expect(html).toContain(`>${id}<`);
  for (const assumption of certificate.guarantee.assumptions) expect(html).toContain(assumption);
  const charts = [...html.matchAll(/<svg[\s\S]*?<\/svg>/g)].map(([svg]) => svg.replace(/var\(--series-\d, (#[0-9a-f]+)\)/g, "$1"));
  expect(charts).toHaveLength(4);
  for (const svg of charts) {
    const { data, info } = await sharp(Buffer.from(svg)).flatten({ background: "#fff" }).raw().toBuffer({ resolveWithObject: true });
    let coloured = 0;
    for (let i = 0; i < data.length; i += info.channels) if (Math.abs(data[i]! - data[i + 2]!) > 60) coloured++;
    expect(coloured).toBeGreaterThan(300); // curves and bars are there, in colour
  }
});

test("pages of weighted and of empty selections", async () => {
  const weights = { calibration: new Array<number>(300).fill(1), test: new Array<number>(150).fill(1), estimated: true };
  const weighted = certificatePage(await conformal.certify({ ...input(), weights }));
  expect(weighted).toContain("not a finite-sample guarantee");
  expect(weighted).toContain("as far as the estimated weights are right");
  expect(certificatePage(await conformal.certify({ ...input(), alpha: 0.001 }))).toContain("nothing was selected");
});
