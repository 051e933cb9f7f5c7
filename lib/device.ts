/** Devices: which there are, and why not. Only "auto" falls back to the CPU, and says so. */

import os from "node:os";
import { ConfigError, DeviceError } from "./errors.js";
import { Session, type SessionOptions } from "./graph/session.js";
import { guarded, isaLimit, type NativeCuda } from "./native.js";

export interface Device {
  readonly kind: "cpu" | "cuda";
  /** One line for people: what computes, and for "auto" why it was chosen. */
  readonly description: string;
  openSession(options?: Omit<SessionOptions, "backend">): Session;
}

/** "auto" is a GPU that can run programs, else the CPU; "cuda" is "cuda:0". @throws DeviceError with the reason why there is no such device. */
export async function openDevice(name: "auto" | "cpu" | "cuda" | `cuda:${number}`): Promise<Device> {
  const match = /^(auto|cpu|cuda)(?::(\d+))?$/.exec(name);
  if (!match || (match[2] !== undefined && match[1] !== "cuda")) throw new ConfigError("openDevice", "the device", "auto, cpu, cuda or cuda:<index>", name);
  if (match[1] === "cpu") return cpu();
  const reason = whyNoCuda(
    guarded(addon => addon.kernels("cuda")),
    Number(match[2] ?? 0),
  );
  if (match[1] === "auto") return cpu(reason);
  throw new DeviceError(`${name}: ${reason}`);
}

function cpu(reason?: string): Device {
  const isa = isaLimit() || guarded(addon => addon.kernels("cpu")).isa;
  const model = os.cpus()[0]?.model ?? "CPU";
  return {
    kind: "cpu",
    description: `cpu: ${model}, ${os.availableParallelism()} threads, ${isa}${reason === undefined ? "" : ` (no cuda: ${reason})`}`,
    openSession: options => Session.open({ backend: "cpu", ...options }),
  };
}

/** The first thing in the way of running on CUDA device `index`. */
export function whyNoCuda({ built, runtime, driver, devices, error }: NativeCuda, index: number): string {
  if (!built) return "the addon was built without CUDA (nvcc was not found, or ATTUNE_CUDA=OFF)";
  if (runtime === 0) return `its CUDA object cannot be loaded: ${error}`;
  if (driver === 0) return "no NVIDIA driver was found";
  if (error !== "") return `CUDA ${version(runtime)} on a driver for ${version(driver)}: ${error}`;
  const device = devices[index];
  if (!device) return devices.length === 0 ? "there is no CUDA device" : `there is no CUDA device ${index}, only ${devices.length}`;
  return `${device.name} was found, but this version has no CUDA kernels for programs`;
}

function version(n: number): string {
  return `${Math.floor(n / 1000)}.${Math.floor((n % 1000) / 10)}`;
}
