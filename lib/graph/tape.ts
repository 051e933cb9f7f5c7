/** The `tape` op: an elementwise expression of many ops run as one instruction, so that the values between them never reach memory.
 *  tape-opcodes.ts says how it is encoded; fuse.ts decides what becomes one. */

import { defineOp, opTable } from "./op.js";
import { full } from "./ops/leaf.js";
import { broadcast } from "./ops/sum.js";
import { type TapeOpcode, tapeOpcodes } from "./tape-opcodes.js";
import { type Attrs, currentGraph, type DType, type Tensor } from "./tensor.js";

export type TapeAttrs = {
  readonly code: readonly number[];
  readonly constants: readonly number[];
  /** The register of each output. */
  readonly outputs: readonly number[];
  /** Of inputs and outputs: "f32" or "f64". */
  readonly dtype: DType;
  /** Of every output; inputs broadcast to it. */
  readonly shape: readonly number[];
};

export interface TapeStep {
  readonly opcode: TapeOpcode;
  readonly dst: number;
  /** Registers. */
  readonly operands: readonly number[];
  /** `value` of a constant, `scale` and `shift` of affine, `min` and `max` of clamp. */
  readonly attrs: Attrs;
}

defineOp({
  name: "tape",
  inplace: 0,
  infer: ({ outputs, dtype, shape }: TapeAttrs, ..._inputs: Tensor[]) => outputs.map(() => ({ dtype, shape })),
  decompose: (attrs, ...inputs) => unrolled(attrs, inputs),
});
/** Its entry in the op table, for the pass that appends tapes. */
export const tapeDef = opTable.get("tape")!;

/** How many registers an opcode reads. */
export function registerOperands(opcode: TapeOpcode): 0 | 1 | 2 | 3 {
  if (opcode === "constant") return 0;
  if (opcode === "select") return 3;
  return tapeOpcodes.indexOf(opcode) <= tapeOpcodes.indexOf("quick_gelu_vjp") ? 2 : 1;
}

/** The names under which an opcode's constants are attributes of its op, in the order of the fields after its registers. */
export function constantFields(opcode: TapeOpcode): readonly string[] {
  if (opcode === "affine") return ["scale", "shift"];
  if (opcode === "clamp") return ["min", "max"];
  return opcode === "constant" ? ["value"] : [];
}

export function decodeTape({ code, constants }: Pick<TapeAttrs, "code" | "constants">): TapeStep[] {
  return Array.from({ length: code.length / 5 }, (_, i) => {
    const [index = 0, dst = 0, ...fields] = code.slice(5 * i, 5 * i + 5);
    const opcode = tapeOpcodes[index]!;
    const registers = registerOperands(opcode);
    const attrs = Object.fromEntries(constantFields(opcode).map((name, k) => [name, constants[fields[registers + k]!]!]));
    return { opcode, dst, operands: fields.slice(0, registers), attrs };
  });
}

function unrolled(tape: TapeAttrs, inputs: readonly Tensor[]): Tensor[] {
  const registers = [...inputs];
  for (const { opcode, dst, operands, attrs } of decodeTape(tape)) {
    if (opcode === "constant") {
      registers[dst] = full(Number(attrs.value), [1], tape.dtype);
      continue;
    }
    const op = opTable.get(opcode)!;
    const operandTensors = operands.map(r => registers[r]!);
    registers[dst] = currentGraph().append(op, attrs, operandTensors, op.infer(attrs, ...operandTensors)).outputs[0]!;
  }
  return tape.outputs.map(r => broadcast(registers[r]!, tape.shape));
}
