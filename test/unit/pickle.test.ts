/** The data-only unpickler: what it builds, and that nothing else in a pickle does anything but name itself. */

import { pickleLimits, TruncatedPickle, unpickle } from "../../lib/data/pickle.js";
import { PickleTuple, type PickleValue } from "../../lib/data/pickle-value.js";
import { torchGlobals } from "../../lib/data/torch-pickle.js";
import { DataError } from "../../lib/errors.js";
import { int, type Part, pickle, text } from "../support/pickle.js";

const read = (...parts: Part[]): PickleValue => unpickle(pickle(...parts), { source: "p", globals: torchGlobals }).value;

function refusal(...parts: Part[]): DataError {
  try {
    read(...parts);
  } catch (error) {
    expect(error).toBeInstanceOf(DataError);
    return error as DataError;
  }
  throw new Error("expected the pickle to be refused");
}

test.each<[string, Part[], PickleValue]>([
  ["None", ["N."], null],
  ["booleans", ["\x88."], true],
  ["signed 32 bits", ["J\xfe\xff\xff\xff."], -2],
  ["one and two bytes", ["M\x01\x02."], 0x201],
  ["LONG1, negative", ["\x8a\x02\x00\x80."], -32768],
  ["LONG1, empty", ["\x8a\x00."], 0],
  ["LONG1 beyond 2^53", ["\x8a\x09", int(0, 6), "\x00\x00\x40."], 2n ** 70n],
  ["a double", ["G\x3f\xf8\0\0\0\0\0\0."], 1.5],
  ["UTF-8", [text("é"), "."], "é"],
  ["a list", ["](K\x01K\x02e."], [1, 2]],
  [
    "a dict",
    ["}(", text("a"), "K\x01", text("b"), "Nu."],
    new Map<PickleValue, PickleValue>([
      ["a", 1],
      ["b", null],
    ]),
  ],
  ["tuples", ["K\x01N\x86."], new PickleTuple([1, null])],
  ["an OrderedDict with attributes", ["ccollections\nOrderedDict\n)R}", text("_metadata"), "}sb."], new Map()],
  ["protocol 4", ["\x80\x04\x95", int(8, 8), "]\x94\x8c\x01xa."], ["x"]],
  ["a value by memo", ["K\x05q\x07h\x07\x86."], new PickleTuple([5, 5])],
])("%s", (_, parts, value) => {
  expect(read(...parts)).toEqual(value);
});

test("a memo entry is the same value, not a copy: a list can hold itself", () => {
  const list = read("]q\x00h\x00a.") as PickleValue[];
  expect(list[0]).toBe(list);
});

test("what follows STOP is left alone, and its place is told", () => {
  expect(unpickle(pickle("K\x01.K\x02."), { source: "p" })).toEqual({ value: 1, end: 3 });
  expect(unpickle(pickle("K\x01.K\x02."), { source: "p" }, 3)).toEqual({ value: 2, end: 6 });
});

describe("refused by name and offset, with nothing run", () => {
  test.each<[string, Part[], string, number]>([
    ["os.system", ["\x80\x02cos\nsystem\n", text("touch /tmp/owned"), "\x85R."], '"os.system"', 2],
    ["posix by STACK_GLOBAL", ["\x80\x04\x8c\x05posix\x8c\x06system\x93", text("id"), "\x85R."], '"posix.system"', 17],
    ["eval", ["c__builtin__\neval\n", text("1"), "\x85R."], '"__builtin__.eval"', 0],
    ["a dotted way through an allowed module", ["ctorch._utils\n__builtins__.eval\n."], '"torch._utils.__builtins__.eval"', 0],
    ["torch.load itself", ["ctorch\nload\n."], '"torch.load"', 0],
    ["a name of Object.prototype", ["c__proto__\nconstructor\n."], '"__proto__.constructor"', 0],
    ["INST", ["(", text("id"), "ios\nsystem\n."], "opcode INST", 8],
    ["OBJ", ["(ccollections\nOrderedDict\no."], "opcode OBJ", 26],
    ["NEWOBJ", ["ccollections\nOrderedDict\n)\x81."], "opcode NEWOBJ", 26],
    ["EXT1", ["\x82\x01."], "opcode EXT1", 0],
    ["PERSID", ["Pid\n."], "opcode PERSID", 0],
    ["BINBYTES", ["B", int(1), "x."], "opcode BINBYTES", 0],
    ["an opcode that does not exist", ["N\xff."], "opcode 0xff", 1],
    ["an inert name that is called", ["cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n)R."], "opcode REDUCE", 63],
    ["a call of what is no function", [text("x"), ")R."], "opcode REDUCE", 7],
    ["BUILD on a list", ["]}b."], "opcode BUILD", 2],
    ["BUILD with a list", ["}]b."], "opcode BUILD", 2],
    ["a persistent id where there are none", ["NQ."], "opcode BINPERSID", 1],
    ["a storage type called", ["ctorch\nFloatStorage\n)R."], "opcode REDUCE", 21],
    ["a tensor of no storage", ["ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))t", "R."], "torch._utils._rebuild_tensor_v2", 40],
  ])("%s", (_, parts, name, offset) => {
    const error = refusal(...parts);
    expect(error.message).toContain(name);
    expect(error.where.offset).toBe(offset);
  });
});

describe("wrong use of the stack", () => {
  test.each<[string, Part[]]>([
    ["nothing", ["."]],
    ["two values", ["NN."]],
    ["an open mark", ["N(."]],
    ["a pop of nothing", ["a."]],
    ["a tuple of too few", ["N\x87."]],
    ["a mark that is not there", ["Nt."]],
    ["values below a mark are out of reach", ["](a."]],
    ["an append to a tuple", [")Na."]],
    ["an item of a list", ["]NNs."]],
    ["a key without its value", ["}(Nu."]],
    ["a list as a key", ["}]Ns."]],
    ["a memo entry that was never put", ["h\x00."]],
    ["a put of nothing", ["q\x00."]],
    ["STACK_GLOBAL of numbers", ["K\x01K\x02\x93."]],
  ])("%s", (_, parts) => {
    expect(refusal(...parts).where.field).toMatch(/^opcode /);
  });
});

describe("sizes", () => {
  test.each<[string, Part[]]>([
    ["a string of 4 GiB", ["X\xff\xff\xff\xff."]],
    ["a long of 255 bytes that are not there", ["\x8a\xff\x00."]],
    ["no STOP", ["N"]],
    ["nothing at all", []],
    ["a name without an end", ["cos"]],
  ])("%s is cut off", (_, parts) => {
    expect(refusal(...parts)).toBeInstanceOf(TruncatedPickle);
  });

  test("limits of stack, marks, memo and names", () => {
    expect(refusal("N".repeat(pickleLimits.stack + 1), ".").message).toMatch(/values on the stack/);
    expect(refusal("(".repeat(pickleLimits.marks + 1), ".").message).toMatch(/nested marks/);
    expect(refusal("N", "\x94".repeat(pickleLimits.memo + 1), ".").message).toMatch(/memo entries/);
    expect(refusal("c", "x".repeat(600), "\ny\n.").message).toMatch(/name of at most/);
    expect(refusal(text("a").subarray(0, 5), "\xff.").message).toMatch(/UTF-8/);
  });

  test("a million tuples in one another are built and dropped without recursion", () => {
    expect(read("N", "\x85".repeat(1_000_000), ".")).toBeInstanceOf(PickleTuple);
  });

  test("a put at 2^32 - 1 takes one entry", () => {
    expect(read("Nr\xff\xff\xff\xffj\xff\xff\xff\xff\x86.")).toEqual(new PickleTuple([null, null]));
  });
});

test("errors are ours and name the file", () => {
  expect(() => unpickle(pickle("cos\nsystem\n."), { source: "evil.ckpt", base: 100 })).toThrow(DataError);
  expect(() => unpickle(pickle("cos\nsystem\n."), { source: "evil.ckpt", base: 100 })).toThrow(
    /^evil\.ckpt \(field opcode GLOBAL, offset 100\): .*"os\.system"/,
  );
});
