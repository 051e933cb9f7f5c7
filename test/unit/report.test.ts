/** Reports: intervals obey their laws, charts and pages are well formed and self-contained, captions are where they should be. */

import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import type { Image } from "../../lib/data/image.js";
import { drawText, textWidth } from "../../lib/report/font.js";
import { imageGrid } from "../../lib/report/grid.js";
import { columns, figure, markup, notice, page, paragraph, section, table } from "../../lib/report/html.js";
import { JsonLines, readJsonLines } from "../../lib/report/jsonl.js";
import { normalQuantile, pairedBootstrap, quantile, wilsonInterval, winRate } from "../../lib/report/metrics.js";
import { barChart, lineChart } from "../../lib/report/svg.js";
import { philox4x32, Random } from "../../lib/util/random.js";

describe("Random", () => {
  // Random123's known-answer vectors of philox4x32-10 (Salmon et al. 2011).
  test("philox4x32-10 known answers", () => {
    const words = (hex: string) => hex.split(" ").map(w => Number.parseInt(w, 16));
    expect(philox4x32([0, 0, 0, 0], [0, 0])).toEqual(words("6627e8d5 e169c58d bc57ac4c 9b00dbd8"));
    expect(philox4x32(Array(4).fill(0xffffffff), Array(2).fill(0xffffffff))).toEqual(words("408f276d 41c83b0e a20bc7c6 6d5451fd"));
    expect(philox4x32(words("243f6a88 85a308d3 13198a2e 03707344"), words("a4093822 299f31d0"))).toEqual(words("d16cfe09 94fdcceb 5001e420 24126ea1"));
  });

  test("shuffle is a permutation; seeds and streams differ", () => {
    const items = Array.from({ length: 50 }, (_, i) => i);
    const of = (seed: number, stream: string) => new Random(seed, stream).shuffle(items);
    expect([...of(1, "a")].sort((a, b) => a - b)).toEqual(items);
    expect(of(1, "a")).toEqual(of(1, "a"));
    expect(of(1, "a")).not.toEqual(of(2, "a"));
    expect(of(1, "a")).not.toEqual(of(1, "b"));
  });
});

describe("intervals", () => {
  test("the normal quantile inverts the distribution", () => {
    for (const [p, z] of [
      [0.5, 0],
      [0.975, 1.959963984540054],
      [0.995, 2.5758293035489004],
      [0.001, -3.090232306167813],
    ] as const)
      expect(Math.abs(normalQuantile(p) - z)).toBeLessThan(1.2e-8); // Acklam's bound, absolute for |z| < 4
  });

  test("Wilson: agrees with the published example, solves its defining equation", () => {
    const { low, high } = wilsonInterval({ successes: 81, trials: 263 }); // Newcombe 1998, table I, method 3
    expect([low.toFixed(4), high.toFixed(4)]).toEqual(["0.2553", "0.3662"]);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 500 }), fc.nat(500), (trials, k) => {
        const successes = Math.min(k, trials);
        const { value, low, high } = wilsonInterval({ successes, trials });
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(low).toBeLessThanOrEqual(value + 1e-12);
        expect(high).toBeGreaterThanOrEqual(value - 1e-12);
        const z = normalQuantile(0.975);
        for (const p of [low, high]) expect(Math.abs((value - p) ** 2 - (z ** 2 * p * (1 - p)) / trials)).toBeLessThan(1e-12);
      }),
    );
  });

  test("Wilson covers the truth in about 95 % of experiments", () => {
    const random = new Random(1);
    const trials = 40;
    const truth = 0.3;
    const experiments = 4000;
    let covered = 0;
    for (let e = 0; e < experiments; e++) {
      let successes = 0;
      for (let i = 0; i < trials; i++) successes += Number(random.uniform() < truth);
      const { low, high } = wilsonInterval({ successes, trials });
      covered += Number(low <= truth && truth <= high);
    }
    expect(covered / experiments).toBeGreaterThan(0.93); // exact coverage here is 0.949, its standard error over the experiments 0.0035
    expect(covered / experiments).toBeLessThan(0.97);
  });

  test("win rates of both sides sum to one, ties count half", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })), { minLength: 1 }), pairs => {
        const a = pairs.map(p => p[0]);
        const b = pairs.map(p => p[1]);
        expect(winRate({ a, b, margin: 0.1 }).value + winRate({ a: b, b: a, margin: 0.1 }).value).toBeCloseTo(1, 12);
      }),
    );
    expect(winRate({ a: [0.5, 0.5], b: [0.49, 0.2], margin: 0.02 }).value).toBe(0.75);
  });

  test("the paired bootstrap has the spread of the mean difference and ignores a common part", () => {
    const random = new Random(3);
    const common = Array.from({ length: 400 }, () => 100 * random.normal());
    const a = common.map(c => c + 0.5 + random.normal());
    const b = common;
    const { value, low, high } = pairedBootstrap({ a, b, seed: 0 });
    expect(low).toBeLessThan(value);
    expect(value).toBeLessThan(high);
    const expected = (2 * 1.96) / Math.sqrt(400); // unit variance of the differences
    expect((high - low) / expected).toBeGreaterThan(0.9); // 3.5 % from the sample, 2 % from the resamples
    expect((high - low) / expected).toBeLessThan(1.1);
    expect(pairedBootstrap({ a, b, seed: 0 })).toEqual({ value, low, high });
  });

  test("quantiles interpolate between order statistics", () => {
    expect([0, 0.25, 0.5, 1].map(q => quantile([1, 2, 3, 5], q))).toEqual([1, 1.75, 2.5, 5]);
  });
});

describe("jsonl", () => {
  const path = () => join(mkdtempSync(join(tmpdir(), "attune-jsonl-")), "deep", "metrics.jsonl");

  test("rows come back in order, over several openings, numbers that JSON lacks as words", () => {
    const file = path();
    for (const rows of [
      [{ step: 1, loss: 0.5 }],
      [
        { step: 2, loss: Number.NaN },
        { step: 3, loss: -Infinity },
      ],
    ]) {
      const lines = new JsonLines(file);
      for (const row of rows) lines.append(row);
      lines.sync();
      lines.close();
      expect(() => lines.append({})).toThrow(/was closed/);
    }
    expect(readJsonLines(file)).toEqual([
      { step: 1, loss: 0.5 },
      { step: 2, loss: "NaN" },
      { step: 3, loss: "-Infinity" },
    ]);
  });

  test("a line that was cut off is left out, a broken one is named", () => {
    const file = path();
    const lines = new JsonLines(file);
    lines.append({ step: 1 });
    lines.close();
    writeFileSync(file, `${readFileSync(file, "utf8")}{"step": 2, "lo`);
    expect(readJsonLines(file)).toEqual([{ step: 1 }]);
    writeFileSync(file, '{"step": 1}\n[1, 2]\n');
    expect(() => readJsonLines(file)).toThrow(/row 1.*expected a JSON object/);
    writeFileSync(file, '{"step": 1}\n{"step": 2}');
    expect(readJsonLines(file)).toEqual([{ step: 1 }, { step: 2 }]); // whole, though a person forgot the newline
    expect(() => readJsonLines(`${file}.absent`)).toThrow(/expected a readable file, received ENOENT/);
  });
});

describe("pages", () => {
  test("text is escaped wherever it stands, Html is not", () => {
    const evil = `<script>alert("x")</script>&'`;
    const html = page({
      title: evil,
      lead: evil,
      body: [
        section(evil, paragraph(evil), notice("warning", evil), table({ columns: [evil], rows: [{ cells: [evil, 1] }], caption: evil })),
        figure({ content: dot, caption: evil, description: evil }),
      ],
    });
    expect(html).not.toContain("<script");
    expect(html).not.toContain('alert("x")');
    expect(markup`<b>${markup`<i>${"<"}</i>`}</b>`.text).toBe("<b><i>&#60;</i></b>");
  });

  test("tags are balanced and nothing is fetched", () => {
    const chart = lineChart({
      title: "t",
      series: [
        {
          name: "a",
          points: [
            { x: 0, y: 1, low: 0, high: 2 },
            { x: 1, y: 3, low: 2, high: 4 },
          ],
        },
      ],
      x: { label: "x" },
      y: { label: "y" },
      marks: [{ y: 1, label: "one" }],
    });
    const bars = barChart({
      title: "t",
      groups: [{ label: "g", bars: [{ value: 1, low: 0.5, high: 1.5 }, { value: 0.2 }] }],
      series: [{ name: "a" }, { name: "b", colour: 5 }],
      y: { label: "y" },
    });
    const html = page({
      title: "T",
      lead: "l",
      body: section("S", columns(figure({ content: chart, caption: "c" }), figure({ content: bars, caption: "c" })), figure({ content: dot, caption: "d" })),
    });
    expectBalanced(html);
    expect(html.match(/(?:src|href)="(?!data:)/g)).toBeNull();
    expect(html).not.toMatch(/url\(|@import/);
  });
});

describe("charts", () => {
  const draw = (ys: number[]) =>
    lineChart({ title: "t", series: [{ name: "a", points: ys.map((y, x) => ({ x, y })) }], x: { label: "x" }, y: { label: "y" } }).text;

  test("whatever the data, every coordinate is a number inside the picture", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -1e9, max: 1e9 }), { minLength: 1, maxLength: 60 }), ys => {
        const svg = draw(ys);
        expect(svg).not.toMatch(/NaN|Infinity|undefined/);
        for (const [, points] of svg.matchAll(/points="([^"]*)"/g))
          for (const pair of points!.split(" ")) {
            const [x = -1, y = -1] = pair.split(",").map(Number);
            expect(x >= 0 && x <= 480 && y >= 0 && y <= 310).toBe(true);
          }
      }),
    );
  });

  test("a value that is not finite interrupts the line", () => {
    expect(draw([1, 2, Number.NaN, 4, 5]).match(/<polyline/g)).toHaveLength(2);
  });
});

describe("grids", () => {
  test("cells stand where captions leave them, each pixel a square", () => {
    const red: Image = { width: 2, height: 1, channels: 3, data: Uint8Array.of(255, 0, 0, 0, 0, 255) };
    const grid = imageGrid({
      rows: [
        [red, undefined],
        [undefined, red],
      ],
      zoom: 3,
      gap: 2,
    });
    expect([grid.width, grid.height]).toEqual([2 + 2 * (6 + 2), 2 + 2 * (3 + 2)]);
    const pixel = (x: number, y: number) => [...grid.data.subarray((y * grid.width + x) * 3, (y * grid.width + x) * 3 + 3)];
    expect(pixel(2, 2)).toEqual([255, 0, 0]);
    expect(pixel(4, 4)).toEqual([255, 0, 0]);
    expect(pixel(5, 4)).toEqual([0, 0, 255]);
    expect(pixel(10, 2)).toEqual([255, 255, 255]);
    expect(pixel(10, 7)).toEqual([255, 0, 0]);
  });

  test("transparent pixels are white, captions add ink above and to the left only", () => {
    const clear: Image = { width: 8, height: 8, channels: 4, data: new Uint8Array(256) };
    const plain = imageGrid({ rows: [[clear]] });
    expect(plain.data.every(v => v === 255)).toBe(true);
    const titled = imageGrid({ rows: [[clear]], columnCaptions: ["abc"], rowCaptions: ["row"] });
    const inkedAt = (inside: (x: number, y: number) => boolean) =>
      titled.data.some((v, i) => v < 255 && inside(Math.floor(i / 3) % titled.width, Math.floor(i / 3 / titled.width)));
    const left = titled.width - 4 - 32;
    const top = titled.height - 4 - 32;
    expect(inkedAt((x, y) => x >= left && y < top)).toBe(true);
    expect(inkedAt((x, y) => x < left && y >= top)).toBe(true);
    expect(inkedAt((x, y) => x >= left && y >= top)).toBe(false);
  });

  test("every glyph is its own and stays in its box", () => {
    const shapes = new Map<string, string>();
    for (let code = 33; code < 127; code++) {
      const character = String.fromCharCode(code);
      const pixels: string[] = [];
      drawText(character, (x, y) => {
        expect(x >= 0 && x < textWidth(character) && y >= 0 && y < 8).toBe(true);
        pixels.push(`${x},${y}`);
      });
      const shape = pixels.join(" ");
      const twin = shapes.get(shape);
      if (/[A-Za-z0-9.,:;!?%()+=<>#&'"/_*-]/.test(character) && character !== ";") expect([character, twin]).toEqual([character, undefined]);
      shapes.set(shape, character);
    }
  });
});

const dot: Image = { width: 1, height: 1, channels: 3, data: Uint8Array.of(1, 2, 3) };

function expectBalanced(html: string): void {
  const open: string[] = [];
  const empty = new Set(["meta", "img", "br"]);
  for (const [tag, slash, name = "", rest = ""] of html.matchAll(/<(\/?)([a-zA-Z][a-zA-Z0-9]*)([^>]*)>/g)) {
    if (slash) expect([tag, open.pop()]).toEqual([tag, name]);
    else if (!empty.has(name) && !rest.endsWith("/")) open.push(name);
  }
  expect(open).toEqual([]);
}
