/** Every error attune throws: one base class, a stable `code`, and the fields that the message was built from. */

export type ErrorCode =
  | "ERR_ABORTED"
  | "ERR_ADDON_LOAD"
  | "ERR_CAPABILITY"
  | "ERR_CHECKPOINT"
  | "ERR_CLOSED"
  | "ERR_CONFIG"
  | "ERR_DATA"
  | "ERR_DEVICE"
  | "ERR_DRIVER"
  | "ERR_GRAD"
  | "ERR_MEMORY"
  | "ERR_NONFINITE"
  | "ERR_OUT_OF_MEMORY"
  | "ERR_PROGRAM"
  | "ERR_SHAPE"
  | "ERR_WEIGHTS";

export abstract class AttuneError extends Error {
  abstract readonly code: ErrorCode;
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** An option that cannot be used, found where it was received. */
export class ConfigError extends AttuneError {
  readonly code = "ERR_CONFIG";
  constructor(
    readonly subject: string,
    readonly option: string,
    readonly expected: string,
    readonly received: unknown,
    hint?: string,
  ) {
    super(`${subject}: expected ${option} to be ${expected}, received ${show(received)}${hint ? `; ${hint}` : ""}`);
  }
}

/** Shapes that do not fit, found while a graph is built. */
export class ShapeError extends AttuneError {
  readonly code = "ERR_SHAPE";
  constructor(
    readonly op: string,
    detail: string,
    readonly label?: string,
  ) {
    super(`${op}${label ? ` at ${label}` : ""}: ${detail}`);
  }
}

/** A gradient that was asked for and does not exist. */
export class GradError extends AttuneError {
  readonly code = "ERR_GRAD";
  constructor(
    readonly op: string,
    readonly label: string,
    detail: string,
  ) {
    super(`${op}${label ? ` at ${label}` : ""}: ${detail}`);
  }
}

/** A plan that does not fit, found before weights are read. */
export class PlanError extends AttuneError {
  readonly code = "ERR_MEMORY";
  constructor(
    message: string,
    readonly needed: number,
    readonly available: number,
    readonly largest: readonly { readonly name: string; readonly bytes: number }[] = [],
  ) {
    super(message);
  }
}

/** A program that the executor refuses: unknown op, missing kernel, an id or extent out of range. */
export class ProgramError extends AttuneError {
  readonly code = "ERR_PROGRAM";
  constructor(
    message: string,
    readonly op?: string,
    readonly label?: string,
  ) {
    super(message);
  }
}

/** A device that is missing or failed; of a CUDA failure `cuda` is its name there ("cudaErrorIllegalAddress"), `op` and `label` name the instruction. */
export class DeviceError extends AttuneError {
  readonly code = "ERR_DEVICE";
  constructor(
    message: string,
    readonly op?: string,
    readonly label?: string,
    readonly cuda?: string,
  ) {
    super(message);
  }
}

/** A GPU whose compute capability is older than the kernels need. */
export class CapabilityError extends AttuneError {
  readonly code = "ERR_CAPABILITY";
}

/** A GPU driver older than the CUDA version that the addon was built with. */
export class DriverError extends AttuneError {
  readonly code = "ERR_DRIVER";
}

/** A device that refused memory, in bytes. Another process may hold it: what a program needs was known before. */
export class OutOfMemoryError extends AttuneError {
  readonly code = "ERR_OUT_OF_MEMORY";
  constructor(
    message: string,
    readonly needed: number,
    readonly available: number,
  ) {
    super(message);
  }
}

/** A checked run met NaN or infinity; `op` and `label` name the first instruction that produced it. */
export class NonFiniteError extends AttuneError {
  readonly code = "ERR_NONFINITE";
  constructor(
    message: string,
    readonly op?: string,
    readonly label?: string,
  ) {
    super(message);
  }
}

/** Weights that do not fit the model: every missing, unexpected and mismatched name is listed. */
export class WeightsError extends AttuneError {
  readonly code = "ERR_WEIGHTS";
  constructor(
    readonly source: string,
    readonly missing: readonly string[],
    readonly unexpected: readonly string[],
    readonly mismatched: readonly { readonly name: string; readonly expected: string; readonly received: string }[] = [],
  ) {
    const parts = [
      missing.length > 0 ? `${missing.length} missing (${sample(missing)})` : "",
      unexpected.length > 0 ? `${unexpected.length} unexpected (${sample(unexpected)})` : "",
      mismatched.length > 0
        ? `${mismatched.length} mismatched (${sample(mismatched.map(m => `${m.name}: expected ${m.expected}, received ${m.received}`))})`
        : "",
    ];
    super(`${source}: weights do not fit the model: ${parts.filter(Boolean).join(", ")}`);
  }
}

/** A file or record that is not what its format promises. */
export class DataError extends AttuneError {
  readonly code = "ERR_DATA";
  constructor(
    readonly file: string,
    detail: string,
    readonly where: { readonly row?: number; readonly column?: string; readonly field?: string; readonly offset?: number } = {},
    options?: ErrorOptions,
  ) {
    const place = Object.entries(where).map(([k, v]) => `${k} ${v}`);
    super(`${file}${place.length > 0 ? ` (${place.join(", ")})` : ""}: ${detail}`, options);
  }
}

/** A checkpoint that cannot be resumed from: incomplete, damaged, or of another run. */
export class CheckpointError extends AttuneError {
  readonly code = "ERR_CHECKPOINT";
  constructor(
    readonly path: string,
    detail: string,
    options?: ErrorOptions,
  ) {
    super(`${path}: ${detail}`, options);
  }
}

/** Use of a handle after it was closed. */
export class ClosedError extends AttuneError {
  readonly code = "ERR_CLOSED";
  constructor(subject: string) {
    super(`${subject} was closed`);
  }
}

/** The native addon could not be loaded; the message says what to run. */
export class AddonError extends AttuneError {
  readonly code = "ERR_ADDON_LOAD";
}

/** A run was cancelled natively. Callers that passed an AbortSignal see `signal.reason` in its place. */
export class AbortedError extends AttuneError {
  readonly code = "ERR_ABORTED";
}

function sample(names: readonly string[]): string {
  return names.length <= 8 ? names.join(", ") : `${names.slice(0, 8).join(", ")} and ${names.length - 8} more`;
}

function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`;
  if (typeof value === "object" && value !== null) return JSON.stringify(value);
  return String(value);
}
