/** Kernel files are compiled once per instruction set into one addon. A function that only the AVX-512 objects define must be in their namespace:
 *  anything else (an inline function, a std:: template) is one symbol for all, and the generic path would run the copy with AVX-512 in it. */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { projectRoot } from "../support/goldens.js";

const objects = path.join(projectRoot, "build", "CMakeFiles");
const built = (target: string): string => path.join(objects, `${target}.dir`);

/** Names of weak symbols, those that the linker keeps one copy of, in the objects of a CMake target. */
function weakSymbols(target: string): Set<string> {
  const files = fs.readdirSync(built(target), { recursive: true, encoding: "utf8" }).filter(name => name.endsWith(".o"));
  const options = { cwd: built(target), encoding: "utf8", maxBuffer: 1 << 28 } as const;
  const lines = execFileSync("nm", ["--defined-only", "--demangle", ...files], options).split("\n");
  return new Set(lines.flatMap(line => /^[0-9a-f]* [WVu] (.*)$/.exec(line)?.[1] ?? []));
}

const isCMakeBuild = fs.existsSync(built("attune_cpu_avx512"));
if (!isCMakeBuild) console.log("skipped: build/ holds no objects of a CMake build");

(isCMakeBuild ? test : test.skip)("code for a better instruction set cannot be linked into a plainer path", () => {
  // The order of linking is addon, core, generic, avx2, avx512, and the first copy of a symbol is kept.
  const plain = new Set(["attune", "attune_core", "attune_cpu_generic"].flatMap(target => [...weakSymbols(target)]));
  expect(plain.size).toBeGreaterThan(50);
  for (const isa of ["avx2", "avx512"]) {
    const foreign = [...weakSymbols(`attune_cpu_${isa}`)].filter(name => !plain.has(name) && !name.includes(`attune::cpu::${isa}::`));
    expect(foreign).toEqual([]);
  }
});
