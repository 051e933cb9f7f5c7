/** A parameter store is one list of names, one arena, and any number of mirrors. */

import { ConfigError, ShapeError } from "../../lib/errors.js";
import { add } from "../../lib/graph/ops/elementwise.js";
import { buildGraph } from "../../lib/graph/tensor.js";
import { linear } from "../../lib/nn/layers.js";
import { LoraAdapter } from "../../lib/nn/lora.js";
import { ParameterStore, Params, storage } from "../../lib/nn/params.js";

const init = { value: 0 };
const make = (): ParameterStore => {
  const store = new ParameterStore({ arena: "parameters", dtype: "f32", trainable: true });
  buildGraph(() => {
    const p = new Params(store);
    p.at("a").tensor("weight", [3, 5], { init });
    p.at("a").at("b.c").tensor("bias", [64], { init });
    p.tensor("d", [2, 1, 1, 7], { init, layout: "oihw" });
  });
  return store;
};

test("entries follow each other at multiples of 64 elements, in order of declaration", () => {
  const store = make();
  expect([...store.entries.values()].map(e => [e.name, e.start, e.offset])).toEqual([
    ["a.weight", 0, 0],
    ["a.b.c.bias", 64, 256],
    ["d", 128, 512],
  ]);
  expect([store.elements, store.bytes, store.count]).toEqual([192, 768, 15 + 64 + 14]);
});

test("a mirror has the same elements in the same order in any dtype, 64-byte aligned, and no others", () => {
  for (const dtype of ["f64", "f32", "bf16", "u8"] as const) {
    const mirror = make().mirror("moments", { dtype });
    const width = { f64: 8, f32: 4, bf16: 2, u8: 1 }[dtype];
    expect([...mirror.entries.values()].map(e => e.start)).toEqual([0, 64, 128]);
    for (const e of mirror.entries.values()) expect([e.offset, e.offset % 64]).toEqual([e.start * width, 0]);
    expect(mirror.bytes).toBe(192 * width);
    expect(() => buildGraph(() => mirror.tensor("e", [1], { init }))).toThrow(/e is not a parameter of "moments", which is complete/);
  }
  expect(() => make().mirror("parameters")).toThrow(ConfigError);
});

/** The places that a store's parameters are read from: arena, dtype, bytes from its start. */
const places = (store: ParameterStore, of: "leaf" | "kept"): unknown[] => {
  const found: unknown[] = [];
  buildGraph(() => {
    for (const name of store.entries.keys()) {
      const { dtype, node } = store[of](name);
      found.push([node.attrs.arena, dtype, node.attrs.offset]);
    }
  });
  return found;
};

test("a store that is trained in bf16 is f32, with a rounded copy that matrices are read from", () => {
  const store = new ParameterStore({ arena: "p", ...storage("bf16", true) }, make());
  expect([store.dtype, store.computes, store.arenas]).toEqual(["f32", "bf16", { p: 768, "p/bf16": 384 }]);
  expect(places(store, "kept")).toEqual([0, 256, 512].map(offset => ["p", "f32", offset]));
  expect(places(store, "leaf")).toEqual([
    ["p/bf16", "bf16", 0],
    ["p", "f32", 256],
    ["p/bf16", "bf16", 256],
  ]);
  const graph = buildGraph(() => store.refresh());
  const [assigned] = graph.nodes.filter(node => node.op.name === "assign");
  expect(assigned!.inputs.map(x => [x!.node.attrs.arena, x!.dtype, x!.shape])).toEqual([
    ["p/bf16", "bf16", [192]],
    ["p", "f32", [192]],
  ]);
  const moments = store.mirror("m");
  expect([moments.dtype, moments.arenas]).toEqual(["f32", { m: 768 }]);
});

test("a store that is frozen in bf16 has one arena, in which vectors are f32", () => {
  const store = make().mirror("r", storage("bf16", false));
  expect([store.dtype, store.computes, store.arenas]).toEqual(["bf16", "bf16", { r: 128 + 256 + 128 }]);
  const expected = [
    ["r", "bf16", 0],
    ["r", "f32", 128],
    ["r", "bf16", 384],
  ];
  expect([places(store, "kept"), places(store, "leaf")]).toEqual([expected, expected]);
  expect(buildGraph(() => store.refresh()).nodes).toEqual([]);
  expect(() => buildGraph(() => store.flat())).toThrow('"r" holds vectors of another dtype');
  const copied = buildGraph(() => store.copy(make()));
  const types = copied.nodes.filter(n => n.op.name === "assign").map(n => n.inputs.map(x => x!.dtype));
  expect(types).toEqual([
    ["bf16", "f32"],
    ["f32", "f32"],
    ["bf16", "f32"],
  ]);
});

test("other stores compute in what they are kept in", () => {
  for (const dtype of ["f32", "f64"] as const)
    for (const trainable of [true, false]) {
      const store = make().mirror("s", storage(dtype, trainable));
      expect([store.dtype, store.computes, store.trainable, places(store, "leaf")]).toEqual([dtype, dtype, trainable, places(store, "kept")]);
    }
  expect(() => new ParameterStore({ arena: "a", dtype: "f64", trainable: true, compute: "bf16" })).toThrow(ConfigError);
});

test("one graph has one leaf per parameter, another graph another", () => {
  const store = make();
  let first: unknown;
  buildGraph(() => {
    first = store.leaf("d");
    expect(store.leaf("d")).toBe(first);
    expect(store.flat().shape).toEqual([192]);
  });
  buildGraph(() => expect(store.leaf("d")).not.toBe(first));
});

test("a name asked for again must have its shape and layout; an unknown leaf is an error", () => {
  const store = make();
  buildGraph(() => {
    expect(() => store.tensor("d", [2, 1, 1, 8], { init, layout: "oihw" })).toThrow(/d is \[2,1,1,7\] oihw, asked for as \[2,1,1,8\] oihw/);
    expect(() => store.tensor("d", [2, 1, 1, 7], { init })).toThrow(ShapeError);
    expect(() => store.leaf("x")).toThrow(ShapeError);
  });
});

test("labels follow the names, and an adapter adds to what it targets and to nothing else", () => {
  const store = new ParameterStore({ arena: "parameters", dtype: "f32", trainable: true });
  const adapter = new LoraAdapter(new ParameterStore({ arena: "lora", dtype: "f32", trainable: true }), { rank: 2, targets: ["to_q"] });
  const p = new Params(store, { adapter }).at("block");
  const graph = buildGraph(() => {
    const x = store.tensor("x", [4, 3], { init });
    p.scope(() => add(linear(x, p.at("attn.to_q"), { features: 5 }), linear(x, p.at("not_to_q"), { features: 5 })));
  });
  expect([...adapter.store.entries.keys()]).toEqual(["block.attn.to_q.lora.down.weight", "block.attn.to_q.lora.up.weight"]);
  const labels = graph.nodes.filter(n => !n.op.leaf).map(n => `${n.label}: ${n.op.name}`);
  const adapted = ["linear", "linear", "linear", "add"].map(op => `block/attn.to_q: ${op}`);
  expect(labels).toEqual([...adapted, "block/not_to_q: linear", "block: add"]);
});

test.each([
  [{ rank: 0 }, "rank"],
  [{ rank: 1.5 }, "rank"],
  [{ rank: 4, alpha: 0 }, "alpha"],
  [{ rank: 4, alpha: Number.NaN }, "alpha"],
  [{ rank: 4, strength: Number.NaN }, "strength"],
  [{ rank: 4, targets: [] }, "targets"],
])("LoRA options %j are refused", (options, field) => {
  const store = new ParameterStore({ arena: "lora", dtype: "f32", trainable: true });
  expect(() => new LoraAdapter(store, options)).toThrow(new RegExp(`^lora: expected ${field} to be`));
});

test("scaling is alpha / rank, or alpha / sqrt(rank) where it is rank stabilized", () => {
  const scaling = (options: ConstructorParameters<typeof LoraAdapter>[1]): number =>
    new LoraAdapter(new ParameterStore({ arena: "lora", dtype: "f32", trainable: true }), options).scaling;
  expect([scaling({ rank: 16 }), scaling({ rank: 16, alpha: 8 }), scaling({ rank: 16, alpha: 8, rankStabilized: true })]).toEqual([1, 0.5, 2]);
});
