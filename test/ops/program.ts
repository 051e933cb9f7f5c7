/** Cases as programs: the graph of a case, its gradients, and running them. */

import { compileGraph } from "../../lib/graph/compile.js";
import { vjp } from "../../lib/graph/grad.js";
import { isFloat } from "../../lib/graph/ops/check.js";
import { input, parameter } from "../../lib/graph/ops/leaf.js";
import type { Executable, Session } from "../../lib/graph/session.js";
import { buildGraph, byteSize, type Graph, type Tensor } from "../../lib/graph/tensor.js";
import { convert, type HostTensor, hostTensor, hostTensorFromBytes } from "../../lib/util/host-tensor.js";
import type { Values } from "../support/compare.js";
import type { Nd } from "../support/nd.js";
import type { CaseInput, OpCase } from "./case.js";

export type Float = "f32" | "f64";

/** Indices of the inputs that a gradient is asked for. */
export function differentiable(c: OpCase): number[] {
  return [...c.inputs.keys()].filter(k => !c.inputs[k]!.frozen && isFloat(c.inputs[k]!.dtype ?? "f64"));
}

/** Inputs x0, x1, ..; outputs y0, y1, .. */
export function caseGraph(c: OpCase, dtype: Float): Graph {
  return buildGraph(graph => {
    const leaves = caseLeaves(c, dtype);
    for (const [k, y] of c.build(leaves, dtype).entries()) graph.output(`y${k}`, y);
  });
}

/** The same, with cotangents u0, u1, .. of the outputs as inputs, and gradients g<k> of x<k>. */
export function gradientGraph(c: OpCase, dtype: Float): Graph {
  return buildGraph(graph => {
    const leaves = caseLeaves(c, dtype);
    const outputs = c.build(leaves, dtype);
    for (const [k, y] of outputs.entries()) graph.output(`y${k}`, y);
    addGradients(graph, c, outputs, leaves);
  });
}

/** Adds cotangent inputs and gradient outputs to a graph under construction. */
export function addGradients(graph: Graph, c: OpCase, outputs: readonly Tensor[], leaves: readonly Tensor[]): void {
  const cotangents = outputs.map((y, k) => input(`u${k}`, { dtype: y.dtype, shape: y.shape }));
  const wanted = differentiable(c);
  const gradients = vjp(
    outputs,
    cotangents,
    wanted.map(k => leaves[k]!),
    { unreachable: "zeros" },
  );
  for (const [i, g] of gradients.entries()) graph.output(`g${wanted[i]}`, g);
}

function caseLeaves(c: OpCase, dtype: Float): Tensor[] {
  const offsets = persistentOffsets(c, dtype);
  return c.inputs.map((x, k) => {
    const type = { dtype: x.dtype ?? dtype, shape: x.shape };
    return x.persistent ? parameter({ arena: "case", name: `x${k}`, ...type, offset: offsets[k]! }) : input(`x${k}`, type);
  });
}

function persistentOffsets({ inputs }: OpCase, dtype: Float): number[] {
  let end = 0;
  return inputs.map((x: CaseInput) => {
    const start = end;
    if (x.persistent) end += Math.ceil(byteSize({ dtype: x.dtype ?? dtype, shape: x.shape }) / 64) * 64;
    return start;
  });
}

/** A compiled case: runs on any values of its inputs. */
export class CaseProgram {
  readonly #executable: Executable;

  constructor(
    readonly session: Session,
    readonly c: OpCase,
    readonly dtype: Float,
    graph: Graph,
    options: { readonly fuse?: boolean } = {},
  ) {
    this.#executable = session.compile(compileGraph(graph, { name: c.name, ...options }));
  }

  /** The outputs by name. */
  async run(x: readonly Nd[], u: readonly Nd[] = []): Promise<Record<string, Values>> {
    const offsets = persistentOffsets(this.c, this.dtype);
    const inputs: Record<string, HostTensor> = Object.fromEntries(u.map((value, k) => [`u${k}`, host(value)]));
    for (const [k, { persistent, dtype = this.dtype }] of this.c.inputs.entries()) {
      if (!persistent) inputs[`x${k}`] = host(x[k]!);
      else this.session.write("case", offsets[k]!, hostTensor(dtype, x[k]!.shape, [...x[k]!.data]).data);
    }
    const results = await this.session.run(this.#executable, { inputs, scalars: this.c.scalars ?? {} });
    return Object.fromEntries(Object.entries(results).map(([name, result]) => [name, numbers(result)]));
  }

  /** What the persistent input k holds after the last run. */
  async buffer(k: number): Promise<Values> {
    const { dtype = this.dtype, shape } = this.c.inputs[k]!;
    const bytes = await this.session.read("case", persistentOffsets(this.c, this.dtype)[k]!, byteSize({ dtype, shape }));
    return numbers(hostTensorFromBytes(dtype, shape, bytes));
  }
}

/** The outputs of a case in order. */
export function outputsOf(results: Readonly<Record<string, Values>>): Values[] {
  const names = Object.keys(results).filter(name => name.startsWith("y"));
  return names.sort((a, b) => Number(a.slice(1)) - Number(b.slice(1))).map(name => results[name]!);
}

/** Values, also where the array holds bit patterns. */
function numbers(tensor: HostTensor): Values {
  return (tensor.dtype === "bf16" ? convert(tensor, "f64") : tensor).data as unknown as Values;
}

function host({ shape, data }: Nd): HostTensor {
  return hostTensor("f64", shape, data);
}
