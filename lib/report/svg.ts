/** Line and bar charts as inline SVG: axes with round numbers, a legend, confidence bands. They take the colours of the page they stand in. */

import { escapeHtml, Html } from "./html.js";
import { fallbackColours, seriesColours } from "./style.js";

export interface ChartPoint {
  readonly x: number;
  readonly y: number;
  /** Ends of a confidence interval, drawn as a band. */
  readonly low?: number;
  readonly high?: number;
}

export interface Axis {
  readonly label: string;
  /** Limits that the data may widen; default: the data. */
  readonly min?: number;
  readonly max?: number;
  /** Default: as few digits as the tick step needs. */
  readonly format?: (value: number) => string;
}

export interface LineChart {
  /** What the chart shows, for readers who do not see it. */
  readonly title: string;
  readonly series: readonly { readonly name: string; readonly points: readonly ChartPoint[]; readonly dashed?: boolean; readonly colour?: number }[];
  readonly x: Axis;
  readonly y: Axis;
  /** Horizontal reference lines. */
  readonly marks?: readonly { readonly y: number; readonly label: string }[];
}

const size = { width: 480, height: 310 };
const frame = { left: 52, right: 14, top: 54, bottom: 44 };
const plot = { width: size.width - frame.left - frame.right, height: size.height - frame.top - frame.bottom };

/** Lines with markers, one per series. Points that are not finite interrupt the line. */
export function lineChart({ title, series, x, y, marks = [] }: LineChart): Html {
  const points = series.flatMap(s => s.points).filter(isFinitePoint);
  const xs = scaleOf(
    points.map(p => p.x),
    x,
    false,
  );
  const ys = scaleOf([...points.flatMap(p => [p.y, p.low ?? p.y, p.high ?? p.y]), ...marks.map(m => m.y)], y, true);
  const px = (value: number) => frame.left + xs.at(value) * plot.width;
  const py = (value: number) => frame.top + (1 - ys.at(value)) * plot.height;
  const body = series.map((s, i) =>
    finiteRuns(s.points)
      .map(run => line(run, { colour: paint(s.colour ?? i), dashed: s.dashed ?? false, dense: s.points.length > 40, px, py }))
      .join(""),
  );
  const ticks = xs.ticks.map(t => `<text x="${f(px(t.value))}" y="${size.height - frame.bottom + 17}" text-anchor="middle">${escapeHtml(t.label)}</text>`);
  return svg(title, [
    horizontalLines(ys, py, y.label),
    ...ticks,
    xLabel(x.label),
    ...body,
    ...marks.map(m => markLine(m, py)),
    legend(series.map((s, i) => ({ name: s.name, colour: s.colour ?? i, dashed: s.dashed ?? false }))),
  ]);
}

interface LineLook {
  readonly colour: string;
  readonly dashed: boolean;
  /** Too many points for markers. */
  readonly dense: boolean;
  readonly px: (value: number) => number;
  readonly py: (value: number) => number;
}

function line(run: readonly ChartPoint[], { colour, dashed, dense, px, py }: LineLook): string {
  const at = (x: number, y: number) => `${f(px(x))},${f(py(y))}`;
  const path = run.map(p => at(p.x, p.y)).join(" ");
  const outline = [...run.map(p => at(p.x, p.high ?? p.y)), ...run.toReversed().map(p => at(p.x, p.low ?? p.y))].join(" ");
  const band = run.some(p => p.low !== undefined) ? `<polygon fill="${colour}" opacity=".15" points="${outline}"/>` : "";
  const dots = dense ? "" : run.map(p => `<circle cx="${f(px(p.x))}" cy="${f(py(p.y))}" r="2.6" fill="${colour}"/>`).join("");
  return `${band}<polyline fill="none" stroke="${colour}" stroke-width="${dense ? 1.4 : 2}" stroke-linejoin="round"${dashed ? ' stroke-dasharray="5 4"' : ""} points="${path}"/>${dots}`;
}

export interface BarChart {
  readonly title: string;
  readonly groups: readonly { readonly label: string; readonly bars: readonly { readonly value: number; readonly low?: number; readonly high?: number }[] }[];
  /** One per bar of a group. */
  readonly series: readonly { readonly name: string; readonly colour?: number }[];
  readonly y: Axis;
  readonly marks?: readonly { readonly y: number; readonly label: string }[];
}

/** Groups of bars from zero, with whiskers for confidence intervals. */
export function barChart({ title, groups, series, y, marks = [] }: BarChart): Html {
  const ys = scaleOf(
    [0, ...groups.flatMap(g => g.bars.flatMap(b => [b.value, b.low ?? b.value, b.high ?? b.value])), ...marks.map(m => m.y)].filter(Number.isFinite),
    y,
    true,
  );
  const py = (value: number) => frame.top + (1 - ys.at(value)) * plot.height;
  const groupWidth = plot.width / groups.length;
  const barWidth = Math.min(34, (groupWidth * 0.8) / series.length);
  const body = groups.map((group, g) => {
    const middle = frame.left + (g + 0.5) * groupWidth;
    const start = middle - (barWidth * group.bars.length) / 2;
    const bars = group.bars.map((bar, i) => {
      if (!Number.isFinite(bar.value)) return "";
      const x = start + i * barWidth;
      const top = Math.min(py(bar.value), py(0));
      const height = Math.abs(py(bar.value) - py(0));
      const rect = `<rect x="${f(x + 1)}" y="${f(top)}" width="${f(barWidth - 2)}" height="${f(Math.max(0.5, height))}" rx="2" fill="${paint(series[i]?.colour ?? i)}"/>`;
      if (bar.low === undefined || bar.high === undefined) return rect;
      const centre = f(x + barWidth / 2);
      return `${rect}<path d="M${centre} ${f(py(bar.low))}V${f(py(bar.high))}" stroke="currentColor" stroke-width="1.5"/>`;
    });
    return `${bars.join("")}<text x="${f(middle)}" y="${size.height - frame.bottom + 17}" text-anchor="middle">${escapeHtml(group.label)}</text>`;
  });
  return svg(title, [
    horizontalLines(ys, py, y.label),
    ...body,
    ...marks.map(m => markLine(m, py)),
    legend(series.map((s, i) => ({ name: s.name, colour: s.colour ?? i }))),
  ]);
}

interface Scale {
  /** 0 at the low end, 1 at the high end. */
  at(value: number): number;
  readonly ticks: readonly { readonly value: number; readonly label: string }[];
}

/** A linear scale over the data; `round` widens it to whole ticks. */
function scaleOf(values: readonly number[], { min, max, format }: Axis, round: boolean): Scale {
  const all = [...values, ...(min === undefined ? [] : [min]), ...(max === undefined ? [] : [max])];
  let low = all.reduce((a, b) => Math.min(a, b), Infinity);
  let high = all.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  const least = Math.max(1e-12, 1e-9 * Math.max(Math.abs(low), Math.abs(high))); // narrower spans have no round ticks in double precision
  if (high - low < least) [low, high] = [low - Math.max(0.5, least), high + Math.max(0.5, least)];
  const step = tickStep(high - low);
  const ends = round ? [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step] : [low, high];
  const [from, to] = ends as [number, number];
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const count = Math.floor((to - Math.ceil(from / step - 1e-9) * step) / step + 1e-9) + 1;
  const ticks = Array.from({ length: count }, (_, i) => (Math.ceil(from / step - 1e-9) + i) * step);
  return { at: value => (value - from) / (to - from), ticks: ticks.map(value => ({ value, label: format ? format(value) : value.toFixed(digits) })) };
}

/** 1, 2 or 5 times a power of ten: four to eight ticks in `span`. */
function tickStep(span: number): number {
  const power = 10 ** Math.floor(Math.log10(span / 4));
  const ratio = span / 4 / power;
  return power * (ratio >= 5 ? 5 : ratio >= 2 ? 2 : 1);
}

function horizontalLines(ys: Scale, py: (value: number) => number, label: string): string {
  const lines = ys.ticks.map(t => {
    const y = f(py(t.value));
    return `<path d="M${frame.left} ${y}H${size.width - frame.right}" stroke="currentColor" opacity=".14"/><text x="${frame.left - 7}" y="${y}" dy=".32em" text-anchor="end">${escapeHtml(t.label)}</text>`;
  });
  return `${lines.join("")}<text x="4" y="${frame.top - 14}" opacity=".75">${escapeHtml(label)}</text>`; // level, not turned: read without tilting the head
}

function xLabel(label: string): string {
  return `<text x="${f(frame.left + plot.width / 2)}" y="${size.height - 6}" text-anchor="middle" opacity=".75">${escapeHtml(label)}</text>`;
}

function markLine({ y, label }: { y: number; label: string }, py: (value: number) => number): string {
  const at = f(py(y));
  const right = size.width - frame.right;
  return `<path d="M${frame.left} ${at}H${right}" stroke="currentColor" stroke-dasharray="2 3" opacity=".6"/><text x="${right}" y="${at}" dy="-4" text-anchor="end" opacity=".75" font-size="11">${escapeHtml(label)}</text>`;
}

function legend(entries: readonly { name: string; colour: number; dashed?: boolean }[]): string {
  let x = 4;
  return entries
    .map(({ name, colour, dashed }) => {
      const at = x;
      x += 36 + name.length * 6.6;
      return `<path d="M${f(at)} 15h20" stroke="${paint(colour)}" stroke-width="3"${dashed ? ' stroke-dasharray="5 4"' : ""}/><text x="${f(at + 25)}" y="15" dy=".34em">${escapeHtml(name)}</text>`;
    })
    .join("");
}

function svg(title: string, parts: readonly string[]): Html {
  const body = `<title>${escapeHtml(title)}</title><g fill="currentColor" font-family="system-ui, sans-serif" font-size="12">${parts.join("")}</g>`;
  return new Html(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" role="img" aria-label="${escapeHtml(title)}">${body}</svg>`,
  );
}

function paint(colour: number): string {
  const i = colour % seriesColours;
  return `var(--series-${i}, ${fallbackColours[i]})`;
}

function isFinitePoint(p: ChartPoint): boolean {
  return Number.isFinite(p.x) && Number.isFinite(p.y);
}

function finiteRuns(points: readonly ChartPoint[]): ChartPoint[][] {
  const runs: ChartPoint[][] = [[]];
  for (const point of points) {
    if (isFinitePoint(point)) runs.at(-1)!.push(point);
    else runs.push([]);
  }
  return runs.filter(run => run.length > 0);
}

function f(value: number): string {
  return String(Math.round(value * 10) / 10);
}
