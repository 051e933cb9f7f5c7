/** The floors of docs/architecture.md as data: imports go down only, wings import errors and util alone, and nothing goes in a circle. */

import fs from "node:fs";
import path from "node:path";
import { projectRoot } from "./support/goldens.js";

const lib = path.join(projectRoot, "lib");

/** Rooms by floor. A room may import rooms of lower floors, and what `neighbours` adds. */
const floors: readonly (readonly string[])[] = [
  ["errors", "util", "native", "data", "report", "schedulers", "conformal", "config"],
  ["graph", "device"],
  ["nn"],
  ["models"],
  ["diffusion", "objectives"],
  ["pipeline"],
  ["train", "rewards", "kernels"],
  ["index"],
  ["cli"],
];
const floor0: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  util: ["errors"],
  native: ["errors", "util"],
  data: ["errors", "util"],
  report: ["errors", "util", "data"],
  schedulers: ["errors", "util"],
  conformal: ["errors", "util"],
  config: ["errors"],
};
/** Rooms of floor 1 that only session.ts may reach the addon from. */
const nativeUsers = new Set(["graph/session.ts", "device.ts", "data/image.ts"]);

interface Import {
  readonly from: string;
  readonly to: string;
}

function sources(folder: string): string[] {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const full = path.join(folder, entry.name);
    return entry.isDirectory() ? sources(full) : entry.name.endsWith(".ts") ? [full] : [];
  });
}

/** Value imports between files of lib; `import type` is free. */
function imports(): Import[] {
  return sources(lib).flatMap(file => {
    const text = fs.readFileSync(file, "utf8");
    const found = [...text.matchAll(/^(?:import|export)\s+(?!type\b)(?:(\{[^}]*\}|[^"';]*)\s+from\s+)?"(\.[^"]+)";/gms)];
    return found
      .filter(([, names]) => !names || !/^\{(\s*type\s+[^,}]+,?)+\s*\}$/.test(names.trim()))
      .map(([, , target]) => ({ from: path.relative(lib, file), to: path.relative(lib, path.resolve(path.dirname(file), target!.replace(/\.js$/, ".ts"))) }));
  });
}

const room = (file: string): string => file.split(path.sep)[0]!.replace(/\.ts$/, "");
const floor = (name: string): number => floors.findIndex(rooms => rooms.includes(name));

test("every room has a floor", () => {
  expect([...new Set(sources(lib).map(file => room(path.relative(lib, file))))].filter(name => floor(name) < 0)).toEqual([]);
});

test("imports go down only", () => {
  const upward = imports().filter(({ from, to }) => {
    const [a, b] = [room(from), room(to)];
    if (a === b) return false;
    if (floor(a) === 0) return !floor0[a]!.includes(b);
    if (a === "objectives" && b === "models") return true;
    if (floor(a) === floor(b)) return !(b === "diffusion" || (a === "device" && b === "graph"));
    return floor(b) > floor(a);
  });
  expect(upward).toEqual([]);
});

test("only the session and the device reach the addon", () => {
  expect(imports().filter(({ from, to }) => to === "native.ts" && !nativeUsers.has(from))).toEqual([]);
});

test("no import cycle", () => {
  const edges = new Map<string, string[]>();
  for (const { from, to } of imports()) edges.set(from, [...(edges.get(from) ?? []), to]);
  const state = new Map<string, "open" | "done">();
  const cycles: string[] = [];
  const visit = (file: string, trail: readonly string[]): void => {
    if (state.get(file) === "done") return;
    if (state.get(file) === "open") {
      cycles.push([...trail.slice(trail.indexOf(file)), file].join(" -> "));
      return;
    }
    state.set(file, "open");
    for (const to of edges.get(file) ?? []) visit(to, [...trail, file]);
    state.set(file, "done");
  };
  for (const file of edges.keys()) visit(file, []);
  expect(cycles).toEqual([]);
});

test("native/sources.txt lists every translation unit of the addon and its backends", () => {
  const listed = fs
    .readFileSync(path.join(projectRoot, "native/sources.txt"), "utf8")
    .split("\n")
    .filter(line => line !== "" && !line.startsWith("#"));
  const present = ["native", "native/core", "native/cpu", "native/cuda", "native/simt", "native/ptxi"]
    .filter(folder => fs.existsSync(path.join(projectRoot, folder)))
    .flatMap(folder =>
      fs
        .readdirSync(path.join(projectRoot, folder))
        .filter(name => /\.(cc|cu)$/.test(name))
        .map(name => `${folder}/${name}`),
    );
  expect([...listed].sort()).toEqual(present.sort());
});

test("the parser of this test sees imports", () => {
  expect(imports().length).toBeGreaterThan(50);
});
