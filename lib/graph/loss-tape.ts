/** Writes the tape of preference_loss (ops/preference-loss.ts): values first, in the order they are computed, then registers for those that are needed. */

import { type LossTape, lossTapeLimits, sumOpcode } from "./ops/preference-loss.js";
import { constantFields } from "./tape.js";
import { type TapeOpcode, tapeOpcodes } from "./tape-opcodes.js";
import type { Attrs, Tensor } from "./tensor.js";

/** A value of the tape, or a number that is known now. */
export type Register = number | Written;

class Written {
  constructor(
    readonly opcode: TapeOpcode | "sum" | "input",
    readonly operands: readonly Register[],
    readonly numbers: readonly number[],
  ) {}
}

export class LossTapeWriter {
  readonly #values: Written[] = [];
  readonly #inputs = new Map<number, Written>();
  readonly #extras = new Map<Tensor, Written>();
  readonly #sums = new Map<Register, Written>();

  constructor(
    readonly arms: 1 | 2,
    readonly lanes: number,
  ) {}

  /** Input register k: E, D, P, C of the winner, then of the loser. */
  input(k: number): Register {
    const known = this.#inputs.get(k) ?? new Written("input", [], []);
    this.#inputs.set(k, known);
    return known;
  }

  /** An extra input, f64 of lanes or of one number. */
  extra(x: Tensor): Register {
    const known = this.#extras.get(x) ?? new Written("input", [], []);
    this.#extras.set(x, known);
    return known;
  }

  /** opcode(operands). A sum with nothing is its other side: gradients of halves come padded with zeros. */
  write(opcode: TapeOpcode, operands: readonly Register[], attrs: Attrs): Register {
    const [a, b] = operands;
    if (opcode === "add" && a === 0) return b!;
    if (opcode === "add" && b === 0) return a!;
    return this.#append(
      opcode,
      operands,
      constantFields(opcode).map(name => Number(attrs[name])),
    );
  }

  /** Over all lanes. */
  sum(of: Register): Register {
    const known = this.#sums.get(of) ?? this.#append("sum", [of], []);
    this.#sums.set(of, known);
    return known;
  }

  #append(opcode: Written["opcode"], operands: readonly Register[], numbers: readonly number[]): Written {
    const value = new Written(opcode, operands, numbers);
    this.#values.push(value);
    return value;
  }

  /** The tape of what is needed for these; undefined where it has no room. Derivatives that are the number 0 have no register. */
  finish({ outputs, perLane, coefficients }: { outputs: readonly Register[]; perLane: readonly number[]; coefficients: readonly Register[] }) {
    const results = [...outputs, ...coefficients.filter(c => c !== 0)];
    const live = this.#live(results);
    const extras = [...this.#extras].filter(([, value]) => live.has(value));
    const inputs = new Map<Register, number>([...this.#inputs].map(([k, value]) => [value, k]));
    for (const [i, [, value]] of extras.entries()) inputs.set(value, 4 * this.arms + i);
    const values = this.#values.filter(value => live.has(value));
    const code = new Encoder(values, inputs, 4 * this.arms + extras.length, results);
    const attrs: LossTape = {
      arms: this.arms,
      code: code.numbers,
      constants: code.constants,
      outputs: outputs.map(r => code.registerOf(r)),
      perLane,
      coefficients: coefficients.map(c => (c === 0 ? -1 : code.registerOf(c))),
    };
    const { instructions, constants, registers, cells, ...most } = lossTapeLimits;
    const fits =
      code.numbers.length <= 5 * instructions &&
      code.constants.length <= constants &&
      code.registers <= Math.min(registers, cells / this.lanes) &&
      outputs.length <= most.outputs &&
      extras.length <= most.extras &&
      this.lanes <= most.lanes;
    return fits ? { attrs, extras: extras.map(([x]) => x) } : undefined;
  }

  #live(results: readonly Register[]): ReadonlySet<Register> {
    const live = new Set(results);
    for (const value of this.#values.toReversed()) if (live.has(value)) for (const x of value.operands) live.add(x);
    return live;
  }
}

/** Instructions with registers, which are used again once their value is dead; inputs keep theirs. Numbers are values too, made where they are first read. */
class Encoder {
  readonly numbers: number[] = [];
  readonly constants: number[] = [];
  registers: number;
  readonly #places = new Map<Register, number>();
  readonly #free: number[] = [];

  /** `inputs`: registers of what is given; `first`: the first register that is written. */
  constructor(values: readonly Written[], inputs: ReadonlyMap<Register, number>, first: number, results: readonly Register[]) {
    this.registers = first;
    for (const [x, register] of inputs) this.#places.set(x, register);
    const lastRead = new Map<Register, number>();
    for (const [at, { operands }] of values.entries()) for (const x of operands) lastRead.set(x, at);
    for (const x of results) lastRead.set(x, values.length);
    for (const [at, value] of values.entries()) {
      const operands = value.operands.map(x => this.registerOf(x));
      const fields = [...operands, ...value.numbers.map(n => this.#constant(n))];
      for (const x of new Set(value.operands)) if (lastRead.get(x) === at && this.#places.get(x)! >= first) this.#free.push(this.#places.get(x)!);
      this.#emit(value.opcode === "sum" ? sumOpcode : tapeOpcodes.indexOf(value.opcode as TapeOpcode), this.#allot(value), fields);
    }
    for (const x of results) this.registerOf(x);
  }

  /** Where a value is; a number is put there first. */
  registerOf(x: Register): number {
    const known = this.#places.get(x);
    if (known !== undefined) return known;
    const at = this.#allot(x); // a number: all else has a place
    this.#emit(tapeOpcodes.indexOf("constant"), at, [this.#constant(x as number)]);
    return at;
  }

  #allot(x: Register): number {
    const register = this.#free.pop() ?? this.registers++;
    this.#places.set(x, register);
    return register;
  }

  #constant(value: number): number {
    const known = this.constants.findIndex(v => Object.is(v, value));
    return known >= 0 ? known : this.constants.push(value) - 1;
  }

  #emit(opcode: number, dst: number, fields: readonly number[]): void {
    this.numbers.push(opcode, dst, fields[0] ?? 0, fields[1] ?? 0, fields[2] ?? 0);
  }
}
