/** Every fused op, as a backend that has all their kernels would name them. */

import "../../lib/graph/fuse-epilogues.js";
import "../../lib/graph/ops/leading.js";
import { opTable } from "../../lib/graph/op.js";

export const fusedKernels: ReadonlySet<string> = new Set([...opTable.values()].filter(op => op.fused).map(op => op.name));
