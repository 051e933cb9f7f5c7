/** Model folders by name, from the cache that Hugging Face's tools keep: <cache>/models--org--name/refs/<revision> holds a commit, and
 *  snapshots/<commit> that commit's files, mostly links to blobs. Read only, and only from disk: nothing is ever downloaded. */

import { type Dirent, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { ConfigError, DataError } from "../errors.js";

export interface ResolveOptions {
  /** A branch, tag, "refs/pr/<n>" or full commit; "main" by default. */
  readonly revision?: string;
  /** The folder that holds models--org--name. By default HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub: the
   *  first that is set. */
  readonly cacheDir?: string;
  /** Where those variables are looked up; process.env by default. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** The folder of a model: `name` itself if there is such a path, otherwise the snapshot of the repository of that name ("org/name", or "name" of old).
 *  Throws ConfigError that lists where it looked, and which snapshots and references there are; DataError for a damaged cache. */
export function resolveModel(name: string, { revision = "main", cacheDir, env = process.env }: ResolveOptions = {}): string {
  if (typeof name !== "string" || name === "") throw new ConfigError("resolveModel", "name", "a path, or a repository such as org/name", name);
  if (existsSync(name)) return name;
  if (!isRepository(name))
    throw new ConfigError("resolveModel", "name", "a path that exists, or a repository such as org/name", name, `looked at ${resolve(name)}`);
  if (!isRevision(revision)) throw new ConfigError("resolveModel", "revision", "a branch, tag or commit", revision);
  const cache = cacheDir ?? hubCache(env);
  const repository = join(cache, `models--${name.replaceAll("/", "--")}`);
  if (!isFolder(repository)) {
    const others = names(cache).filter(folder => folder.startsWith("models--"));
    const there = others.map(folder => folder.slice(8).replaceAll("--", "/"));
    const hint = `looked at ${resolve(name)} and ${repository}; ${isFolder(cache) ? `the cache has ${list(there, "no models")}` : "there is no such cache"}`;
    throw new ConfigError("resolveModel", "name", "a path or a model of the cache", name, hint);
  }
  const commit = commitOf(repository, revision);
  const folder = join(repository, "snapshots", commit ?? revision);
  const named = commit !== undefined || !revision.includes("/"); // a snapshot is one folder, not a path
  if (named && isFolder(folder)) return whole(folder);
  throw new ConfigError("resolveModel", "revision", `one that ${repository} has`, revision, missing(repository, revision, commit));
}

/** Where Hugging Face's tools keep repositories, in their order of precedence. */
export function hubCache(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const home = env.HOME || homedir();
  const expanded = (path: string): string => (path === "~" || path.startsWith("~/") ? join(home, path.slice(1)) : path);
  const direct = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE;
  if (direct) return expanded(direct);
  if (env.HF_HOME) return join(expanded(env.HF_HOME), "hub");
  return join(expanded(env.XDG_CACHE_HOME || "~/.cache"), "huggingface", "hub");
}

/** The commit that a reference names; undefined if there is no such reference. */
function commitOf(repository: string, revision: string): string | undefined {
  const file = join(repository, "refs", revision);
  if (!existsSync(file) || isFolder(file)) return undefined;
  const commit = readFileSync(file, "utf8").trim();
  if (!/^[\w.-]{1,128}$/.test(commit) || /^\.+$/.test(commit)) throw new DataError(file, `expected a commit, received ${JSON.stringify(commit.slice(0, 80))}`);
  return commit;
}

function missing(repository: string, revision: string, commit: string | undefined): string {
  const snapshots = list(names(join(repository, "snapshots")), "none");
  const looked =
    commit === undefined ? `no ${join("refs", revision)} and no ${join("snapshots", revision)}` : `refs/${revision} names ${commit}, which is not there`;
  return `${looked}; snapshots: ${snapshots}; references: ${list(references(join(repository, "refs")), "none")}`;
}

/** References below refs, as a revision names them. */
function references(folder: string): string[] {
  return entries(folder).flatMap(entry => (entry.isDirectory() ? references(join(folder, entry.name)).map(inner => `${entry.name}/${inner}`) : [entry.name]));
}

/** A snapshot whose links all lead somewhere. A link without its blob is a download that was cut off, or a blob that was deleted. */
function whole(folder: string): string {
  const broken = dangling(folder, "");
  if (broken.length > 0) throw new DataError(folder, `expected every file's blob, received links to nothing: ${list(broken, "")}`);
  return folder;
}

function dangling(root: string, below: string): string[] {
  return entries(join(root, below)).flatMap(entry => {
    const path = join(below, entry.name);
    if (entry.isDirectory()) return dangling(root, path);
    return entry.isSymbolicLink() && !existsSync(join(root, path)) ? [path] : [];
  });
}

/** Names of the Hub: one or two parts of letters, digits, - _ . and never "--" or "..", which would lead elsewhere. */
function isRepository(name: string): boolean {
  return /^[A-Za-z0-9][\w.-]{0,95}(\/[A-Za-z0-9_][\w.-]{0,95})?$/.test(name) && !/--|\.\./.test(name);
}

function isRevision(revision: unknown): revision is string {
  return (
    typeof revision === "string" && /^[\w][\w./+@-]{0,199}$/.test(revision) && !isAbsolute(revision) && !revision.split("/").some(part => /^\.*$/.test(part))
  );
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function names(folder: string): string[] {
  return entries(folder).map(entry => entry.name);
}

function entries(folder: string): Dirent[] {
  return isFolder(folder) ? readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1)) : [];
}

function list(items: readonly string[], none: string): string {
  const shown = items.slice(0, 12).join(", ");
  return items.length === 0 ? none : items.length > 12 ? `${shown} and ${items.length - 12} more` : shown;
}
