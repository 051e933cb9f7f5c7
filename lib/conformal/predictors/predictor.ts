/** What the selector asks of a predictor of alignment: fit on the training split, then score. Larger scores mean "more likely aligned"; only their
 *  order decides power, and no property of a predictor enters the guarantee. */

/** X: rows of equal length; y: 0/1 labels (or numbers in [0, 1] where a predictor says so). */
export interface Predictor {
  readonly name: string;
  /** Deterministic in data, `seed` (default 0) and options. Works on the calling thread; `signal` is looked at between trees, rounds and folds and its
   *  reason thrown, so it stops a run that was cancelled before that point. Throws DataError or ShapeError on rows or labels that cannot be used. */
  fit(
    data: { readonly x: readonly Float64Array[]; readonly y: Float64Array; readonly weights?: Float64Array },
    options?: { readonly seed?: number; readonly signal?: AbortSignal },
  ): FittedPredictor;
  /** The same fit in pieces of a few milliseconds on data of moderate size, for `fitAsync` and `fitAlignmentAsync`. Without it a fit is one piece. */
  steps?(...args: Parameters<Predictor["fit"]>): Generator<undefined, FittedPredictor>;
}

/** predict: one score per row, larger = more likely aligned. */
export interface FittedPredictor {
  predict(x: readonly Float64Array[]): Float64Array;
  /** One number >= 0 per feature, summing to 1 unless all are 0; what it measures is the predictor's to say. */
  readonly featureImportance?: Float64Array;
}

export type TrainingData = Parameters<Predictor["fit"]>[0];
export type FitOptions = NonNullable<Parameters<Predictor["fit"]>[1]>;

/** A predictor whose fitted form has more to show than scores. */
export interface PredictorOf<F extends FittedPredictor> extends Predictor {
  fit(...args: Parameters<Predictor["fit"]>): F;
  steps?(...args: Parameters<Predictor["fit"]>): Generator<undefined, F>;
}
