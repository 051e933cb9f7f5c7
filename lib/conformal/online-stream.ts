/** A running stream: p-values or e-values in, decisions out, nothing kept but what later levels need. That can be saved as JSON and taken up again, by another
 *  process too, with the decisions of a stream that was never interrupted. */

import { createHash } from "node:crypto";
import { ConfigError } from "../errors.js";
import { checkLabelled, checkLevel, checkScores, type LabelledScores } from "./check.js";
import { type EValues, requireEValues } from "./e-values.js";
import { lordGamma, type OnlineProcedure, type RuleState } from "./online.js";
import { type PValueKind, type PValues, requireKind } from "./p-value-kinds.js";
import { type CalibrationKind, NullScores } from "./p-values.js";

export interface OnlineDecision {
  readonly selected: boolean;
  /** The unit was selected where p <= level (e >= 1 / level). */
  readonly level: number;
}

/** A stream at rest. Plain JSON. */
export interface StreamState {
  readonly procedure: string;
  readonly settings: Readonly<Record<string, number>>;
  readonly seen: number;
  readonly selected: number;
  readonly rule: RuleState;
  /** SHA-256 of the calibration set and kind of p-value, of a stream of scores. */
  readonly calibration?: string;
}

/** Decides units one by one. A stream is of one kind of p-value, which its procedure must take. */
export class OnlineStream<Kind extends PValueKind = PValueKind> {
  readonly #rule;
  #seen = 0;
  #selected = 0;

  /** `state`: goes on from there. Throws ConfigError for a state of another procedure, other settings, or none that a stream can have. */
  constructor(
    readonly procedure: OnlineProcedure<Kind>,
    state?: StreamState,
  ) {
    if (state) [this.#seen, this.#selected] = checkState(procedure, state);
    this.#rule = procedure.start(state?.rule);
  }

  /** For JSON.stringify now and the constructor later. */
  save(): StreamState {
    const { name, settings } = this.procedure;
    return { procedure: name, settings, seen: this.#seen, selected: this.#selected, rule: this.#rule.state() };
  }

  /** Units decided so far. */
  get seen(): number {
    return this.#seen;
  }

  get selected(): number {
    return this.#selected;
  }

  /** The level at which the next unit will be tested. */
  get level(): number {
    return this.#rule.level();
  }

  /** Decisions on the next units, in order. Throws ConfigError, deciding nothing, where the procedure is not valid for their kind. */
  push(pValues: PValues<Kind>): OnlineDecision[] {
    const { values } = requireKind(this.procedure.name, pValues, this.procedure.kinds, this.procedure.why);
    return Array.from(values, p => this.#decide(p));
  }

  #decide(p: number): OnlineDecision {
    const level = this.#rule.level(),
      selected = p <= level;
    this.#rule.record(p, selected);
    this.#seen++;
    if (selected) this.#selected++;
    return { selected, level };
  }
}

function checkState(
  { name, settings }: { readonly name: string; readonly settings: StreamState["settings"] },
  state: StreamState,
): [seen: number, selected: number] {
  const of = (s: Pick<StreamState, "procedure" | "settings">): string => `${s?.procedure} ${JSON.stringify(s?.settings)}`,
    own = of({ procedure: name, settings });
  if (of(state) !== own) throw new ConfigError("OnlineStream", "state", `one saved by ${own}`, of(state));
  const { seen, selected } = state;
  if (!(Number.isSafeInteger(seen) && Number.isSafeInteger(selected) && selected >= 0 && selected <= seen))
    throw new ConfigError("OnlineStream", "state.seen and state.selected", "counts, no more selected than seen", `${seen} and ${selected}`);
  return [seen, selected];
}

export interface OnlineSelectionInput<Kind extends PValueKind> {
  readonly calibration: LabelledScores;
  readonly procedure: OnlineProcedure<Kind>;
  /** Default: "alignment" if the procedure takes it, else "null-only". */
  readonly kind?: CalibrationKind & Kind;
  /** What `save` of an earlier selection gave, with the same calibration set. */
  readonly state?: StreamState;
}

export interface OnlineSelection<Kind extends PValueKind> {
  readonly stream: OnlineStream<Kind>;
  push(score: number): OnlineDecision & { readonly pValue: number };
  /** Decides units as they come; ends with them, or with the signal's reason. What was decided stays in the stream: after an error it goes on where it was. */
  over<U extends { readonly score: number }>(
    units: AsyncIterable<U> | Iterable<U>,
    options?: { readonly signal?: AbortSignal },
  ): AsyncGenerator<{ readonly unit: U; readonly pValue: number } & OnlineDecision>;
  save(): StreamState;
}

/** A stream of scores against one calibration set. Throws ConfigError for a procedure that its p-values would break, and for a state saved with another calibration set. */
export function onlineSelection<Kind extends PValueKind>({ calibration, procedure, kind, state }: OnlineSelectionInput<Kind>): OnlineSelection<Kind> {
  const kinds: readonly PValueKind[] = procedure.kinds;
  const nulls = NullScores.of(calibration, kind ?? (kinds.includes("alignment") ? "alignment" : "null-only"), "onlineSelection");
  requireKind(procedure.name, { kind: nulls.kind, values: new Float64Array() }, kinds, procedure.why);
  const { scores, aligned } = checkLabelled("onlineSelection", calibration);
  const hash = createHash("sha256")
    .update(nulls.kind)
    .update(new Uint8Array(Float64Array.from(scores).buffer))
    .update(aligned)
    .digest("hex");
  if (state && state.calibration !== hash)
    throw new ConfigError("onlineSelection", "state.calibration", `that of this calibration set (${hash})`, state.calibration);
  const stream = new OnlineStream(procedure, state);
  const push = (score: number): OnlineDecision & { readonly pValue: number } => {
    const values = checkScores("onlineSelection", "score", [score]).map(s => nulls.pValue(s));
    const [decision] = stream.push({ kind: nulls.kind, values } as unknown as PValues<Kind>);
    return { ...decision!, pValue: values[0]! };
  };
  return {
    stream,
    push,
    save: () => ({ ...stream.save(), calibration: hash }),
    async *over(units, { signal } = {}) {
      signal?.throwIfAborted();
      for await (const unit of units) {
        signal?.throwIfAborted();
        yield { unit, ...push(unit.score) };
      }
    },
  };
}

/** e-LOND (Xu & Ramdas 2024): selects where e >= 1 / (alpha gamma_t (1 + selections so far)); FDR <= alpha under any dependence. */
export class EValueStream {
  readonly alpha: number;
  #t = 1;
  #selected = 0;

  constructor({ alpha }: { readonly alpha: number }, state?: StreamState) {
    this.alpha = checkLevel("eLond", "alpha", alpha);
    if (!state) return;
    [this.#t, this.#selected] = checkState({ name: "e-LOND", settings: { alpha } }, state);
    this.#t++;
  }

  save(): StreamState {
    return { procedure: "e-LOND", settings: { alpha: this.alpha }, seen: this.#t - 1, selected: this.#selected, rule: {} };
  }

  get selected(): number {
    return this.#selected;
  }

  push(e: EValues): OnlineDecision[] {
    return Array.from(requireEValues("eLond", e), one => {
      const level = this.alpha * lordGamma(this.#t++) * (this.#selected + 1);
      const selected = one * level >= 1;
      if (selected) this.#selected++;
      return { selected, level };
    });
  }
}
