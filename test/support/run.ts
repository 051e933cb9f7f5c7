/** One-shot runs of small graphs, and sessions limited to an instruction set. */

import { compileGraph } from "../../lib/graph/compile.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Graph } from "../../lib/graph/tensor.js";
import { type Isa, native } from "../../lib/native.js";
import type { HostTensor } from "../../lib/util/host-tensor.js";

export interface Feeds {
  readonly inputs?: Readonly<Record<string, HostTensor>>;
  readonly scalars?: Readonly<Record<string, number>>;
}

/** Builds, compiles and runs a graph once; results by output name, in their program's dtype and their outside layout. */
export async function runOnce(session: Session, body: (graph: Graph) => void, { inputs = {}, scalars = {} }: Feeds = {}): Promise<Record<string, HostTensor>> {
  const executable = session.compile(compileGraph(buildGraph(body), { name: "test" }));
  return session.run(executable, { inputs, scalars });
}

/** Instruction sets that this machine runs, the plainest first. */
export function isas(): Isa[] {
  const order: readonly Isa[] = ["generic", "avx2", "avx512"];
  return order.slice(0, order.indexOf(native().kernels("cpu").isa as Isa) + 1);
}

/** A cpu session whose kernels use nothing better than `isa`. */
export function openWithIsa(isa: Isa, threads = 2): Session {
  const before = process.env.ATTUNE_CPU_ISA;
  process.env.ATTUNE_CPU_ISA = isa;
  try {
    return Session.open({ backend: "cpu", threads });
  } finally {
    if (before === undefined) delete process.env.ATTUNE_CPU_ISA;
    else process.env.ATTUNE_CPU_ISA = before;
  }
}
