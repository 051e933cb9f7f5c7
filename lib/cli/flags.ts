/** Flags from schemas: `--gradient-accumulation-steps 4`, `--lora.rank 16`, `--prompt a --prompt b`, and `--config file.json` beneath them. */

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { z } from "zod";
import { ConfigError, DataError } from "../errors.js";
import { parseStrictJson } from "../util/strict-json.js";

export interface Flag {
  /** Path in the config: ["lora", "rank"]. */
  readonly path: readonly string[];
  /** Without the dashes. */
  readonly name: string;
  readonly kind: "value" | "list" | "switch";
  readonly help: string;
}

/** The flags of a schema, one for each leaf. */
export function flagsOf(schema: z.ZodType, path: readonly string[] = []): Flag[] {
  const inner = unwrapped(schema);
  if (inner instanceof z.ZodDiscriminatedUnion) return inner.options.flatMap(o => flagsOf(o as z.ZodType, path)).filter(distinct);
  if (inner instanceof z.ZodObject) return Object.entries(inner.shape).flatMap(([key, value]) => flagsOf(value as z.ZodType, [...path, key]));
  const kind = inner instanceof z.ZodArray ? "list" : inner instanceof z.ZodBoolean ? "switch" : "value";
  return [{ path, name: path.map(kebab).join("."), kind, help: helpOf(schema, inner) }];
}

/** Command line and config file as one object; what the command line says wins. The first argument without a name is `positional`.
 *  @throws ConfigError for an unknown flag, DataError for a config file that cannot be read. */
export function readFlags(command: string, args: readonly string[], flags: readonly Flag[], positional: string | undefined): Record<string, unknown> {
  const options = Object.fromEntries(flags.map(f => [f.name, { type: f.kind === "switch" ? "boolean" : "string", multiple: f.kind === "list" } as const]));
  let parsed: { values: Record<string, unknown>; positionals: string[] };
  try {
    parsed = parseArgs({ args: [...args], options: { ...options, config: { type: "string" } }, allowPositionals: true });
  } catch (cause) {
    throw new ConfigError(
      command,
      "the arguments",
      `those that \`attune ${command} --help\` lists`,
      (cause as Error).message.split("\n")[0]!.replace(/\. To specify.*$/, ""),
    );
  }
  const { values, positionals } = parsed;
  const config = typeof values.config === "string" ? configFile(values.config) : {};
  const [first, second] = positionals;
  if (second !== undefined || (first !== undefined && positional === undefined))
    throw new ConfigError(command, "the arguments", positional === undefined ? "flags alone" : `one ${positional} and flags`, second ?? first);
  if (first !== undefined && positional !== undefined) put(config, [positional], first);
  for (const { name, path } of flags) if (values[name] !== undefined) put(config, path, values[name]);
  return config;
}

function configFile(path: string): Record<string, unknown> {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
  const json = parseStrictJson(bytes, path);
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new DataError(path, "expected a JSON object");
  return json as Record<string, unknown>;
}

function put(config: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [key, ...rest] = path as [string, ...string[]];
  if (rest.length === 0) {
    config[key] = value;
    return;
  }
  const below = config[key];
  if (typeof below !== "object" || below === null) config[key] = {};
  put(config[key] as Record<string, unknown>, rest, value);
}

function unwrapped(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) return unwrapped(schema.unwrap() as z.ZodType);
  return schema;
}

function helpOf(schema: z.ZodType, inner: z.ZodType): string {
  const text = schema.description ?? inner.description ?? (inner instanceof z.ZodEnum ? inner.options.join(" or ") : "");
  const given = schema instanceof z.ZodDefault ? `(${JSON.stringify(schema.parse(undefined))})` : schema instanceof z.ZodOptional ? "" : "(needed)";
  return [text, given].filter(part => part !== "").join(" ");
}

function distinct(flag: Flag, i: number, all: readonly Flag[]): boolean {
  return all.findIndex(other => other.name === flag.name) === i;
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, c => `-${c.toLowerCase()}`);
}
