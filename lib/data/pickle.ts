/** Python pickles read as data. A pickle is a program for a stack machine that can call anything; this machine knows the few opcodes that build numbers,
 *  strings, lists, tuples and dicts, and calls nothing but the functions that the caller lists by their Python names. Whatever else stands in the stream is refused by
 *  name and offset. Opcodes: CPython `Lib/pickletools.py`; what is allowed follows torch's `_weights_only_unpickler.py`. */

import { DataError } from "../errors.js";
import { opcodeNames } from "./pickle-opcodes.js";
import { kindOf, PickleGlobal, PickleMismatch, PickleTuple, type PickleValue } from "./pickle-value.js";

export interface UnpickleOptions {
  /** The path that errors name. */
  readonly source: string;
  /** Position of the first byte in that file, for the offsets of errors. */
  readonly base?: number;
  readonly globals?: ReadonlyMap<string, PickleGlobal>;
  /** What a persistent id stands for; without it BINPERSID is refused. */
  readonly persistent?: (id: PickleValue) => PickleValue;
}

/** Values on the stack, marks and memo entries of one pickle: far more than a model's file has, few enough to hold. */
export const pickleLimits = { stack: 1 << 20, marks: 1000, memo: 1 << 20 } as const;

/** The bytes end before the STOP opcode: more of the file may have to be read. */
export class TruncatedPickle extends DataError {}

/** The value of the pickle that begins at byte `start`, and where it ends. Throws DataError naming opcode or global, and offset. */
export function unpickle(bytes: Uint8Array, options: UnpickleOptions, start = 0): { readonly value: PickleValue; readonly end: number } {
  return new Machine(bytes, options, start).run();
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Machine {
  readonly #view: DataView;
  readonly #memo = new Map<number, PickleValue>();
  readonly #marks: PickleValue[][] = [];
  #stack: PickleValue[] = [];
  #size = 0; // values of all stacks
  #at: number;
  #opcode = 0;
  #opcodeAt: number;

  constructor(
    readonly bytes: Uint8Array,
    readonly options: UnpickleOptions,
    start: number,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = start;
    this.#opcodeAt = start;
  }

  run(): { value: PickleValue; end: number } {
    for (;;) {
      this.#opcodeAt = this.#at;
      this.#opcode = this.bytes[this.#take(1)]!;
      if (this.#opcode === 0x2e) break; // STOP
      const step = steps.get(this.#opcode);
      if (!step) throw this.#error("expected an opcode that builds data, received one that this reader does not run");
      step(this);
    }
    if (this.#marks.length > 0 || this.#stack.length !== 1)
      throw this.#error(`expected one value, received ${this.#size} values and ${this.#marks.length} marks`);
    return { value: this.#stack[0]!, end: this.#at };
  }

  #error(detail: string): DataError {
    const name = opcodeNames.get(this.#opcode) ?? `0x${this.#opcode.toString(16)}`;
    return new DataError(this.options.source, detail, { field: `opcode ${name}`, offset: (this.options.base ?? 0) + this.#opcodeAt });
  }

  /** The position of the next n bytes, which are then behind. */
  #take(n: number): number {
    const from = this.#at;
    if (n > this.bytes.length - from)
      throw new TruncatedPickle(this.options.source, `expected ${n} more bytes of the pickle, received ${this.bytes.length - from}`, {
        offset: (this.options.base ?? 0) + from,
      });
    this.#at += n;
    return from;
  }

  u8(): number {
    return this.bytes[this.#take(1)]!;
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  i32(): number {
    return this.#view.getInt32(this.#take(4), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  f64(): number {
    return this.#view.getFloat64(this.#take(8), false);
  }

  /** Two's complement of n bytes, little-endian. */
  long(n: number): number | bigint {
    const from = this.#take(n);
    let value = 0n;
    for (let i = n - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[from + i]!);
    if (n > 0 && this.bytes[from + n - 1]! >= 0x80) value -= 1n << BigInt(8 * n);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  text(n: number): string {
    const from = this.#take(n);
    try {
      return utf8.decode(this.bytes.subarray(from, from + n));
    } catch {
      throw this.#error(`expected ${n} bytes of UTF-8, received something else`);
    }
  }

  /** Up to the end of the line. */
  line(): string {
    const end = this.bytes.indexOf(0x0a, this.#at);
    if (end < 0) this.#take(this.bytes.length - this.#at + 1); // throws
    if (end - this.#at > 512) throw this.#error(`expected a name of at most 512 bytes, received ${end - this.#at}`);
    const text = this.text(end - this.#at);
    this.#take(1);
    return text;
  }

  push(value: PickleValue): void {
    if (++this.#size > pickleLimits.stack) throw this.#error(`expected at most ${pickleLimits.stack} values on the stack, received more`);
    this.#stack.push(value);
  }

  pop(): PickleValue {
    if (this.#stack.length === 0) throw this.#error("expected a value on the stack, received an empty one");
    this.#size--;
    return this.#stack.pop()!;
  }

  top(): PickleValue {
    if (this.#stack.length === 0) throw this.#error("expected a value on the stack, received an empty one");
    return this.#stack.at(-1)!;
  }

  mark(): void {
    if (this.#marks.length === pickleLimits.marks) throw this.#error(`expected at most ${pickleLimits.marks} nested marks, received more`);
    this.#marks.push(this.#stack);
    this.#stack = [];
  }

  /** The values above the last mark. */
  popMark(): PickleValue[] {
    const below = this.#marks.pop();
    if (!below) throw this.#error("expected a mark on the stack, received none");
    const items = this.#stack;
    this.#stack = below;
    this.#size -= items.length;
    return items;
  }

  tuple(n: number): void {
    const items: PickleValue[] = [];
    for (let i = 0; i < n; i++) items.unshift(this.pop());
    this.push(new PickleTuple(items));
  }

  put(key: number): void {
    if (this.#memo.size === pickleLimits.memo) throw this.#error(`expected at most ${pickleLimits.memo} memo entries, received more`);
    this.#memo.set(key, this.top());
  }

  memoize(): void {
    this.put(this.#memo.size);
  }

  get(key: number): void {
    if (!this.#memo.has(key)) throw this.#error(`expected a memo entry that was put before, received ${key}`);
    this.push(this.#memo.get(key)!);
  }

  append(items: readonly PickleValue[]): void {
    const list = this.top();
    if (!Array.isArray(list)) throw this.#error(`expected a list to append to, received ${kindOf(list)}`);
    for (const item of items) list.push(item);
  }

  setItems(items: readonly PickleValue[]): void {
    const dict = this.top();
    if (!(dict instanceof Map)) throw this.#error(`expected a dict to set items of, received ${kindOf(dict)}`);
    if (items.length % 2 !== 0) throw this.#error(`expected keys and values in pairs, received ${items.length} values`);
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i]!;
      if (Array.isArray(key) || key instanceof Map) throw this.#error(`expected a key that can be hashed, received ${kindOf(key)}`);
      dict.set(key, items[i + 1]!);
    }
  }

  global(module: string, name: string): void {
    const full = `${module}.${name}`;
    const global = this.options.globals?.get(full);
    if (!global) throw this.#error(`expected a name that the file's format needs, received ${JSON.stringify(full)}, which is not looked up`);
    this.push(global);
  }

  stackGlobal(): void {
    const [name, module] = [this.pop(), this.pop()];
    if (typeof name !== "string" || typeof module !== "string") throw this.#error(`expected two strings, received ${kindOf(module)} and ${kindOf(name)}`);
    this.global(module, name);
  }

  reduce(): void {
    const [args, callee] = [this.pop(), this.pop()];
    if (!(args instanceof PickleTuple)) throw this.#error(`expected a tuple of arguments, received ${kindOf(args)}`);
    if (!(callee instanceof PickleGlobal) || !callee.call) throw this.#error(`expected a function of the allow-list, received ${kindOf(callee)}`);
    this.push(this.#checked(callee.name, () => callee.call!(args.items)));
  }

  /** Attributes: those of a dict (a state dict's _metadata) carry no data; nothing else that is built here has any. */
  build(): void {
    const state = this.pop();
    const target = this.top();
    if (!(target instanceof Map) || !(state instanceof Map))
      throw this.#error(`expected attributes of an OrderedDict, received ${kindOf(state)} for ${kindOf(target)}`);
  }

  persistent(): void {
    const { persistent } = this.options;
    if (!persistent) throw this.#error("expected a pickle without persistent ids, received one");
    const id = this.pop();
    this.push(this.#checked("persistent id", () => persistent(id)));
  }

  /** Errors of the caller's functions get the place that they do not know. */
  #checked(field: string, make: () => PickleValue): PickleValue {
    try {
      return make();
    } catch (error) {
      if (!(error instanceof PickleMismatch)) throw error;
      throw new DataError(this.options.source, error.message, { field, offset: (this.options.base ?? 0) + this.#opcodeAt }, { cause: error });
    }
  }
}

type Step = (m: Machine) => void;

/** The whole allow-list, by opcode. */
const steps: ReadonlyMap<number, Step> = new Map(
  Object.entries({
    "\x80": m => void m.u8(), // PROTO
    "\x95": m => void m.long(8), // FRAME: frames only help to read ahead
    N: m => m.push(null),
    "\x88": m => m.push(true),
    "\x89": m => m.push(false),
    J: m => m.push(m.i32()),
    K: m => m.push(m.u8()),
    M: m => m.push(m.u16()),
    "\x8a": m => m.push(m.long(m.u8())), // LONG1
    G: m => m.push(m.f64()),
    X: m => m.push(m.text(m.u32())), // BINUNICODE
    "\x8c": m => m.push(m.text(m.u8())), // SHORT_BINUNICODE
    U: m => m.push(m.text(m.u8())), // SHORT_BINSTRING, of Python 2
    "]": m => m.push([]),
    a: m => m.append([m.pop()]),
    e: m => m.append(m.popMark()),
    "}": m => m.push(new Map()),
    u: m => m.setItems(m.popMark()),
    s: m => m.setItems([m.pop(), m.pop()].reverse()),
    "(": m => m.mark(),
    t: m => m.push(new PickleTuple(m.popMark())),
    ")": m => m.tuple(0),
    "\x85": m => m.tuple(1),
    "\x86": m => m.tuple(2),
    "\x87": m => m.tuple(3),
    q: m => m.put(m.u8()),
    r: m => m.put(m.u32()),
    "\x94": m => m.memoize(),
    h: m => m.get(m.u8()),
    j: m => m.get(m.u32()),
    c: m => m.global(m.line(), m.line()),
    "\x93": m => m.stackGlobal(),
    R: m => m.reduce(),
    b: m => m.build(),
    Q: m => m.persistent(), // BINPERSID
  } satisfies Record<string, Step>).map(([opcode, step]) => [opcode.charCodeAt(0), step]),
);
