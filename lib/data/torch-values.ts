/** The elements of a strided view as a dense host tensor. */

import { type HostDType, type HostTensor, hostTensorFromBytes } from "../util/host-tensor.js";
import { hostDtypeOf } from "./safetensors.js";
import type { SafetensorsDType } from "./safetensors-header.js";
import { elementBytes, isContiguous, type TorchTensor } from "./torch-pickle.js";

const words = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array } as const;

/** dtype of the host that holds every value of one that has no host form of its own. */
const widened: { readonly [K in SafetensorsDType]?: { readonly host: HostDType; readonly from: typeof Int8Array | typeof Int16Array | typeof Uint8Array } } = {
  I8: { host: "i32", from: Int8Array },
  I16: { host: "i32", from: Int16Array },
  BOOL: { host: "u8", from: Uint8Array },
};

/** `span` holds the storage from the view's first element to its last; it may be changed. */
export function hostValues(view: TorchTensor, span: Uint8Array, bigEndian: boolean): HostTensor {
  const { dtype } = view.storage;
  const bytes = elementBytes(dtype);
  if (bigEndian) swap(span, bytes);
  const dense = isContiguous(view) ? span : gather(view, span, bytes);
  const buffer = dense.buffer as ArrayBuffer;
  const own = hostDtypeOf(dtype);
  if (own) return hostTensorFromBytes(own, view.shape, buffer);
  const { host, from } = widened[dtype]!;
  const values = new from(buffer);
  return hostTensorFromBytes(
    host,
    view.shape,
    (host === "i32" ? Int32Array.from(values) : Uint8Array.from(values, x => (x === 0 ? 0 : 1))).buffer as ArrayBuffer,
  );
}

function swap(span: Uint8Array, bytes: number): void {
  const buffer = Buffer.from(span.buffer, span.byteOffset, span.byteLength);
  if (bytes === 2) buffer.swap16();
  else if (bytes === 4) buffer.swap32();
  else if (bytes === 8) buffer.swap64();
}

function gather({ shape, strides }: TorchTensor, span: Uint8Array, bytes: number): Uint8Array {
  const Words = words[bytes as keyof typeof words];
  const from = new Words(span.buffer as ArrayBuffer) as Uint32Array;
  const to = new Words(shape.reduce((n, d) => n * d, 1)) as Uint32Array;
  let next = 0;
  const copy = (axis: number, at: number): void => {
    const [length, stride] = [shape[axis]!, strides[axis]!];
    if (axis === shape.length - 1) for (let i = 0; i < length; i++) to[next++] = from[at + i * stride]!;
    else for (let i = 0; i < length; i++) copy(axis + 1, at + i * stride);
  };
  if (to.length > 0) copy(0, 0);
  return new Uint8Array(to.buffer);
}
