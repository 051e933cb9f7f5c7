/** A program: what the native executor runs. Plain data, JSON-able: it can be printed, diffed, kept as a golden and replayed.
 *  Nothing that changes from step to step is inside it (scalars.ts). */

import type { Attrs, DType, Layout } from "./tensor.js";

export interface ProgramTensor {
  /** Index into `arenas`. */
  readonly arena: number;
  /** Byte offset in the arena, a multiple of 64 except for views. */
  readonly offset: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

export interface Instruction {
  readonly op: string;
  readonly attrs: Attrs;
  /** Tensor ids; -1 for an optional input that is absent. */
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  readonly label: string;
}

export interface ProgramPort {
  readonly name: string;
  readonly tensor: number;
  readonly layout: Layout;
}

export interface Arena {
  /** Arena 0 is "scratch": shared by all programs of a session, contents lost between runs. The others persist, by name. */
  readonly name: string;
  readonly bytes: number;
}

export interface Program {
  readonly format: 1;
  readonly name: string;
  readonly arenas: readonly Arena[];
  readonly tensors: readonly ProgramTensor[];
  readonly instructions: readonly Instruction[];
  readonly inputs: readonly ProgramPort[];
  readonly outputs: readonly ProgramPort[];
  /** Names of the per-step numbers, in slot order. */
  readonly scalars: readonly string[];
}
