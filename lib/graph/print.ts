/** Programs as text: a summary, then one line an instruction with its label, op, attributes, operands and where they lie. The text of a program is
 *  stable, so that it can be kept and compared. */

import { formatBytes } from "../util/bytes.js";
import { opTable } from "./op.js";
import type { Instruction, Program, ProgramPort, ProgramTensor } from "./program.js";
import { decodeTape, type TapeAttrs } from "./tape.js";
import { type Attr, byteSize } from "./tensor.js";

/** The whole program. A tensor is its type and place: "f32 [2,64] @4096" in scratch, "f32 [64] policy@128" in a persistent arena, in bytes.
 *  "(in place)" marks an output that takes over the memory of an input, "(writes)" one that changes a persistent arena. */
export function printProgram(program: Program): string {
  const { name, arenas, instructions, inputs, outputs, scalars } = program;
  const ops = new Set(instructions.map(i => i.op)).size;
  const scratch = formatBytes(arenas[0]?.bytes ?? 0);
  const port = ({ name, tensor, layout }: ProgramPort) => `${name} ${place(program, tensor)}${layout === "plain" ? "" : ` as ${layout}`}`;
  const lines = [
    `${name}: ${instructions.length} instructions of ${ops} ops, ${scratch} scratch, ${formatFlops(programFlops(program))}`,
    `  arenas   ${arenas.map(a => `${a.name} ${formatBytes(a.bytes)}`).join(", ")}`,
    `  inputs   ${inputs.map(port).join(", ") || "none"}`,
    `  outputs  ${outputs.map(port).join(", ") || "none"}`,
    `  scalars  ${scalars.join(", ") || "none"}`,
    "",
    ...instructions.map((instruction, i) => `${String(i).padStart(5)}  ${printInstruction(program, instruction)}`),
  ];
  return `${lines.join("\n")}\n`;
}

/** Floating-point operations of one run, as the ops count them: matrix products and convolutions, not elementwise work. */
export function programFlops({ instructions, tensors }: Pick<Program, "instructions" | "tensors">): number {
  return instructions.reduce((total, { op, attrs, inputs }) => total + (opTable.get(op)?.flops?.(attrs, ...inputs.map(id => tensors[id])) ?? 0), 0);
}

/** Bytes that the instructions of one run read and write, each operand counted once for each instruction. */
export function programTraffic({ instructions, tensors }: Pick<Program, "instructions" | "tensors">): number {
  const bytes = (ids: readonly number[]): number => [...new Set(ids)].reduce((sum, id) => sum + (id < 0 ? 0 : byteSize(tensors[id]!)), 0);
  return instructions.reduce((total, { inputs, outputs }) => total + bytes(inputs) + bytes(outputs), 0);
}

function printInstruction(program: Program, { op, attrs, inputs, outputs, label }: Instruction): string {
  const operands = inputs.map(id => (id < 0 ? "none" : place(program, id))).join(", ");
  const results = outputs.map((id, k) => place(program, id) + mark(program, inputs, id, k)).join(", ");
  const shown = op === "tape" ? printTape(attrs as TapeAttrs) : printAttrs(attrs);
  return `${label ? `${label}: ` : ""}${op}${shown}${operands ? ` (${operands})` : ""} -> ${results}`;
}

function mark({ tensors }: Program, inputs: readonly number[], id: number, k: number): string {
  const output = tensors[id]!;
  if (output.arena !== 0) return " (writes)";
  const same = (x: ProgramTensor | undefined) => x?.arena === 0 && x.offset === output.offset;
  return k === 0 && inputs.some(x => same(tensors[x])) ? " (in place)" : "";
}

function place({ tensors, arenas }: Program, id: number): string {
  const { arena, offset, dtype, shape } = tensors[id]!;
  return `${dtype} [${shape}] ${arena === 0 ? "" : arenas[arena]!.name}@${offset}`;
}

/** Shapes that only repeat the output's are left out, long lists cut. */
function printAttrs(attrs: Instruction["attrs"]): string {
  const shown = Object.entries(attrs).filter(([name]) => name !== "shape" && name !== "dtype");
  return shown.length === 0 ? "" : ` {${shown.map(([name, value]) => `${name} ${printAttr(value)}`).join(", ")}}`;
}

function printAttr(value: Attr): string {
  if (typeof value !== "object") return String(value);
  return value.length <= 8 ? `[${value.join(", ")}]` : `[${value.slice(0, 8).join(", ")}, and ${value.length - 8} more]`;
}

/** " {r2 = sub(r0, r1); r2 = affine(r2, scale -0.5, shift 0); out r2}": register i is input i, the others hold values in between. */
function printTape(tape: TapeAttrs): string {
  const steps = decodeTape(tape).map(({ opcode, dst, operands, attrs }) => {
    const fields = [...operands.map(r => `r${r}`), ...Object.entries(attrs).map(([name, value]) => `${name} ${printAttr(value)}`)];
    return opcode === "constant" ? `r${dst} = ${attrs.value}` : `r${dst} = ${opcode}(${fields.join(", ")})`;
  });
  return ` {${[...steps, `out ${tape.outputs.map(r => `r${r}`).join(", ")}`].join("; ")}}`;
}

function formatFlops(flops: number): string {
  const units = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"];
  let at = 0;
  let amount = flops;
  for (; amount >= 1000 && at < units.length - 1; at++) amount /= 1000;
  return `${at === 0 ? amount : amount.toPrecision(3)} ${units[at]}`;
}
