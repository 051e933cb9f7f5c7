import fc from "fast-check";
import { compileGraph } from "../../lib/graph/compile.js";
import { hoistEffects } from "../../lib/graph/effects.js";
import { fuseTapes } from "../../lib/graph/fuse.js";
import { dropIdentities, mergeCommon, removeDead } from "../../lib/graph/passes.js";
import { runGraph, runProgram } from "../support/naive.js";
import { randomFeeds, randomGraph } from "../support/random-graph.js";

const draws = fc.array(fc.nat(1000), { minLength: 4, maxLength: 240 });
const { inputs, arenas } = randomFeeds();

for (const fuse of [false, true])
  test(`a compiled program gives the bits of its graph, results and persistent memory${fuse ? ", fused" : ""}`, () => {
    fc.assert(
      fc.property(draws, d => {
        const graph = randomGraph(d);
        const expected = runGraph(graph, inputs, arenas);
        const program = compileGraph(graph, { name: "random", fuse });
        expect(runProgram(program, inputs, arenas)).toEqual(expected);
      }),
      { numRuns: 500 },
    );
  });

for (const pass of [removeDead, dropIdentities, mergeCommon, fuseTapes, hoistEffects])
  test(`${pass.name} keeps every bit`, () => {
    fc.assert(
      fc.property(draws, d => {
        const graph = randomGraph(d);
        expect(runGraph(pass(graph), inputs, arenas)).toEqual(runGraph(graph, inputs, arenas));
      }),
      { numRuns: 500 },
    );
  });
