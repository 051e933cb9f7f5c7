/** Devices: which there are, and why not. Only "auto" falls back to the CPU, and says so. */

import os from "node:os";
import { CapabilityError, ConfigError, DeviceError, DriverError } from "./errors.js";
import { Session, type SessionOptions } from "./graph/session.js";
import { guarded, isaLimit, type NativeCuda } from "./native.js";
import { formatBytes } from "./util/bytes.js";

/** What a GPU must have: bf16 tensor cores and asynchronous copies. */
const oldestCapability = 8;

export interface Device {
  readonly kind: "cpu" | "cuda";
  /** One line for people: what computes, and for "auto" why it was chosen. */
  readonly description: string;
  openSession(options?: Omit<SessionOptions, "backend" | "device">): Session;
}

/** "auto" is a GPU that can run programs, else the CPU; "cuda" is "cuda:0".
 *  @throws DeviceError with the reason why there is no such device, CapabilityError for a GPU that is too old, DriverError for such a driver. */
export async function openDevice(name: "auto" | "cpu" | "cuda" | `cuda:${number}`): Promise<Device> {
  const match = /^(auto|cpu|cuda)(?::(\d+))?$/.exec(name);
  if (!match || (match[2] !== undefined && match[1] !== "cuda")) throw new ConfigError("openDevice", "the device", "auto, cpu, cuda or cuda:<index>", name);
  if (match[1] === "cpu") return cpu();
  const found = guarded(addon => addon.kernels("cuda"));
  const index = Number(match[2] ?? 0);
  const obstacle = whyNoCuda(found, index);
  if (!obstacle) return cuda(found, index);
  if (match[1] === "auto") return cpu(obstacle.message);
  const { message, kind: Failure } = obstacle;
  throw new Failure(`${name}: ${message}`);
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

function cuda({ devices, runtime }: NativeCuda, index: number): Device {
  const { name, capability, multiprocessors, bytes } = devices[index]!;
  return {
    kind: "cuda",
    description: `cuda:${index}: ${name}, compute capability ${capability}, ${multiprocessors} multiprocessors, ${formatBytes(bytes)}, CUDA ${version(runtime)}`,
    openSession: options => Session.open({ backend: "cuda", device: index, ...options }),
  };
}

/** The first thing in the way of running on CUDA device `index`, and the error it is; undefined: nothing. */
export function whyNoCuda(
  { built, runtime, driver, devices, error }: NativeCuda,
  index: number,
): { readonly message: string; readonly kind: new (message: string) => DeviceError | CapabilityError | DriverError } | undefined {
  const because = (message: string, kind: new (message: string) => DeviceError | CapabilityError | DriverError = DeviceError) => ({ message, kind });
  if (!built) return because("the addon was built without CUDA (nvcc was not found, or ATTUNE_CUDA=OFF)");
  if (runtime === 0) return because(`its CUDA object cannot be loaded: ${error}`);
  if (driver === 0) return because("no NVIDIA driver was found");
  if (error !== "") {
    const message = `CUDA ${version(runtime)} on a driver for ${version(driver)}: ${error}`;
    return driver < runtime ? because(`${message}; a newer driver is needed`, DriverError) : because(message);
  }
  const device = devices[index];
  if (!device) return because(devices.length === 0 ? "there is no CUDA device" : `there is no CUDA device ${index}, only ${devices.length}`);
  if (Number.parseFloat(device.capability) < oldestCapability)
    return because(
      `${device.name} has compute capability ${device.capability}, the kernels need ${oldestCapability.toFixed(1)} (Ampere) or later`,
      CapabilityError,
    );
  return undefined;
}

function version(n: number): string {
  return `${Math.floor(n / 1000)}.${Math.floor((n % 1000) / 10)}`;
}
