/** The UNet against diffusers in float64: outputs, the maps between blocks, gradients of inputs and of every parameter. Sets: unet-*. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { openDevice } from "../../lib/device.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { silu } from "../../lib/graph/ops/elementwise.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { buildGraph, type Graph, type Tensor, typed } from "../../lib/graph/tensor.js";
import { unet } from "../../lib/models/unet.js";
import type { UNetHostInputs } from "../../lib/models/unet-graphs.js";
import { UNet, type UNetGradients } from "../../lib/models/unet-model.js";
import type { HostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, norm } from "../support/compare.js";
import { describeSets, goldenSet } from "../support/goldens.js";
import { compareGradient, numbers, storedUnder } from "../support/gradients.js";

interface CaseMeta {
  readonly file: string;
  readonly timestep_scalar: boolean;
  readonly param_grads: "full" | "norms";
  readonly loss: number;
  readonly largest_grad_norm: number;
  readonly torch_fp32: {
    readonly out: { readonly rel_l2: number };
    readonly grad_in: Record<string, number>;
    readonly param_grads: { readonly worst: number };
  };
}

/** What float32 may miss by: ten times what float32 PyTorch misses by, as the sets' README says. */
const bound = { f32: (torch: number, least: number): number => Math.max(10 * torch, least), f64: (_: number, __: number, exact: number): number => exact };

/** In float64 the truth is met up to what it was stored with: outputs in F64, parameter gradients and maps in F32, 2^-24 = 6e-8 for each number at worst.
 *  The sinusoids are float32 there and here, and a last bit of theirs reaches the output as at most that much. */
const exact = { output: 1e-7, parameter: 2e-7 };

describeSets("unet-", folder => {
  const { cases } = JSON.parse(readFileSync(join(folder, "meta.json"), "utf8")) as { cases: CaseMeta[] };
  describe.each(["f64", "f32"] as const)("%s", dtype => {
    let model: UNet;
    beforeAll(async () => {
      model = await UNet.load(join(folder, "unet"), { device: await openDevice("cpu"), dtype });
    });
    afterAll(() => model?.close());

    describe.each(cases)("$file", meta => {
      let file: SafetensorsFile, result: UNetGradients;
      beforeAll(async () => {
        file = readSafetensors(join(folder, meta.file));
        result = await model.lossAndGrads({ ...inputsOf(file, meta.timestep_scalar), cotangent: file.tensor("cotangent") });
      });
      afterAll(() => file?.close());

      test("output and loss", async () => {
        const tolerance = bound[dtype](meta.torch_fp32.out.rel_l2, 5e-6, exact.output);
        const truth = numbers(file.tensor("out.sample"));
        expectClose(numbers(result.output), truth, tolerance, "output");
        expectClose(numbers(await model.forward(inputsOf(file, meta.timestep_scalar))), truth, tolerance, "output of forward");
        const scale = norm(truth) * norm(numbers(file.tensor("cotangent"))); // the loss is a dot product: it may cancel
        expect(Math.abs(result.loss - meta.loss)).toBeLessThanOrEqual(tolerance * scale);
      });

      test("gradients of the inputs", () => {
        const { sample, encoderHiddenStates, textEmbeds } = result.inputGrads;
        const named = { sample, encoder_hidden_states: encoderHiddenStates, ...(textEmbeds && { text_embeds: textEmbeds }) };
        const stored = [...file.tensors.keys()].filter(name => name.startsWith("grad_in."));
        expect(
          Object.keys(named)
            .map(name => `grad_in.${name}`)
            .sort(),
        ).toEqual(stored.sort());
        for (const [name, grad] of Object.entries(named))
          expectClose(numbers(grad), numbers(file.tensor(`grad_in.${name}`)), bound[dtype](meta.torch_fp32.grad_in[name]!, 5e-6, exact.output), name);
      });

      test("gradients of every parameter", () => {
        const tolerance = bound[dtype](meta.torch_fp32.param_grads.worst, 2e-5, exact.parameter);
        const floor = 1e-6 * meta.largest_grad_norm;
        const prefix = meta.param_grads === "full" ? "grad." : "gnorm.";
        const stored = [...file.tensors.keys()].filter(name => name.startsWith(prefix)).map(name => name.slice(prefix.length));
        expect(stored.length).toBeGreaterThan(0); // a set may hold a part of them: all of them are 3 MB
        expect(Object.keys(result.grads)).toEqual(expect.arrayContaining(stored));
        for (const name of stored) {
          const truth = numbers(file.tensor(prefix + name));
          if (meta.param_grads === "full") compareGradient(numbers(result.grads[name]!), truth, tolerance, floor, name);
          else compareNorms(numbers(result.grads[name]!), truth, tolerance, floor, name);
        }
      });

      const maps = storedUnder(join(folder, meta.file), "inter.");
      if (maps.length > 0)
        test("maps between the blocks", async () => {
          const results = await runWithMaps(model, inputsOf(file, meta.timestep_scalar), maps);
          for (const name of maps) {
            const truth = file.tensor(`inter.${name}`);
            const tolerance = bound[dtype](meta.torch_fp32.out.rel_l2, 5e-6, exact.output);
            expectClose(numbers(results[name]!), name === "conv_norm_out" ? numbers(truth).map(x => x / (1 + Math.exp(-x))) : numbers(truth), tolerance, name);
          }
        });
    });
  });
});

describe("weights stored in 16 bits", () => {
  const layouts = join(goldenSet("pipelines"), "layouts");
  const inputs = join(goldenSet("unet-sd2-tiny"), "case0.safetensors");
  test.each([
    ["fp16", "fp16", "fp16"],
    ["bf16", "bf16-sharded", undefined],
  ])("%s: the float64 output of the rounded weights", async (kind, folder, variant) => {
    const model = await UNet.load(join(layouts, folder), { device: await openDevice("cpu"), dtype: "f64", ...(variant && { variant }) });
    const file = readSafetensors(inputs);
    const truth = readSafetensors(join(layouts, `out_${kind}.safetensors`));
    const name = [...truth.tensors.keys()].find(key => truth.tensors.get(key)!.shape.length === 4)!;
    expectClose(numbers(await model.forward(inputsOf(file, false))), numbers(truth.tensor(name)), exact.output, kind);
    for (const opened of [file, truth]) opened.close();
    await model.close();
  });
});

function inputsOf(file: SafetensorsFile, scalarTimestep: boolean): UNetHostInputs {
  const timestep = file.tensor("in.timestep");
  return {
    sample: file.tensor("in.sample"),
    timestep: scalarTimestep ? Number(timestep.data[0]) : timestep,
    encoderHiddenStates: file.tensor("in.encoder_hidden_states"),
    ...(file.tensors.has("in.text_embeds") && { addedText: { textEmbeds: file.tensor("in.text_embeds"), timeIds: file.tensor("in.time_ids") } }),
  };
}

/** truth: [L2 norm, sum]. A sum of n elements that strays by tolerance * norm in L2 strays by sqrt(n) times that at most. */
function compareNorms(actual: Float64Array, [length = 0, total = 0]: Float64Array, tolerance: number, floor: number, name: string): void {
  const slack = Math.max(tolerance * length, floor);
  const sum = actual.reduce((a, b) => a + b, 0);
  const problem =
    Math.abs(norm(actual) - length) > slack
      ? `norm ${norm(actual)}, expected ${length}`
      : Math.abs(sum - total) > slack * Math.sqrt(actual.length)
        ? `sum ${sum}, expected ${total}`
        : undefined;
  if (problem) throw new Error(`${name}: ${problem}`);
}

/** The result of a module is the last tensor that was built under its label. */
async function runWithMaps(model: UNet, inputs: UNetHostInputs, names: readonly string[]): Promise<Record<string, HostTensor>> {
  const { dtype } = model.store;
  const compute = dtype === "f64" ? "f64" : "f32";
  const [batch = 0, channels = 0, height = 0, width = 0] = inputs.sample.shape;
  const { addedText } = inputs;
  const graph = buildGraph(g => {
    const plain = (name: string, { shape }: HostTensor): Tensor => input(name, typed(compute, ...shape));
    const symbolic = {
      sample: input("sample", typed(compute, batch, height, width, channels), "bchw"),
      timestep: plain("timestep", inputs.timestep as HostTensor),
      encoderHiddenStates: plain("encoderHiddenStates", inputs.encoderHiddenStates),
      ...(addedText && { addedText: { textEmbeds: plain("textEmbeds", addedText.textEmbeds), timeIds: plain("timeIds", addedText.timeIds) } }),
    };
    unet(model.config, model.params, symbolic);
    for (const name of names) g.output(name, lastUnder(g, name), name === "time_embedding" ? "plain" : "bchw");
  });
  const executable = model.session.compile(compileGraph(graph, { name: "maps", arenas: { [model.store.arena]: model.store.bytes } }));
  const { addedText: _, ...rest } = inputs;
  return model.session.run(executable, { inputs: { ...(rest as unknown as Record<string, HostTensor>), ...addedText } });
}

function lastUnder(graph: Graph, module: string): Tensor {
  const label = module.replace(/\.(?=\D)/g, "/"); // "down_blocks.0" is one name, "a.b" two
  const node = graph.nodes.findLast(n => !n.op.leaf && (n.label === label || n.label.startsWith(`${label}/`)));
  if (!node) throw new Error(`nothing was built under ${label}`);
  return node.outputs[0]!;
}

test("the label rule of this file finds what it should", () => {
  buildGraph(g => {
    const x = g.scope("a.0", () => g.scope("b", () => silu(input("x", typed("f32", 1)))));
    g.scope("a.1", () => silu(x));
    expect(lastUnder(g, "a.0")).toBe(x);
  });
});
