/** The README's example compiles against the public names. */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { projectRoot } from "../support/goldens.js";

test("the README's TypeScript type-checks as a user's file would", () => {
  const readme = fs.readFileSync(path.join(projectRoot, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(match => match[1]!);
  expect(blocks.length).toBeGreaterThan(0);
  const folder = path.join(projectRoot, "build", "readme");
  fs.mkdirSync(folder, { recursive: true });
  const given =
    'import type { HostTensor } from "attune";\ndeclare const winners: HostTensor, losers: HostTensor, encoderHiddenStates: HostTensor, signal: AbortSignal;\n';
  for (const [i, block] of blocks.entries()) fs.writeFileSync(path.join(folder, `example${i}.mts`), `${given}${block}`);
  const options = { noEmit: true, rootDir: projectRoot, paths: { attune: ["../../lib/index.ts"] }, types: ["node"] };
  fs.writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify({ extends: "../../tsconfig.json", compilerOptions: options, include: ["*.mts"] }));
  const tsc = path.join(path.dirname(require.resolve("typescript/package.json")), "bin", "tsc");
  const run = (): string => execFileSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8", cwd: projectRoot });
  try {
    expect(run()).toBe("");
  } catch (error) {
    throw new Error((error as { stdout?: string }).stdout || String(error));
  }
});
