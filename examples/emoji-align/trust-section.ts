/** The report's part about trust: how many pictures of each model can be certified, and what that says about the model. */

import type { Image } from "../../lib/data/image.js";
import { imageGrid } from "../../lib/report/grid.js";
import { columns, figure, type Html, markup, notice, paragraph, section, table } from "../../lib/report/html.js";
import { barChart } from "../../lib/report/svg.js";
import { trustLevels } from "./trust.js";
import type { TrustedModel } from "./trust-run.js";

/** Pictures of a row. */
const shown = 10;

export function trustSection(models: readonly TrustedModel[]): Html {
  const [base] = models as readonly [TrustedModel, ...TrustedModel[]];
  return section(
    "Which pictures can be trusted",
    paragraph(
      `Somebody has judged ${base.calibration} pictures of a model: does it still show its concept? Which of its ${base.test} other pictures can go out unseen, so that at most one in ten of them is wrong on average? `,
      "Conformal selection answers with a guarantee, whatever the score is. The judgement here is the demo's own measure and stands for a person's. The score does not know it: it is how much the pictures that the model draws of one prompt from two seeds agree.",
    ),
    results(models),
    columns(
      chart(models),
      figure({
        content: grid(models),
        caption: "Of the certificate on file, alpha 0.1: certified pictures, most trusted first, and below them the refused, most trusted first.",
      }),
    ),
    paragraph(reading(models)),
    ...stale(models),
    paragraph("What each feature knows, as the area under the ROC curve (0.5 is chance, below it a smaller number is better):"),
    features(models),
    paragraph(
      "Certificates: ",
      models.map((m, i) => markup`${i > 0 ? ", " : ""}<a href="${m.page}">${m.model}</a>`),
      ". The JSON beside each page holds what it was computed from; npx attune certify --verify checks it.",
    ),
  );
}

function results(models: readonly TrustedModel[]): Html {
  const { calibration, test } = models[0]!;
  return table({
    columns: ["", "show their concept", ...trustLevels.flatMap(alpha => [`certified at ${alpha}`, "wrong among them"])],
    rows: models.map(m => ({
      cells: [
        m.model,
        percent(m.shows),
        ...m.levels.flatMap(({ certified, deviation, wrong }) => [markup`${certified.toFixed(0)} <small>sd ${deviation.toFixed(0)}</small>`, percent(wrong)]),
      ],
    })),
    caption: `Pictures of ${test} prompts, after ${calibration} judged ones; means over 200 random halves of the held-out prompts.`,
  });
}

function chart(models: readonly TrustedModel[]): Html {
  const share = (m: TrustedModel, at: number) => {
    const { certified, deviation } = m.levels[at]!;
    return { value: certified / m.test, low: Math.max(0, certified - deviation) / m.test, high: Math.min(m.test, certified + deviation) / m.test };
  };
  const content = barChart({
    title: "share of pictures that can be certified, per model",
    groups: trustLevels.map((alpha, at) => ({ label: `false discovery rate ${alpha}`, bars: models.map(m => share(m, at)) })),
    series: models.map(({ model }, i) => ({ name: model, colour: i === 0 ? 5 : i - 1 })),
    y: { label: "share of pictures certified", min: 0, max: 1, format: percent },
  });
  return figure({ content, caption: "One standard deviation over random halves." });
}

function grid(models: readonly TrustedModel[]): Image {
  const rows = models.flatMap(({ model, certified, refused }) => [
    { caption: `${model} certified ${certified.length}`, pictures: certified },
    { caption: `refused ${refused.length}`, pictures: refused },
  ]);
  return imageGrid({ rows: rows.map(r => Array.from({ length: shown }, (_, i) => r.pictures[i])), rowCaptions: rows.map(r => r.caption), zoom: 3 });
}

/** What the numbers say, whichever way they fall. */
function reading(models: readonly TrustedModel[]): string {
  const [base, ...aligned] = models as readonly [TrustedModel, ...TrustedModel[]];
  const counts = (m: TrustedModel): string => m.levels.map(({ certified, alpha }) => `${certified.toFixed(0)} at ${alpha}`).join(" and ");
  const sentences = aligned.map(m => {
    const lost = m.levels.map(({ certified }, at) => 1 - certified / Math.max(1, base.levels[at]!.certified)),
      found = `${m.model}: ${counts(m)}`;
    if (lost.every(l => l > 0.5))
      return `${found}: most of what could be trusted before can no longer be, at either level; the certificate exposes this model.`;
    if (lost.some(l => l > 0.5))
      return `${found}: at the stricter level most of the trust is lost, because more of its pictures are wrong than that allows and the score does not know which.`;
    return lost.some(l => l > 0.15) ? `${found}: some of the trust is lost.` : `${found}: the certificate sees no loss worth the name.`;
  });
  return `A model that gives up its concepts for the preferred style has fewer pictures to trust, however many comparisons it wins. Of ${base.test} pictures, base model: ${counts(base)}. ${sentences.join(" ")}`;
}

/** The trap: a certificate calibrated before alignment, used after it. */
function stale(models: readonly TrustedModel[]): Html[] {
  const rows = models.flatMap(m =>
    m.stale ? [{ cells: [m.model, ...m.stale.flatMap(({ certified, wrong }) => [certified.toFixed(0), percent(wrong)])] }] : [],
  );
  if (rows.length === 0) return [];
  return [
    notice(
      "warning",
      "A certificate belongs to the model that it was calibrated with. Below, pictures of the base model calibrate and pictures of the aligned ones are certified: nothing is promised any more, and what comes out may be far above alpha.",
    ),
    table({ columns: ["calibrated with the base model", ...trustLevels.flatMap(alpha => [`certified at ${alpha}`, "wrong among them"])], rows }),
  ];
}

function features(models: readonly TrustedModel[]): Html {
  const names = Object.keys(models[0]!.auc).filter(name => models.some(m => m.auc[name] !== 0.5)); // a constant says nothing
  return table({
    columns: ["", ...models.map(m => m.model)],
    rows: names.map(name => ({ cells: [name, ...models.map(m => auc(m.auc[name]!))], marked: name === "score" })),
  });
}

const auc = (value: number): string => (Number.isNaN(value) ? "" : value.toFixed(2));

function percent(value: number): string {
  return `${(100 * value).toFixed(0)} %`;
}
