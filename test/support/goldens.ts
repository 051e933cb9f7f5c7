/** Where reference data lies. A set is a folder of ATTUNE_GOLDENS (by default test/goldens); tests find their sets by prefix, so that anyone can hold
 *  the library against cases of their own. test/unit/goldens.test.ts reports sets that no test asks for. */

import fs from "node:fs";
import path from "node:path";

/** The folder of package.json; compiled tests lie some levels below it. */
export const projectRoot = findRoot(__dirname);
export const goldensRoot = path.resolve(process.env.ATTUNE_GOLDENS ?? path.join(projectRoot, "test/goldens"));

/** Names of all sets. */
export function allSets(): string[] {
  if (!fs.existsSync(goldensRoot)) return [];
  const folders = fs.readdirSync(goldensRoot, { withFileTypes: true }).filter(entry => entry.isDirectory());
  return folders.map(entry => entry.name).sort();
}

/** Names of the sets that begin with `prefix`. */
export function goldenSets(prefix: string): string[] {
  return allSets().filter(name => name.startsWith(prefix));
}

/** The folder of the set called `name`. */
export function goldenSet(name: string): string {
  const folder = path.join(goldensRoot, name);
  if (!fs.existsSync(folder)) throw new Error(`no golden set "${name}" in ${goldensRoot}; there are ${allSets().join(", ") || "none"}`);
  return folder;
}

/** describe() for each set that begins with `prefix`; where there is none, one skipped test that says so. */
export function describeSets(prefix: string, body: (folder: string, name: string) => void): void {
  const names = goldenSets(prefix);
  if (names.length === 0) test.skip(`no golden set ${prefix}* in ${goldensRoot}`, () => undefined);
  for (const name of names) describe(name, () => body(path.join(goldensRoot, name), name));
}

function findRoot(from: string): string {
  for (let folder = from; ; folder = path.dirname(folder)) {
    if (fs.existsSync(path.join(folder, "package.json"))) return folder;
    if (folder === path.dirname(folder)) throw new Error(`no package.json above ${from}`);
  }
}
