/** Models by name from Hugging Face's cache: made-up trees as huggingface_hub writes them, whole, partial and damaged. */

import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { hubCache, resolveModel } from "../../lib/data/hub-cache.js";
import { ConfigError, DataError } from "../../lib/errors.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();
const name = "stable-diffusion-v1-5/stable-diffusion-v1-5";
const repository = (): string => at("hub", "models--stable-diffusion-v1-5--stable-diffusion-v1-5");
const commits = ["451f4fe16113bff5a5d2269ed5ad43b0592e9a14", "f03de327dd89b501a01da37fc5240cf4fdba85a1"] as const;

function put(path: string, content: string): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

/** A snapshot of two files that are links to blobs, as on every system with links. */
function snapshot(commit: string): string {
  const folder = join(repository(), "snapshots", commit);
  for (const [file, blob] of [
    ["model_index.json", "aa11"],
    ["unet/config.json", "bb22"],
  ] as const) {
    put(join(repository(), "blobs", blob), "{}");
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    symlinkSync(join(...Array<string>(file.split("/").length + 1).fill(".."), "blobs", blob), join(folder, file));
  }
  return folder;
}

const refer = (revision: string, commit: string): string => put(join(repository(), "refs", revision), commit);
const find = (revision?: string) => resolveModel(name, { cacheDir: at("hub"), ...(revision && { revision }) });

test("a branch, a pull request, a tag and a commit", () => {
  const [first, second] = commits.map(snapshot);
  refer("main", `${commits[0]}\n`); // some tools end the line
  refer("refs/pr/3", commits[1]);
  refer("v1.0", commits[1]);
  expect(find()).toBe(first);
  expect(find("main")).toBe(first);
  expect(find("refs/pr/3")).toBe(second);
  expect(find("v1.0")).toBe(second);
  expect(find(commits[1])).toBe(second);
});

test("a path that exists is returned as it is, a cache or not", () => {
  mkdirSync(at("models", "sd15"), { recursive: true });
  expect(resolveModel(at("models", "sd15"), { cacheDir: at("absent") })).toBe(at("models", "sd15"));
  expect(resolveModel(put(at("one.safetensors"), ""), {})).toBe(at("one.safetensors"));
});

test("files that are no links, as on systems without them", () => {
  const folder = dirname(put(join(repository(), "snapshots", commits[0], "model_index.json"), "{}"));
  refer("main", commits[0]);
  expect(find()).toBe(folder);
});

test("where the cache is", () => {
  const home = { HOME: "/home/ada" };
  expect(hubCache(home)).toBe("/home/ada/.cache/huggingface/hub");
  expect(hubCache({ ...home, XDG_CACHE_HOME: "/x" })).toBe("/x/huggingface/hub");
  expect(hubCache({ ...home, XDG_CACHE_HOME: "/x", HF_HOME: "~/hf" })).toBe("/home/ada/hf/hub");
  expect(hubCache({ ...home, HF_HOME: "/hf", HUGGINGFACE_HUB_CACHE: "/old" })).toBe("/old");
  expect(hubCache({ ...home, HF_HOME: "/hf", HUGGINGFACE_HUB_CACHE: "/old", HF_HUB_CACHE: "~" })).toBe("/home/ada");
  const folder = snapshot(commits[0]);
  refer("main", commits[0]);
  expect(resolveModel(name, { env: { HF_HOME: at() } })).toBe(folder);
});

describe("errors say what was looked at and what is there", () => {
  const message = (call: () => unknown): string => {
    try {
      call();
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError);
      return (error as Error).message;
    }
    throw new Error("nothing was thrown");
  };

  test("no such cache", () => {
    const text = message(() => find());
    expect(text).toContain(repository());
    expect(text).toContain("there is no such cache");
  });
  test("another model only", () => {
    mkdirSync(at("hub", "models--openai--clip-vit-large-patch14"), { recursive: true });
    mkdirSync(at("hub", "datasets--a--b"));
    expect(message(() => find())).toContain("the cache has openai/clip-vit-large-patch14");
    expect(message(() => find())).not.toContain("datasets");
  });
  test("a missing reference, with several snapshots", () => {
    commits.map(snapshot);
    refer("refs/pr/3", commits[1]);
    const text = message(() => find());
    for (const part of [...commits, "refs/pr/3", "no refs/main and no snapshots/main"]) expect(text).toContain(part);
  });
  test("a missing reference is not guessed from the one snapshot there is", () => {
    snapshot(commits[0]);
    expect(message(() => find())).toContain(`snapshots: ${commits[0]}`);
  });
  test("a reference to a snapshot that is gone", () => {
    snapshot(commits[0]);
    refer("main", commits[1]);
    const text = message(() => find());
    expect(text).toContain(`refs/main names ${commits[1]}, which is not there; snapshots: ${commits[0]}; references: main`);
  });
  test("a path that does not exist is not taken for a model", () => expect(message(() => resolveModel("./models/sd15"))).toContain("a path that exists"));
  test.each(["", "a/b/c", "../a", "a/..", "a--b", "a b", "a/../../etc", "/absent/path"])("name %j", bad => {
    expect(message(() => resolveModel(bad, { cacheDir: at("hub") }))).toContain("resolveModel: expected name");
  });
  test.each(["../../../etc", "a/../b", "/etc", "", ".", "a//b", "a\0"])("revision %j", bad => {
    snapshot(commits[0]);
    refer("main", commits[0]);
    expect(message(() => resolveModel(name, { cacheDir: at("hub"), revision: bad }))).toContain("expected revision");
  });
});

describe("a damaged cache", () => {
  test("links whose blobs are gone are named", () => {
    const folder = snapshot(commits[0]);
    refer("main", commits[0]);
    rmSync(join(repository(), "blobs", "bb22"));
    expect(() => find()).toThrow(DataError);
    expect(() => find()).toThrow(`${folder}: expected every file's blob, received links to nothing: unet/config.json`);
  });
  test.each(["", "../../elsewhere", "a/b", ".."])("a reference that holds %j", content => {
    snapshot(commits[0]);
    refer("main", content);
    expect(() => find()).toThrow(/refs\/main: expected a commit/);
  });
});
