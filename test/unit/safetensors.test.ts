/** What a file may not be, field by field; what it may be; and that a file is whole or absent. */

import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import { readWeights } from "../../lib/data/weights.js";
import { ClosedError, DataError } from "../../lib/errors.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { goldenSet } from "../support/goldens.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();

/** A file with this header text (or value) and data. */
function file(header: unknown, data: Uint8Array = new Uint8Array(0), length?: bigint): string {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  const path = at("file.safetensors");
  writeFileSync(path, bytes);
  return path;
}

function empty(): string {
  writeFileSync(at("empty"), "");
  return at("empty");
}

const x = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
const eight = new Uint8Array(8);

describe("refused on opening", () => {
  const hostile: readonly [name: string, make: () => string, message: RegExp][] = [
    ["an empty file", () => empty(), /at least 8 bytes/],
    ["a length of 2^64 - 1", () => file("{}", eight, 2n ** 64n - 1n), /at most 100000000 bytes, received 18446744073709551615/],
    ["a length just above the limit", () => file("{}", eight, 100_000_001n), /at most 100000000/],
    ["a length beyond the file", () => file("{}", eight, 11n), /at most 10 bytes/],
    ["no JSON", () => file("no json!"), /UTF-8 JSON/],
    ["bytes that are not UTF-8", () => file("{}", eight, 9n), /UTF-8 JSON/],
    ["an array", () => file([]), /JSON object/],
    ["null", () => file("null"), /JSON object/],
    ["a NaN", () => file('{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', eight), /UTF-8 JSON/],
    ["a nest without end", () => file(`{"x":${"[".repeat(1e5)}${"]".repeat(1e5)}}`), /nested at most 256 deep/],
    ["a name twice", () => file(`{"x":${JSON.stringify(x)},"x":${JSON.stringify(x)}}`, eight), /distinct keys, received "x" twice/],
    ["a name twice, once escaped", () => file(`{"x":${JSON.stringify(x)},"\\u0078":${JSON.stringify(x)}}`, eight), /received "x" twice/],
    ["a field twice", () => file('{"x":{"dtype":"F32","dtype":"F64","shape":[2],"data_offsets":[0,8]}}', eight), /received "dtype" twice/],
    ["a tensor that is a number", () => file({ x: 1 }), /x.*an object with dtype, shape and data_offsets/],
    ["a field too many", () => file({ x: { ...x, stride: 1 } }, eight), /x\.stride.*no field but/],
    ["an unknown dtype", () => file({ x: { ...x, dtype: "F128" } }, eight), /x\.dtype.*received "F128"/],
    ["a dtype of the prototype", () => file({ x: { ...x, dtype: "toString" } }, eight), /x\.dtype/],
    ["a negative dimension", () => file({ x: { ...x, shape: [-2] } }, eight), /x\.shape.*whole numbers/],
    ["half a dimension", () => file({ x: { ...x, shape: [0.5] } }, eight), /x\.shape/],
    ["a dimension beyond 2^53", () => file({ x: { ...x, shape: [2 ** 53] } }, eight), /x\.shape/],
    ["a product that overflows", () => file({ x: { ...x, shape: [2 ** 30, 2 ** 30, 2 ** 30, 0.5 * 2 ** 31] } }, eight), /x\.shape.*2\^50/],
    ["a size that is no whole byte", () => file({ x: { dtype: "F4", shape: [3], data_offsets: [0, 2] } }, new Uint8Array(2)), /whole bytes/],
    ["a shape that is a string", () => file({ x: { ...x, shape: "2" } }, eight), /x\.shape/],
    ["negative offsets", () => file({ x: { ...x, data_offsets: [-8, 0] } }, eight), /x\.data_offsets/],
    ["offsets in the wrong order", () => file({ x: { ...x, data_offsets: [8, 0] } }, eight), /0 <= begin <= end/],
    ["three offsets", () => file({ x: { ...x, data_offsets: [0, 8, 8] } }, eight), /x\.data_offsets/],
    ["an extent that does not fit the shape", () => file({ x: { ...x, data_offsets: [0, 4] } }, new Uint8Array(4)), /an extent of 8 bytes \(F32 \[2\]\)/],
    ["offsets beyond the end", () => file({ x }, new Uint8Array(7)), /a file of \d+ bytes by its header, received/],
    ["bytes after the end", () => file({ x }, new Uint8Array(9)), /by its header, received/],
    ["an overlap", () => file({ x, y: { ...x, data_offsets: [4, 12] } }, new Uint8Array(12)), /y\.data_offsets.*an overlap/],
    ["two names for the same bytes", () => file({ x, y: x }, eight), /y\.data_offsets.*an overlap/],
    ["a hole", () => file({ x, y: { ...x, data_offsets: [12, 20] } }, new Uint8Array(20)), /y\.data_offsets.*a hole/],
    ["a hole at the beginning", () => file({ x: { ...x, data_offsets: [8, 16] } }, new Uint8Array(16)), /a hole/],
    ["metadata that is no object", () => file({ __metadata__: "pt" }), /__metadata__/],
    ["metadata of numbers", () => file({ __metadata__: { step: 1 } }), /__metadata__\.step.*a string, received 1/],
    ["a file that is not there", () => at("absent.safetensors"), /ENOENT/],
  ];
  test.each(hostile)("%s", (_, make, message) => {
    const path = make();
    expect(() => readSafetensors(path)).toThrow(DataError);
    expect(() => readSafetensors(path)).toThrow(message);
  });

  test("every prefix of a small file", async () => {
    const path = at("whole.safetensors");
    await writeSafetensors(path, { a: hostTensor("f32", [2], [1, 2]), b: hostTensor("u8", [3], [1, 2, 3]) }, { format: "pt" });
    const whole = readFileSync(path);
    readSafetensors(path).close();
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(at("cut"), whole.subarray(0, length));
      expect(() => readSafetensors(at("cut"))).toThrow(DataError);
    }
  });
});

describe("read", () => {
  test("an empty file of an empty header, a scalar and a tensor of no elements", () => {
    readSafetensors(file("{}")).close();
    const scalar = { dtype: "F64", shape: [], data_offsets: [0, 8] };
    const none = { dtype: "F32", shape: [0, 3], data_offsets: [0, 0] };
    const opened = readSafetensors(file({ scalar, none }, new Uint8Array(new Float64Array([7]).buffer)));
    expect([...opened.tensor("scalar").data]).toEqual([7]);
    expect(opened.tensor("none").shape).toEqual([0, 3]);
    opened.close();
  });

  test("tensors in an order other than that of their data, after a header padded with spaces", () => {
    const header = `${JSON.stringify({ late: { ...x, data_offsets: [8, 16] }, early: x })}   `;
    const opened = readSafetensors(file(header, new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer)));
    expect([...opened.tensor("late").data]).toEqual([3, 4]);
    expect([...opened.tensor("early").data]).toEqual([1, 2]);
    opened.close();
  });

  test("names that JavaScript treats specially", async () => {
    const tensors = new Map([
      ["__proto__", hostTensor("f32", [1], [1])],
      ["constructor", hostTensor("f32", [1], [2])],
      ["10", hostTensor("f32", [1], [3])],
    ]);
    await writeSafetensors(at("names"), tensors);
    const opened = readSafetensors(at("names"));
    expect([...opened.tensors.keys()].sort()).toEqual(["10", "__proto__", "constructor"]);
    expect([...opened.tensor("__proto__").data]).toEqual([1]);
    opened.close();
  });

  test.each(["BOOL", "I8", "F8_E4M3", "F8_E5M2", "U64"])("%s opens, and is refused by name only when it is read", dtype => {
    const wide = dtype === "U64" ? 8 : 1;
    const opened = readSafetensors(
      file({ flag: { dtype, shape: [1], data_offsets: [0, wide] }, y: { ...x, data_offsets: [wide, wide + 8] } }, new Uint8Array(wide + 8)),
    );
    expect([...opened.tensor("y").data]).toEqual([0, 0]);
    expect(() => opened.tensor("flag")).toThrow(new RegExp(`flag\\.dtype.*received ${dtype}`));
    opened.close();
  });

  test("an absent name, a closed file and a file cut short under the reader are errors", () => {
    const opened = readSafetensors(file({ x }, eight));
    expect(() => opened.tensor("z")).toThrow(/field z.*expected a tensor of this name/);
    truncateSync(opened.source, opened.tensors.get("x")!.begin + 3);
    expect(() => opened.tensor("x")).toThrow(DataError);
    opened.close();
    opened.close();
    expect(() => opened.tensor("x")).toThrow(ClosedError);
  });
});

describe("written", () => {
  test("data begins at a multiple of 8 bytes, the widest dtype first, then by name", async () => {
    await writeSafetensors(at("f"), { b: hostTensor("f16", [1]), a: hostTensor("f16", [1]), wide: hostTensor("f64", [1]), c: hostTensor("f32", [1]) });
    const opened = readSafetensors(at("f"));
    const placed = [...opened.tensors].sort(([, s], [, t]) => s.begin - t.begin);
    expect(placed.map(([name]) => name)).toEqual(["wide", "c", "a", "b"]);
    expect(placed[0]![1].begin % 8).toBe(0);
    opened.close();
  });

  test("a golden file, read and written again, is the same file byte for byte", async () => {
    const path = `${goldenSet("unet-sd-tiny")}/case0.safetensors`;
    const opened = readSafetensors(path);
    await writeSafetensors(at("again"), new Map([...opened.tensors.keys()].map(name => [name, opened.tensor(name)])));
    opened.close();
    expect(readFileSync(at("again")).equals(readFileSync(path))).toBe(true);
  });

  test("a failure leaves the file that was there, and no other", async () => {
    await writeSafetensors(at("f"), { a: hostTensor("f32", [1], [1]) });
    const before = readFileSync(at("f"));
    const failing = { dtype: "f32" as const, shape: [1], read: () => Promise.reject(new Error("the disk is on fire")) };
    await expect(writeSafetensors(at("f"), { a: hostTensor("f32", [1], [2]), b: failing })).rejects.toThrow("on fire");
    const short = { dtype: "f32" as const, shape: [2], read: async () => hostTensor("f32", [1]) };
    await expect(writeSafetensors(at("f"), { short })).rejects.toThrow(/expected 8 bytes for f32 \[2\], received 4/);
    await expect(writeSafetensors(at("f"), { __metadata__: hostTensor("f32", [1]) })).rejects.toThrow(/reserves/);
    expect(readFileSync(at("f")).equals(before)).toBe(true);
    expect(readdirSync(at("."))).toEqual(["f"]);
  });
});

describe("weights of a folder", () => {
  const part = (name: string): string => at(`model-0000${name}-of-00002.safetensors`);
  const index = (map: unknown): void => writeFileSync(at("model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map: map }));
  const a = "model-00001-of-00002.safetensors";
  const b = "model-00002-of-00002.safetensors";
  const write = async (): Promise<void> => {
    await writeSafetensors(part("1"), { a: hostTensor("f32", [1], [1]) });
    await writeSafetensors(part("2"), { b: hostTensor("f32", [1], [2]), c: hostTensor("f32", [1], [3]) });
  };

  test("shards are one view", async () => {
    await write();
    index({ a, b, c: b });
    const weights = readWeights(at("."), "model");
    expect([...weights.tensors.keys()]).toEqual(["a", "b", "c"]);
    expect([...weights.tensor("c").data]).toEqual([3]);
    expect(() => weights.tensor("d")).toThrow(DataError);
    weights.close();
    expect(() => weights.tensor("c")).toThrow(ClosedError);
  });

  test("an index that disagrees with its shards, or leaves the folder, is refused", async () => {
    await write();
    const refused = (map: unknown, message: RegExp): void => {
      index(map);
      expect(() => readWeights(at("."), "model")).toThrow(message);
    };
    refused({ a, b }, /field c.*not listed/);
    refused({ a, b, c: a }, /field c.*a file without it/);
    refused({ a, b, c: b, d: b }, /field d/);
    refused({ a: "../secret.safetensors" }, /same folder/);
    refused({ a: "/etc/passwd" }, /same folder/);
    refused({ a: 1 }, /weight_map\.a/);
    refused([], /weight_map/);
    refused({ a, b: "gone.safetensors" }, /ENOENT/);
    writeFileSync(at("model.safetensors.index.json"), `{"weight_map":{"a":"${a}","a":"${b}"}}`);
    expect(() => readWeights(at("."), "model")).toThrow(/received "a" twice/);
  });

  test("a variant is read when it is asked for, and named when it is all there is", async () => {
    await writeSafetensors(at("model.fp16.safetensors"), { a: hostTensor("f16", [1]) });
    readWeights(at("."), "model", "fp16").close();
    expect(() => readWeights(at("."), "model")).toThrow(/expected model\.safetensors, .*received model\.fp16\.safetensors/);
    mkdirSync(at("empty"));
    expect(() => readWeights(at("empty"), "model")).toThrow(/received none of them/);
    expect(existsSync(at("model.safetensors"))).toBe(false);
  });
});
