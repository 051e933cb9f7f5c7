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
  /** First and last instruction of its life. */
  readonly start: number;
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
 *  views' readers included. An `inplace` output takes over its input's buffer where both fill it and nothing reads the input afterwards. */
export function assignBuffers(graph: Graph): Buffers {
  const instructions = graph.nodes.filter(launches);
  const last = Math.max(instructions.length - 1, 0);
  const lastUse = lastUses(graph, instructions);
  const buffers: Buffer[] = [];
  const of = new Map<Tensor, Buffer>();
  const open = (tensor: Tensor, start: number): void => {
    const bytes = Math.ceil(byteSize(tensor) / alignment) * alignment;
    const buffer = { index: buffers.length, bytes, start, end: lastUse.get(tensor) ?? start, tensors: [tensor] };
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
      const donor = output.index === 0 ? takenInPlace(node, at, of, lastUse) : undefined;
      if (!donor) {
        open(output, at);
        continue;
      }
      donor.tensors.push(output);
      donor.end = Math.max(at, lastUse.get(output) ?? at);
      of.set(output, donor);
    }
  }
  for (const buffer of buffers) buffer.end = Math.min(buffer.end, last);
  return { instructions, buffers, of };
}

/** Storage -> the last instruction that reads it; program outputs are read after all. */
function lastUses(graph: Graph, instructions: readonly Node[]): Map<Tensor, number> {
  const lastUse = new Map<Tensor, number>();
  for (const [at, node] of instructions.entries()) for (const x of node.inputs) if (x) lastUse.set(storageOf(x).base, at);
  for (const { tensor } of graph.outputs) lastUse.set(storageOf(tensor).base, Number.POSITIVE_INFINITY);
  return lastUse;
}

/** The buffer that output 0 may take over. No other input may lie in it: the kernel reads those at other places than it writes. */
function takenInPlace(node: Node, at: number, of: ReadonlyMap<Tensor, Buffer>, lastUse: ReadonlyMap<Tensor, number>): Buffer | undefined {
  const x = node.op.inplace === undefined ? undefined : node.inputs[node.op.inplace];
  const output = node.outputs[0]!;
  if (!x) return undefined;
  const { base } = storageOf(x);
  const buffer = of.get(base);
  if (!buffer || lastUse.get(base) !== at || byteSize(x) !== byteSize(output) || byteSize(base) !== byteSize(x)) return undefined;
  const shared = node.inputs.some((other, i) => other && i !== node.op.inplace && storageOf(other).base === base);
  return shared ? undefined : buffer;
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
    end: Int32Array.from(buffers, b => b.end),
  };
}
