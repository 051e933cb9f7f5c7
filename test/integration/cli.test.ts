/** The command line as a shell calls it: results on one stream, remarks on the other, exit codes. */

import fs from "node:fs";
import path from "node:path";
import { attune } from "../../lib/cli/main.js";
import { decodePng } from "../../lib/data/image.js";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { goldenSet } from "../support/goldens.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();
const model = path.join(goldenSet("pipelines"), "sd");

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = "",
    err = "";
  const code = await attune(args, { write: text => (out += text), warn: text => (err += text), signal: new AbortController().signal });
  return { code, out, err };
}
const lines = (text: string): Record<string, unknown>[] =>
  text
    .trim()
    .split("\n")
    .map(line => JSON.parse(line) as Record<string, unknown>);

test("help lists the commands, and each command its options", async () => {
  const help = await run("--help");
  expect(help.code).toBe(0);
  for (const name of ["doctor", "inspect", "plan", "train", "sample", "certify", "convert"]) {
    expect(help.out).toContain(`  ${name} `);
    const own = await run(name, "--help");
    expect(own.code).toBe(0);
    expect(own.out).toContain(`attune ${name}`);
  }
  expect((await run()).code).toBe(2);
});

test.each([
  [["sample", "--model", model], /^attune sample: expected prompt to be given/],
  [["sample", "--bogus", "1"], /Unknown option '--bogus'/],
  [["sample", "--model", model, "--prompt", "a", "--steps", "none"], /expected steps to be number, received "none"/],
  [["plan", "a", "b"], /expected the arguments to be one model and flags, received "b"/],
  [["nothing"], /there is no command "nothing"/],
  [["score"], /scoring is there in the library .* not on the command line yet/],
])("%j is told what is wrong with it, and exits with 2", async (args, message) => {
  const { code, out, err } = await run(...args);
  expect(code).toBe(2);
  expect(out).toBe("");
  expect(err).toMatch(message);
});

test("a failure that is not the caller's wording exits with 1, and is JSON where JSON was asked for", async () => {
  const { code, err } = await run("inspect", at("nowhere"));
  expect(code).toBe(1);
  expect(err).toMatch(/^attune inspect: .*nowhere: expected a file or folder/);
  const json = await run("inspect", at("nowhere"), "--json");
  expect(lines(json.out)).toEqual([{ error: { code: "ERR_DATA", message: expect.stringContaining("nowhere") } }]);
  expect(json.err).toBe("");
});

test("doctor names the devices", async () => {
  const { code, out } = await run("doctor", "--json");
  expect(code).toBe(0);
  expect(lines(out)[0]).toMatchObject({ node: process.version, devices: { cpu: expect.stringContaining("threads") } });
});

test("sample writes pictures; options come from a file where the command line is silent", async () => {
  fs.writeFileSync(at("config.json"), JSON.stringify({ model, prompt: ["a cat"], steps: 2, height: 64, width: 64, seed: 3 }));
  const { code, out } = await run("sample", "--config", at("config.json"), "--json", "--images-per-prompt", "2", "--output", at("out"));
  expect(code).toBe(0);
  const results = lines(out);
  expect(results.map(r => r.seed)).toEqual([3, 4]);
  for (const { path: file } of results) expect(decodePng(fs.readFileSync(String(file)))).toMatchObject({ width: 64, height: 64, channels: 3 });
});

test("plan counts memory from configs alone", async () => {
  const { code, out } = await run("plan", model, "--pairs", "2", "--lora.rank", "2", "--json");
  expect(code).toBe(0);
  const [plan] = lines(out) as [{ bytes: number; arenas: { name: string; bytes: number }[] }];
  expect(plan.arenas.map(a => a.name).sort()).toEqual(["gradients", "lora", "lora/exp_avg", "lora/exp_avg_sq", "parameters", "scratch"]);
  expect(plan.bytes).toBe(plan.arenas.reduce((sum, a) => sum + a.bytes, 0));
});

test("inspect reads a pipeline, a model and a file", async () => {
  const { out } = await run("inspect", model, "--json");
  const unet = lines(out).find(r => String(r.path).endsWith("unet"));
  const file = lines((await run("inspect", path.join(model, "unet/diffusion_pytorch_model.safetensors"), "--json")).out)[0];
  expect(file).toMatchObject({ tensors: unet!.tensors, parameters: unet!.parameters, bytes: unet!.bytes });
});

test("train aligns an adapter to pairs of latents and saves it", async () => {
  const values = (...shape: number[]) =>
    hostTensor(
      "f32",
      shape,
      Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => Math.sin(i)),
    );
  await writeSafetensors(at("pairs"), { winners: values(2, 4, 8, 8), losers: values(2, 4, 8, 8), encoderHiddenStates: values(2, 77, 16) });
  const given = ["--model", model, "--data", at("pairs"), "--output", at("run"), "--steps", "2", "--learning-rate", "1e-4", "--lora.rank", "2"];
  const { code, out, err } = await run("train", ...given, "--objective.type", "diffusion-dpo", "--objective.beta", "2000", "--json");
  expect(err).toBe("");
  expect(code).toBe(0);
  const events = lines(out);
  expect(events.filter(e => e.type === "step").map(e => e.step)).toEqual([1, 2]);
  expect(events[1]).toMatchObject({ type: "step", loss: expect.closeTo(Math.LN2, 6) });
  const adapter = readSafetensors(path.join(at("run"), "lora/pytorch_lora_weights.safetensors"));
  expect(adapter.tensors.size).toBeGreaterThan(10);
  adapter.close();
});

test("convert makes one file of a folder, and of the file the folder's weights again", async () => {
  const [file, folder] = [at("all.safetensors"), at("again")];
  expect((await run("convert", "--from", model, "--to", file, "--format", "single-file")).code).toBe(0);
  const refused = await run("convert", "--from", file, "--to", folder, "--format", "diffusers");
  expect(refused.code).toBe(1);
  expect(refused.err).toMatch(/expected configs.unet to be given/); // a size that nobody has published
  expect((await run("convert", "--from", file, "--to", folder, "--format", "diffusers", "--configs", model)).code).toBe(0);
  const weights = (root: string) => {
    const opened = readSafetensors(path.join(root, "unet/diffusion_pytorch_model.safetensors"));
    const all = [...opened.tensors.keys()].sort().map(name => [name, [...opened.tensor(name).data]]);
    opened.close();
    return all;
  };
  expect(weights(folder)).toEqual(weights(model));
});

test("certify: a table in, certificate and page out, and the check of a certificate that was changed", async () => {
  const rows = Array.from({ length: 300 }, (_, i) => ({
    score: (i * 7919) % 300,
    topic: i % 2 ? "heart" : "left lung",
    ok: i % 4 === 0 ? "" : String((i * 7919) % 300 > 100),
  }));
  fs.writeFileSync(at("answers.csv"), ["score,topic,ok", ...rows.map(r => `${r.score},${r.topic},${r.ok}`)].join("\r\n"));
  const { code, out } = await run(
    "certify",
    at("answers.csv"),
    "--label",
    "ok",
    "--score",
    "score",
    "--alpha",
    "0.2",
    "--output",
    at("c.json"),
    "--html",
    at("c.html"),
    "--json",
  );
  expect(code).toBe(0);
  const [result] = lines(out) as [{ k: number; selected: { id: string }[]; units: object }];
  expect(result.units).toMatchObject({ calibration: 225, test: 75 });
  expect(result.k).toBeGreaterThan(40);
  for (const { id } of result.selected) expect(rows[Number(id.slice(5)) - 2]!.ok).toBe(""); // line 2 is the first row
  expect(fs.readFileSync(at("c.html"), "utf8")).toContain(`${result.k} of 75 units were selected`);
  expect(lines((await run("certify", "--verify", at("c.json"), "--json")).out)).toEqual([{ path: at("c.json"), valid: true, mismatches: [] }]);

  const certificate = JSON.parse(fs.readFileSync(at("c.json"), "utf8"));
  certificate.result.k++;
  fs.writeFileSync(at("c.json"), JSON.stringify(certificate));
  const changed = await run("certify", "--verify", at("c.json"));
  expect([changed.code, changed.out]).toEqual([1, expect.stringContaining(`result.k: expected ${result.k}, found ${result.k + 1}`)]);

  const groups = lines(
    (await run("certify", at("answers.csv"), "--label", "ok", "--score", "score", "--group", "topic", "--output", at("g.json"), "--json")).out,
  );
  expect(groups.map(g => g.group)).toEqual(["left lung", "heart"].filter(name => rows.some(r => r.topic === name && r.ok === "")));
  for (const { output } of groups) expect((await run("certify", "--verify", String(output))).code).toBe(0);

  expect(await run("certify", "--label", "ok")).toMatchObject({ code: 2, err: expect.stringContaining("expected table to be given") });
  expect(await run("certify", at("answers.csv"), "--label", "ok", "--score", "topic")).toMatchObject({
    code: 1,
    err: expect.stringContaining("row 2, column topic"),
  });
  const learnt = await run("certify", at("answers.csv"), "--label", "ok", "--features", "score", "--predictor", "boosting", "--alpha", "0.3");
  expect([learnt.code, learnt.out]).toEqual([0, expect.stringMatching(/^\d+ of 75 rows can be trusted/)]);
});
