/** Files from elsewhere, damaged at random: every reader either reads them, all of what they then hold included, or refuses them with one of our errors. Nothing else is thrown,
 *  no reader hangs or takes the process down. A few hundred of each kind here; ATTUNE_FUZZ says how many (`npm run test:fuzz`: 10,000). */

import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { decodePng, encodePng } from "../../lib/data/image.js";
import { unpickle } from "../../lib/data/pickle.js";
import { readSafetensors, type TensorFile, writeSafetensors } from "../../lib/data/safetensors.js";
import { parseMerges, parseTokenizerJson, parseVocab } from "../../lib/data/tokenizer-files.js";
import { readTorchFile } from "../../lib/data/torch-file.js";
import { storageOfId, torchGlobals } from "../../lib/data/torch-pickle.js";
import { readWeights } from "../../lib/data/weights.js";
import { AttuneError } from "../../lib/errors.js";
import { readLora } from "../../lib/models/lora-file.js";
import { detectFamily } from "../../lib/models/single-file/parts.js";
import { detectUNetConfig } from "../../lib/models/single-file/unet.js";
import { parseUNetConfig } from "../../lib/models/unet-config.js";
import { openCheckpoint } from "../../lib/train/checkpoint.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { parseStrictJson } from "../../lib/util/strict-json.js";
import { goldenSet, projectRoot } from "../support/goldens.js";
import { mutate } from "../support/mutate.js";
import { pickle, tensorPickle, text, torchArchive, zip } from "../support/pickle.js";
import { Rng } from "../support/rng.js";
import { goldenConfig } from "../support/unet.js";

const runs = Number(process.env.ATTUNE_FUZZ ?? 300);
const seed = Number(process.env.ATTUNE_FUZZ_SEED ?? 1);

interface Target {
  readonly name: string;
  /** Right files, which the reader takes. */
  readonly seeds: () => Promise<readonly Buffer[]> | readonly Buffer[];
  readonly dictionary?: readonly (string | Uint8Array)[];
  /** Puts damaged bytes into what would otherwise be refused for a reason that hides the rest: checksums, lengths. */
  readonly wrap?: (bytes: Buffer) => Buffer;
  readonly read: (bytes: Buffer) => void | Promise<void>;
}

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "attune-fuzz-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string): string => join(folder, name);
const written = (name: string, bytes: Uint8Array): string => {
  writeFileSync(at(name), bytes);
  return at(name);
};
const fixture = (name: string): Buffer => readFileSync(join(projectRoot, "test/fixtures/torch", name));
const small = new Map([
  ["a", hostTensor("f32", [2, 3], [1, 2, 3, 4, 5, 6])],
  ["b.c", hostTensor("i64", [2], [1, 2])],
]);

/** Opens, reads all that it holds, closes. */
function readAll(file: TensorFile): void {
  try {
    for (const name of file.tensors.keys()) {
      const { bytes } = file.place(name);
      if (file.tensor(name).data.byteLength !== bytes) throw new Error(`${name}: two sizes`);
    }
  } finally {
    file.close();
  }
}

async function safetensors(tensors: Parameters<typeof writeSafetensors>[1], metadata = {}): Promise<Buffer> {
  await writeSafetensors(at("seed"), tensors, metadata);
  return readFileSync(at("seed"));
}

/** A header of any length in front of the data that it speaks of. */
const underHeader =
  (data: number) =>
  (json: Buffer): Buffer => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    return Buffer.concat([length, json, Buffer.alloc(data)]);
  };

const picture = (width: number, channels: 1 | 3 | 4): Buffer =>
  Buffer.from(encodePng({ width, height: 3, channels, data: Uint8Array.from({ length: width * 3 * channels }, (_, i) => i * 37) }));

/** Chunks with their right lengths kept and their checksums made right again. */
function withChecksums(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  for (let place = 8; place + 12 <= copy.length; ) {
    const end = place + 8 + copy.readUInt32BE(place);
    if (end + 4 > copy.length) break;
    copy.writeUInt32BE(crc32(copy.subarray(place + 4, end)), end);
    place = end + 4;
  }
  return copy;
}

/** Header fields and rows as they come, in a file that is sound otherwise. */
function asPng(bytes: Buffer): Buffer {
  const chunk = (type: string, body: Uint8Array): Buffer =>
    Buffer.concat([Buffer.from([0, 0, body.length >> 8, body.length & 255]), Buffer.from(type), body, Buffer.alloc(4)]);
  const signature = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");
  return withChecksums(
    Buffer.concat([
      signature,
      chunk("IHDR", bytes.subarray(0, 13)),
      chunk("PLTE", bytes.subarray(13, 19)),
      chunk("IDAT", deflateSync(bytes.subarray(19))),
      chunk("IEND", Buffer.alloc(0)),
    ]),
  );
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const tokenizer = (name: string): Buffer => readFileSync(join(goldenSet("pipelines"), "sd/tokenizer", name));
const query = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
/** Names and shapes of a checkpoint with one block, enough for everything that is told from them. */
const checkpointHeader = (): Buffer => {
  const shapes: Record<string, number[]> = {
    "input_blocks.0.0.weight": [32, 4, 3, 3],
    "input_blocks.1.0.out_layers.3.weight": [32, 32, 3, 3],
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [32, 16],
    "input_blocks.2.0.op.weight": [32, 32, 3, 3],
    "input_blocks.3.0.out_layers.3.weight": [64, 32, 3, 3],
    "middle_block.1.proj_in.weight": [64, 64, 1, 1],
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight": [64, 16],
    "out.2.weight": [4, 32, 3, 3],
  };
  let end = 0;
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const begin = end;
    end += shape.reduce((n, d) => n * d, 1);
    return [`model.diffusion_model.${name}`, { dtype: "U8", shape, data_offsets: [begin, end] }];
  });
  return json(Object.fromEntries(entries));
};
const checkpointBytes = 32 * 4 * 9 + 32 * 32 * 9 + 32 * 16 + 32 * 32 * 9 + 64 * 32 * 9 + 64 * 64 + 64 * 16 + 4 * 32 * 9;

const opcodes = [
  "c__builtin__\neval\n",
  "cos\nsystem\n",
  "\x93",
  "R",
  "b",
  "\x81",
  "Q",
  "(",
  "t",
  "u",
  "\x85",
  "h\x00",
  "q\x00",
  "r\xff\xff\xff\xff",
  "X\xff\xff\xff\x7f",
  "\x8a\xff",
  "ctorch._utils\n_rebuild_tensor_v2\n",
  "}",
  "]",
  "e",
].map(opcode => Buffer.from(opcode, "latin1"));
const statePickle = (): Buffer => Buffer.from(pickle("\x80\x02}(", text("a"), tensorPickle("0", small.get("a")!), text("epoch"), "K\x03u."));
const fields = [
  '"dtype"',
  '"F32"',
  '"shape"',
  "[1,2]",
  '"data_offsets"',
  "[0,24]",
  '"__metadata__"',
  '"a"',
  "{",
  "}",
  ",",
  '"__proto__":{}',
  "\\u0000",
  "[[[[",
];

const trainState = {
  format: 1,
  ...{ objective: "dspo", optimizer: "adamw", seed: 1, effectiveBatch: 2, pairs: 3, startWeights: "x", ema: false, adapter: "none" },
  ...{ step: 4, updates: 4, skippedSteps: 0, skippedInARow: 0 },
};
const manifestOf = (state: Uint8Array): Buffer =>
  json({ format: 1, files: { "state.json": { bytes: state.length, sha256: createHash("sha256").update(state).digest("hex") } } });
async function openWritten(state: Buffer, manifest: Buffer): Promise<void> {
  mkdirSync(at("checkpoint-4"), { recursive: true });
  written("checkpoint-4/state.json", state);
  written("checkpoint-4/manifest.json", manifest);
  await openCheckpoint(at("checkpoint-4"));
}

const targets: readonly Target[] = [
  {
    name: "safetensors",
    seeds: async () => [await safetensors(small, { note: "x" })],
    dictionary: fields,
    read: bytes => readAll(readSafetensors(written("f.safetensors", bytes))),
  },
  {
    name: "safetensors headers",
    seeds: () => [json({ a: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] }, b: { dtype: "I64", shape: [1], data_offsets: [24, 32] } })],
    dictionary: fields,
    wrap: underHeader(32),
    read: bytes => readAll(readSafetensors(written("f.safetensors", bytes))),
  },
  {
    name: "torch archives",
    seeds: () => [
      torchArchive(small),
      zip({ "a/data.pkl": statePickle(), "a/data/0": Buffer.alloc(24) }, { large: true }),
      fixture("every.pt"),
      fixture("views.pt"),
      fixture("nested.pt"),
    ],
    dictionary: opcodes,
    read: bytes => readAll(readTorchFile(written("f.pt", bytes))),
  },
  {
    name: "pickles in archives",
    seeds: () => [statePickle()],
    dictionary: opcodes,
    wrap: bytes => zip({ "archive/data.pkl": bytes, "archive/data/0": Buffer.alloc(24) }),
    read: bytes => readAll(readTorchFile(written("f.pt", bytes))),
  },
  {
    name: "pickles",
    seeds: () => [statePickle(), Buffer.from(pickle("\x80\x04\x95", Buffer.alloc(8), "}\x94(\x8c\x01a\x94]\x94(K\x01G?\xf8\0\0\0\0\0\0eu."))],
    dictionary: opcodes,
    read: bytes => void unpickle(bytes, { source: "p", globals: torchGlobals, persistent: storageOfId }),
  },
  {
    name: "legacy torch files",
    seeds: () => [fixture("every.legacy.pt"), fixture("views.legacy.pt"), fixture("nested.legacy.pt")],
    dictionary: opcodes,
    read: bytes => readAll(readTorchFile(written("f.pt", bytes))),
  },
  {
    name: "PNG",
    seeds: () => [picture(4, 1), picture(5, 3), picture(3, 4)],
    dictionary: ["IHDR", "PLTE", "tRNS", "IDAT", "IEND"],
    read: bytes => void decodePng(bytes),
  },
  {
    name: "PNG with right checksums",
    seeds: () => [picture(4, 1), picture(5, 3), picture(3, 4)],
    dictionary: ["PLTE", "tRNS", "IDAT"],
    wrap: withChecksums,
    read: bytes => void decodePng(bytes),
  },
  {
    name: "PNG headers and rows",
    // width, height, depth, colour type, compression, filter, interlace; two colours; rows of 2 x 2 pixels of each kind
    seeds: () =>
      [
        [8, 0, 1],
        [8, 2, 3],
        [8, 3, 1],
        [8, 6, 4],
        [16, 4, 4],
        [1, 3, 1],
      ].map(([depth, type, bytes]) =>
        Buffer.from([
          0,
          0,
          0,
          2,
          0,
          0,
          0,
          2,
          depth!,
          type!,
          0,
          0,
          0,
          1,
          2,
          3,
          4,
          5,
          6,
          ...[1, 2].flatMap(filter => [filter, ...Array(depth === 1 ? 1 : 2 * bytes!).fill(0)]),
        ]),
      ),
    wrap: asPng,
    read: bytes => void decodePng(bytes),
  },
  {
    name: "UNet configs",
    seeds: () => ["unet-sd-tiny", "unet-sd2-tiny", "unet-sdxl-tiny"].map(set => json(goldenConfig(set))),
    dictionary: ['"transformer_layers_per_block":[[1],[2]],', '"layers_per_block":1e9,', '"reverse_transformer_layers_per_block":1,', "[[1,2]]"],
    read: bytes => void parseUNetConfig(parseStrictJson(bytes, "config.json"), "config.json"),
  },
  {
    name: "indices of shards",
    seeds: () => [json({ metadata: { total_size: 24 }, weight_map: { a: "m.safetensors" } })],
    dictionary: ['"../m.safetensors"', '"/etc/passwd"', '"m.safetensors"', '"weight_map"'],
    read(bytes) {
      written("model.safetensors.index.json", bytes);
      readAll(readWeights(folder, "model"));
    },
  },
  {
    name: "vocab.json",
    seeds: () => [tokenizer("vocab.json"), json({ a: 0, "b</w>": 1 })],
    dictionary: ['"a":-1,', '"__proto__":1,'],
    read: bytes => void parseVocab(bytes, "vocab.json"),
  },
  {
    name: "merges.txt",
    seeds: () => [tokenizer("merges.txt")],
    dictionary: ["\n", " ", "\r\n", "#version", "\xff"],
    read: bytes => void parseMerges(bytes, "merges.txt"),
  },
  {
    name: "tokenizer.json",
    seeds: () => [tokenizer("tokenizer.json")],
    dictionary: ['"type":"BPE"', '"merges":[]', '"added_tokens":[{}]', "[1]"],
    read: bytes => void parseTokenizerJson(bytes, "tokenizer.json"),
  },
  {
    name: "adapters",
    seeds: async () => {
      const [down, up] = [hostTensor("f32", [2, 4]), hostTensor("f32", [4, 2])];
      const notes = {
        lora_adapter_metadata: JSON.stringify({ "unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": { to_q: 1 }, "unet.use_rslora": false }),
      };
      const kohya = `lora_unet_${query.replaceAll(".", "_")}`;
      const named = await safetensors({ [`unet.${query}.lora_A.weight`]: down, [`unet.${query}.lora_B.weight`]: up }, notes);
      const flat = {
        [`${kohya}.lora_down.weight`]: down,
        [`${kohya}.lora_up.weight`]: up,
        [`${kohya}.alpha`]: hostTensor("f32", [], [1]),
        [`${kohya}.dora_scale`]: hostTensor("f32", [4, 1]),
      };
      return [named, await safetensors(flat)];
    },
    dictionary: [
      "lora_down",
      "lora_up",
      ".alpha",
      "lora_unet_",
      "unet.",
      "text_encoder.",
      "lora_A",
      "dora_scale",
      "lora_magnitude_vector",
      '\\"unet.lora_alpha\\": -1,',
    ],
    read: bytes => readLora(written("f.safetensors", bytes), [{ name: "unet", modules: [query] }]).file.close(),
  },
  {
    name: "manifests of training checkpoints",
    seeds: () => [manifestOf(json(trainState))],
    dictionary: ['"..":{"bytes":4096,"sha256":""},', '".":{"bytes":4096,"sha256":""},', '"../m.safetensors"', '"/etc/passwd"', '"bytes"'],
    read: bytes => openWritten(json(trainState), bytes),
  },
  {
    name: "states of training checkpoints",
    seeds: () => [json(trainState)],
    dictionary: ['"step":-1,', '"format":2,'],
    read: bytes => openWritten(bytes, manifestOf(bytes)),
  },
  {
    name: "headers of checkpoints",
    seeds: () => [checkpointHeader()],
    dictionary: ["input_blocks.", ".transformer_blocks.", "label_emb.0.0.weight", "cond_stage_model.model.", ".0.op.weight", "[64,64]"],
    wrap: underHeader(checkpointBytes),
    read(bytes) {
      const file = readSafetensors(written("f.safetensors", bytes));
      try {
        detectFamily(file);
        parseUNetConfig(detectUNetConfig(file), "detected");
      } finally {
        file.close();
      }
    },
  },
];

test.each(targets)(
  "$name",
  async ({ seeds, dictionary = [], wrap = bytes => bytes, read, name }) => {
    writeFileSync(at("m.safetensors"), await safetensors(new Map([["a", small.get("a")!]])));
    const rng = new Rng(seed, name);
    const sound = await seeds();
    for (const bytes of sound) await read(wrap(bytes)); // what is damaged is right before
    const pieces = dictionary.map(piece => (typeof piece === "string" ? Buffer.from(piece, "latin1") : Buffer.from(piece)));
    const seen = { read: 0, refused: 0 };
    for (let i = 0; i < runs; i++) {
      const bytes = wrap(mutate(rng, sound, pieces));
      try {
        await read(bytes);
        seen.read++;
      } catch (error) {
        if (!(error instanceof AttuneError))
          throw new Error(`run ${i} of seed ${seed}: ${String(error)}: ${bytes.toString("base64").slice(0, 4000)}`, { cause: error });
        seen.refused++;
      }
      if (i % 64 === 0) await new Promise(setImmediate);
    }
    if (process.env.ATTUNE_FUZZ) console.log(`${name}: ${seen.read} read, ${seen.refused} refused`);
    expect(seen.refused).toBeGreaterThan(runs / 20);
  },
  60_000 + runs * 100,
);
