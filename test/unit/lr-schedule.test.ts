/** Factors of the learning rate, step by step, as diffusers' get_scheduler gives them. */

import fs from "node:fs";
import path from "node:path";
import { ConfigError } from "../../lib/errors.js";
import { constant, constantWithWarmup, cosine, cosineWithRestarts, type LearningRateSchedule, linear, polynomial } from "../../lib/train/lr-schedule.js";
import { describeSets } from "../support/goldens.js";

interface Golden {
  readonly args: Readonly<Record<string, number>>;
  readonly base_lr: number;
  readonly lr: readonly number[];
}

/** diffusers' name -> ours, from its arguments. */
const schedules: Readonly<Record<string, (golden: Golden) => LearningRateSchedule>> = {
  constant: () => constant(),
  constant_with_warmup: ({ args }) => constantWithWarmup({ warmup: args.num_warmup_steps! }),
  linear: ({ args }) => linear({ warmup: args.num_warmup_steps!, total: args.num_training_steps! }),
  cosine: ({ args }) => cosine({ warmup: args.num_warmup_steps!, total: args.num_training_steps! }),
  cosine_with_restarts: ({ args }) => cosineWithRestarts({ warmup: args.num_warmup_steps!, total: args.num_training_steps!, cycles: args.num_cycles! }),
  polynomial: ({ args, base_lr }) => polynomial({ warmup: args.num_warmup_steps!, total: args.num_training_steps!, power: args.power!, end: 1e-7 / base_lr }),
};

describeSets("optim", folder => {
  const goldens = JSON.parse(fs.readFileSync(path.join(folder, "lr.json"), "utf8")) as Record<string, Golden>;
  test.each(Object.keys(schedules).filter(name => name in goldens))("%s equals diffusers' to 1e-12 of the base rate", name => {
    const golden = goldens[name]!;
    const schedule = schedules[name]!(golden);
    for (const [step, lr] of golden.lr.entries()) expect(Math.abs(schedule(step) - lr / golden.base_lr)).toBeLessThanOrEqual(1e-12);
  });
});

test("a warm-up starts at 0 and reaches 1 at its end", () => {
  for (const schedule of [
    constantWithWarmup({ warmup: 7 }),
    linear({ warmup: 7, total: 20 }),
    cosine({ warmup: 7, total: 20 }),
    polynomial({ warmup: 7, total: 20 }),
  ]) {
    expect(schedule(0)).toBe(0);
    expect(schedule(7)).toBe(1);
    for (let step = 1; step <= 7; step++) expect(schedule(step)).toBeGreaterThan(schedule(step - 1));
  }
});

test("without a warm-up the first factor is 1", () => {
  for (const schedule of [
    constant(),
    constantWithWarmup({ warmup: 0 }),
    linear({ total: 5 }),
    cosine({ total: 5 }),
    cosineWithRestarts({ total: 5 }),
    polynomial({ total: 5 }),
  ])
    expect(schedule(0)).toBe(1);
});

test("counts are whole and a warm-up ends within the run", () => {
  expect(() => linear({ warmup: 10, total: 5 })).toThrow(new ConfigError("linear", "total", "at least warmup (10)", 5).message);
  expect(() => constantWithWarmup({ warmup: -1 })).toThrow(ConfigError);
  expect(() => cosine({ total: 2.5 })).toThrow(ConfigError);
});
