/** Sessions from JavaScript: values in and out, order of effects, errors as classes, aborting, closing. */

import { AbortedError, ClosedError, ConfigError, NonFiniteError, PlanError, ProgramError, ShapeError } from "../../lib/errors.js";
import type { Program } from "../../lib/graph/program.js";
import { Session } from "../../lib/graph/session.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { addConstant, at, counting, instruction, sketch } from "../support/programs.js";

let session: Session;
beforeEach(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterEach(() => session.close());

const x = hostTensor("f32", [4], [1, 2, 3, 4]);
/** Long enough that no abort comes too late: far more memory traffic than a machine does in the time. */
const endless = counting(20_000, 1 << 20);

describe("run", () => {
  test("gives outputs by name, from inputs of any dtype", async () => {
    const executable = session.compile(addConstant);
    for (const dtype of ["f32", "f64", "bf16", "f16", "i32", "u8", "i64"] as const) {
      const { y } = await session.run(executable, { inputs: { x: hostTensor(dtype, [4], [1, 2, 3, 4]) } });
      expect(y).toEqual({ dtype: "f32", shape: [4], data: Float32Array.of(3.5, 4.5, 5.5, 6.5) });
    }
  });

  test("turns axes by the layout of the ports, there and back", async () => {
    const shape = [2, 3, 5, 7];
    const map = hostTensor(
      "f32",
      shape,
      Float32Array.from({ length: 210 }, (_, i) => i),
    );
    const tensors = [at(0, 0, 2, 5, 7, 3), at(0, 1024, 1), at(0, 2048, 2, 5, 7, 3)];
    const instructions = [instruction("full", [], [1], { value: 0 }), instruction("add", [0, 1], [2])];
    const { y } = await session.run(session.compile(sketch({ tensors, instructions, inputs: { x: 0 }, outputs: { y: 2 }, layout: "bchw" })), {
      inputs: { x: map },
    });
    expect(y).toEqual(map);
  });

  test("sees the scalars of its call only", async () => {
    const program = sketch({ tensors: [at(0, 0, 1)], instructions: [instruction("scalar", [], [0], { slot: 1 })], outputs: { y: 0 }, scalars: ["a", "b"] });
    const executable = session.compile(program);
    const runs = [1, 2, 3].map(b => session.run(executable, { scalars: { b, a: -1, unrelated: 9 } }));
    expect((await Promise.all(runs)).map(({ y }) => y!.data[0])).toEqual([1, 2, 3]);
  });

  test("refuses a feed that does not fit, naming what", async () => {
    const executable = session.compile(addConstant);
    await expect(session.run(executable, {})).rejects.toThrow(ConfigError);
    await expect(session.run(executable, { inputs: { x, z: x } })).rejects.toThrow('expected inputs to be of x, received "z"');
    await expect(session.run(executable, { inputs: { x: hostTensor("f32", [2, 2]) } })).rejects.toThrow(ShapeError);
    const other = Session.open({ backend: "cpu", threads: 1 });
    await expect(other.run(executable, { inputs: { x } })).rejects.toThrow(ConfigError);
    await other.close();
  });
});

describe("arenas", () => {
  test("persist, are zero at first, keep their contents when they grow", async () => {
    session.compile(counting(1, 16));
    session.write("state", 8, Float32Array.of(5));
    session.compile(counting(1, 1 << 16));
    const values = new Float32Array(await session.read("state", 0, 16));
    expect([...values]).toEqual([0, 0, 5, 0]);
    const tail = new Float32Array(await session.read("state", 4 * ((1 << 16) - 4), 16));
    expect([...tail]).toEqual([0, 0, 0, 0]);
    expect(session.memory().arenas).toEqual({ scratch: 4 << 16, state: 4 << 16 });
  });

  test("a write is seen by later runs, not by earlier ones, and copies its data", async () => {
    const executable = session.compile(counting(200, 1 << 16));
    const before = session.run(executable, {});
    const data = Float32Array.of(1000);
    session.write("state", 0, data);
    data[0] = -1;
    const [first, second] = [await before, await session.run(executable, {})];
    expect([first.y!.data[0], second.y!.data[0], second.y!.data[1]]).toEqual([200, 1200, 400]);
  });

  test("reads and writes stay inside", async () => {
    session.compile(addConstant);
    expect(() => session.write("state", 4093, Float32Array.of(1))).toThrow(ProgramError);
    expect(() => session.write("state", -4, Float32Array.of(1))).toThrow(ProgramError);
    expect(() => session.write("scratch", 0, Float32Array.of(1))).toThrow(ProgramError);
    expect(() => session.write("nowhere", 0, Float32Array.of(1))).toThrow("nowhere");
    await expect(session.read("state", 0, 4097)).rejects.toThrow(ProgramError);
    await expect(session.read("state", 0, Number.NaN)).rejects.toThrow(ProgramError);
  });

  test("are limited: a program over the limit is refused and reserves nothing", async () => {
    const small = Session.open({ backend: "cpu", threads: 1, memoryLimit: 10_000 });
    small.compile(addConstant);
    const error = caught(() => small.compile(counting(1, 2000)));
    expect(error).toBeInstanceOf(PlanError);
    expect(error).toMatchObject({ code: "ERR_MEMORY", needed: 16_000, available: 10_000 });
    expect(small.memory().arenas).toEqual({ scratch: 4096, state: 4096 });
    await small.close();
  });
});

describe("traces", () => {
  test("check mode names the first instruction that makes NaN or infinity, and its inputs", async () => {
    const tensors = [at(0, 0, 4), at(0, 64, 4), at(0, 128, 4)];
    const instructions = [instruction("log", [0], [1], {}, "policy/gate"), instruction("exp", [1], [2], {}, "later")];
    const executable = session.compile(sketch({ tensors, instructions, inputs: { x: 0 }, outputs: { y: 2 } }));
    const inputs = { x: hostTensor("f32", [4], [1, 2, 0, -1]) };
    expect((await session.run(executable, { inputs })).y!.data[3]).toBeNaN();
    session.trace(executable, "check");
    const error = await rejection(session.run(executable, { inputs }));
    expect(error).toBeInstanceOf(NonFiniteError);
    expect(error).toMatchObject({ op: "log", label: "policy/gate" });
    expect(error.message).toMatch(
      /log at policy\/gate: output 0 has 2 non-finite of 4 values, the first \(-inf\) at index 2; input 0: f32 \[4\], from -1 to 2, 100% finite/,
    );
    session.trace(executable, "off");
    await session.run(executable, { inputs });
  });

  test("time mode measures every instruction, sums per op, and starts again at each call", async () => {
    const executable = session.compile(counting(3, 1 << 16));
    session.trace(executable, "time");
    for (let i = 0; i < 5; i++) await session.run(executable, {});
    const trace = session.trace(executable, "off");
    expect(trace.runs).toBe(5);
    expect(trace.instructions.map(i => i.op)).toEqual(["full", "accumulate", "accumulate", "accumulate"]);
    for (const { seconds } of trace.instructions) expect(seconds).toBeGreaterThan(0);
    expect(trace.ops.map(({ op, count }) => [op, count]).sort()).toEqual([
      ["accumulate", 15],
      ["full", 5],
    ]);
    expect(session.trace(executable, "off")).toEqual({ runs: 0, ops: [], instructions: [] });
  });
});

describe("aborting", () => {
  test("ends a run between two instructions and rejects with the signal's reason", async () => {
    const executable = session.compile(endless);
    const controller = new AbortController();
    const reason = new Error("enough");
    const run = session.run(executable, {}, { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 30);
    await expect(run).rejects.toBe(reason);
    const counted = new Float32Array(await session.read("state", 0, endless.arenas[1]!.bytes));
    expect(counted[0]).toBeLessThan(20_000); // whole instructions only: every element has been counted equally often
    expect(counted.every(n => n === counted[0])).toBe(true);
    expect((await session.run(session.compile(addConstant), { inputs: { x } })).y!.data[0]).toBe(3.5);
  });

  test("an aborted signal starts nothing; a run that is over does not listen any more", async () => {
    const executable = session.compile(counting(1, 16));
    await expect(session.run(executable, {}, { signal: AbortSignal.abort("no") })).rejects.toBe("no");
    const controller = new AbortController();
    await session.run(executable, {}, { signal: controller.signal });
    controller.abort();
    expect((await session.run(executable, {})).y!.data[0]).toBe(2);
  });
});

describe("closing", () => {
  test("cancels what runs and what waits, and is idempotent", async () => {
    const executable = session.compile(endless);
    const runs = [session.run(executable, {}), session.run(executable, {})];
    const outcomes = Promise.all(runs.map(rejection));
    const closed = session.close();
    expect(session.close()).toBe(closed);
    await closed;
    for (const error of await outcomes) expect(error).toBeInstanceOf(AbortedError);
  });

  test("every use afterwards is ERR_CLOSED", async () => {
    const executable = session.compile(addConstant);
    await session.close();
    for (const use of [
      () => session.compile(addConstant),
      () => session.memory(),
      () => session.write("state", 0, x.data),
      () => session.trace(executable, "off"),
    ])
      expect(use).toThrow(ClosedError);
    await expect(session.run(executable, { inputs: { x } })).rejects.toThrow(ClosedError);
    await expect(session.read("state", 0, 4)).rejects.toThrow(ClosedError);
  });
});

describe("errors", () => {
  test("carry the stack of the caller, also from the session's thread", async () => {
    const bad = { ...addConstant, instructions: [instruction("nothing", [], [0], {}, "here")] };
    expect(caught(() => session.compile(bad)).stack).toContain("session.test");
    const embedding = sketch({
      tensors: [at(0, 0, 4, 2), { arena: 0, offset: 64, dtype: "i32", shape: [1] }, at(0, 128, 1, 2)],
      instructions: [instruction("embedding", [0, 1], [2], {}, "tokens")],
      inputs: { table: 0, ids: 1 },
    });
    const executable = session.compile(embedding);
    const error = await rejection(session.run(executable, { inputs: { table: hostTensor("f32", [4, 2]), ids: hostTensor("i32", [1], [9]) } }));
    expect(error).toMatchObject({ code: "ERR_DATA", message: expect.stringMatching(/embedding at tokens: .*9/) });
    expect(error.stack).toContain("session.test");
  });

  test("options are checked", () => {
    expect(() => Session.open({ backend: "cpu", threads: 0 })).toThrow(ConfigError);
    expect(() => Session.open({ backend: "cpu", threads: 1.5 })).toThrow(ConfigError);
    expect(() => Session.open({ backend: "cpu", memoryLimit: -1 })).toThrow(ConfigError);
    process.env.ATTUNE_CPU_ISA = "mmx";
    try {
      expect(() => Session.open({ backend: "cpu" })).toThrow("ATTUNE_CPU_ISA");
    } finally {
      delete process.env.ATTUNE_CPU_ISA;
    }
  });
});

describe("a hostile program is a ProgramError that says what is wrong", () => {
  const [full, add] = addConstant.instructions as [Program["instructions"][0], Program["instructions"][0]];
  const [a, b, c] = addConstant.tensors as [Program["tensors"][0], Program["tensors"][0], Program["tensors"][0]];
  const raw = (value: unknown) => value as never;
  const cases: readonly (readonly [string, Partial<Program>, RegExp])[] = [
    ["an unknown op", { instructions: [{ ...add, op: "rm" }] }, /instruction 0, rm at sum: the cpu backend has no kernel/],
    ["an id past the end", { instructions: [{ ...add, inputs: [0, 3] }] }, /instruction 0, add at sum: expected input ids in \[-1, 3\), received 3/],
    ["a negative id", { instructions: [{ ...add, inputs: [0, -2] }] }, /received -2/],
    ["an absent output", { instructions: [{ ...add, outputs: [-1] }] }, /expected output ids in \[0, 3\), received -1/],
    ["no output", { instructions: [full, { ...add, outputs: [] }] }, /instruction 1.*no output/],
    ["a fractional id", { instructions: [{ ...add, inputs: [0.5, 1] }] }, /instructions\[0\]\.inputs\[0\]: expected an integer/],
    ["an offset past the arena", { tensors: [a, b, { ...c, offset: 4096 }] }, /tensor 2: f32 \[4\] at offset 4096 does not fit in arena "scratch" of 4096/],
    ["an extent past the arena", { tensors: [a, b, { ...c, offset: 4084 }] }, /does not fit/],
    ["a negative offset", { tensors: [a, b, { ...c, offset: -64 }] }, /tensor 2: expected an offset/],
    ["an offset between elements", { tensors: [a, b, { ...c, offset: 130 }] }, /multiple of 4/],
    ["an arena past the end", { tensors: [a, b, { ...c, arena: 2 }] }, /tensor 2: expected an arena in \[0, 2\), received 2/],
    ["a shape that overflows", { tensors: [a, b, { ...c, shape: [2 ** 31, 2 ** 31, 2 ** 31] }] }, /tensor 2: .*impossible dimension/],
    ["an empty axis", { tensors: [a, b, { ...c, shape: [0] }] }, /impossible dimension 0/],
    ["seven axes", { tensors: [a, b, { ...c, shape: [1, 1, 1, 1, 1, 1, 1] }] }, /at most 6/],
    ["an unknown dtype", { tensors: [a, b, { ...c, dtype: raw("f128") }] }, /tensors\[2\]\.dtype: expected f64/],
    ["outputs that share memory", { instructions: [{ ...add, outputs: [2, 2] }] }, /outputs 0 and 1 share memory/],
    ["an output across an input", { tensors: [a, b, { ...c, offset: 8 }] }, /output 0 lies across input 0/],
    [
      "an attribute of no known type",
      { instructions: [{ ...full, attrs: { value: raw({}) } }, add] },
      /attrs\.value: expected a number, a boolean, a string or a list/,
    ],
    ["a list with text in it", { instructions: [{ ...full, attrs: { value: raw([1, "2"]) } }, add] }, /attrs\.value\[1\]: expected a number/],
    ["a slot that is not there", { instructions: [instruction("scalar", [], [0], { slot: 0 })] }, /slot in \[0, 0\)/],
    ["a port without tensor", { outputs: [{ name: "y", tensor: 3, layout: "plain" }] }, /output "y": expected a tensor id in \[0, 3\), received 3/],
    ["two ports of one name", { outputs: [0, 1].map(tensor => ({ name: "y", tensor, layout: "plain" as const })) }, /two outputs are named "y"/],
    ["no scratch", { arenas: [{ name: "other", bytes: 4096 }] }, /expected arena 0 to be "scratch"/],
    ["an arena twice", { arenas: [...addConstant.arenas, { name: "state", bytes: 1 }] }, /two arenas are named "state"/],
    ["an arena beyond any machine", { arenas: [{ name: "scratch", bytes: 2 ** 50 }] }, /2\^46/],
    ["another format", { format: raw(2) }, /program\.format: expected 1/],
    ["no instructions at all", { instructions: raw(undefined) }, /program\.instructions: expected an array/],
  ];
  for (const [name, change, message] of cases)
    test(name, () => {
      const error = caught(() => session.compile({ ...addConstant, ...change }));
      expect(error).toBeInstanceOf(ProgramError);
      expect(error.message).toMatch(message);
    });

  test("an attribute of the wrong type, found when the kernel asks for it", async () => {
    const executable = session.compile({ ...addConstant, instructions: [{ ...full, attrs: { value: "2.5" } }, add] });
    const error = await rejection(session.run(executable, { inputs: { x } }));
    expect(error).toBeInstanceOf(ProgramError);
    expect(error).toMatchObject({ op: "full", label: "shift", message: 'full at shift: attribute "value": expected a number' });
  });

  test("something that is no program", () => {
    for (const value of [undefined, null, 7, "program", [], () => 0]) expect(() => session.compile(raw(value))).toThrow(ProgramError);
  });
});

function caught(body: () => unknown): Error {
  try {
    body();
  } catch (error) {
    return error as Error;
  }
  throw new Error("expected an error");
}

function rejection(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => {
      throw new Error("expected a rejection");
    },
    (error: Error) => error,
  );
}
