/** From a graph to a program: passes, memory plan, plain data. */

import { optimize } from "./passes.js";
import { type Plan, planGraph } from "./plan.js";
import type { Program, ProgramPort, ProgramTensor } from "./program.js";
import { checkDtypes, type Target } from "./target.js";
import type { Graph, NamedTensor, Tensor } from "./tensor.js";

export interface CompileOptions {
  readonly name: string;
  /** Bytes of each persistent arena; those not named are as long as the graph's parameters reach. */
  readonly arenas?: Readonly<Record<string, number>>;
  /** Whether chains of elementwise ops become single instructions: true if not given. Results have the same bits either way. */
  readonly fuse?: boolean;
  /** What it is to run on; without it the program is a plan for no machine in particular. Throws ProgramError where the backend cannot compute it. */
  readonly target?: Target;
}

/** The program of a graph. */
export function compileGraph(graph: Graph, options: CompileOptions): Program {
  return compileWithPlan(graph, options).program;
}

/** The program of a graph together with its memory plan, for reports and fitPlan. */
export function compileWithPlan(graph: Graph, { name, arenas = {}, fuse = true, target }: CompileOptions): { readonly program: Program; readonly plan: Plan } {
  const optimized = optimize(graph, target ? { fuse, kernels: target.kernels } : { fuse });
  const plan = planGraph(optimized, arenas);
  if (target) checkDtypes(plan.instructions, target);
  return { program: assemble(optimized, plan, name), plan };
}

function assemble(graph: Graph, plan: Plan, name: string): Program {
  const tensors: ProgramTensor[] = [];
  const ids = new Map<Tensor, number>();
  const idOf = (tensor: Tensor | undefined): number => {
    if (!tensor) return -1;
    const known = ids.get(tensor);
    if (known !== undefined) return known;
    ids.set(tensor, tensors.length);
    return tensors.push({ ...plan.place(tensor), dtype: tensor.dtype, shape: tensor.shape }) - 1;
  };
  const port = ({ name, tensor, layout }: NamedTensor): ProgramPort => ({ name, tensor: idOf(tensor), layout });
  const inputs = graph.inputs.map(port);
  const instructions = plan.instructions.map(({ op, attrs, inputs, outputs, label }) => ({
    op: op.name,
    attrs,
    inputs: inputs.map(idOf),
    outputs: outputs.map(idOf),
    label,
  }));
  return { format: 1, name, arenas: plan.arenas, tensors, instructions, inputs, outputs: graph.outputs.map(port), scalars: [...graph.scalars] };
}
