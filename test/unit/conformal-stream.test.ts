/** Streams that rest: saved as JSON after any unit and taken up again, decisions are those of a stream that never stopped; states of other streams are refused. */

import { ConfigError, conformal } from "../../lib/index.js";
import { Rng } from "../support/rng.js";

function units(count: number, seed: number) {
  const rng = new Rng(seed, "stream");
  const z = Array.from({ length: count }, () => rng.normal());
  return { scores: z, aligned: z.map(v => rng.uniform() < 1 / (1 + Math.exp(-3 * v))) };
}
const calibration = units(500, 1),
  { scores } = units(120, 2);
const through = (state: conformal.StreamState): conformal.StreamState => JSON.parse(JSON.stringify(state));

const procedures = [conformal.lond({ alpha: 0.4 }), conformal.lordPlusPlus({ alpha: 0.4 }), conformal.saffron({ alpha: 0.4 })] as conformal.OnlineProcedure[];

describe.each(procedures.map(p => [p.name, p] as const))("%s", (_, procedure) => {
  const start = (state?: conformal.StreamState) => conformal.onlineSelection({ calibration, procedure, ...(state && { state }) });
  const whole = scores.map(start().push);

  test("rests after every unit and decides as one that never did", () => {
    expect(whole.filter(d => d.selected).length).toBeGreaterThan(10);
    let state = start().save();
    const rested = scores.map(score => {
      const stream = start(through(state)),
        decision = stream.push(score);
      state = stream.save();
      return decision;
    });
    expect(rested).toEqual(whole);
    expect([state.seen, state.selected]).toEqual([120, whole.filter(d => d.selected).length]);
  });

  test("over an async source: the same decisions, each as soon as its unit is there; after an abort it goes on where it was", async () => {
    const asked: number[] = [];
    async function* source(from: number) {
      for (let i = from; i < scores.length; i++) {
        asked.push(i);
        await undefined;
        yield { id: `unit ${i}`, score: scores[i]! };
      }
    }
    const online = start(),
      stop = new AbortController(),
      seen: conformal.OnlineDecision[] = [];
    const read = async (from: number) => {
      for await (const { unit, pValue, selected, level } of online.over(source(from), { signal: stop.signal })) {
        expect([unit.id, asked.at(-1)]).toEqual([`unit ${seen.length}`, seen.length]); // nothing is read ahead
        seen.push({ selected, level, pValue } as conformal.OnlineDecision);
        if (seen.length === 50) stop.abort(new Error("pause"));
      }
    };
    await expect(read(0)).rejects.toThrow("pause");
    expect(online.stream.seen).toBe(50);
    for await (const { unit: _unit, ...decision } of online.over(source(50))) seen.push(decision);
    expect(seen).toEqual(whole);
  });

  test.each<[string, (state: conformal.StreamState) => object]>([
    ["another procedure", s => ({ ...s, procedure: "LOBSTER" })],
    ["another level", s => ({ ...s, settings: { ...s.settings, alpha: 0.1 } })],
    ["another calibration set", s => ({ ...s, calibration: "0".repeat(64) })],
    ["no calibration set", ({ calibration: _, ...s }) => s],
    ["more selected than seen", s => ({ ...s, selected: s.seen + 1 })],
    ["no rule", ({ rule: _, ...s }) => ({ ...s, rule: {} })],
    ["a fraction of a step", s => ({ ...s, rule: { ...s.rule, t: 1.5 } })],
    ["nothing at all", () => ({})],
  ])("a state of %s is refused", (_, change) => {
    const stream = start();
    for (const score of scores) stream.push(score);
    expect(() => start(change(through(stream.save())) as conformal.StreamState)).toThrow(ConfigError);
  });
});

test("places that no stream has visited are refused", () => {
  const stream = new conformal.OnlineStream(conformal.lordPlusPlus({ alpha: 0.2 }));
  stream.push(conformal.superuniformPValues([0, 0.5, 0]));
  const state = stream.save();
  expect(state.rule).toEqual({ t: 4, rejectedAt: [1, 3] });
  for (const rejectedAt of [[1, 4], [3, 1], [0], ["1"], 1])
    expect(() => new conformal.OnlineStream(conformal.lordPlusPlus({ alpha: 0.2 }), { ...state, rule: { t: 4, rejectedAt: rejectedAt as number[] } })).toThrow(
      /rejectedAt/,
    );
});

test("e-LOND rests as well", () => {
  const e = conformal.eValues([60, 0, 900, 3, 5000, 1, 0, 90_000]),
    whole = new conformal.EValueStream({ alpha: 0.3 }).push(e);
  expect(whole.filter(d => d.selected).length).toBeGreaterThan(1);
  let state: conformal.StreamState | undefined;
  const rested = Array.from(e.values, one => {
    const stream = new conformal.EValueStream({ alpha: 0.3 }, state && through(state)),
      [decision] = stream.push(conformal.eValues([one]));
    state = stream.save();
    return decision;
  });
  expect(rested).toEqual(whole);
  expect(() => new conformal.EValueStream({ alpha: 0.2 }, state)).toThrow(ConfigError);
});
