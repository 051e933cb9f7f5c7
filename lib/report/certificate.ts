/** A conformal certificate as a page: the promise in words, the selection, and the curves and distributions that show what it rests on. Takes the plain data
 *  of the certificate, so it renders what was read from a file as well as what was just computed. */

import type { Certificate } from "../conformal/certificate.js";
import { type Content, columns, figure, type Html, markup, notice, page, paragraph, section, table } from "./html.js";
import { barChart, type ChartPoint, lineChart } from "./svg.js";

/** Selected units listed on the page; the file has all. */
const listed = 200;

export function certificatePage(certificate: Certificate): string {
  const { inputs, guarantee, result, units, warnings } = certificate;
  const share = `${result.k} of ${units.test}`;
  return page({
    title: inputs.title || "Certificate of selection",
    lead: `${share} units were selected with a false discovery rate of at most ${inputs.alpha}${guarantee.holds === "finite-sample" ? "" : ", as far as the estimated weights are right"}.`,
    body: [
      warnings.map(w => notice("warning", w.message)),
      section("What is promised", paragraph(guarantee.statement), markup`<ul>${guarantee.assumptions.map(a => markup`<li>${a}</li>`)}</ul>\n`),
      section("The selection", factTable(certificate), expectations(certificate)),
      section("Over alpha", ...overAlpha(certificate)),
      section("Scores and p-values", columns(scoreFigure(certificate), pValueFigure(certificate))),
      section("Selected units", selectedTable(certificate)),
      section("To check this", paragraph(check), factRows([["Input hash", markup`<code>${certificate.inputHash}</code>`]])),
    ],
  });
}

const check =
  "The JSON file of this certificate holds every score, label and setting. conformal.verifyCertificate computes everything in it again from these and names each difference.";

function factTable({ inputs, units, result }: Certificate): Html {
  const threshold = result.threshold === null ? "none: nothing was selected" : short(result.threshold);
  return factRows([
    ["Selected", result.k],
    ["Test units m", units.test],
    ["Calibration units n", units.calibration],
    ["of them not aligned", units.nulls],
    ["Bound alpha on the false discovery rate", inputs.alpha],
    ["Aligned means alignment above", inputs.cutoff ?? "given as labels"],
    ["Lowest selected score", threshold],
    ["Ties", inputs.ties],
    ["Seed", inputs.seed],
    [`Calibration units that a selection of ${percent(inputs.share)} needs`, result.minCalibration],
    ...(inputs.weights ? ([["Weighted conformal selection", `pruning ${inputs.pruning}`]] as const) : []),
  ]);
}

function factRows(rows: readonly (readonly [Content, Content])[]): Html {
  return table({ columns: ["", ""], rows: rows.map(([name, value]) => ({ cells: [name, value] })) });
}

function expectations({ rehearsal, inputs, curve }: Certificate): Content {
  const row = rehearsal?.rows.find(r => r.alpha === inputs.alpha),
    here = curve.find(r => r.alpha === inputs.alpha);
  if (!rehearsal || !row || !here)
    return notice("note", "There is no rehearsal on calibration units: under weights, or with a few units, it would not tell about the test units.");
  return [
    paragraph(
      `In ${rehearsal.repetitions} rehearsals on calibration units with known labels (${rehearsal.calibration} to calibrate, ${rehearsal.test} to select from), the share of selected units that were not aligned was ${percent(row.fdp.mean)} on average with a standard deviation of ${percent(row.fdp.sd)}; nine in ten lay between ${percent(row.fdp.low)} and ${percent(row.fdp.high)}. ${percent(row.power.mean)} of the aligned units were found (standard deviation ${percent(row.power.sd)}).`,
    ),
    paragraph(`At the threshold of this selection, ${percent(here.power)} of the aligned calibration units would be selected.`),
  ];
}

function overAlpha({ curve, rehearsal, inputs }: Certificate): Content[] {
  if (curve.length === 0) return [notice("note", "Curves over alpha are not shown for a weighted selection.")];
  const diagonal = { name: "alpha", points: curve.map(r => ({ x: r.alpha, y: r.alpha })), dashed: true, colour: 5 };
  const band = (pick: "fdp" | "power"): ChartPoint[] =>
    rehearsal?.rows.map(r => ({ x: r.alpha, y: r[pick].mean, low: Math.max(0, r[pick].mean - r[pick].sd), high: Math.min(1, r[pick].mean + r[pick].sd) })) ??
    [];
  const measured = rehearsal !== null;
  const fdr = lineChart({
    title: "False discovery proportion over alpha",
    series: [
      { name: measured ? "rehearsed, one sd" : "estimated", points: measured ? band("fdp") : curve.map(r => ({ x: r.alpha, y: r.fdp })), colour: 1 },
      diagonal,
    ],
    x: { label: "alpha" },
    y: { label: "false discovery proportion", min: 0 },
  });
  const power = lineChart({
    title: "Power over alpha",
    series: [
      ...(measured ? [{ name: "rehearsed, one sd", points: band("power"), colour: 0 }] : []),
      { name: "at the threshold", points: curve.map(r => ({ x: r.alpha, y: r.power })), dashed: measured, colour: 2 },
    ],
    x: { label: "alpha" },
    y: { label: "share of aligned units selected", min: 0, max: 1 },
  });
  return [
    columns(
      figure({ content: fdr, caption: "Share of selected units that are not aligned. Its mean stays below alpha; one selection can lie above." }),
      figure({ content: power, caption: "What a given alpha finds." }),
    ),
    table({
      columns: ["alpha", "selected", ...(measured ? ["rehearsed FDP", "sd", "rehearsed power", "sd"] : ["estimated FDP", "estimated power"])],
      rows: curve.map((r, i) => ({ cells: [r.alpha, r.k, ...rates(r, rehearsal?.rows[i])], marked: r.alpha === inputs.alpha })),
    }),
  ];
}

function rates(row: Certificate["curve"][number], rehearsed: NonNullable<Certificate["rehearsal"]>["rows"][number] | undefined): string[] {
  if (!rehearsed) return [percent(row.fdp), percent(row.power)];
  return [rehearsed.fdp.mean, rehearsed.fdp.sd, rehearsed.power.mean, rehearsed.power.sd].map(percent);
}

function scoreFigure({ scores, result }: Certificate): Html {
  const series = [
    { name: "aligned", histogram: scores.aligned, colour: 2 },
    { name: "not aligned", histogram: scores.notAligned, colour: 1 },
    { name: "test", histogram: scores.test, colour: 0, dashed: true },
  ].map(({ histogram, ...rest }) => ({ ...rest, points: density(histogram) }));
  const top = Math.max(...series.flatMap(s => s.points.map(p => p.y)));
  const at = Number(result.threshold);
  const cut =
    result.threshold !== null && Number.isFinite(at)
      ? [
          {
            name: "threshold",
            points: [
              { x: at, y: 0 },
              { x: at, y: top },
            ],
            dashed: true,
            colour: 5,
          },
        ]
      : [];
  const content = lineChart({
    title: "Distribution of scores",
    series: [...series, ...cut],
    x: { label: "score" },
    y: { label: "share of units per bin", min: 0 },
  });
  return figure({ content, caption: "Calibration units by label, and test units. Test scores far from the calibration scores are a sign of shift." });
}

function density({ edges, counts }: Certificate["pValues"]): { x: number; y: number }[] {
  const total = Math.max(
    1,
    counts.reduce((a, b) => a + b, 0),
  );
  return counts.map((count, i) => ({ x: (edges[i]! + edges[i + 1]!) / 2, y: count / total }));
}

function pValueFigure({ pValues: { edges, counts } }: Certificate): Html {
  const groups = counts.map((value, i) => ({ label: i % 4 === 0 ? edges[i]!.toFixed(1) : "", bars: [{ value }] }));
  const content = barChart({ title: "p-values of the test units", groups, series: [{ name: "test units", colour: 0 }], y: { label: "units per bin of 0.05" } });
  return figure({ content, caption: "p-values of the test units, by the lower end of the bin. A peak at the left is what can be selected." });
}

function selectedTable({ result: { selected } }: Certificate): Content {
  if (selected.length === 0) return paragraph("None.");
  const rows = selected.slice(0, listed).map(({ id, score, pValue }) => ({ cells: [id, short(score), short(pValue)] }));
  const more = selected.length > listed ? `The first ${listed} of ${selected.length}; the file of the certificate has all.` : undefined;
  return table({ columns: ["unit", "score", "p-value"], rows, ...(more && { caption: more }) });
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function short(value: number | string): string {
  return typeof value === "number" ? String(Number(value.toPrecision(5))) : value;
}
