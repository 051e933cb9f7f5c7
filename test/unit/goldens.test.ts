/** A golden set that no test reads is an error: it would look like proof and prove nothing. */

import fs from "node:fs";
import path from "node:path";
import { allSets, projectRoot } from "../support/goldens.js";

function testSources(folder: string): string[] {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) return full === path.join(projectRoot, "test/goldens") ? [] : testSources(full);
    return entry.name.endsWith(".test.ts") ? [full] : [];
  });
}

/** Every set a test names, as goldenSet("name"), goldenSets("prefix") or describeSets("prefix"). */
function requests(): { readonly exact: string[]; readonly prefixes: string[] } {
  const text = testSources(path.join(projectRoot, "test"))
    .map(file => fs.readFileSync(file, "utf8"))
    .join("\n");
  const named = (call: RegExp): string[] => [...text.matchAll(call)].map(match => match[1]!);
  return { exact: named(/\bgoldenSet\("([^"]+)"/g), prefixes: named(/\b(?:goldenSets|describeSets)\("([^"]+)"/g) };
}

test("every golden set is read by a test", () => {
  const { exact, prefixes } = requests();
  expect(prefixes).toContain("ops");
  const unread = allSets().filter(name => !exact.includes(name) && !prefixes.some(prefix => name.startsWith(prefix)));
  expect(unread).toEqual([]);
});
