/** Every objective that is one op, by the CUDA kernel of that op on the host machine: opcodes, arms and extra inputs of each tape against the cpu backend's
 *  plain ops. */

import { Session } from "../../lib/graph/session.js";
import { native } from "../../lib/native.js";
import { expectClose } from "../support/compare.js";
import { runObjective, stageInputs } from "../support/objective-stage.js";
import { objectiveTable } from "../support/objective-table.js";

const found = native().kernels("simt");

(found.built ? describe : describe.skip)("on the host machine", () => {
  let simt: Session;
  let cpu: Session;
  beforeAll(() => {
    simt = Session.open({ backend: "simt" });
    cpu = Session.open({ backend: "cpu", threads: 1 });
  });
  afterAll(async () => {
    await simt.close();
    await cpu.close();
  });

  test.each(objectiveTable.map(({ objective }) => [objective.name, objective] as const))("%s", async (_name, objective) => {
    const inputs = stageInputs(objective, 3);
    const expected = await runObjective(cpu, objective, inputs, { dtype: "f32" });
    const actual = await runObjective(simt, objective, inputs, { dtype: "f32", fused: true });
    // Sums of f32 maps in another order, times beta 2000: as between the plain and the fused ops of the cpu.
    expect(Math.abs(actual.loss - expected.loss)).toBeLessThanOrEqual(2e-5 * Math.max(1, Math.abs(expected.loss)));
    expectClose(actual.gradient, expected.gradient, 2e-5, "gradient");
  });
});
