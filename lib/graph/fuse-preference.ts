/** Joins the scalar stage of a training step into `preference_loss`: what stands between pair_sums and its gradient, some thirty instructions on [B] numbers,
 *  becomes a tape of that op. Objectives are written in plain ops and differentiated as they are; a stage that a tape cannot express stays as it is. Results are
 *  those of the plain ops up to rounding: sums over the batch are formed in another order. */

import { isPersistent } from "./alias.js";
import { LossTapeWriter, type Register } from "./loss-tape.js";
import { preferenceLossDef } from "./ops/preference-loss.js";
import { type Readers, readersOf, Writes } from "./readers.js";
import { rebuild } from "./rebuild.js";
import { operandOf } from "./tape-encode.js";
import { type TapeOpcode, tapeOpcodes } from "./tape-opcodes.js";
import { type Graph, type Node, numel, sameShape, type Tensor } from "./tensor.js";

/** Fuses every pair_sums whose gradient is taken once, if there is a kernel for it. What stays plain of a stage is dead code afterwards. */
export function fusePreference(graph: Graph, kernels: ReadonlySet<string>): Graph {
  if (!kernels.has("preference_loss")) return graph;
  const context = { readers: readersOf(graph), writes: new Writes(graph) };
  const places = new Map<Node, Node | undefined>(); // what stands where a node stood
  for (const sums of graph.nodes.filter(isSums)) {
    const fused = fuse(graph, sums, context);
    if (!fused) continue;
    for (const node of fused.stage) places.set(node, undefined);
    places.set(fused.vjp, fused.loss);
  }
  const order = graph.nodes.flatMap(node => (places.has(node) ? (places.get(node) ?? []) : node));
  return rebuild(graph, (_node, _inputs, keep) => keep(), order);
}

const isSums = ({ op, attrs }: Node): boolean => op.name === "pair_sums" && attrs.segments === 1;

interface Fused {
  /** Nodes that are no longer needed. */
  readonly stage: ReadonlySet<Node>;
  readonly vjp: Node;
  /** What stands in the place of `vjp`; its outputs are those of `vjp`, then what others read of the stage. */
  readonly loss: Node;
}

function fuse(graph: Graph, sums: Node, { readers, writes }: { readers: Readers; writes: Writes }): Fused | undefined {
  const gradients = graph.nodes.filter(({ op, inputs }) => op.name === "pair_sums_vjp" && sums.inputs.every((x, i) => inputs[4 + i] === x));
  const vjp = gradients[0];
  if (gradients.length !== 1 || vjp!.replay !== sums.replay || !writes.spare(sums, vjp!)) return undefined;
  const stage = new Stage(graph, sums, vjp!);
  const { nodes } = stage;
  const read = [...nodes].flatMap(node => node.outputs).filter(y => (readers.get(y) ?? []).some(reader => reader !== vjp && !(reader && nodes.has(reader))));
  const early = read.some(y => readers.get(y)!.some(reader => reader && !nodes.has(reader) && reader.id < vjp!.id));
  const tape = early ? undefined : stage.tape(vjp!.inputs.slice(0, 4) as Tensor[], read);
  if (!tape) return undefined;
  const [prediction, target, reference] = sums.inputs;
  const draw = drawOf(target!, prediction!, tape.attrs.arms);
  const loss: Node = {
    ...vjp!,
    op: preferenceLossDef,
    attrs: { ...tape.attrs, ...draw },
    inputs: [prediction, draw ? undefined : target, reference, ...tape.extras],
    outputs: [vjp!.outputs[0]!, ...read],
  };
  return { stage: nodes, vjp: vjp!, loss };
}

/** The draw that the target is, of the dtype in which the loss is computed: it can then be made again where it is read, and need not be kept until then. */
function drawOf(target: Tensor, prediction: Tensor, arms: 1 | 2): Record<"seed" | "step" | "offset" | "stream", number> | undefined {
  const { op, attrs, inputs } = target.node;
  const pair = op.name === "concat" && attrs.axis === 0 && inputs.length === 2 && inputs[0] === inputs[1];
  const noise = arms === 1 ? target : pair ? inputs[0]! : undefined;
  if (noise?.node.op.name !== "random_normal" || (noise.dtype === "f64") !== (prediction.dtype === "f64")) return undefined;
  const slot = (name: string): number => Number(noise.node.attrs[name]);
  return { seed: slot("seed"), step: slot("step"), offset: slot("offset"), stream: slot("stream") };
}

/** A value of the stage in the registers of a lane: `both` arms of [arms * lanes] numbers, one of each lane, or one for all. Numbers are known now. */
type Value = { readonly both: readonly [Register, Register] } | { readonly lane: Register };

const opcodes: ReadonlySet<string> = new Set(tapeOpcodes);

/** The nodes between pair sums and their gradient that follow from the sums alone, as a tape. */
class Stage {
  readonly nodes = new Set<Node>();
  readonly #values = new Map<Tensor, Value>();
  readonly #writer: LossTapeWriter;
  readonly #arms: 1 | 2;
  readonly #lanes: number;
  readonly #before: number;

  constructor(graph: Graph, sums: Node, vjp: Node) {
    const rows = sums.outputs[0]!.shape[0]!;
    this.#arms = graph.nodes.some(node => isHalf(node, sums, rows)) ? 2 : 1;
    this.#lanes = rows / this.#arms;
    this.#before = vjp.id;
    this.#writer = new LossTapeWriter(this.#arms, this.#lanes);
    for (const [k, y] of sums.outputs.entries()) {
      const of = (arm: number): Register => this.#writer.input(4 * arm + k);
      this.#values.set(y, this.#arms === 2 ? { both: [of(0), of(1)] } : { lane: of(0) });
    }
    this.nodes.add(sums);
    for (const node of graph.nodes) {
      if (node === vjp || node.replay !== sums.replay || node.inputs.length === 0 || node.outputs.length > 1 || node.outputs[0]!.dtype !== "f64") continue;
      const value = this.#express(node);
      if (!value) continue;
      this.#values.set(node.outputs[0]!, value); // of numbers alone too, as the first steps of a gradient are
      if (node.inputs.some(x => this.nodes.has(x!.node))) this.nodes.add(node);
    }
  }

  /** The tape that gives these derivatives and the values that others read; undefined where one of them is no value of the stage, or there is no room. */
  tape(derivatives: readonly Tensor[], read: readonly Tensor[]) {
    const byArm = derivatives.map(x => this.#read(x, this.#arms * this.#lanes));
    const results = read.map(y => this.#values.get(y)!);
    if (byArm.some(value => !value) || results.some(value => "both" in value)) return undefined;
    const coefficients = Array.from({ length: this.#arms }, (_, arm) => byArm.map(value => ("both" in value! ? value.both[arm]! : value!.lane))).flat();
    const perLane = read.map(y => Number(numel(y.shape) === this.#lanes && this.#lanes > 1));
    const registers = results.map(value => (value as { lane: Register }).lane);
    return this.#writer.finish({ outputs: registers, perLane, coefficients });
  }

  /** The value of an operand, for results of `count` numbers: of the stage, a number, or an input of the tape. */
  #read(x: Tensor, count: number): Value | undefined {
    const known = this.#values.get(x);
    if (known) return known;
    const from = operandOf(x);
    if (typeof from === "number") return this.#spread(from, count);
    const size = numel(from.shape);
    const perLane = size === this.#lanes && (this.#arms === 1 || count !== 2 * this.#lanes);
    const fits = from.dtype === "f64" && (size === 1 || perLane);
    return fits && from.node.id < this.#before && !isPersistent(from) ? { lane: this.#writer.extra(from) } : undefined;
  }

  /** The same in both arms where `count` numbers are those of both. */
  #spread(register: Register, count: number): Value {
    return this.#arms === 2 && count === 2 * this.#lanes ? { both: [register, register] } : { lane: register };
  }

  #express(node: Node): Value | undefined {
    const { op, attrs, inputs, outputs } = node;
    const count = numel(outputs[0]!.shape);
    if (![1, this.#lanes, this.#arms * this.#lanes].includes(count)) return undefined;
    if (op.tape !== undefined && opcodes.has(op.name)) return this.#elementwise(node, count);
    if (op.name === "concat" && attrs.axis === 0 && inputs.length === 2) return this.#joined(inputs as readonly [Tensor, Tensor]);
    const [x] = inputs;
    const value = x && inputs.length === 1 ? this.#read(x, numel(x.shape)) : undefined;
    if (!value) return undefined;
    if (op.name === "reshape" || op.name === "stop_gradient") return value;
    if (op.name === "broadcast" && "lane" in value && numel(x!.shape) === 1) return this.#spread(value.lane, count);
    if (op.name === "sum" && count === 1) return { lane: this.#sum(value, numel(x!.shape)) };
    if (op.name === "slice" && "both" in value && attrs.axis === 0 && count === this.#lanes) return halfOf(value.both, Number(attrs.start), this.#lanes);
    if (op.name === "pad" && "lane" in value && attrs.axis === 0 && count === 2 * this.#lanes && numel(x!.shape) === this.#lanes)
      return attrs.before === 0 ? { both: [value.lane, 0] } : attrs.after === 0 ? { both: [0, value.lane] } : undefined;
    return undefined;
  }

  #joined(parts: readonly [Tensor, Tensor]): Value | undefined {
    const [first, second] = parts.map(part => (numel(part.shape) === this.#lanes ? this.#read(part, this.#lanes) : undefined));
    return first && second && "lane" in first && "lane" in second ? { both: [first.lane, second.lane] } : undefined;
  }

  #sum(value: Value, count: number): Register {
    const over = (part: Register): Register => (this.#lanes === 1 || count === 1 ? part : this.#writer.sum(part));
    return "lane" in value ? over(value.lane) : this.#writer.write("add", value.both.map(over), {});
  }

  /** Shapes must not broadcast but from one number: [2, 1] and [2] would otherwise mean a table. */
  #elementwise({ op, attrs, inputs, outputs: [y] }: Node, count: number): Value | undefined {
    const operands = inputs.map(x =>
      sameShape(x!.shape, y!.shape) || numel(x!.shape) === 1 || typeof operandOf(x!) === "number" ? this.#read(x!, count) : undefined,
    );
    if (operands.some(value => !value)) return undefined;
    const at = (arm: number): Register[] => operands.map(value => ("both" in value! ? value.both[arm]! : value!.lane));
    const write = (arm: number): Register => this.#writer.write(op.name as TapeOpcode, at(arm), attrs);
    return operands.some(value => "both" in value!) ? { both: [write(0), write(1)] } : this.#spread(write(0), count);
  }
}

/** Whether the node takes half of the sums, or of what was made of them and has their shape: then samples come in pairs. */
function isHalf({ op, attrs, inputs: [x], outputs: [y] }: Node, sums: Node, rows: number): boolean {
  const halved = op.name === "slice" && attrs.axis === 0 && x!.dtype === "f64" && numel(x!.shape) === rows && 2 * numel(y!.shape) === rows;
  if (halved) for (let node: Node | undefined = x!.node; node; node = node.inputs[0]?.node) if (node === sums) return true;
  return false;
}

function halfOf(both: readonly [Register, Register], start: number, lanes: number): Value | undefined {
  return start === 0 ? { lane: both[0] } : start === lanes ? { lane: both[1] } : undefined;
}
