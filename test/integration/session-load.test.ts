/** Tensors of files into arenas and back: the bits of the conversion that host-tensor.ts does, whatever dtype and layout; files that change under the reader;
 *  aborting. */

import { closeSync, openSync, renameSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import type { TensorPlace } from "../../lib/data/safetensors.js";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import { AbortedError, DataError, ProgramError } from "../../lib/errors.js";
import { Session } from "../../lib/graph/session.js";
import type { Layout } from "../../lib/graph/tensor.js";
import { convert, type HostTensor, hostTensor, hostTensorFromBytes, insideShape, toInside, toOutside } from "../../lib/util/host-tensor.js";
import { expectSame } from "../support/compare.js";
import { addConstant, counting } from "../support/programs.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();
let session: Session;
beforeEach(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterEach(() => session.close());

/** Numbers of every magnitude that float32 and float16 round in different ways: exponents from below the smallest to beyond the largest. */
const drawn = ((count: number): Float64Array => {
  const { floor, imul } = Math; // locals: see rng.ts
  let seed = 12345;
  const uniform = (): number => {
    seed = (imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) values[i] = (uniform() - 0.5) * 2 ** floor((uniform() - 0.5) * (i % 3 === 0 ? 300 : 40));
  return values;
})(1 << 20);
const numbers = (count: number): Float64Array => drawn.slice(0, count);

/** Fails unless the two have the same bits. NaN counts as NaN: which one a conversion leaves is the processor's choice. */
function expectBits(actual: HostTensor, expected: HostTensor): void {
  expect(actual.dtype).toBe(expected.dtype);
  const [a, b] = [actual, expected].map(({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  if (!a!.equals(b!)) expectSame(actual.data as Float64Array, expected.data as Float64Array, actual.dtype);
}

async function written(tensor: HostTensor, name = "file.safetensors"): Promise<string> {
  const path = at(name);
  await writeSafetensors(path, { before: hostTensor("u8", [5], [1, 2, 3, 4, 5]), x: tensor });
  return path;
}

const shapes: readonly (readonly [Layout, readonly number[]])[] = [
  ["plain", []],
  ["plain", [0]],
  ["plain", [7, 3]],
  ["plain", [70_001, 3]], // several pieces, the last one short
  ["oihw", [3, 5, 3, 3]],
  ["oihw", [1, 1, 1, 1]],
  ["oihw", [33, 65, 1, 1]],
  ["oihw", [65, 1, 3, 5]],
  ["oihw", [67, 129, 3, 3]], // pieces of whole matrices
  ["oihw", [2, 40_003, 3, 3]], // a matrix larger than a piece
  ["oihw", [4, 0, 3, 3]],
  ["bchw", [2, 3, 5, 7]],
];

describe.each(["f64", "f32", "bf16", "f16"] as const)("a file of %s", stored => {
  for (const arena of ["f32", "f64"] as const)
    test.each(shapes)(`reaches an arena of ${arena} as convert and toInside bring it: %s [%s]`, async (layout, shape) => {
      const outside = convert(hostTensor("f64", shape, numbers(shape.reduce((n, d) => n * d, 1))), stored);
      const expected = toInside(convert(outside, arena), layout);
      const { byteLength } = expected.data;
      session.compile(counting(1, byteLength / 4 + 32));
      const guard = Uint8Array.from({ length: 64 }, (_, i) => i + 1);
      session.write("state", 0, guard);
      session.write("state", 64 + byteLength, guard);
      const file = readSafetensors(await written(outside));
      const loaded = session.load("state", 64, file.place("x"), { dtype: arena, layout });
      file.close(); // the descriptor that is read is the session's own
      await loaded;
      expectBits(hostTensorFromBytes(arena, expected.shape, await session.read("state", 64, byteLength)), expected);
      for (const offset of [0, 64 + byteLength]) expect(new Uint8Array(await session.read("state", offset, 64))).toEqual(guard);

      const back = await session.readTensor("state", 64, { dtype: arena, shape: insideShape(shape, layout), layout }, stored);
      expect(back.shape).toEqual([...shape]);
      expectBits(back, convert(toOutside(expected, layout), stored));
    });
});

test.each(["bf16", "f16"] as const)("every bit pattern of %s is read as host-tensor.ts reads it", async stored => {
  const outside = hostTensor(
    stored,
    [1 << 16],
    Uint16Array.from({ length: 1 << 16 }, (_, i) => i),
  );
  session.compile(counting(1, 1 << 17));
  const file = readSafetensors(await written(outside));
  for (const arena of ["f32", "f64"] as const) {
    await session.load("state", 0, file.place("x"), { dtype: arena, layout: "plain" });
    const inside = hostTensorFromBytes(arena, [1 << 16], await session.read("state", 0, (arena === "f32" ? 4 : 8) << 16));
    expectBits(inside, convert(outside, arena));
  }
  file.close();
});

test.each(["f32", "f64"] as const)("%s is rounded to 16 bits as host-tensor.ts rounds it, ties included", async arena => {
  const odd = Float64Array.from([
    65519.99,
    65520,
    2 ** -25,
    2 ** -25 * (1 + 2 ** -20),
    2 ** -24 * 1.5,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    1 + 2 ** -8 + 2 ** -40,
    -0,
  ]);
  const inside = convert(hostTensor("f64", [odd.length + 9999], Float64Array.from([...odd, ...numbers(9999)])), arena);
  session.compile(counting(1, 1 << 16));
  session.write("state", 0, inside.data);
  for (const dtype of ["bf16", "f16"] as const)
    expectBits(await session.readTensor("state", 0, { dtype: arena, shape: inside.shape, layout: "plain" }, dtype), convert(inside, dtype));
});

describe("a file that changes after its header was checked", () => {
  const tensor = hostTensor(
    "f32",
    [1 << 20],
    Float32Array.from({ length: 1 << 20 }, (_, i) => i),
  );
  const whole = { dtype: "f32", layout: "plain" } as const;

  test("truncated: an error with file, offset, expected and received bytes; the session goes on", async () => {
    session.compile(counting(1, 1 << 20));
    const path = await written(tensor);
    const file = readSafetensors(path);
    const place = file.place("x");
    truncateSync(path, place.offset + 3_000_001);
    const error = await session.load("state", 0, place, whole).catch((e: unknown) => e as DataError);
    expect(error).toBeInstanceOf(DataError);
    expect(error).toMatchObject({ code: "ERR_DATA", file: path, where: { offset: place.offset + 3_000_001 } });
    expect((error as DataError).message).toContain("expected 4194304 bytes, received 3000001 before the file ended");
    expect((error as DataError).stack).toContain("session-load.test");
    file.close();
    const x = hostTensor("f32", [4], [1, 2, 3, 4]);
    expect((await session.run(session.compile(addConstant), { inputs: { x } })).y!.data[3]).toBe(6.5);
    const sound = readSafetensors(await written(tensor, "sound.safetensors"));
    await session.load("state", 0, sound.place("x"), whole);
    sound.close();
    expectBits(hostTensorFromBytes("f32", [1 << 20], await session.read("state", 0, 4 << 20)), tensor);
  });

  test("replaced by another of that name: what was opened is what is read", async () => {
    session.compile(counting(1, 1 << 20));
    const file = readSafetensors(await written(tensor));
    renameSync(await written(hostTensor("f32", [1]), "other.safetensors"), at("file.safetensors"));
    await session.load("state", 0, file.place("x"), whole);
    file.close();
    expectBits(hostTensorFromBytes("f32", [1 << 20], await session.read("state", 0, 4 << 20)), tensor);
  });

  test("something that cannot be read at all is an error that says why", async () => {
    session.compile(counting(1, 16));
    const place = { path: at(), offset: 0, bytes: 8, dtype: "f32", shape: [2] } as const;
    const folder = openSync(at(), "r");
    await expect(session.load("state", 0, { ...place, fd: folder }, whole)).rejects.toThrow(/expected 8 bytes, received 0 and then "Is a directory"/);
    closeSync(folder);
    await expect(session.load("state", 0, { ...place, fd: folder }, whole)).rejects.toThrow(/expected 8 bytes, received Bad file descriptor/);
  });
});

describe("aborting", () => {
  /** Zeros of f64 that take no disk, 2 GiB: a load of it lasts long enough to be stopped on the way, and touches no more memory than it got to. */
  const elements = 1 << 28;
  const slow = (): TensorPlace => {
    writeFileSync(at("zeros"), "");
    truncateSync(at("zeros"), 8 * elements);
    return { path: at("zeros"), fd: openSync(at("zeros"), "r+"), offset: 0, bytes: 8 * elements, dtype: "f64", shape: [elements] };
  };
  const options = { dtype: "f32", layout: "plain" } as const;

  test("stops on the way and rejects with the signal's reason", async () => {
    session.compile(counting(1, elements));
    const place = slow();
    writeSync(place.fd, Float64Array.of(7), 0, 8, 0);
    session.write("state", 4 * elements - 4, Float32Array.of(5));
    const controller = new AbortController();
    const reason = new Error("enough");
    const load = session.load("state", 0, place, { ...options, signal: controller.signal });
    setTimeout(() => controller.abort(reason), 20);
    await expect(load).rejects.toBe(reason);
    closeSync(place.fd);
    expect(new Float32Array(await session.read("state", 4 * elements - 4, 4))[0]).toBe(5); // it did not get there
    const x = hostTensor("f32", [4], [1, 2, 3, 4]);
    expect((await session.run(session.compile(addConstant), { inputs: { x } })).y!.data[3]).toBe(6.5);
  });

  test("a load that waits for its turn writes nothing; an aborted signal starts nothing", async () => {
    const busy = session.compile(counting(20_000, 1 << 20));
    const file = readSafetensors(await written(hostTensor("f32", [4], [-1, -1, -1, -1])));
    const [first, second] = [new AbortController(), new AbortController()];
    const run = session.run(busy, {}, { signal: first.signal });
    const load = session.load("state", 0, file.place("x"), { ...options, signal: second.signal });
    second.abort("second");
    first.abort("first");
    await expect(run).rejects.toBe("first");
    await expect(load).rejects.toBe("second");
    expect(new Float32Array(await session.read("state", 0, 4))[0]).toBeGreaterThanOrEqual(0);
    await expect(session.load("state", 0, file.place("x"), { ...options, signal: AbortSignal.abort("no") })).rejects.toBe("no");
    file.close();
  });

  test("closing the session ends a load", async () => {
    session.compile(counting(1, elements));
    const place = slow();
    const outcome = session.load("state", 0, place, options).catch((e: unknown) => e);
    await session.close();
    expect(await outcome).toBeInstanceOf(AbortedError);
    closeSync(place.fd);
  });
});

test("a load sees the runs before it, and the runs after it see the load", async () => {
  const executable = session.compile(counting(200, 1 << 16));
  const file = readSafetensors(await written(hostTensor("f32", [1], [1000])));
  const before = session.run(executable, {});
  const load = session.load("state", 0, file.place("x"), { dtype: "f32", layout: "plain" });
  const after = session.run(executable, {});
  file.close();
  expect([(await before).y!.data[0], (await after).y!.data[0], (await after).y!.data[1]]).toEqual([200, 1200, 400]);
  await load;
});

test("what does not fit is refused before anything is read", async () => {
  session.compile(counting(1, 16));
  const file = readSafetensors(await written(hostTensor("f32", [1, 2, 2, 2], [1, 2, 3, 4, 5, 6, 7, 8])));
  const place = file.place("x");
  const plain = { dtype: "f32", layout: "plain" } as const;
  const refused: readonly (readonly [Promise<unknown>, RegExp])[] = [
    [session.load("state", 40, place, plain), /load of arena "state": expected a range in its 64 bytes, received 32 bytes at offset 40/],
    [session.load("state", 32, place, { ...plain, dtype: "f64" }), /received 64 bytes at offset 32/],
    [session.load("state", 2, place, plain), /multiple of 4, received 2/],
    [session.load("scratch", 0, place, plain), /persistent arena/],
    [session.load("state", 0, { ...place, dtype: "i64" }, plain), /source\.dtype: expected f64, f32, bf16 or f16/],
    [session.load("state", 0, { ...place, shape: [8] }, { ...plain, layout: "oihw" }), /source\.shape: expected four axes/],
    [session.load("state", 0, { ...place, shape: [2 ** 40, 2 ** 40] }, plain), /source\.shape/],
    [session.load("state", 0, { ...place, shape: [-1] }, plain), /source\.shape/],
    [session.load("state", 0, { ...place, offset: -1 }, plain), /source\.offset/],
    [session.readTensor("state", 4, { ...plain, shape: [16] }), /read of arena "state"/],
  ];
  for (const [promise, message] of refused) {
    const error = await promise.catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ProgramError);
    expect((error as Error).message).toMatch(message);
  }
  file.close();
  expect(new Float32Array(await session.read("state", 0, 64))).toEqual(new Float32Array(16));
});
