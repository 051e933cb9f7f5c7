/** A predictor for labels that exist only where somebody chose to look (only pre-screened images were rated), made identifiable by what is known of the
 *  domain: the prevalence of alignment in all outputs, and which features the choice to look may depend on beyond risk. It improves the predictor. It does not
 *  restore exchangeability: a conformal guarantee still needs a calibration set drawn at random. */

import { ConfigError, DataError, ShapeError } from "../../errors.js";
import { minimise } from "./bfgs.js";
import type { FittedPredictor } from "./predictor.js";
import { marginalRisk, unitLikelihood } from "./selective-likelihood.js";
import { checkRows } from "./training-data.js";
import { dot } from "./vector.js";

export interface SelectiveLabelsOptions {
  /** Known share of aligned outputs among all rows, looked at or not, and how strongly it is enforced: weight * rows * (implied - known)^2 is added to the
   *  negative log posterior. Default: unknown. */
  readonly prevalence?: { readonly known: number; readonly weight?: number };
  /** Columns by which the choice to look may differ from risk ("expertise": on all others the chooser judges as well as the model can). Default: all. */
  readonly choiceColumns?: readonly number[];
  /** Prior standard deviation of every coefficient and of the unobservables' width. Default 3. */
  readonly priorDeviation?: number;
}

export interface SelectiveLabelsData {
  readonly x: readonly Float64Array[];
  /** 0 or 1; not read where `tested` is 0. */
  readonly y: Float64Array;
  /** 1 where the label was seen. */
  readonly tested: Float64Array;
}

export interface FittedSelectiveLabels extends FittedPredictor {
  /** Of risk; the intercept last. */
  readonly risk: Float64Array;
  /** Of the choice to look, beyond risk: one per choice column, then the intercept. */
  readonly choice: Float64Array;
  /** Width s of the unobservables Z ~ U(0, s). */
  readonly width: number;
  readonly impliedPrevalence: number;
}

const subject = "selectiveLabels";

/** Posterior mode of: risk sig(x.bY + Z), choice to look sig(x.bY + Z + x.bD), Z ~ U(0, s); an intercept is added to both; priors N(0, 3^2). The paper samples
 *  the posterior; the mode is its cheap summary. Scores are marginal risks. */
export function selectiveLabels(options: SelectiveLabelsOptions = {}): { readonly name: string; fit(data: SelectiveLabelsData): FittedSelectiveLabels } {
  const { prevalence, priorDeviation = 3 } = options;
  if (!(priorDeviation > 0)) throw new ConfigError(subject, "priorDeviation", "> 0", priorDeviation);
  if (prevalence && !(prevalence.known > 0 && prevalence.known < 1)) throw new ConfigError(subject, "prevalence.known", "in (0, 1)", prevalence.known);
  return {
    name: subject,
    fit(data) {
      const columns = checkData(data);
      const choice = options.choiceColumns ?? [...Array(columns).keys()];
      for (const c of choice)
        if (!(Number.isInteger(c) && c >= 0 && c < columns)) throw new ConfigError(subject, "choiceColumns", `columns below ${columns}`, c);
      const x = data.x.map(row => Float64Array.of(...row, 1));
      const model = { ...data, x, choice: [...choice, columns] };
      const start = new Float64Array(columns + 1 + model.choice.length + 1); // log s = 0
      const best = minimise(parameters => objective(model, parameters, prevalence, priorDeviation), start);
      return fitted(model, best, columns);
    },
  };
}

function fitted(model: SelectiveModel, parameters: Float64Array, columns: number): FittedSelectiveLabels {
  const { bY, bD, s } = split(model, parameters);
  const risk = (row: Float64Array): number =>
    marginalRisk(
      row.reduce((sum, v, f) => sum + v * bY[f]!, bY[columns]!),
      s,
    ).risk;
  return {
    ...{ risk: bY, choice: bD, width: s },
    impliedPrevalence: model.x.reduce((sum, row) => sum + marginalRisk(dot(row, bY), s).risk, 0) / model.x.length,
    predict(rows) {
      checkRows(subject, rows, columns);
      return Float64Array.from(rows, risk);
    },
  };
}

interface SelectiveModel extends SelectiveLabelsData {
  /** Columns that enter the choice to look. */
  readonly choice: readonly number[];
}

function split(model: SelectiveModel, parameters: Float64Array): { readonly bY: Float64Array; readonly bD: Float64Array; readonly s: number } {
  const width = model.x[0]!.length;
  return { bY: parameters.slice(0, width), bD: parameters.slice(width, width + model.choice.length), s: Math.exp(parameters.at(-1)!) };
}

export interface SelectiveLoss {
  /** Sum over units of -log likelihood. */
  readonly loss: number;
  readonly bY: Float64Array;
  readonly bD: Float64Array;
  readonly s: number;
}

/** -log likelihood and its gradient; columns of x are used as given, so a column of ones is the intercept. */
export function selectiveLoss(model: SelectiveModel, bY: Float64Array, bD: Float64Array, s: number): SelectiveLoss {
  const out = { loss: 0, bY: new Float64Array(bY.length), bD: new Float64Array(bD.length), s: 0 };
  for (const [i, row] of model.x.entries()) {
    const a = dot(row, bY),
      b = model.choice.reduce((sum, column, k) => sum + row[column]! * bD[k]!, a);
    const unit = unitLikelihood(a, b, s, model.tested[i]!, model.y[i]!);
    out.loss += unit.loss;
    out.s += unit.s;
    for (let f = 0; f < row.length; f++) out.bY[f]! += (unit.a + unit.b) * row[f]!;
    for (const [k, column] of model.choice.entries()) out.bD[k]! += unit.b * row[column]!;
  }
  return out;
}

function objective(model: SelectiveModel, parameters: Float64Array, prevalence: SelectiveLabelsOptions["prevalence"], deviation: number) {
  const { bY, bD, s } = split(model, parameters),
    grad = selectiveLoss(model, bY, bD, s);
  let { loss, s: ds } = grad;
  const [dY, dD] = [grad.bY, grad.bD];
  if (prevalence) {
    const risks = model.x.map(row => marginalRisk(dot(row, bY), s));
    const off = risks.reduce((sum, r) => sum + r.risk, 0) / risks.length - prevalence.known;
    const weight = (prevalence.weight ?? 100) * risks.length; // grows with the data, as the likelihood does
    loss += weight * off * off;
    for (const [i, r] of risks.entries()) {
      const scale = (2 * weight * off) / risks.length;
      ds += scale * r.s;
      for (let f = 0; f < dY.length; f++) dY[f]! += scale * r.a * model.x[i]![f]!;
    }
  }
  const gradient = Float64Array.of(...dY, ...dD, ds * s + (s / deviation) ** 2); // by log s
  const prior = [...bY, ...bD].reduce((sum, v) => sum + v * v, s * s) / (2 * deviation * deviation);
  for (let k = 0; k < bY.length + bD.length; k++) gradient[k]! += parameters[k]! / (deviation * deviation);
  return { value: loss + prior, gradient };
}

function checkData({ x, y, tested }: SelectiveLabelsData): number {
  if (x.length === 0 || y.length !== x.length || tested.length !== x.length)
    throw new ShapeError(subject, `expected x, y and tested of one length > 0, received ${x.length}, ${y.length}, ${tested.length}`);
  const width = x[0]!.length;
  checkRows(subject, x, width);
  for (let row = 0; row < x.length; row++) {
    if (tested[row] !== 0 && tested[row] !== 1) throw new DataError(subject, `expected 0 or 1, received ${tested[row]}`, { row, field: "tested" });
    if (tested[row] === 1 && y[row] !== 0 && y[row] !== 1) throw new DataError(subject, `expected a label 0 or 1, received ${y[row]}`, { row, field: "y" });
  }
  if (!tested.includes(1)) throw new DataError(subject, "expected a row with its label seen, received none", { field: "tested" });
  return width;
}
