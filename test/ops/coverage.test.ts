/** The op table, the kernels and the cases cover each other: no op without a kernel or a case, no kernel without an op. */

import { launches } from "../../lib/graph/alias.js";
import { opTable } from "../../lib/graph/op.js";
import "../../lib/graph/ops/ceiling.js";
import "../../lib/graph/tape.js";
import { tapeOpcodes } from "../../lib/graph/tape-opcodes.js";
import type { Node } from "../../lib/graph/tensor.js";
import { native } from "../../lib/native.js";
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
