"use strict";
// Lines of code by room, and the longest files: so that drift is seen. Counts lines that are not blank.
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const root = path.join(__dirname, "..");
const files = execFileSync("git", ["ls-files", "lib", "native", "test", "bench", "examples", "scripts"], { cwd: root, encoding: "utf8" })
  .split("\n")
  .filter(name => /\.(ts|cc|h|cu|cuh|cjs)$/.test(name))
  .map(name => ({
    name,
    lines: fs
      .readFileSync(path.join(root, name), "utf8")
      .split("\n")
      .filter(line => line.trim()).length,
  }));
const rooms = new Map();
for (const { name, lines } of files) {
  const parts = path.dirname(name).split("/");
  const room = parts.slice(0, 2).join("/");
  const sum = rooms.get(room) ?? { files: 0, lines: 0 };
  rooms.set(room, { files: sum.files + 1, lines: sum.lines + lines });
}
for (const [room, { files: count, lines }] of [...rooms].sort())
  console.log(`${room.padEnd(24)} ${String(count).padStart(4)} files ${String(lines).padStart(7)} lines`);
console.log(`${"all".padEnd(24)} ${String(files.length).padStart(4)} files ${String(files.reduce((n, f) => n + f.lines, 0)).padStart(7)} lines\n`);
for (const { name, lines } of files.sort((a, b) => b.lines - a.lines).slice(0, 12)) console.log(`${String(lines).padStart(6)}  ${name}`);
