/** The op table, the kernels and the cases cover each other: no op without a kernel or a case, no kernel without an op. */

import fs from "node:fs";
import path from "node:path";
import { launches } from "../../lib/graph/alias.js";
import { opTable } from "../../lib/graph/op.js";
import "../../lib/graph/ops/ceiling.js";
import "../../lib/graph/tape.js";
import { tapeOpcodes } from "../../lib/graph/tape-opcodes.js";
import type { Node } from "../../lib/graph/tensor.js";
import { native } from "../../lib/native.js";
import { projectRoot } from "../support/goldens.js";
import { opCases } from "./cases.js";
import { gradientGraph } from "./program.js";

const nodes: readonly Node[] = opCases.flatMap(c => gradientGraph(c, "f32").nodes);
const used = new Set(nodes.map(node => node.op.name));
const launched = new Set(nodes.filter(launches).map(node => node.op.name));
/** Ops without a case: `tape` is made by fusion alone, and every case runs fused and unfused; `fma_ceiling` measures and computes nothing. */
const apart = ["tape", "fma_ceiling"];

test("every op has a case", () => {
  const missing = [...opTable.values()].filter(op => !apart.includes(op.name) && !used.has(op.name));
  expect(missing.map(op => op.name)).toEqual([]);
});

test("every op that launches has a cpu kernel for every instruction set, or is fused and decomposes", () => {
  const kernels = new Set(
    native()
      .kernels("cpu")
      .kernels.map(({ op, isa }) => `${op} ${isa}`),
  );
  const plain = [...launched, ...apart].filter(op => !opTable.get(op)!.fused);
  const needed = plain.flatMap(op => ["generic", "avx2", "avx512"].map(isa => `${op} ${isa}`));
  expect(needed.filter(key => !kernels.has(key))).toEqual([]);
  expect([...opTable.values()].filter(op => op.fused && !op.decompose)).toEqual([]);
});

test("every kernel has an op", () => {
  const names = new Set(
    native()
      .kernels("cpu")
      .kernels.map(kernel => kernel.op),
  );
  expect([...names].filter(name => !opTable.has(name))).toEqual([]);
});

test("every op that may be fused has an opcode, and every opcode an op", () => {
  const fusible = [...opTable.values()].flatMap(op => (op.tape === undefined ? [] : [op.tape]));
  expect([...fusible, "constant"].sort()).toEqual([...tapeOpcodes].sort());
});

/** An opcode is a number in a program: three lists have to agree on the order. */
test("the kernels of both backends number opcodes as tapes do", () => {
  const names = (file: string, pattern: RegExp): string[] =>
    [...fs.readFileSync(path.join(projectRoot, "native", file), "utf8").matchAll(pattern)].map(([, name]) => name!);
  const cpu = names("cpu/scalar_ops.h", /^ {2}X\((\w+),/gm);
  expect(["constant", ...cpu, "select", "affine", "clamp"]).toEqual(tapeOpcodes); // as cpu/tape.cc puts them together
  expect(names("cuda/scalar_ops.cuh", /\bX\((\w+)\)/g)).toEqual(tapeOpcodes);
  expect(names("cuda/scalar_ops.cuh", /ATTUNE_CASE\((\w+), (?!expression)/g)).toEqual(tapeOpcodes);
});
