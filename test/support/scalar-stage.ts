/** An objective's scalar stage alone: sums in, loss and its derivatives by them out, in f64. */

import { compileGraph } from "../../lib/graph/compile.js";
import { grad } from "../../lib/graph/grad.js";
import { input } from "../../lib/graph/ops/leaf.js";
import type { Session } from "../../lib/graph/session.js";
import { buildGraph, type Tensor, typed } from "../../lib/graph/tensor.js";
import { hostTensor } from "../../lib/util/host-tensor.js";

/** Numbers by name; nested: a table. */
export type Numbers = Readonly<Record<string, readonly number[] | readonly (readonly number[])[]>>;

export interface StageResult {
  readonly loss: number;
  readonly outputs: Readonly<Record<string, number>>;
  /** d loss / d input, flat, by name; zeros where the loss does not depend on it. */
  readonly gradients: Readonly<Record<string, Float64Array>>;
}

/** Runs `body` on inputs of these values, f64 [n] or [n, m]. `body` gives the loss [1], and numbers to look at. */
export async function runStage(
  session: Session,
  numbers: Numbers,
  body: (x: Readonly<Record<string, Tensor>>) => { readonly loss: Tensor; readonly metrics?: Readonly<Record<string, Tensor>> },
): Promise<StageResult> {
  const hosts = Object.entries(numbers).map(([name, values]) => {
    const table = values.map(row => (typeof row === "number" ? [row] : row));
    const shape = typeof values[0] === "number" ? [values.length] : [values.length, table[0]!.length];
    return [name, hostTensor("f64", shape, Float64Array.from(table.flat()))] as const;
  });
  const graph = buildGraph(g => {
    const x = Object.fromEntries(hosts.map(([name, { shape }]) => [name, input(name, typed("f64", ...shape))]));
    const { loss, metrics = {} } = body(x);
    g.output("loss", loss);
    for (const [name, metric] of Object.entries(metrics)) g.output(`metric/${name}`, metric);
    for (const [i, gradient] of grad(loss, Object.values(x), { unreachable: "zeros" }).entries()) g.output(`gradient/${hosts[i]![0]}`, gradient);
  });
  const results = await session.run(session.compile(compileGraph(graph, { name: "stage" })), { inputs: Object.fromEntries(hosts) });
  const under = (prefix: string) => Object.entries(results).filter(([name]) => name.startsWith(prefix));
  return {
    loss: Number(results.loss!.data[0]),
    outputs: Object.fromEntries(under("metric/").map(([name, t]) => [name.slice(7), Number(t.data[0])])),
    gradients: Object.fromEntries(under("gradient/").map(([name, t]) => [name.slice(9), t.data as Float64Array])),
  };
}
