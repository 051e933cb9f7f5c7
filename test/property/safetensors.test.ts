/** Laws of the format: what is written is what is read, and no damage to a header is read as something else without an error. */

import { readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import { AttuneError } from "../../lib/errors.js";
import { type HostDType, type HostTensor, hostDtypeBytes, hostTensorFromBytes } from "../../lib/util/host-tensor.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();

const tensor: fc.Arbitrary<HostTensor> = fc
  .tuple(fc.constantFrom<HostDType>("f64", "f32", "bf16", "f16", "i64", "i32", "u8"), fc.array(fc.nat(4), { maxLength: 4 }))
  .chain(([dtype, shape]) => {
    const size = shape.reduce((n, d) => n * d, 1) * hostDtypeBytes[dtype];
    return fc.uint8Array({ minLength: size, maxLength: size }).map(bytes => hostTensorFromBytes(dtype, shape, bytes.slice().buffer));
  });
const tensors = fc.dictionary(
  fc.string({ unit: "binary" }).filter(name => name !== "__metadata__"),
  tensor,
  { maxKeys: 6 },
);
const metadata = fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 });

const bytes = ({ data }: HostTensor): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

test("read(write(x)) is x: names, dtypes, shapes, every bit, metadata", () =>
  fc.assert(
    fc.asyncProperty(tensors, metadata, async (written, notes) => {
      await writeSafetensors(at("f"), written, notes);
      const file = readSafetensors(at("f"));
      expect([...file.tensors.keys()].sort()).toEqual(Object.keys(written).sort());
      expect(Object.fromEntries(file.metadata)).toEqual({ ...notes });
      for (const [name, host] of Object.entries(written)) {
        const read = file.tensor(name);
        expect([read.dtype, read.shape]).toEqual([host.dtype, host.shape]);
        expect(bytes(read).equals(bytes(host))).toBe(true);
      }
      file.close();
    }),
    { numRuns: 60 },
  ));

test("a file with any bytes of its head changed opens with the tensors' extents inside the file, or is refused with one of our errors", () =>
  fc.assert(
    fc.asyncProperty(tensors, fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { minLength: 1, maxLength: 4 }), async (written, changes) => {
      await writeSafetensors(at("f"), written);
      const damaged = readFileSync(at("f"));
      for (const [position, value] of changes) damaged[position % damaged.length] = value;
      writeFileSync(at("damaged"), damaged);
      let file: ReturnType<typeof readSafetensors>;
      try {
        file = readSafetensors(at("damaged"));
      } catch (error) {
        expect(error).toBeInstanceOf(AttuneError);
        return;
      }
      const extents = [...file.tensors.values()].sort((a, b) => a.begin - b.begin || a.end - b.end);
      for (const [i, { end }] of extents.entries()) expect(end).toBe(extents[i + 1]?.begin ?? damaged.length);
      file.close();
    }),
    { numRuns: 150 },
  ));
