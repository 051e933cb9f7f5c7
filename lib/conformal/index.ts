/** Conformal selection: which outputs can be trusted, with a bound on the share of wrong ones among them. See docs/conformal.md. */

export { type AlignmentInput, type AlignmentSelector, conformalAlignment, fitAlignment, fitAlignmentAsync, type TestInput } from "./alignment.js";
export {
  type Annotator,
  type Assignment,
  assignAnnotators,
  brierRule,
  commitTo,
  informationGain,
  logRule,
  probesPerAnnotator,
  type ScoringRule,
} from "./annotation.js";
export { adjustedPValues, benjaminiHochberg, benjaminiYekutieli, type StepUp, storey } from "./bh.js";
export { type ConditionalBounds, calibrationConditionalPValues, dkwmBounds, simesBounds } from "./calibration-conditional.js";
export { type Certificate, certify, writeCertificate } from "./certificate.js";
export type { CertificateInput } from "./certificate-inputs.js";
export { certifyGroups, certifyTable, type TableInput } from "./certify-table.js";
export type { LabelledScores } from "./check.js";
export { type ConformityOptions, type ConformityScore, clip, conformityPValues, type MeasuredUnits, residual } from "./conformity.js";
export { averagedScores, derandomised, type EValueRun } from "./derandomise.js";
export { averagedEValues, boosted, calibrated, type EValues, eBh, eValues, rootCalibrator, thresholdEValues } from "./e-values.js";
export { type DenoisingErrors, denoisingErrorFeatures } from "./features/denoising-errors.js";
export { type Fill, fillConstant, fillMean, fillMedian, fillMissing, refuseMissing } from "./features/missing.js";
export { promptStatistics } from "./features/prompt-statistics.js";
export { type AnswerLogProbs, answerRisk, ensembleFeatures, type TextNormScores, textNormFeatures } from "./features/reward-features.js";
export { columnOf, type FeatureTable, featureTable, joinFeatures, takeRows } from "./features/table.js";
export { chainTransforms, type FeatureTransform, type FittedTransform, standardise } from "./features/transform.js";
export type { Guarantee } from "./guarantee.js";
export {
  type Binning,
  type BrierParts,
  brierDecomposition,
  brierScore,
  calibrationError,
  equalMassBins,
  equalWidthBins,
  logScore,
  type ReliabilityBin,
  type RiskReport,
  reliabilityCurve,
  riskReport,
  topLabel,
} from "./metrics-calibration.js";
export { areaUnderRoc, averagePrecision, precisionAtK } from "./metrics-ranking.js";
export { type Combination, jointLabel, jointScore } from "./multi-criteria.js";
export { type LevelRule, lond, lordPlusPlus, type OnlineProcedure, type RuleState, saffron } from "./online.js";
export {
  EValueStream,
  type OnlineDecision,
  type OnlineSelection,
  type OnlineSelectionInput,
  OnlineStream,
  onlineSelection,
  type StreamState,
} from "./online-stream.js";
export { type OptCsInput, type OptCsSelection, optCs } from "./optcs.js";
export { type PValueKind, type PValues, superuniformPValues } from "./p-value-kinds.js";
export { alignmentPValues, type CalibrationKind, lexicographicPValues, randomisedPValues } from "./p-values.js";
export { type FittedBoosting, type GradientBoostingOptions, gradientBoosting } from "./predictors/boosting.js";
export { exactSplits } from "./predictors/boosting-exact.js";
export { histogramSplits } from "./predictors/boosting-histogram.js";
export type { SplitSearch } from "./predictors/boosting-rules.js";
export type { CalibrationOptions } from "./predictors/calibration.js";
export { type CartOptions, cart, type FittedCart } from "./predictors/cart.js";
export { type FittedForest, type RandomForestOptions, randomForest } from "./predictors/forest.js";
export { type IsotonicFit, isotonicCalibration, isotonicRegression } from "./predictors/isotonic.js";
export { type FittedLogistic, logisticRegression } from "./predictors/logistic.js";
export { type NearestNeighboursOptions, nearestNeighbours } from "./predictors/nearest-neighbours.js";
export { type PermutationImportance, type PermutationImportanceOptions, permutationImportance } from "./predictors/permutation-importance.js";
export { type PlattFit, plattCalibration, plattScaling } from "./predictors/platt.js";
export type { FittedPredictor, Predictor, PredictorOf, TrainingData } from "./predictors/predictor.js";
export { type FittedSelectiveLabels, type SelectiveLabelsData, type SelectiveLabelsOptions, selectiveLabels } from "./predictors/selective-labels.js";
export { standardised } from "./predictors/standardised.js";
export { fitAsync } from "./predictors/steps.js";
export type { Tree } from "./predictors/tree.js";
export type { Pruning } from "./pruning.js";
export type { Rehearsal, RehearsalRow, Spread } from "./rehearsal.js";
export { type RiskControlInput, riskThreshold } from "./risk-control.js";
export { type SelectInput, type Selection, select, type Ties } from "./select.js";
export { type EstimatedWeights, estimateShiftWeights } from "./shift.js";
export { type Split, type SplitShares, splitUnits } from "./split.js";
export { parseCsv } from "./table-csv.js";
export { type Cell, parseJsonLines, readTable, type Table } from "./table-file.js";
export { scoreThreshold, type ThresholdRule } from "./threshold.js";
export { type Mismatch, type Verification, verifyCertificate } from "./verify.js";
export { minCalibration, type Warning } from "./warnings.js";
export { type WcsInput, type WcsSelection, weightedConformalSelection } from "./wcs.js";
export { type ShiftWeights, weightedPValues } from "./weighted.js";
