/** Whatever single value of a program is damaged, compile() either refuses it with a typed error or accepts a program whose tensors still lie
 *  in their arenas; it never throws anything else and never takes the process down. */

import fc from "fast-check";
import { AttuneError, PlanError, ProgramError } from "../../lib/errors.js";
import type { Program } from "../../lib/graph/program.js";
import { Session } from "../../lib/graph/session.js";
import { numel } from "../../lib/graph/tensor.js";
import { at, instruction, sketch } from "../support/programs.js";

const sound = sketch({
  tensors: [at(0, 0, 2, 2), at(0, 64, 4), at(0, 128, 2, 2), at(1, 0, 2, 2)],
  instructions: [
    instruction("full", [], [0], { value: 2 }, "a"),
    instruction("scalar", [], [1], { slot: 0, list: [1, 2], text: "x", flag: true }, "b"),
    instruction("add", [0, 1], [2], {}, "c"),
    instruction("accumulate", [3, 2], [3], {}, "d"),
  ],
  inputs: { x: 1 },
  outputs: { y: 2, z: 3 },
  scalars: ["rate"],
});

type Path = readonly string[];

/** Where every value of a JSON tree is, containers included. */
function paths(value: unknown, path: Path = []): Path[] {
  const below = typeof value === "object" && value !== null ? Object.entries(value).flatMap(([key, v]) => paths(v, [...path, key])) : [];
  return path.length === 0 ? below : [path, ...below];
}

function replaced(value: unknown, [key, ...rest]: Path, by: unknown): unknown {
  if (key === undefined) return by;
  const copy = Array.isArray(value) ? [...value] : { ...(value as object) };
  (copy as Record<string, unknown>)[key] = replaced((value as Record<string, unknown>)[key], rest, by);
  return copy;
}

const damage = fc.oneof(
  fc.constantFrom(-1, 0, 1, 2, 3, 4, 63, 4096, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, -(2 ** 63), 0.5, Number.NaN, Number.POSITIVE_INFINITY),
  fc.constantFrom("", "scratch", "state", "f64", "__proto__", "\0", null, undefined, true),
  fc.constantFrom([], [-1], [0, 0], [2 ** 31, 2 ** 31], {}, { length: 1e9 }, Symbol.iterator, 10n, () => 0),
  fc.string(),
  fc.integer(),
  fc.double(),
);

const sizes = { f64: 8, f32: 4, bf16: 2, f16: 2, i32: 4, u8: 1 } as const;

function liesInside({ arenas, tensors }: Program): boolean {
  return tensors.every(t => t.offset >= 0 && t.offset + numel(t.shape) * sizes[t.dtype] <= arenas[t.arena]!.bytes);
}

test("one damaged value is refused with a typed error, or harmless", async () => {
  const session = Session.open({ backend: "cpu", threads: 1, memoryLimit: 1 << 20 });
  session.compile(sound);
  const accepted = { yes: 0, no: 0 };
  fc.assert(
    fc.property(fc.constantFrom(...paths(sound)), damage, (path, value) => {
      const program = replaced(sound, path, value) as Program;
      try {
        session.compile(program);
      } catch (error) {
        accepted.no++;
        expect(error).toBeInstanceOf(AttuneError);
        expect([ProgramError, PlanError].some(type => error instanceof type)).toBe(true);
        return;
      }
      accepted.yes++;
      expect(liesInside(program)).toBe(true);
    }),
    { numRuns: 3000 },
  );
  await session.close();
  expect(Math.min(accepted.yes, accepted.no)).toBeGreaterThan(100); // both sides of the law were seen
});
