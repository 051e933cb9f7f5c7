/** Writes a group of elementwise nodes as one tape: numbers inlined, registers used again once their value is dead. */

import { isPersistent } from "./alias.js";
import { constantFields, type TapeAttrs } from "./tape.js";
import { type TapeOpcode, tapeOpcodes, tapeRegisters } from "./tape-opcodes.js";
import type { Node, Tensor } from "./tensor.js";

/** What an operand of a fused node comes to: a tensor to read, or a number. Filled tensors become numbers, and what a broadcast repeats is read
 *  from where it lies, because a tape broadcasts its inputs; not so persistent memory, which an effect may change in between. */
export function operandOf(x: Tensor): Tensor | number {
  const { op, attrs, inputs } = x.node;
  if (op.name === "full") return Number(attrs.value);
  if (op.name === "broadcast") return isPersistent(inputs[0]!) ? x : inputs[0]!;
  const values = op.name === "constant" ? (attrs.values as readonly number[]) : [];
  return values.length === 1 ? values[0]! : x;
}

/** The tape of `members`, which are in order of execution, from `inputs` to `outputs`; undefined if it needs more registers than there are. */
export function encodeTape(members: readonly Node[], inputs: readonly Tensor[], outputs: readonly Tensor[]): TapeAttrs | undefined {
  const constants = new Constants();
  const reads = members.map(node => node.inputs.map(x => constants.index(operandOf(x!))));
  const lastRead = new Map<Held, number>();
  for (const [at, held] of reads.entries()) for (const h of held) lastRead.set(h, at);
  for (const y of outputs) lastRead.set(y, members.length);

  const registers = new Map<Held, number>(inputs.map((x, i) => [x, i]));
  const free: number[] = [];
  let used = inputs.length;
  const allot = (held: Held): number => {
    const register = free.pop() ?? used++;
    registers.set(held, register);
    return register;
  };
  const code: number[] = [];
  const emit = (opcode: TapeOpcode, dst: number, fields: readonly number[]) =>
    code.push(tapeOpcodes.indexOf(opcode), dst, fields[0] ?? 0, fields[1] ?? 0, fields[2] ?? 0);

  for (const [at, node] of members.entries()) {
    const held = reads[at]!;
    for (const h of held) if (typeof h === "number" && !registers.has(h)) emit("constant", allot(h), [h]);
    const opcode = node.op.name as TapeOpcode;
    const fields = [...held.map(h => registers.get(h)!), ...constantFields(opcode).map(name => constants.index(Number(node.attrs[name])) as number)];
    for (const h of new Set(held)) if (lastRead.get(h) === at && registers.get(h)! >= inputs.length) free.push(registers.get(h)!);
    emit(opcode, allot(node.outputs[0]!), fields);
  }
  if (used > tapeRegisters) return undefined;
  const { dtype, shape } = members[0]!.outputs[0]!;
  return { code, constants: constants.values, outputs: outputs.map(y => registers.get(y)!), dtype, shape };
}

/** What a register holds: a tensor, or the constant of that index. */
type Held = Tensor | number;

/** Numbers by value, each once; -0 is not 0. */
class Constants {
  readonly values: number[] = [];

  index(operand: Tensor | number): Held {
    if (typeof operand !== "number") return operand;
    const known = this.values.findIndex(v => Object.is(v, operand));
    return known >= 0 ? known : this.values.push(operand) - 1;
  }
}
