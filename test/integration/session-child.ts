/** Run by the session tests in processes and worker threads of their own; the first argument or workerData names the task. */

import fs from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { Session } from "../../lib/graph/session.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { addConstant, counting } from "../support/programs.js";

const threads = (): number => fs.readdirSync("/proc/self/task").length;

/** Opens, uses and closes `cycles` sessions; prints resident bytes after each hundred and the number of threads before and after. */
async function cycles(count: number): Promise<void> {
  const residents: number[] = [];
  const program = counting(1, 1 << 18); // 2 MiB of arenas
  const cycle = async (): Promise<void> => {
    await using session = Session.open({ backend: "cpu", threads: 2 });
    await session.run(session.compile(program), {});
  };
  await cycle();
  const before = threads();
  for (let i = 1; i <= count; i++) {
    await cycle();
    if (i % 100 !== 0) continue;
    globalThis.gc?.();
    residents.push(process.memoryUsage.rss());
  }
  console.log(JSON.stringify({ residents, before, after: threads() }));
}

/** Forgets sessions without closing them; prints how many threads are left after collection. */
async function forget(): Promise<void> {
  const before = threads();
  for (let i = 0; i < 20; i++) Session.open({ backend: "cpu", threads: 2 });
  const during = threads();
  for (let i = 0; i < 50 && threads() > before; i++) {
    globalThis.gc?.();
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  console.log(JSON.stringify({ before, during, after: threads() }));
}

/** Leaves the process in the middle of a run. */
function exit(): void {
  const session = Session.open({ backend: "cpu", threads: 2 });
  void session.run(session.compile(counting(20_000, 1 << 20)), {});
  setTimeout(() => process.exit(3), 20);
}

/** In a worker thread: one complete run, then one that the parent interrupts. */
async function interrupted({ start }: { start: number }): Promise<void> {
  const session = Session.open({ backend: "cpu", threads: 2 });
  const x = hostTensor("f32", [4], [start, 0, 0, 0]);
  const { y } = await session.run(session.compile(addConstant), { inputs: { x } });
  const long = session.run(session.compile(counting(20_000, 1 << 20)), {});
  parentPort!.postMessage(y!.data[0]);
  await long;
}

if (parentPort) void interrupted(workerData as { start: number });
else if (process.argv[2] === "cycles") void cycles(Number(process.argv[3]));
else if (process.argv[2] === "forget") void forget();
else exit();
