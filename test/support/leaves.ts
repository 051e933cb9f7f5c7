/** Leaves for graphs under test. */

import { parameter } from "../../lib/graph/ops/leaf.js";
import type { DType, Tensor } from "../../lib/graph/tensor.js";

/** A tensor of the arena `name`, from its first byte on. */
export function persistent(name: string, dtype: DType, ...shape: number[]): Tensor {
  return parameter({ arena: name, name, dtype, shape, offset: 0 });
}
