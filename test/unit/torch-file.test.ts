/** Files of torch.save: every dtype, layout and both formats, as torch 2.13 wrote them (test/fixtures/torch/make.py says each value by formula), and damage by hand. */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PickleTuple } from "../../lib/data/pickle-value.js";
import { readTorchFile, type TorchFile } from "../../lib/data/torch-file.js";
import { readTensors, readWeights } from "../../lib/data/weights.js";
import { ClosedError, DataError } from "../../lib/errors.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { readFully } from "../../lib/util/read-at.js";
import { projectRoot } from "../support/goldens.js";
import { int, pickle, tensorPickle, text, torchArchive, zip } from "../support/pickle.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();
const fixture = (name: string): string => join(projectRoot, "test/fixtures/torch", name);
const values = (t: HostTensor): number[] => [...(convert(t, "f64").data as Float64Array)];
const range = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => i + from);

let open: TorchFile[] = [];
afterEach(() => {
  for (const file of open) file.close();
  open = [];
});

/** A file that is closed after the test. */
function opened(path: string): TorchFile {
  const file = readTorchFile(path);
  open.push(file);
  return file;
}

/** The tensor by both ways: read here, and read from where `place` says a session would. */
function both(file: TorchFile, name: string): HostTensor {
  const tensor = file.tensor(name);
  const { fd, offset, bytes, dtype, shape } = file.place(name);
  const placed = new Uint8Array(bytes);
  readFully(fd, placed, offset, name);
  expect({ dtype, shape }).toEqual({ dtype: tensor.dtype, shape: tensor.shape });
  expect(Buffer.from(tensor.data.buffer).equals(placed)).toBe(true);
  return tensor;
}

describe.each(["every.pt", "every.legacy.pt", "every.big.pt"])("%s", name => {
  test("every dtype with its values", () => {
    const file = opened(fixture(name));
    expect([...file.tensors].map(([key, { dtype }]) => `${key} ${dtype}`)).toEqual([
      ..."float64 F64,float32 F32,float16 F16,bfloat16 BF16,int64 I64,int32 I32,int16 I16,int8 I8,uint8 U8,bool BOOL".split(","),
    ]);
    for (const key of file.tensors.keys()) {
      const tensor = both(file, key);
      expect(tensor.shape).toEqual([2, 3]);
      expect(values(tensor)).toEqual(key === "bool" ? [1, 0, 1, 0, 1, 0] : range(6, key === "uint8" ? 0 : -3));
    }
    const host = { float16: "f16", bfloat16: "bf16", int64: "i64", int16: "i32", int8: "i32", bool: "u8" } as const;
    for (const [key, dtype] of Object.entries(host)) expect(file.tensor(key).dtype).toBe(dtype);
  });
});

describe.each(["views.pt", "views.legacy.pt"])("%s", name => {
  const grid = (f: (...at: number[]) => number, ...shape: number[]): number[] => {
    const [rows = 1, columns = 1, depth = 1, last = 1] = shape;
    return range(rows).flatMap(i => range(columns).flatMap(j => range(depth).flatMap(k => range(last).map(l => f(i, j, k, l)))));
  };
  const expected: Record<string, { shape: number[]; values: number[] }> = {
    whole: { shape: [4, 6], values: range(24, -3) },
    transposed: { shape: [6, 4], values: grid((i, j) => j! * 6 + i! - 3, 6, 4) },
    row: { shape: [6], values: range(6, 9) },
    column: { shape: [4], values: [-2, 4, 10, 16] },
    strided: { shape: [3, 3], values: grid((i, j) => (i! + 1) * 6 + 2 * j! - 3, 3, 3) },
    permuted: { shape: [4, 2, 3], values: grid((i, j, k) => j! * 12 + k! * 4 + i! - 3, 4, 2, 3) },
    channels_last: { shape: [2, 3, 2, 2], values: range(24, -3) },
    expanded: { shape: [3, 2], values: [5, 5, 5, 5, 5, 5] },
    empty: { shape: [0, 3], values: [] },
    scalar: { shape: [], values: [7] },
  };

  test("views come out dense and in order, whatever their strides", () => {
    const file = opened(fixture(name));
    expect([...file.tensors.keys()]).toEqual(Object.keys(expected));
    for (const [key, want] of Object.entries(expected)) {
      const tensor = both(file, key);
      expect({ key, shape: tensor.shape, values: values(tensor) }).toEqual({ key, ...want });
    }
  });

  test("views of one storage lie in one place; what is dense is placed in the file itself", () => {
    const file = opened(fixture(name));
    const [whole, row] = [file.place("whole"), file.place("row")];
    expect(row.fd).toBe(whole.fd);
    expect(row.offset).toBe(whole.offset + 12 * 4);
    expect(file.place("transposed").fd).not.toBe(whole.fd);
    expect(file.place("transposed")).toBe(file.place("transposed"));
  });
});

describe.each(["nested.pt", "nested.legacy.pt"])("%s", name => {
  test("a checkpoint's state_dict is entered; the rest is there as values", () => {
    const file = opened(fixture(name));
    const norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"].map(key => `1.${key}`);
    expect([...file.tensors.keys()]).toEqual(["0.weight", "0.bias", ...norm]);
    expect(values(both(file, "0.bias"))).toEqual([-2, -1, 0]);
    expect(file.tensor("1.num_batches_tracked")).toEqual(hostTensor("i64", [], [0]));
    const root = file.value as Map<string, unknown>;
    expect([root.get("epoch"), root.get("big"), root.get("note")]).toEqual([3, 2n ** 70n, "é"]);
    expect(root.get("sizes")).toEqual([new PickleTuple([1, 2]), new PickleTuple([true, null, 0.5])]);
  });
});

test("nested names are joined with dots, parameters are tensors, a tensor alone is called so", () => {
  const optimizer = opened(fixture("optimizer.pt"));
  expect([...optimizer.tensors.keys()]).toEqual(["state.0.step", "state.0.exp_avg"]);
  for (const name of ["parameter.pt", "parameter.legacy.pt"]) {
    const parameter = opened(fixture(name));
    expect(values(parameter.tensor("p"))).toEqual([-3, -2, -1]);
  }
  const alone = opened(fixture("alone.pt"));
  expect(values(alone.tensor("tensor"))).toEqual([-3, -2]);
});

test("after close there is nothing to read", () => {
  const file = readTorchFile(fixture("every.pt"));
  file.place("int8"); // in the temporary file
  file.close();
  file.close();
  expect(() => file.tensor("float32")).toThrow(ClosedError);
  expect(() => file.place("int8")).toThrow(ClosedError);
  expect(() => opened(fixture("every.pt")).tensor("x")).toThrow(/expected a tensor of this name, received a file of 10 others/);
});

describe("folders", () => {
  const tensors = (value: number): Map<string, HostTensor> => new Map([["w", hostTensor("f32", [1], [value])]]);
  const first = (folder: string, base: string, variant?: string): number => {
    const file = readWeights(folder, base, variant);
    try {
      return values(file.tensor("w"))[0]!;
    } finally {
      file.close();
    }
  };

  test("a .bin is found by either library's name, a variant by its own", () => {
    writeFileSync(at("diffusion_pytorch_model.bin"), torchArchive(tensors(1)));
    writeFileSync(at("diffusion_pytorch_model.fp16.bin"), torchArchive(tensors(2)));
    writeFileSync(at("pytorch_model.bin"), torchArchive(tensors(3)));
    expect(first(at(), "diffusion_pytorch_model")).toBe(1);
    expect(first(at(), "diffusion_pytorch_model", "fp16")).toBe(2);
    expect(first(at(), "model")).toBe(3);
    expect(() => readWeights(at(), "model", "ema")).toThrow(
      "expected model.ema.safetensors, model.safetensors.index.ema.json, pytorch_model.ema.bin or pytorch_model.bin.index.ema.json, received pytorch_model.bin",
    );
  });

  test("safetensors come before .bin", () => {
    writeFileSync(at("pytorch_model.bin"), torchArchive(tensors(3)));
    writeFileSync(at("model.safetensors"), "x");
    expect(() => first(at(), "model")).toThrow(/model\.safetensors/);
  });

  test("shards of .bin are one file", () => {
    for (const [i, name] of ["a", "b"].entries())
      writeFileSync(at(`pytorch_model-${i}.bin`), torchArchive(new Map([[name, hostTensor("f32", [2], [i, i + 1])]])));
    const index = (map: unknown): void => writeFileSync(at("pytorch_model.bin.index.json"), JSON.stringify({ weight_map: map }));
    index({ a: "pytorch_model-0.bin", b: "pytorch_model-1.bin" });
    const file = readWeights(at(), "model");
    expect(values(file.tensor("b"))).toEqual([1, 2]);
    file.close();
    index({ a: "pytorch_model-0.safetensors" });
    expect(() => readWeights(at(), "model")).toThrow(/expected the name of a \.bin file in the same folder/);
  });
});

describe("damage", () => {
  const archive = readFileSync(fixture("views.pt"));
  const refusedAs = (bytes: Uint8Array, message: RegExp): void => {
    writeFileSync(at("f.pt"), bytes);
    expect(() => readTorchFile(at("f.pt"))).toThrow(message);
    expect(() => readTorchFile(at("f.pt"))).toThrow(DataError);
  };
  const pkl = (bytes: Uint8Array, more: Record<string, Uint8Array> = {}): Buffer => zip({ "a/data.pkl": bytes, ...more });

  test("a file cut anywhere is refused", () => {
    for (let length = 0; length < archive.length; length += 97) refusedAs(archive.subarray(0, length), /./);
  });

  test("a legacy file cut anywhere is refused", () => {
    const legacy = readFileSync(fixture("views.legacy.pt"));
    for (let length = 0; length < legacy.length; length += 41) refusedAs(legacy.subarray(0, length), /./);
  });

  test("archives that are none of torch's", () => {
    refusedAs(Buffer.from("hello"), /expected a file of torch.save, a zip archive or a pickle/);
    refusedAs(zip({ "a.txt": Buffer.from("x") }), /expected one <name>\/data\.pkl/);
    refusedAs(pkl(pickle("}."), { "b/data.pkl": pickle("}.") }), /received 2/);
    refusedAs(pkl(pickle("}."), { "a/constants.pkl": pickle("}.") }), /TorchScript/);
    refusedAs(pkl(pickle("}."), { "a/byteorder": Buffer.from("middle") }), /"little" or "big", received "middle"/);
    refusedAs(zip({ "a/../../x/data.pkl": pickle("}.") }), /expected one/);
  });

  test("compressed, encrypted, repeated and overlapping entries", () => {
    const at16 = (bytes: Buffer, signature: number, field: number, value: number): Buffer => {
      const copy = Buffer.from(bytes);
      const found = copy.indexOf(int(signature));
      copy.writeUInt16LE(value, found + field);
      return copy;
    };
    refusedAs(at16(archive, 0x02014b50, 10, 8), /expected a stored entry, as torch writes them, received compression method 8/);
    refusedAs(at16(archive, 0x02014b50, 8, 1), /encrypted/);
    const two = zip({ "a/data.pkl": pickle("}."), "b/data.pkl": pickle("}.") });
    const again = Buffer.from(two);
    again.write("a", again.lastIndexOf("b/data.pkl"));
    again.write("a", again.indexOf("b/data.pkl"));
    refusedAs(again, /distinct entries/);
    const same = Buffer.from(two); // both directory entries mean the first
    same.writeUInt32LE(0, same.lastIndexOf(int(0x02014b50)) + 42);
    refusedAs(same, /expected the name that the directory has/);
    const inner = zip({ "b/data.pkl": pickle("}.") });
    const header = inner.subarray(0, 30 + 10 + 2); // with name and contents
    const hidden = zip({ "a/data.pkl": pickle("}."), "a/data/0": header, "b/data.pkl": pickle("}.") });
    hidden.writeUInt32LE(hidden.indexOf(header), hidden.lastIndexOf(int(0x02014b50)) + 42); // the last entry is what stands inside the one before
    refusedAs(hidden, /\(field b\/data\.pkl, offset \d+\): expected entries apart, received one inside a\/data\/0/);
  });

  test("64-bit sizes and places, as beyond 4 GiB", () => {
    const entries = {
      "a/data.pkl": pickle("}", text("w"), tensorPickle("0", { dtype: "f32", shape: [2] }), "s."),
      "a/data/0": new Uint8Array(Float32Array.of(3, 4).buffer),
    };
    const large = zip(entries, { large: true });
    writeFileSync(at("f.pt"), large);
    expect(values(both(opened(at("f.pt")), "w"))).toEqual([3, 4]);
    const changed = (signature: number, field: number, value: bigint): Buffer => {
      const copy = Buffer.from(large);
      copy.writeBigUInt64LE(value, copy.indexOf(int(signature)) + field);
      return copy;
    };
    refusedAs(changed(0x07064b50, 8, 2n ** 63n), /a size or place below 2\^53/);
    refusedAs(changed(0x07064b50, 8, BigInt(large.length)), /zip64 directory\): expected its end record before byte/);
    refusedAs(changed(0x07064b50, 8, 3n), /expected its end record at byte 3, received something else/);
    refusedAs(changed(0x06064b50, 48, 2n ** 40n), /expected a directory before byte/);
    refusedAs(changed(0x06064b50, 32, 2n ** 40n), /at most 1048576 entries/);
    const extra = large.indexOf(int(0x02014b50)) + 46 + "a/data.pkl".length;
    const place = Buffer.from(large);
    place.writeBigUInt64LE(2n ** 52n, extra + 4 + 16);
    refusedAs(place, /\(field a\/data\.pkl, offset 4503599627370496\): expected an entry before the directory/);
    const short = Buffer.from(large);
    short.writeUInt16LE(8, extra + 2);
    refusedAs(short, /expected 64 bits of size or place, received fewer/);
    const none = Buffer.from(large);
    none.writeUInt16LE(2, extra);
    refusedAs(none, /expected a zip64 field/);
  });

  test("storages that are missing or short, views that reach beyond", () => {
    const tensor = (args: string): Uint8Array =>
      pickle(
        "}",
        text("w"),
        "ctorch._utils\n_rebuild_tensor_v2\n((",
        text("storage"),
        "ctorch\nFloatStorage\n",
        text("0"),
        text("cpu"),
        "K\x04tQ",
        args,
        "tRs.",
      );
    const data = { "a/data/0": new Uint8Array(16) };
    refusedAs(pkl(tensor("K\x00K\x04\x85K\x01\x85")), /expected the data of storage "0" in the file/);
    refusedAs(pkl(tensor("K\x00K\x04\x85K\x01\x85"), { "a/data/0": new Uint8Array(12) }), /expected 4 elements of F32 in storage "0", received 12 bytes/);
    refusedAs(pkl(tensor("K\x01K\x04\x85K\x01\x85"), data), /expected a view within 4 elements/);
    refusedAs(pkl(tensor("K\x00K\x02K\x02\x86K\x03K\x01\x86"), data), /expected a view within 4 elements/);
    refusedAs(pkl(tensor("J\xff\xff\xff\xffK\x02\x85K\x01\x85"), data), /first element, whole and >= 0, received -1/);
    refusedAs(pkl(tensor("K\x00K\x02\x85J\xff\xff\xff\xff\x85"), data), /strides of numbers, whole and >= 0, received -1/);
    refusedAs(pkl(tensor("K\x00K\x02\x85K\x01\x85\x89N}X\x03\x00\x00\x00neg\x88s"), data), /expected a tensor that is stored as it is, received a dict of 1/);
    refusedAs(pkl(tensor("K\x00K\x02\x85K\x01K\x01\x86"), data), /strides for each of 1 axes/);
    refusedAs(pkl(tensor("K\x00J\xff\xff\xff\x7f\x85K\x00\x85"), data), /at most 16777216 elements of a storage of 4/);
    refusedAs(pkl(tensor("K\x00\x8a\x07\xff\xff\xff\xff\xff\xff\x0f\x85K\x00\x85"), data), /fewer than 2\^47/);
  });

  test("values that contain themselves, double without end, or give two tensors one name", () => {
    refusedAs(pkl(pickle("}q\x00", text("x"), "h\x00s.")), /nested at most 32 deep/);
    refusedAs(pkl(pickle("(N", "q\x00", ...Array.from({ length: 28 }, (_, i) => pickle("h", i, "h", i, "\x86", "q", i + 1)), "t.")), /at most 262144 values/);
    const twice = pickle("ctorch._utils\n_rebuild_tensor_v2\n((", text("storage"), "ctorch\nFloatStorage\n", text("0"), text("cpu"), "K\x01tQK\x00))tR");
    refusedAs(
      pkl(pickle("}(", text("a.b"), twice, text("a"), "}", text("b"), twice, "su."), { "a/data/0": new Uint8Array(4) }),
      /\(field a\.b\): expected one tensor/,
    );
  });

  test("a hostile pickle in an archive is refused with its place in the file", () => {
    const evil = pkl(pickle("\x80\x02cposix\nsystem\n", text("touch /tmp/owned"), "\x85R."));
    refusedAs(evil, /f\.pt \(field opcode GLOBAL, offset 42\): .*"posix\.system"/);
    expect(evil.subarray(42, 49).toString()).toBe("cposix\n");
  });
});

test("parts of storages, as old files have them", () => {
  const part = pickle("(", text("storage"), "ctorch\nFloatStorage\n", text("7"), text("cpu"), "K\x04(", text("8"), "K\x01K\x03ttQ");
  const tensor = pickle("ctorch._utils\n_rebuild_tensor\n(", part, "K\x01K\x02\x85K\x01\x85tR");
  const legacy = pickle(
    "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.",
    ...["\x80\x02}", text("w"), tensor, "s.\x80\x02]", text("7"), "a."],
    ...[int(4, 8), new Uint8Array(Float32Array.of(10, 11, 12, 13).buffer)],
  );
  writeFileSync(at("old.pt"), legacy);
  const file = opened(at("old.pt"));
  expect(values(both(file, "w"))).toEqual([12, 13]);
});

const data = process.env.ATTUNE_TEST_DATA;
const head = data && join(data, "data/aesthetic/sac+logos+ava1-l14-linearMSE.pth");
const real = head && existsSync(head) ? test : test.skip;
real("the LAION aesthetic head reads as published (skipped where ATTUNE_TEST_DATA does not hold it)", () => {
  const file = readTensors(head as string) as TorchFile;
  const widths = [768, 1024, 128, 64, 16, 1];
  const layers = [0, 2, 4, 6, 7].flatMap((layer, i): [string, number[]][] => [
    [`layers.${layer}.weight`, [widths[i + 1]!, widths[i]!]],
    [`layers.${layer}.bias`, [widths[i + 1]!]],
  ]);
  expect([...file.tensors].map(([name, { shape }]) => [name, shape])).toEqual(layers);
  for (const name of file.tensors.keys()) expect(values(both(file, name)).every(x => Math.abs(x) < 10)).toBe(true);
  file.close();
});
