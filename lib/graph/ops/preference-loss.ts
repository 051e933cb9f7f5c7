/** A preference objective from the maps to the gradient in one op: pair sums, the objective's arithmetic on them as a tape, and the gradient of the prediction.
 *  No objective asks for it; fuse-preference.ts makes it of what an objective wrote and autodiff derived. */

import { defineOp, opTable } from "../op.js";
import { constantFields, registerOperands } from "../tape.js";
import { type TapeOpcode, tapeOpcodes } from "../tape-opcodes.js";
import { currentGraph, numel, type Tensor, type TensorType, typed } from "../tensor.js";
import { check, show } from "./check.js";
import { full } from "./leaf.js";
import { pairSums, pairSumsVjp } from "./preference.js";
import { type DrawSlots, drawnNormal } from "./random.js";
import { concat, reshape, slice } from "./shape.js";
import { broadcast, sum } from "./sum.js";

/** The tape runs once for every lane, a lane being a pair of samples (arms = 2: b and lanes + b) or a single one (arms = 1). Its code is that of `tape`
 *  (tape-opcodes.ts), in f64, with one opcode more, `sum`: the sum of register a over all lanes, in every lane. Registers 0 .. 4 arms - 1 hold E, D, P, C of the
 *  winner, then of the loser; the extra inputs follow; neither are written. */
export type LossTape = {
  readonly arms: 1 | 2;
  readonly code: readonly number[];
  readonly constants: readonly number[];
  /** The register of each output, and whether the output is [lanes] (1) or what is the same in every lane, [1] (0). */
  readonly outputs: readonly number[];
  readonly perLane: readonly number[];
  /** Registers of the derivatives by E, D, P, C of the winner, then of the loser; -1: zero. */
  readonly coefficients: readonly number[];
};

export const sumOpcode = tapeOpcodes.length;

/** What kernels have room for; `cells` are registers times lanes, which lie in the shared memory of one block: 96 KB of what every GPU has. */
export const lossTapeLimits = { instructions: 192, constants: 96, registers: 64, outputs: 24, extras: 8, lanes: 256, cells: 12288 } as const;

/** prediction, target?, reference? [arms * lanes, H, W, C], winners first, and extra inputs in f64 of a number per lane or one for all -> dprediction, and the tape's outputs in f64. Without
 *  a target it is the normals of the draw that the attributes name, one for both arms of a lane. */
export const preferenceLoss = defineOp({
  name: "preference_loss",
  infer(
    { arms, outputs, perLane, coefficients }: LossTape & Partial<DrawSlots>,
    prediction: Tensor,
    _target: Tensor | undefined,
    _reference: Tensor | undefined,
    ...extras: Tensor[]
  ): readonly TensorType[] {
    const lanes = prediction.shape[0]! / arms;
    check("preference_loss", Number.isInteger(lanes) && lanes <= lossTapeLimits.lanes, `expected up to ${lossTapeLimits.lanes} pairs, received ${lanes}`);
    check("preference_loss", coefficients.length === 4 * arms, `expected ${4 * arms} coefficients, received ${coefficients.length}`);
    for (const x of extras) {
      const fits = x.dtype === "f64" && (numel(x.shape) === lanes || numel(x.shape) === 1);
      check("preference_loss", fits, `expected extra inputs in f64 of ${lanes} numbers or one, received ${show(x)}`);
    }
    return [prediction, ...outputs.map((_, k) => typed("f64", perLane[k] ? lanes : 1))];
  },
  decompose(attrs, prediction, target, reference, ...extras) {
    const { arms, perLane } = attrs;
    const rows = prediction.shape[0]!;
    const lanes = rows / arms;
    const goal = target ?? drawnTarget(attrs, prediction);
    const { E, D, P, C } = pairSums({ prediction, target: goal, ...(reference && { reference }) });
    const half = (x: Tensor, arm: number): Tensor => slice(reshape(x, [rows]), { axis: 0, start: arm * lanes, length: lanes });
    const sums = Array.from({ length: arms }, (_, arm) => [E, D, P, C].map(x => half(x, arm))).flat();
    const flat = extras.map(x => reshape(x, [numel(x.shape)]));
    const registers = run(attrs, [...sums, ...flat]);
    const inLanes = (r: number): Tensor => (r < 0 ? full(0, [lanes], "f64") : broadcast(registers[r]!, [lanes]));
    const of = (k: number): Tensor => {
      const parts = Array.from({ length: arms }, (_, arm) => inLanes(attrs.coefficients[4 * arm + k]!));
      return reshape(concat(parts, 0), [rows, 1]);
    };
    const [dprediction] = pairSumsVjp({ segments: 1 }, of(0), of(1), of(2), of(3), prediction, goal, reference);
    const results = attrs.outputs.map((r, k) => (perLane[k] ? inLanes(r) : slice(inLanes(r), { axis: 0, start: 0, length: 1 })));
    return [dprediction, ...results];
  },
});
/** Its entry in the op table, for the pass. */
export const preferenceLossDef = opTable.get("preference_loss")!;

/** The noise of the draw for every sample: both arms of a lane share it. */
function drawnTarget({ arms, seed, step, offset, stream }: LossTape & Partial<DrawSlots>, { shape, dtype }: Tensor): Tensor {
  const slots = { seed: seed!, step: step!, offset: offset!, stream: stream! };
  const noise = drawnNormal(slots, shape.with(0, shape[0]! / arms), dtype === "f64" ? "f64" : "f32");
  return arms === 1 ? noise : concat([noise, noise], 0);
}

/** All registers after the tape: [lanes], or [1] where a value is the same in every lane. */
function run({ code, constants }: LossTape, inputs: readonly Tensor[]): Tensor[] {
  const registers = [...inputs];
  for (let at = 0; at < code.length; at += 5) {
    const [index = 0, dst = 0, ...fields] = code.slice(at, at + 5);
    const x = registers[fields[0]!]!;
    if (index === sumOpcode) registers[dst] = sum(x);
    else if (index === 0) registers[dst] = full(constants[fields[0]!]!, [1], "f64");
    else registers[dst] = elementwise(tapeOpcodes[index]!, fields, constants, registers);
  }
  return registers;
}

function elementwise(opcode: TapeOpcode, fields: readonly number[], constants: readonly number[], registers: readonly Tensor[]): Tensor {
  const op = opTable.get(opcode)!;
  const count = registerOperands(opcode);
  const operands = fields.slice(0, count).map(r => registers[r]!);
  const attrs = Object.fromEntries(constantFields(opcode).map((name, k) => [name, constants[fields[count + k]!]!]));
  return currentGraph().append(op, attrs, operands, op.infer(attrs, ...operands)).outputs[0]!;
}
