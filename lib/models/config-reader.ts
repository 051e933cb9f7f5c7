/** Reads a model's config.json field by field: every field is used, known to be without effect, or reported. Problems are gathered, so that one
 *  error lists them all. A field that is absent or null takes its default, as in diffusers. */

import { ConfigError } from "../errors.js";

interface Problem {
  readonly field: string;
  readonly expected: string;
  readonly received: unknown;
}

export class ConfigReader {
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #known = new Set<string>();
  readonly #problems: Problem[] = [];

  /** `source` is the path or name that errors begin with. Throws ConfigError if `json` is not an object. */
  constructor(
    json: unknown,
    readonly source: string,
  ) {
    if (typeof json !== "object" || json === null || Array.isArray(json)) throw new ConfigError(source, "the config", "a JSON object", json);
    this.#fields = json as Record<string, unknown>;
  }

  /** The field as it stands; undefined for null. */
  raw(field: string): unknown {
    this.#known.add(field);
    return Object.hasOwn(this.#fields, field) ? (this.#fields[field] ?? undefined) : undefined;
  }

  /** Fields that do not change what is computed here. */
  ignore(...fields: readonly string[]): void {
    for (const field of fields) this.#known.add(field);
  }

  /** A field of which only these values are supported; the first is what absence means. */
  only<T extends string | number | boolean | null>(field: string, ...values: readonly T[]): void {
    const value = this.raw(field) ?? null;
    if (value !== null && !values.includes(value as T)) this.problem(field, values.map(v => JSON.stringify(v)).join(" or "), value);
  }

  count(field: string, fallback?: number): number {
    return this.#checked(field, fallback, isCount, "a whole number >= 1", 1);
  }

  number(field: string, fallback: number): number {
    return this.#checked(field, fallback, (v): v is number => typeof v === "number" && Number.isFinite(v), "a number", fallback);
  }

  boolean(field: string, fallback: boolean): boolean {
    return this.#checked(field, fallback, (v): v is boolean => typeof v === "boolean", "true or false", fallback);
  }

  /** A non-empty array of strings out of `values`. */
  strings<T extends string>(field: string, values: readonly T[], fallback: readonly T[]): readonly T[] {
    const isOne = (v: unknown): v is readonly T[] => Array.isArray(v) && v.length > 0 && v.every(x => values.includes(x));
    return this.#checked(field, fallback, isOne, `an array of ${values.join(", ")}`, fallback);
  }

  /** A non-empty array of whole numbers >= 1. */
  counts(field: string, fallback: readonly number[]): readonly number[] {
    const isOne = (v: unknown): v is readonly number[] => Array.isArray(v) && v.length > 0 && v.every(isCount);
    return this.#checked(field, fallback, isOne, "an array of whole numbers >= 1", fallback);
  }

  /** One whole number for all of `length` places, or one each. */
  countPerPlace(field: string, length: number, fallback: number): readonly number[] {
    return this.perPlace(field, length, fallback, isCount, "a whole number >= 1");
  }

  /** One number of layers for all of `length` places, or one each. A model is built layer by layer: a number without end would be too. */
  layersPerPlace(field: string, length: number, fallback: number): readonly number[] {
    return this.perPlace(field, length, fallback, isLayers, layersText);
  }

  /** A number of layers: as a count, but no model has more than a file may cost. */
  layers(field: string, fallback: number): number {
    return this.#checked(field, fallback, isLayers, layersText, fallback);
  }

  /** One value for all of `length` places, or one each. */
  perPlace<T>(field: string, length: number, fallback: T, isOne: (v: unknown) => v is T, what: string): readonly T[] {
    const isAny = (v: unknown): v is T | readonly T[] => isOne(v) || (Array.isArray(v) && v.length === length && v.every(isOne));
    const value = this.#checked<T | readonly T[]>(field, fallback, isAny, `${what}, or ${length} of them`, fallback);
    return Array.isArray(value) ? (value as readonly T[]) : Array.from({ length }, () => value as T);
  }

  problem(field: string, expected: string, received: unknown): void {
    this.#known.add(field);
    this.#problems.push({ field, expected, received });
  }

  /** Throws one ConfigError with every problem: a single field by its name, several listed. Fields beginning with "_" are the saver's own notes. */
  finish(): void {
    for (const [field, value] of Object.entries(this.#fields))
      if (!this.#known.has(field) && !field.startsWith("_")) this.problem(field, "a field of this model", value);
    const [first, ...others] = this.#problems;
    if (!first) return;
    if (others.length === 0) throw new ConfigError(this.source, first.field, first.expected, first.received);
    const received = Object.fromEntries(this.#problems.map(p => [p.field, p.received]));
    const expected = this.#problems.map(p => `${p.field}: ${p.expected}`).join("; ");
    throw new ConfigError(this.source, this.#problems.map(p => p.field).join(", "), "supported", received, `expected ${expected}`);
  }

  #checked<T>(field: string, fallback: T | undefined, isOne: (v: unknown) => v is T, expected: string, stand: T): T {
    const value = this.raw(field) ?? fallback;
    if (isOne(value)) return value;
    this.problem(field, expected, value);
    return stand; // never used: finish() throws
  }
}

const maxLayers = 256;
export const layersText = `a whole number in [1, ${maxLayers}]`;

/** Whether a value can be a number of layers. */
export function isLayers(value: unknown): value is number {
  return isCount(value) && value <= maxLayers;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}
