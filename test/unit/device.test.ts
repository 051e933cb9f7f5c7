/** Devices say what they are and why others are not there. */

import { openDevice, whyNoCuda } from "../../lib/device.js";
import { CapabilityError, ConfigError, DeviceError, DriverError } from "../../lib/errors.js";
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
  const obstacle = whyNoCuda(native().kernels("cuda"), 0);
  expect(device.kind).toBe(obstacle ? "cpu" : "cuda");
  if (!obstacle) return; // a machine with a GPU
  expect(device.description).toContain(`(no cuda: ${obstacle.message})`);
  const error = await openDevice("cuda").catch((e: unknown) => e);
  expect(error).toBeInstanceOf(obstacle.kind);
  expect((error as Error).message).toBe(`cuda: ${obstacle.message}`);
});

test("the reason is the first thing in the way, each of its own kind", () => {
  const { devices } = found;
  const [h100] = devices;
  const reason = (change: Partial<NativeCuda>, index = 0) => whyNoCuda({ ...found, ...change }, index);
  expect(reason({ built: false })).toEqual({ message: expect.stringMatching(/built without CUDA/), kind: DeviceError });
  expect(reason({ runtime: 0, error: "no such symbol" })).toEqual({ message: expect.stringMatching(/cannot be loaded: no such symbol/), kind: DeviceError });
  expect(reason({ driver: 0, devices: [], error: "insufficient" })).toEqual({ message: expect.stringMatching(/no NVIDIA driver/), kind: DeviceError });
  const old = "CUDA 13.0 on a driver for 12.2: unsupported; a newer driver is needed";
  expect(reason({ driver: 12020, devices: [], error: "unsupported" })).toEqual({ message: old, kind: DriverError });
  expect(reason({ devices: [] })).toEqual({ message: "there is no CUDA device", kind: DeviceError });
  expect(reason({ devices }, 2)).toEqual({ message: "there is no CUDA device 2, only 1", kind: DeviceError });
  const v100 = { ...h100!, name: "V100", capability: "7.0" };
  expect(reason({ devices: [v100] })).toEqual({
    message: expect.stringMatching(/V100 has compute capability 7.0, the kernels need 8.0/),
    kind: CapabilityError,
  });
  expect(reason({})).toBeUndefined();
});

test("other names are refused", async () => {
  for (const name of ["gpu", "cuda:", "cuda:x", "cpu:0", "auto:1", ""]) await expect(openDevice(name as "cpu")).rejects.toThrow(ConfigError);
});
