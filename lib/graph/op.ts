/** What an op is: shape inference and a gradient rule, side by side. The number of gradients a rule returns is checked by the compiler. */

import { ShapeError } from "../errors.js";
import { type Attrs, currentGraph, type Tensor, type TensorType } from "./tensor.js";

type Inputs = readonly (Tensor | undefined)[];
export type Tensors<Out extends readonly TensorType[]> = { readonly [K in keyof Out]: Tensor };
export type Grads<In extends Inputs> = { readonly [K in keyof In]: Tensor | null };

export interface VjpContext<A, In extends Inputs, Out extends readonly TensorType[]> {
  readonly attrs: A;
  readonly inputs: In;
  readonly outputs: Tensors<Out>;
  /** Cotangents of the outputs; total: zeros stand for an output that nobody used. */
  readonly grads: Tensors<Out>;
}

export interface OpDef<A extends Attrs, In extends Inputs, Out extends readonly TensorType[]> {
  /** snake_case, the name kernels are registered under; a gradient op is `<op>_vjp`. */
  readonly name: string;
  /** Output types, or a ShapeError. */
  infer(attrs: A, ...inputs: In): Out;
  /** One gradient per input, in order; null where none flows (indices, masks, frozen statistics). It never adds gradients up. */
  vjp?(ctx: VjpContext<A, In, Out>): Grads<In>;
  /** Output 0 may take the buffer of this input, if the input is not needed afterwards: every element is read before it is written. */
  readonly inplace?: number;
  /** Output 0 shares input 0's memory at this byte offset and launches nothing; undefined: not a view for these attributes. */
  view?(attrs: A, ...inputs: In): number | undefined;
  /** Inputs whose axis 0 is that of every output: the first rows of the outputs follow from the first rows of these (from all of one that has fewer) and from
   *  the whole of the others, by the same op. Only attrs.shape, where there is one, is then shorter. Undefined: not so for these attributes and inputs. */
  batchwise?(attrs: A, ...inputs: In): readonly number[] | undefined;
  /** Output 0 is the first rows of input 0: the gradient of the other rows is zero. */
  leads?(attrs: A): boolean;
  /** Output k overwrites input writes[k] (a persistent buffer): the op is an effect, kept and never merged. */
  readonly writes?: readonly number[];
  /** The same value from simpler ops: oracle, fallback and gradient of a fused op. */
  decompose?(attrs: A, ...inputs: In): Tensors<Out>;
  /** A backend may have no kernel for it; compileGraph then writes its decomposition instead. */
  readonly fused?: true;
  /** Opcode in the expression tape, for elementwise ops that the `tape` pass may fuse. */
  readonly tape?: string;
  /** Floating-point operations, for plans and benchmarks; elementwise work is not counted. */
  flops?(attrs: A, ...inputs: In): number;
  /** Neither moved, merged nor given a kernel: inputs, parameters. */
  readonly leaf?: true;
}

/** name -> definition of every op: the op table, which tests walk against the kernels of each backend. */
// biome-ignore lint/suspicious/noExplicitAny: the table holds ops of every arity
export const opTable = new Map<string, OpDef<any, any, any>>();

/** Enters an op in the table and returns the function that appends it to the current graph. */
export function defineOp<A extends Attrs, In extends Inputs, const Out extends readonly TensorType[]>(
  def: OpDef<A, In, Out>,
): (attrs: A, ...inputs: In) => Tensors<Out> {
  if (opTable.has(def.name)) throw new ShapeError(def.name, "defined twice");
  opTable.set(def.name, def);
  return (attrs, ...inputs) => {
    const graph = currentGraph();
    let types: Out;
    try {
      types = def.infer(attrs, ...inputs);
    } catch (error) {
      if (error instanceof ShapeError && error.label === undefined && graph.label !== "")
        throw new ShapeError(error.op, error.message.replace(`${error.op}: `, ""), graph.label);
      throw error;
    }
    return graph.append(def, attrs, inputs, types).outputs as unknown as Tensors<Out>;
  };
}
