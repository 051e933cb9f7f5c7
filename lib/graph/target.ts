/** What a program is compiled for: a backend, and the kernels that it has. */

import { ProgramError } from "../errors.js";
import type { DType, Node } from "./tensor.js";

export interface Target {
  readonly backend: "cpu" | "cuda";
  /** Ops that the backend has a kernel for; fused ones among them are used where the graph allows (fuse-epilogues.ts). */
  readonly kernels: ReadonlySet<string>;
}

const narrow = (dtype: DType): boolean => dtype === "bf16" || dtype === "f16";

/** Throws a ProgramError where the backend has no arithmetic for the dtypes of a node. The cpu computes in f32 and f64: it converts bf16 and copies it, no more. */
export function checkDtypes(nodes: readonly Node[], { backend }: Target): void {
  if (backend === "cpu") for (const node of nodes) checkOnCpu(node);
}

function checkOnCpu({ op, inputs, outputs, label }: Node): void {
  const dtypes = [...inputs, ...outputs].flatMap(x => (x ? [x.dtype] : []));
  const place = label ? `${op.name} at ${label}` : op.name;
  if (op.name === "cast") return;
  if (op.name === "assign" || op.name === "accumulate") {
    if (dtypes[0] === dtypes[1] && (op.name === "assign" || !narrow(dtypes[0]!))) return;
    throw new ProgramError(`${place}: on the cpu, expected a source in ${dtypes[0]}, received ${dtypes[1]}; cast it`, op.name, label);
  }
  const wrong = dtypes.find(narrow);
  if (wrong) throw new ProgramError(`${place}: the cpu backend computes in f32 and f64, not in ${wrong}; use a GPU, or a model of f32`, op.name, label);
}
