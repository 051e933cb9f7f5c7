/** What is joined to a product, and what is left alone. That values stay what they are is the property test's word (property/fuse-epilogues.test.ts). */

import { grad } from "../../lib/graph/grad.js";
import { conv2d } from "../../lib/graph/ops/conv.js";
import { add, gelu, mean, mul, silu, square } from "../../lib/graph/ops/elementwise.js";
import { geglu } from "../../lib/graph/ops/gate.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { linear } from "../../lib/graph/ops/matmul.js";
import { groupNorm } from "../../lib/graph/ops/norm.js";
import { accumulate, adamw, assign } from "../../lib/graph/ops/optimizer.js";
import { upsampleNearest } from "../../lib/graph/ops/resample.js";
import { concat, reshape } from "../../lib/graph/ops/shape.js";
import { optimize } from "../../lib/graph/passes.js";
import { buildGraph, type Graph, recomputed, scope, type Tensor } from "../../lib/graph/tensor.js";
import { fusedKernels } from "../support/fused.js";
import { persistent } from "../support/leaves.js";
import { tinyStep } from "../support/steps.js";

let names = 0;
const of = (...shape: number[]): Tensor => input(`x${names++}`, { dtype: "bf16", shape });
const vector = (n: number): Tensor => input(`v${names++}`, { dtype: "f32", shape: [n] });

/** The instructions of a fused graph: op, attributes, and which optional operands are there. */
function fused(body: (graph: Graph) => void, kernels = fusedKernels): string[] {
  const { nodes } = optimize(buildGraph(body), { fuse: false, kernels });
  return nodes
    .filter(({ op }) => !op.leaf && !op.view)
    .map(({ op, attrs, inputs }) => {
      const shown = Object.entries(attrs).flatMap(([name, value]) =>
        ["activation", "upsample", "statistics", "groups"].includes(name) ? [`${name} ${value}`] : [],
      );
      return [op.name, ...shown, `of ${inputs.map(x => (x ? "x" : "-")).join("")}`].join(" ");
    });
}

const map = (): Tensor => of(2, 8, 16, 4);
const kernel = (inner = 4): Tensor => of(4, 3, 3, inner);
const conv = (x: Tensor, weight = kernel(x.shape[3])): Tensor => conv2d(x, weight, vector(4), { padding: 1 });

test("a linear layer takes its activation and a residual", () => {
  const layer = (x: Tensor): Tensor => linear(x, of(8, 8), vector(8));
  expect(fused(g => g.output("y", silu(layer(of(3, 8)))))).toEqual(["linear_fused activation silu of xxx-"]);
  expect(fused(g => g.output("y", add(of(3, 8), gelu(layer(of(3, 8))))))).toEqual(["linear_fused activation gelu of xxxx"]);
  expect(fused(g => g.output("y", add(geglu(linear(of(3, 8), of(8, 8))), of(3, 4))))).toEqual(["linear_fused activation geglu of xx-x"]);
  const twice = fused(g => g.output("y", add(add(layer(of(3, 8)), of(3, 8)), of(3, 8))));
  expect(twice).toEqual(["linear_fused activation none of xxxx", "add of xx"]); // one residual: sums keep their order
});

test("a convolution takes the time embedding, a residual, and the statistics of the norm behind it", () => {
  const block = (g: Graph): void => {
    const x = map();
    const h = add(add(conv(x), of(2, 1, 1, 4)), x);
    g.output("y", groupNorm(h, vector(4), vector(4), { groups: 2, eps: 1e-5 }));
    g.output("h", h);
  };
  const together = "conv2d_fused upsample 1 activation none statistics 2 of x-xxxx";
  expect(fused(block)).toEqual([together, "group_norm_from_partials groups 2 of xxxx"]);
  expect(fused(block, new Set(["conv2d_fused"]))).toEqual([together.replace("statistics 2", "statistics 0"), "group_norm groups 2 of xxx"]);
  expect(fused(block, new Set(["linear_fused"]))).toEqual(["conv2d of xxx", "add of xx", "add of xx", "group_norm groups 2 of xxx"]);
});

test("statistics are taken of whole slabs, and for one number of groups", () => {
  const normed =
    (x: Tensor, ...groups: number[]) =>
    (g: Graph) =>
      groups.forEach((n, i) => void g.output(`y${i}`, groupNorm(x.node.op.name === "input" ? conv(x) : x, vector(4), vector(4), { groups: n, eps: 1e-5 })));
  expect(fused(g => normed(of(2, 8, 8, 4), 2)(g))).toEqual(["conv2d of xxx", "group_norm groups 2 of xxx"]);
  const shared = fused(g => normed(conv(map()), 2, 2)(g));
  expect(shared).toEqual(["conv2d_fused upsample 1 activation none statistics 2 of x-xx--", ...Array(2).fill("group_norm_from_partials groups 2 of xxxx")]);
  expect(fused(g => normed(conv(map()), 2, 4)(g))[0]).toBe("conv2d of xxx");
});

test("a doubled or joined map is read from its parts, by the convolution and by its weight gradient", () => {
  const doubled = (x: Tensor): Tensor => upsampleNearest(x, { height: 2 * x.shape[1]!, width: 2 * x.shape[2]! });
  expect(fused(g => g.output("y", conv(doubled(map()))))).toEqual(["conv2d_fused upsample 2 activation none statistics 0 of x-xx--"]);
  expect(fused(g => g.output("y", conv(doubled(concat([map(), map()], 3)))))).toEqual(["conv2d_fused upsample 2 activation none statistics 0 of xxxx--"]);
  const backward = (g: Graph, loaded: Tensor): void => {
    const weight = kernel(loaded.shape[3]);
    g.output("dw", grad(mean(square(conv(loaded, weight))), [weight])[0]!);
  };
  expect(fused(g => backward(g, concat([map(), map()], 3)))).toContain("conv2d_dw_fused upsample 1 of xxx");
  expect(fused(g => backward(g, doubled(map())))).toContain("conv2d_dw_fused upsample 2 of xx");
  const tripled = fused(g => g.output("y", conv(upsampleNearest(map(), { height: 16, width: 48 }))));
  expect(tripled).toEqual(["upsample_nearest of x", "conv2d of xxx"]);
  const alsoNormed = fused(g => {
    const x = concat([map(), map()], 3);
    g.output("y", conv(x));
    g.output("z", groupNorm(x, vector(8), vector(8), { groups: 2, eps: 1e-5 }));
  });
  expect(alsoNormed).toEqual(["concat of xx", "conv2d of xxx", "group_norm groups 2 of xxx"]); // the map has to be there anyway
});

test("a gradient goes straight into its total, where that is all it is for", () => {
  const step = (also: boolean) => (g: Graph) => {
    const [w, k] = [of(8, 4), kernel()];
    const [dw, dk] = grad(mean(square(linear(conv(map(), k), w))), [w, k]);
    accumulate(persistent("w", "f32", 8, 4), dw!);
    accumulate(persistent("k", "f32", 4, 3, 3, 4), dk!);
    if (also) g.output("dw", dw!);
  };
  const effects = (ops: string[]): string[] => ops.filter(op => /_dw|accumulate/.test(op)).sort();
  expect(effects(fused(step(false)))).toEqual(["conv2d_dw_accumulate upsample 1 of xxx", "linear_dw_accumulate of xxx"]);
  expect(effects(fused(step(true)))).toEqual(["accumulate of xx", "conv2d_dw_accumulate upsample 1 of xxx", "linear_dw of xx"]);
  const rounded = fused(() => {
    const w = of(8, 4);
    accumulate(persistent("w", "bf16", 8, 4), grad(mean(square(linear(of(3, 4), w))), [w])[0]!);
  });
  expect(effects(rounded)).toEqual(["accumulate of xx", "linear_dw of xx"]); // a total of another dtype has no kernel
});

test("the rounded copy of weights is written by their update, in the step that asks for it", () => {
  const kernels = new Set([...fusedKernels, "adamw_mixed"]);
  const instructions = (graph: Graph): string[] =>
    optimize(graph, { kernels })
      .nodes.filter(({ op }) => !op.leaf && !op.view)
      .map(({ op }) => op.name);
  const updates = (dtype: "bf16" | "f32"): string[] => instructions(tinyStep({ dtype }).update).filter(op => /adamw|assign|fill/.test(op));
  expect(updates("bf16")).toEqual(["adamw_mixed", "fill"]);
  expect(updates("f32")).toEqual(["adamw", "fill"]);
  const other = buildGraph(() => {
    const [param, grad, m, v] = ["param", "grad", "m", "v"].map(name => persistent(name, "f32", 8)) as [Tensor, Tensor, Tensor, Tensor];
    adamw({ param, grad, m, v }, { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0 });
    assign(persistent("copy", "bf16", 8), m);
  });
  expect(instructions(other)).toEqual(["adamw", "assign"]); // of something else than the weights
});

test.each<[string, (g: Graph) => void, string[]]>([
  [
    "a value that is a result",
    g => {
      const y = linear(of(3, 8), of(8, 8));
      g.output("y", y);
      g.output("z", silu(y));
    },
    ["linear of xx-", "silu of x"],
  ],
  [
    "a value that is read twice",
    g => {
      const y = linear(of(3, 8), of(8, 8));
      g.output("z", mul(silu(y), y));
    },
    ["linear of xx-", "silu of x", "mul of xx"],
  ],
  ["a product in f32 of bf16", g => g.output("y", silu(linear(of(3, 8), of(8, 8), undefined, { dtype: "f32" }))), ["linear of xx-", "silu of x"]],
  ["a shape between", g => g.output("y", silu(reshape(linear(of(3, 8), of(8, 8)), [24]))), ["linear of xx-", "silu of x"]],
  ["a wider sum", g => g.output("y", add(linear(of(1, 8), of(8, 8)), of(3, 8))), ["linear of xx-", "add of xx"]],
  [
    "a weight that is overwritten in between",
    g => {
      const w = persistent("w", "bf16", 8, 8);
      const y = linear(of(3, 8), w);
      assign(w, of(8, 8));
      g.output("y", silu(y));
    },
    ["linear of xx-", "silu of x", "assign of xx"],
  ],
])("left alone: %s", (_, body, expected) => {
  expect(fused(body).sort()).toEqual(expected.sort());
});

test("two products that meet in an add: the later one takes it, whatever the order of the operands", () => {
  for (const turned of [false, true]) {
    const ops = fused(g => {
      const x = map();
      const [first, second] = [conv(x), conv2d(x, of(4, 1, 1, 4))];
      g.output("y", turned ? add(second, first) : add(first, second));
    });
    expect(ops).toEqual(["conv2d of xxx", "conv2d_fused upsample 1 activation none statistics 0 of x-x--x"]);
  }
});

test("a policy and its reference round alike: where one must keep the value before its activation, both do", () => {
  const both = (gradient: boolean, recompute: boolean) => (g: Graph) => {
    const [x, w, frozen] = [of(3, 8), of(8, 8), of(8, 8)];
    const net = (weight: Tensor): Tensor => geglu(linear(x, weight));
    const [policy, reference] = [scope("policy", () => (recompute ? recomputed(() => net(w)) : net(w))), scope("reference", () => net(frozen))];
    g.output("policy", policy);
    g.output("reference", reference);
    if (gradient) g.output("dw", grad(mean(square(policy)), [w])[0]!);
  };
  const forward = (ops: string[]): string[] => ops.filter(op => /^(linear|linear_fused|geglu)( |$)/.test(op));
  expect(forward(fused(both(false, false)))).toEqual(Array(2).fill("linear_fused activation geglu of xx--"));
  expect(forward(fused(both(true, false))).filter(op => op.startsWith("geglu"))).toHaveLength(2);
  expect(forward(fused(both(true, true))).filter(op => op.startsWith("linear_fused"))).toEqual([]); // a replay gives the bits of the forward pass
});

test.each(["unet-sd-tiny", "unet-sdxl-tiny"])("a step of %s launches fewer instructions, and none of its reference's that its policy does not", set => {
  const { micro } = tinyStep({ dtype: "bf16", set, size: 16 });
  const [plain, joined] = [optimize(micro), optimize(micro, { kernels: fusedKernels })];
  const count = (graph: Graph): number => graph.nodes.filter(({ op }) => !op.leaf && !op.view).length;
  console.log(`${set}: ${count(plain)} instructions, ${count(joined)} fused`);
  expect(count(joined)).toBeLessThan(0.85 * count(plain));
  const products = (name: string): string[] =>
    joined.nodes
      .filter(({ op, label }) => label.startsWith(`${name}/`) && /linear|conv2d|group_norm/.test(op.name))
      .map(({ op, label }) => `${op.name} ${label.slice(name.length)}`);
  expect(products("reference")).toEqual(products("policy"));
});
