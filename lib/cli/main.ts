#!/usr/bin/env node
/** `attune <command>`: a thin line over the library. Exit codes: 0 done, 1 failed, 2 asked for something that there is not, 130 interrupted. */

import { type CommandName, parseConfig, schemas } from "../config/schemas.js";
import { AttuneError, ConfigError } from "../errors.js";
import type { Command, Io } from "./command.js";
import { certify } from "./commands/certify.js";
import { convert } from "./commands/convert.js";
import { doctor } from "./commands/doctor.js";
import { inspect } from "./commands/inspect.js";
import { plan } from "./commands/plan.js";
import { sample } from "./commands/sample.js";
import { train } from "./commands/train.js";
import { type Flag, flagsOf, readFlags } from "./flags.js";

const commands: readonly Command[] = [doctor, inspect, plan, train, sample, certify, convert];
/** Of parts of the library that are not there. */
const later: Readonly<Record<string, string>> = { score: "scoring is there in the library (docs/rewards.md), not on the command line yet" };

/** Runs one command line and returns its exit code. */
export async function attune(args: readonly string[], { write, warn, signal }: Streams): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    write(`${usage()}\n`);
    return name === undefined ? 2 : 0;
  }
  const command = commands.find(c => c.name === name);
  if (!command) {
    warn(`attune: ${later[name] ?? `there is no command ${JSON.stringify(name)}`}\n${later[name] ? "" : `\n${usage()}\n`}`);
    return 2;
  }
  if (rest.includes("--help") || rest.includes("-h")) {
    write(`${helpOf(command)}\n`);
    return 0;
  }
  const json = rest.includes("--json");
  const io: Io = {
    json,
    signal,
    result: (data, text) => write(json ? `${JSON.stringify(data)}\n` : text === "" ? "" : `${text}\n`),
    note: text => json || warn(`${text}\n`),
  };
  try {
    const flags = readFlags(
      command.name,
      rest.filter(a => a !== "--json"),
      flagsOf(schemas[command.name]),
      command.positional,
    );
    await command.run(parseConfig(command.name, flags), io);
    return 0;
  } catch (error) {
    if (signal.aborted) return 130;
    if (!(error instanceof AttuneError)) throw error;
    if (json) write(`${JSON.stringify({ error: { code: error.code, message: error.message } })}\n`);
    else warn(`attune ${isUsage(error, command) ? "" : `${command.name}: `}${error.message}\n`);
    return isUsage(error, command) ? 2 : 1;
  }
}

/** Whether what was asked for is at fault, and not what was found. */
function isUsage(error: AttuneError, { name }: Command): boolean {
  return error instanceof ConfigError && error.subject === name;
}

export interface Streams {
  write(text: string): void;
  warn(text: string): void;
  readonly signal: AbortSignal;
}

function usage(): string {
  const width = Math.max(...commands.map(c => c.name.length));
  const rows = commands.map(c => `  ${c.name.padEnd(width)}  ${c.summary}`);
  return `attune <command> [options]\n\n${rows.join("\n")}\n\nattune <command> --help lists its options; --json prints one line of JSON a result; --config FILE reads options from JSON.`;
}

function helpOf(command: Command): string {
  const flags = flagsOf(schemas[command.name as CommandName]);
  const label = ({ name, kind }: Flag): string => `--${name}${kind === "switch" ? "" : " X"}`;
  const width = Math.max(0, ...flags.map(f => label(f).length));
  const rows = flags.map(f => `  ${label(f).padEnd(width)}  ${f.help}`.trimEnd());
  const positional = command.positional === undefined ? "" : ` [${command.positional}]`;
  return `attune ${command.name}${positional} [options]\n\n${command.summary}\n${rows.length > 0 ? `\n${rows.join("\n")}\n` : ""}\n  --config FILE  options from a JSON file; those on the command line win\n  --json         one line of JSON a result`;
}

if (require.main === module) {
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort(new Error("interrupted"))); // a second one ends the process at once
  const streams: Streams = { write: text => void process.stdout.write(text), warn: text => void process.stderr.write(text), signal: stop.signal };
  void attune(process.argv.slice(2), streams).then(code => {
    process.exitCode = code;
  });
}
