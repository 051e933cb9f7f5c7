/** First values of parameters that no checkpoint gives, drawn on the device: the same bits on every backend, whatever the size. */

import { compileGraph } from "../graph/compile.js";
import { affine } from "../graph/ops/elementwise.js";
import { full } from "../graph/ops/leaf.js";
import { assign } from "../graph/ops/optimizer.js";
import { randomUniform } from "../graph/ops/random.js";
import type { Program } from "../graph/program.js";
import { randomSlots } from "../graph/scalars.js";
import type { Session } from "../graph/session.js";
import type { Target } from "../graph/target.js";
import { buildGraph } from "../graph/tensor.js";
import type { ParameterStore } from "./params.js";

/** Random streams of initial values begin here, so that a training step with the same seed draws other numbers; one per parameter, in order of declaration.
 *  Stores initialised from one seed take different `stream`s. */
export const initialStreams = { model: 1 << 20, adapter: 1 << 21 } as const;

/** Fills every parameter of a store with its declared initial value, drawn in f32 whatever it is kept in. */
export async function initialise(session: Session, store: ParameterStore, { seed, stream }: { seed: number; stream: number }): Promise<void> {
  const executable = session.compile(initialProgram(store, stream, session.target));
  await session.run(executable, { scalars: { [randomSlots.seed]: seed, [randomSlots.step]: 0, [randomSlots.offset]: 0 } });
}

/** Makes the session hold the store's arenas, zeroed where they are new. */
export function reserve(session: Session, store: ParameterStore): void {
  session.compile(
    compileGraph(
      buildGraph(() => {}),
      { name: `reserve ${store.arena}`, arenas: store.arenas },
    ),
  );
}

/** Brings the bf16 copy of a store up to date, where it has one: after its arena was written from outside. */
export async function refresh(session: Session, store: ParameterStore): Promise<void> {
  const graph = buildGraph(() => store.refresh());
  if (graph.nodes.length > 0)
    await session.run(session.compile(compileGraph(graph, { name: `refresh ${store.arena}`, arenas: store.arenas, target: session.target })), {});
}

function initialProgram(store: ParameterStore, stream: number, target: Target): Program {
  const dtype = store.dtype === "f64" ? "f64" : "f32";
  const graph = buildGraph(() => {
    for (const [i, { name, shape, init }] of [...store.entries.values()].entries())
      assign(
        store.kept(name),
        "value" in init
          ? full(init.value, shape, dtype)
          : affine(randomUniform(shape, { stream: stream + i, dtype }), { scale: 2 * init.bound, shift: -init.bound }),
      );
    store.refresh();
  });
  return compileGraph(graph, { name: `initialise ${store.arena}`, arenas: store.arenas, target });
}
