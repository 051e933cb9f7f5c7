/** Devices say what they are and why others are not there. */

import { openDevice, whyNoCuda } from "../../lib/device.js";
import { ConfigError, DeviceError } from "../../lib/errors.js";
import { type NativeCuda, native } from "../../lib/native.js";

const found: NativeCuda = {
  isa: "",
  kernels: [],
  built: true,
  runtime: 13000,
  driver: 13000,
  error: "",
  devices: [{ name: "H100", capability: "9.0", multiprocessors: 132, bytes: 8e10 }],
};

test("cpu describes itself and opens sessions", async () => {
  const device = await openDevice("cpu");
  expect(device.kind).toBe("cpu");
  expect(device.description).toMatch(/^cpu: .+, \d+ threads, (generic|avx2|avx512)$/);
  const session = device.openSession({ threads: 1 });
  expect(session.memory().total).toBe(0);
  await session.close();
});

test("auto falls back to the cpu and says why; cuda throws the same reason", async () => {
  const device = await openDevice("auto");
  const reason = whyNoCuda(native().kernels("cuda"), 0);
  expect(device.kind).toBe("cpu");
  expect(device.description).toContain(`(no cuda: ${reason})`);
  const error = await openDevice("cuda").catch((e: unknown) => e);
  expect(error).toBeInstanceOf(DeviceError);
  expect((error as Error).message).toBe(`cuda: ${reason}`);
});

test("the reason is the first thing in the way", () => {
  const { devices } = found;
  expect(whyNoCuda({ ...found, built: false }, 0)).toMatch(/built without CUDA/);
  expect(whyNoCuda({ ...found, runtime: 0, error: "no such symbol" }, 0)).toMatch(/cannot be loaded: no such symbol/);
  expect(whyNoCuda({ ...found, driver: 0, devices: [], error: "insufficient" }, 0)).toMatch(/no NVIDIA driver/);
  expect(whyNoCuda({ ...found, driver: 12020, devices: [], error: "unsupported" }, 0)).toBe("CUDA 13.0 on a driver for 12.2: unsupported");
  expect(whyNoCuda({ ...found, devices: [] }, 0)).toMatch(/there is no CUDA device$/);
  expect(whyNoCuda({ ...found, devices }, 2)).toMatch(/no CUDA device 2, only 1/);
  expect(whyNoCuda(found, 0)).toMatch(/H100 was found, but .* no CUDA kernels/);
});

test("other names are refused", async () => {
  for (const name of ["gpu", "cuda:", "cuda:x", "cpu:0", "auto:1", ""]) await expect(openDevice(name as "cpu")).rejects.toThrow(ConfigError);
});
