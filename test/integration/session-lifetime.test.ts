/** What sessions leave behind: nothing. In processes of their own, because a crash at the end of an environment takes the process with it. */

import { spawnSync } from "node:child_process";
import path from "node:path";
import { Worker } from "node:worker_threads";

const child = path.join(__dirname, "session-child.js");

function runChild(...args: string[]): { status: number | null; signal: string | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, ["--expose-gc", child, ...args], { encoding: "utf8" });
}

test("1,000 sessions opened, used and closed leave no memory and no thread", () => {
  const { stdout, stderr } = runChild("cycles", "1000");
  expect(stderr).toBe("");
  const { residents, before, after } = JSON.parse(stdout) as { residents: number[]; before: number; after: number };
  expect(after).toBe(before);
  // The first two hundred warm allocators and caches. A session that leaked its arenas would cost 2 MiB, its threads' stacks tens of KiB.
  // The least of three readings: at any one, pages of a collection under way may be resident.
  const perCycle = (Math.min(...residents.slice(7)) - Math.min(...residents.slice(1, 4))) / 600;
  expect(perCycle).toBeLessThan(8 << 10);
}, 120_000);

test("a session that is forgotten is closed by the collector", () => {
  const { before, during, after } = JSON.parse(runChild("forget").stdout) as { before: number; during: number; after: number };
  expect(during).toBe(before + 40); // a worker and one more thread of its pool each
  expect(after).toBe(before);
});

test("a process may end in the middle of a run", () => {
  expect(runChild("exit")).toMatchObject({ status: 3, signal: null, stderr: "" });
});

test("two worker threads have sessions of their own and may be terminated in the middle of a run", async () => {
  for (let round = 0; round < 5; round++) {
    const workers = [1, 2].map(start => new Worker(child, { workerData: { start } }));
    const sums = await Promise.all(workers.map(message));
    expect(sums).toEqual([3.5, 4.5]);
    expect(await Promise.all(workers.map(worker => worker.terminate()))).toEqual([1, 1]);
  }
});

function message(worker: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}
