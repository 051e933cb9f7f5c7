/** Programs written by hand, for tests of the executor: what the planner would never emit included. */

import type { Instruction, Program, ProgramTensor } from "../../lib/graph/program.js";
import type { Layout } from "../../lib/graph/tensor.js";

export interface Sketch {
  readonly tensors: readonly ProgramTensor[];
  readonly instructions: readonly Instruction[];
  readonly inputs?: Readonly<Record<string, number>>;
  readonly outputs?: Readonly<Record<string, number>>;
  readonly layout?: Layout;
  readonly scalars?: readonly string[];
  /** Bytes of scratch, and of the persistent arena "state" (arena 1). */
  readonly scratch?: number;
  readonly state?: number;
}

export function sketch({ tensors, instructions, inputs = {}, outputs = {}, layout = "plain", scalars = [], scratch = 4096, state = 4096 }: Sketch): Program {
  const ports = (record: Readonly<Record<string, number>>) => Object.entries(record).map(([name, tensor]) => ({ name, tensor, layout }));
  const arenas = [
    { name: "scratch", bytes: scratch },
    { name: "state", bytes: state },
  ];
  return { format: 1, name: "sketch", arenas, tensors, instructions, inputs: ports(inputs), outputs: ports(outputs), scalars };
}

export const at = (arena: number, offset: number, ...shape: number[]): ProgramTensor => ({ arena, offset, dtype: "f32", shape });

export function instruction(op: string, inputs: readonly number[], outputs: readonly number[], attrs: Instruction["attrs"] = {}, label = ""): Instruction {
  return { op, attrs, inputs, outputs, label };
}

/** y = x + 2.5, element by element over 4 numbers. */
export const addConstant: Program = sketch({
  tensors: [at(0, 0, 4), at(0, 64, 4), at(0, 128, 4)],
  instructions: [instruction("full", [], [1], { value: 2.5 }, "shift"), instruction("add", [0, 1], [2], {}, "sum")],
  inputs: { x: 0 },
  outputs: { y: 2 },
});

/** Adds 1 to every element of a persistent tensor, `times` times; y is that tensor. */
export function counting(times: number, elements: number): Program {
  return sketch({
    tensors: [at(1, 0, elements), at(0, 0, elements)],
    instructions: [instruction("full", [], [1], { value: 1 }), ...Array.from({ length: times }, () => instruction("accumulate", [0, 1], [0], {}, "count"))],
    outputs: { y: 0 },
    scratch: elements * 4,
    state: elements * 4,
  });
}
