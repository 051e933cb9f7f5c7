/** What a command of `attune` is: options by schema, and a function that runs them. */

import type { CommandConfig, CommandName } from "../config/schemas.js";

export interface Command<N extends CommandName = CommandName> {
  readonly name: N;
  /** One line for the list of commands. */
  readonly summary: string;
  /** The option that may stand without its name. */
  readonly positional?: string;
  run(config: CommandConfig<N>, io: Io): Promise<void>;
}

/** Where a command speaks: results on standard output, the rest on standard error. */
export interface Io {
  /** `--json`: every result is one line of JSON. */
  readonly json: boolean;
  readonly signal: AbortSignal;
  /** A result: `data` with --json, else `text`. */
  result(data: unknown, text: string): void;
  /** Progress and remarks; nothing with --json. */
  note(text: string): void;
}

/** Keeps the type of the options that belong to the name. */
export function defineCommand<N extends CommandName>(command: Command<N>): Command {
  return command as unknown as Command;
}
