/** The memory plan: which byte every tensor sits at, known before anything runs. Native only verifies it. */

import { PlanError, ProgramError } from "../errors.js";
import { formatBytes } from "../util/bytes.js";
import { storageOf } from "./alias.js";
import { assignBuffers, type Buffer, type Buffers, lifetimesOf } from "./lifetimes.js";
import { liveBytes, type Packing, pack } from "./pack.js";
import type { Arena } from "./program.js";
import { byteSize, type Graph, type Node, type Tensor } from "./tensor.js";

export interface Place {
  /** Index into `arenas`; 0 is scratch. */
  readonly arena: number;
  /** Bytes. */
  readonly offset: number;
}

export interface NamedBuffer {
  /** Label, op and type: "policy/mid_block/attentions.0: attention f32 [4,4096,320]". */
  readonly name: string;
  readonly bytes: number;
}

export interface Plan {
  readonly arenas: readonly Arena[];
  readonly instructions: readonly Node[];
  /** The place of every tensor that an instruction or a port names. */
  place(tensor: Tensor): Place;
  /** Bytes alive at the peak: no plan of these instructions in this order needs less scratch. */
  readonly lowerBound: number;
  /** The instruction at the peak; undefined in a program without instructions. */
  readonly peak: { readonly index: number; readonly op: string; readonly label: string } | undefined;
  /** The ten largest buffers alive at the peak, largest first. */
  readonly largest: readonly NamedBuffer[];
}

/** Plans a graph whose passes are done. `arenas` gives the sizes of persistent arenas; those not named are as long as the graph's parameters reach.
 *  Throws a ProgramError where a parameter reaches beyond its arena. */
export function planGraph(graph: Graph, arenas: Readonly<Record<string, number>> = {}): Plan {
  const buffers = assignBuffers(graph);
  const lifetimes = lifetimesOf(buffers.buffers);
  const packing = pack(lifetimes);
  const live = liveBytes(lifetimes, Math.max(buffers.instructions.length, 1));
  const index = live.reduce((best, bytes, t) => (bytes > live[best]! ? t : best), 0);
  const node = buffers.instructions[index];
  const all = [{ name: "scratch", bytes: packing.bytes }, ...persistentArenas(graph, arenas)];
  return {
    arenas: all,
    instructions: buffers.instructions,
    place: placement(buffers, packing, all),
    lowerBound: live[index] ?? 0,
    peak: node && { index, op: node.op.name, label: node.label },
    largest: largestAt(index, buffers),
  };
}

function placement(buffers: Buffers, packing: Packing, arenas: readonly Arena[]): Plan["place"] {
  const indexOf = new Map(arenas.map((arena, i) => [arena.name, i]));
  return tensor => {
    const { base, offset } = storageOf(tensor);
    const { op, attrs } = base.node;
    if (op.name === "parameter") return { arena: indexOf.get(String(attrs.arena))!, offset: Number(attrs.offset) + offset };
    const buffer = buffers.of.get(base);
    if (!buffer) throw new ProgramError(`${op.name} at ${base.node.label}: output ${base.index} has no place`, op.name, base.node.label);
    return { arena: 0, offset: packing.offsets[buffer.index]! + offset };
  };
}

function persistentArenas(graph: Graph, declared: Readonly<Record<string, number>>): Arena[] {
  const bytes = new Map(Object.entries(declared));
  if (bytes.has("scratch")) throw new ProgramError('the name "scratch" stands for arena 0');
  for (const node of graph.nodes) {
    if (node.op.name !== "parameter") continue;
    const arena = String(node.attrs.arena);
    const end = Number(node.attrs.offset) + byteSize(node.outputs[0]!);
    if (end > (declared[arena] ?? Number.POSITIVE_INFINITY))
      throw new ProgramError(`parameter ${node.attrs.name}: expected it within the ${declared[arena]} bytes of arena "${arena}", it ends at ${end}`);
    bytes.set(arena, Math.max(bytes.get(arena) ?? 0, end));
  }
  return [...bytes].map(([name, size]) => ({ name, bytes: size }));
}

function largestAt(index: number, { instructions, buffers }: Buffers): NamedBuffer[] {
  const alive = buffers.filter(b => b.start <= index && index <= b.end);
  const made = new Map(instructions.map((node, at) => [node, at]));
  const name = ({ tensors }: Buffer): string => {
    const tensor = tensors.findLast(t => (made.get(t.node) ?? 0) <= index) ?? tensors[0]!;
    const { op, label, attrs } = tensor.node;
    return `${label || String(attrs.name ?? "program")}: ${op.name} ${tensor.dtype} [${tensor.shape}]`;
  };
  const needed = ({ bytes, whole, kept }: Buffer): number => (index <= whole ? bytes : kept);
  const top = alive.sort((a, b) => needed(b) - needed(a)).slice(0, 10);
  return top.map(b => ({ name: name(b), bytes: needed(b) }));
}

/** Throws a PlanError unless all arenas of the plan fit into `availableBytes`; it names the ten largest buffers and the two changes in `suggestions`. */
export function fitPlan(plan: Pick<Plan, "arenas" | "largest" | "peak">, availableBytes: number, suggestions: readonly [string, string]): void {
  const needed = plan.arenas.reduce((sum, arena) => sum + arena.bytes, 0);
  if (needed <= availableBytes) return;
  const arenas = plan.arenas.map(a => `${a.name} ${formatBytes(a.bytes)}`).join(", ");
  const buffers = plan.largest.map(b => `\n  ${formatBytes(b.bytes).padStart(9)}  ${b.name}`).join("");
  const peak = plan.peak ? ` at ${plan.peak.op} ${plan.peak.label}` : "";
  throw new PlanError(
    `the program needs ${formatBytes(needed)} (${arenas}), ${formatBytes(availableBytes)} are available. Largest buffers alive at the peak${peak}:${buffers}\n` +
      `What would help: ${suggestions[0]}; or ${suggestions[1]}.`,
    needed,
    availableBytes,
    plan.largest,
  );
}
