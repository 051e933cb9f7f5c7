/** Parts and joins of host tensors, by copying. */

import { type HostTensor, hostTensor } from "../util/host-tensor.js";

/** Rows first .. first + count - 1 of a batch; a batch of one stands for all. */
export function rows(t: HostTensor, first: number, count: number): HostTensor {
  return gathered(
    t,
    Array.from({ length: count }, (_, i) => first + i),
  );
}

/** The rows of a batch that `indices` name, in that order. */
export function gathered({ dtype, shape, data }: HostTensor, indices: readonly number[]): HostTensor {
  const out = hostTensor(dtype, [indices.length, ...shape.slice(1)]);
  const size = data.length / shape[0]!;
  for (const [to, from] of indices.entries()) (out.data as Float32Array).set((data as Float32Array).subarray(from * size, (from + 1) * size), to * size);
  return out;
}

/** Tensors that differ along `axis` alone, joined along it. */
export function joined(parts: readonly HostTensor[], axis: number): HostTensor {
  const { dtype, shape } = parts[0]!;
  const product = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1);
  const before = product(shape.slice(0, axis)),
    after = product(shape.slice(axis + 1));
  const lengths = parts.map(p => p.shape[axis]! * after);
  const total = lengths.reduce((a, b) => a + b, 0);
  const out = hostTensor(dtype, shape.with(axis, total / after));
  let column = 0;
  for (const [i, { data }] of parts.entries()) {
    const length = lengths[i]!;
    for (let row = 0; row < before; row++)
      (out.data as Float32Array).set((data as Float32Array).subarray(row * length, (row + 1) * length), row * total + column);
    column += length;
  }
  return out;
}
