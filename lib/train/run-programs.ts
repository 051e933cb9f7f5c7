/** The programs of a run, compiled into the model's session, and what each takes and gives. */

import { compileGraph, compileWithPlan } from "../graph/compile.js";
import { fitPlan, type Plan } from "../graph/plan.js";
import type { Program } from "../graph/program.js";
import type { Executable } from "../graph/session.js";
import type { Graph } from "../graph/tensor.js";
import { formatBytes } from "../util/bytes.js";
import type { HostTensor } from "../util/host-tensor.js";
import { averageGraph } from "./ema.js";
import type { ArenaSize } from "./events.js";
import type { PairBatch } from "./pair-data.js";
import { runInputs } from "./run-inputs.js";
import type { RunWeights } from "./run-weights.js";
import { microGraph, updateGraph } from "./step.js";
import type { Settings } from "./trainer-options.js";
import { type Evaluation, evaluate, validationGraph } from "./validation.js";

/** The numbers a draw follows from: see graph/scalars.ts. */
export interface DrawScalars {
  readonly seed: number;
  readonly step: number;
  readonly sampleOffset: number;
}

interface Programs<T> {
  readonly micro: T;
  readonly update: T;
  readonly average: T | undefined;
  readonly validate: T | undefined;
}

export class RunPrograms {
  readonly #settings: Settings;
  readonly #executables: Programs<Executable>;
  /** Every arena that the programs need; scratch is as large as the largest of theirs. */
  readonly arenas: readonly ArenaSize[];

  /** Builds and plans all programs before the session takes any memory. Throws PlanError if they do not fit into it. */
  constructor(settings: Settings, weights: RunWeights) {
    const { session } = settings.model;
    const { programs, plan } = build(settings, weights);
    this.#settings = settings;
    this.arenas = largest(Object.values(programs).flatMap(program => program?.arenas ?? []));
    const memory = session.memory();
    const others = Object.entries(memory.arenas).map(([name, bytes]) => ({ name, bytes })); // of other programs, or the same ones
    fitPlan({ ...plan, arenas: largest([...this.arenas, ...others]) }, memory.limit - memory.workspace, remedies(settings, weights, this.arenas));
    const { micro, update, average, validate } = programs;
    this.#executables = {
      micro: session.compile(micro),
      update: session.compile(update),
      average: average && session.compile(average),
      validate: validate && session.compile(validate),
    };
  }

  /** Adds the gradients of one micro-batch; returns its loss and metrics. */
  async micro(batch: PairBatch, scalars: DrawScalars, signal: AbortSignal | undefined): Promise<Record<string, number>> {
    const outputs = await this.#run(this.#executables.micro, runInputs(this.#settings.objective, batch), scalars, signal);
    return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, Number(data[0])]));
  }

  /** Applies update number `t` and clears the gradients; returns their global norm. It is never cancelled: half an update is the state of no step. */
  async update(t: number, learningRate: number): Promise<number> {
    const { gradNorm } = await this.#run(this.#executables.update, {}, this.#settings.optimizer.scalars(t, learningRate), undefined);
    return Number(gradNorm!.data[0]);
  }

  /** Moves the average towards the weights, if the run keeps one. */
  async average(decay: number): Promise<void> {
    const { average } = this.#executables;
    if (average) await this.#run(average, {}, { emaDecay: decay }, undefined);
  }

  /** Evaluates the held-out pairs. Only for a run with validation. */
  async validate(signal: AbortSignal | undefined): Promise<Evaluation> {
    const { validation, batchSize: batch, schedule } = this.#settings;
    return evaluate({ ...validation!, schedule, batch, signal, run: (inputs, scalars) => this.#run(this.#executables.validate!, inputs, scalars, signal) });
  }

  #run(
    executable: Executable,
    inputs: Readonly<Record<string, HostTensor>>,
    scalars: object,
    signal: AbortSignal | undefined,
  ): Promise<Record<string, HostTensor>> {
    return this.#settings.model.session.run(executable, { inputs, scalars: { ...scalars } }, signal ? { signal } : {});
  }
}

function build(settings: Settings, weights: RunWeights): { readonly programs: Programs<Program>; readonly plan: Plan } {
  const { model, objective, schedule, optimizer, batchSize: batch, gradientAccumulationSteps: accumulation, maxGradNorm, conditionDropout } = settings;
  const { policy, reference, guide, trainable, gradients, state, average, arenas } = weights;
  const { denoiser } = model;
  const { target } = model.session;
  const compiled = (name: string, graph: Graph): Program => compileGraph(graph, { name, arenas, target });
  const models = { denoiser, objective, schedule, policy, reference, guide, trainable, gradients };
  const micro = microGraph({ ...models, batch, accumulation, noise: "drawn", conditionDropout });
  const { program, plan } = compileWithPlan(micro, { name: "micro", arenas, target });
  const programs = {
    micro: program,
    update: compiled("update", updateGraph({ trainable, gradients, optimizer, state, maxGradNorm: maxGradNorm === Infinity ? undefined : maxGradNorm })),
    average: average && compiled("average", averageGraph(average, trainable)),
    validate: settings.validation && compiled("validate", validationGraph({ denoiser, schedule, policy, reference: reference!, batch })),
  };
  return { programs, plan };
}

/** One entry per name, the largest. */
function largest(arenas: readonly ArenaSize[]): ArenaSize[] {
  const bytes = new Map<string, number>();
  for (const arena of arenas) bytes.set(arena.name, Math.max(bytes.get(arena.name) ?? 0, arena.bytes));
  return [...bytes].map(([name, size]) => ({ name, bytes: size }));
}

/** Two changes that would make a run smaller, what saves most first. */
function remedies(
  { batchSize, gradientAccumulationSteps: micros, ema }: Settings,
  { adapter, model, stores, average }: RunWeights,
  arenas: readonly ArenaSize[],
): [string, string] {
  const scratch = arenas.find(arena => arena.name === "scratch")!.bytes;
  const copies = stores.filter(store => store !== model.store).reduce((sum, store) => sum + store.bytes, 0);
  const smaller = largestDivisor(batchSize);
  const options = [
    {
      saves: scratch * (1 - smaller / batchSize),
      change: `batchSize ${batchSize} -> ${smaller} with gradientAccumulationSteps ${micros} -> ${(micros * batchSize) / smaller}`,
    },
    { saves: adapter ? 0 : copies, change: "lora: { rank: 16 }, without copies of the model's weights" },
    { saves: ema ? average!.bytes : 0, change: "no ema" },
  ];
  const useful = options
    .filter(({ saves }) => saves > 0)
    .sort((a, b) => b.saves - a.saves)
    .map(({ saves, change }) => `${change} (saves about ${formatBytes(saves)})`);
  const [first, second] = [...useful, "a denoiser that recomputes its activations in the backward pass", "smaller samples"];
  return [first!, second!];
}

/** The largest divisor of n below n; 1 of 1. */
function largestDivisor(n: number): number {
  for (let d = Math.floor(n / 2); d > 1; d--) if (n % d === 0) return d;
  return 1;
}
