/** From a graph to buffers: which tensors share one, and from which instruction to which each must hold its bytes. */

import { ProgramError } from "../errors.js";
import { launches, storageOf } from "./alias.js";
import type { Lifetimes } from "./pack.js";
import { byteSize, type Graph, type Node, type Tensor } from "./tensor.js";

/** Every buffer starts on a cache line and is a whole number of them long, as the widest vector loads want. */
export const alignment = 64;

/** A stretch of scratch memory that one tensor, or several in turn, occupy. */
export interface Buffer {
  readonly index: number;
  readonly bytes: number;
  /** First instruction of its life, and the last that needs all of its bytes. */
  readonly start: number;
  whole: number;
  /** How many of its first bytes are needed after that (only the first rows of a batch are read again, say), and the last instruction of its life. */
  kept: number;
  end: number;
  /** The tensors that hold the whole of it, one after the other: the later ones took it over in place. */
  readonly tensors: Tensor[];
}

export interface Buffers {
  /** The nodes that launch, in order: the program's instructions. */
  readonly instructions: readonly Node[];
  readonly buffers: readonly Buffer[];
  /** The buffer of a tensor that is neither a view, nor the result of an effect, nor a parameter. */
  readonly of: ReadonlyMap<Tensor, Buffer>;
}

/** Assigns scratch buffers. Program inputs live from the start, outputs to the end, anything else from its instruction to its last reader, its
 *  views' readers included. An `inplace` output takes over its input's buffer where both fill it, or what is still needed of it, and nothing reads the input
 *  afterwards. */
export function assignBuffers(graph: Graph): Buffers {
  const instructions = graph.nodes.filter(launches);
  const last = Math.max(instructions.length - 1, 0);
  const uses = usesOf(graph, instructions);
  const buffers: Buffer[] = [];
  const of = new Map<Tensor, Buffer>();
  const open = (tensor: Tensor, start: number): void => {
    const buffer = { index: buffers.length, bytes: aligned(byteSize(tensor)), start, ...span(uses.get(tensor), start), tensors: [tensor] };
    buffers.push(buffer);
    of.set(tensor, buffer);
  };
  for (const { tensor } of graph.inputs) open(tensor, 0);
  for (const [at, node] of instructions.entries()) {
    for (const output of node.outputs) {
      if (node.op.writes?.[output.index] !== undefined) {
        checkEffect(node, output.index);
        continue;
      }
      const donor = output.index === 0 ? takenInPlace(node, at, of, uses) : undefined;
      if (!donor) {
        open(output, at);
        continue;
      }
      donor.tensors.push(output);
      const { whole, kept, end } = span(uses.get(output), at);
      if (aligned(byteSize(output)) === donor.bytes) Object.assign(donor, { whole, kept, end });
      else Object.assign(donor, { kept: aligned(byteSize(output)), end }); // in the first bytes; the others were free before
      of.set(output, donor);
    }
  }
  for (const buffer of buffers) {
    buffer.whole = Math.min(buffer.whole, last);
    buffer.end = Math.min(buffer.end, last);
  }
  return { instructions, buffers, of };
}

const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** Of a stretch of memory: the last instruction that reads its last byte, how many of its first bytes are read after that, and the last that reads any. */
interface Use {
  whole: number;
  kept: number;
  last: number;
}

/** Storage -> its use; program outputs are read after all. */
function usesOf(graph: Graph, instructions: readonly Node[]): Map<Tensor, Use> {
  const uses = new Map<Tensor, Use>();
  const read = (x: Tensor, at: number): void => {
    const { base, offset } = storageOf(x);
    const use = uses.get(base) ?? { whole: -1, kept: 0, last: -1 };
    const needed = offset + byteSize(x);
    if (needed === byteSize(base)) Object.assign(use, { whole: at, kept: 0 });
    else if (at !== use.whole) use.kept = Math.max(use.kept, needed);
    use.last = at;
    uses.set(base, use);
  };
  for (const [at, node] of instructions.entries()) for (const x of node.inputs) if (x) read(x, at);
  for (const { tensor } of graph.outputs) read(tensor, Number.POSITIVE_INFINITY);
  return uses;
}

/** The life of a tensor made at `start`. */
function span(use: Use | undefined, start: number): Pick<Buffer, "whole" | "kept" | "end"> {
  return { whole: Math.max(start, use?.whole ?? start), kept: aligned(use?.kept ?? 0), end: Math.max(start, use?.last ?? start) };
}

/** The buffer that output 0 may take over. No other input may lie in it: the kernel reads those at other places than it writes. */
function takenInPlace(node: Node, at: number, of: ReadonlyMap<Tensor, Buffer>, uses: ReadonlyMap<Tensor, Use>): Buffer | undefined {
  const x = node.op.inplace === undefined ? undefined : node.inputs[node.op.inplace];
  const output = node.outputs[0]!;
  if (!x) return undefined;
  const { base, offset } = storageOf(x);
  const buffer = of.get(base);
  const use = uses.get(base);
  if (!buffer || use?.last !== at || byteSize(x) !== byteSize(output)) return undefined;
  const fills = byteSize(base) === byteSize(x) || (offset === 0 && buffer.whole < at && aligned(byteSize(x)) === buffer.kept);
  const shared = node.inputs.some((other, i) => other && i !== node.op.inplace && storageOf(other).base === base);
  return fills && !shared ? buffer : undefined;
}

function checkEffect(node: Node, output: number): void {
  const target = node.inputs[node.op.writes![output]!];
  const { base } = target ? storageOf(target) : { base: undefined };
  if (base?.node.op.name !== "parameter")
    throw new ProgramError(
      `${node.op.name} at ${node.label}: expected input ${node.op.writes![output]} to be a parameter, which it overwrites`,
      node.op.name,
      node.label,
    );
}

export function lifetimesOf(buffers: readonly Buffer[]): Lifetimes {
  return {
    bytes: Float64Array.from(buffers, b => b.bytes),
    start: Int32Array.from(buffers, b => b.start),
    whole: Int32Array.from(buffers, b => b.whole),
    kept: Float64Array.from(buffers, b => b.kept),
    end: Int32Array.from(buffers, b => b.end),
  };
}
