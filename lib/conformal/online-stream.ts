/** A running stream: p-values or e-values in, decisions out, nothing kept but what later levels need. */

import { checkLevel, checkScores, type LabelledScores } from "./check.js";
import { type EValues, requireEValues } from "./e-values.js";
import { lordGamma, type OnlineProcedure } from "./online.js";
import { type PValueKind, type PValues, requireKind } from "./p-value-kinds.js";
import { type CalibrationKind, NullScores } from "./p-values.js";

export interface OnlineDecision {
  readonly selected: boolean;
  /** The unit was selected where p <= level (e >= 1 / level). */
  readonly level: number;
}

/** Decides units one by one. A stream is of one kind of p-value, which its procedure must take. */
export class OnlineStream<Kind extends PValueKind = PValueKind> {
  readonly #rule;
  #seen = 0;
  #selected = 0;

  constructor(readonly procedure: OnlineProcedure<Kind>) {
    this.#rule = procedure.start();
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

/** A stream of scores against one calibration set. `kind` defaults to what the procedure takes: "alignment" if it may, else "null-only". */
export function onlineSelection<Kind extends PValueKind>({
  calibration,
  procedure,
  kind,
}: {
  readonly calibration: LabelledScores;
  readonly procedure: OnlineProcedure<Kind>;
  readonly kind?: CalibrationKind & Kind;
}): { readonly stream: OnlineStream<Kind>; push(score: number): OnlineDecision & { readonly pValue: number } } {
  const kinds: readonly PValueKind[] = procedure.kinds;
  const nulls = NullScores.of(calibration, kind ?? (kinds.includes("alignment") ? "alignment" : "null-only"), "onlineSelection");
  requireKind(procedure.name, { kind: nulls.kind, values: new Float64Array() }, kinds, procedure.why);
  const stream = new OnlineStream(procedure);
  const push = (score: number): OnlineDecision & { readonly pValue: number } => {
    const values = checkScores("onlineSelection", "score", [score]).map(s => nulls.pValue(s));
    const [decision] = stream.push({ kind: nulls.kind, values } as unknown as PValues<Kind>);
    return { ...decision!, pValue: values[0]! };
  };
  return { stream, push };
}

/** e-LOND (Xu & Ramdas 2024): selects where e >= 1 / (alpha gamma_t (1 + selections so far)); FDR <= alpha under any dependence. */
export class EValueStream {
  readonly alpha: number;
  #t = 1;
  #selected = 0;

  constructor({ alpha }: { readonly alpha: number }) {
    this.alpha = checkLevel("eLond", "alpha", alpha);
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
