/** Every public name of attune. */

export { type CommandConfig, type CommandName, parseConfig, schemas } from "./config/schemas.js";
export * as conformal from "./conformal/index.js";
export { hubCache, type ResolveOptions, resolveModel } from "./data/hub-cache.js";
export { decodePng, encodePng, type Image, overWhite, toRgb } from "./data/image.js";
export { decodeImage, type EncodeImageOptions, encodeImage } from "./data/image-codec.js";
export { PickleTuple, type PickleValue } from "./data/pickle-value.js";
export {
  type ClipImageOptions,
  clipImages,
  clipMean,
  clipStd,
  imagesOf,
  type TrainingImage,
  type TrainingOptions,
  trainingImage,
  vaeImages,
} from "./data/preprocess.js";
export { bicubic, bilinear, lanczos, type ResampleFilter, resize } from "./data/resample.js";
export { type DeferredTensor, readSafetensors, SafetensorsFile, type TensorFile, type TensorPlace, writeSafetensors } from "./data/safetensors.js";
export { ClipTokenizer, type EncodeOptions, type TokenBatch, type Truncation } from "./data/tokenizer.js";
export type { AddedToken, SpecialTokens, TokenizerData } from "./data/tokenizer-files.js";
export { readTorchFile, TorchFile } from "./data/torch-file.js";
export { readTensors, readWeights } from "./data/weights.js";
export { type WordPieceOptions, WordPieceTokenizer } from "./data/wordpiece.js";
export { type Device, openDevice } from "./device.js";
export type { Condition, Denoiser } from "./diffusion/denoiser.js";
export {
  type FlowSchedule,
  type FlowScheduleOptions,
  flowSchedule,
  logitNormalDensity,
  type TimestepDensity,
  uniformDensity,
} from "./diffusion/flow.js";
export { type NoiseSchedule, type NoiseScheduleOptions, noiseSchedule, noiseScheduleFromConfig, type PredictionType, snr } from "./diffusion/noise-schedule.js";
export { type SampleOptions, Sampler, type SamplerOptions } from "./diffusion/sampler.js";
export { ddimFromConfig, ddpmFromConfig, type SchedulerArguments, schedulerFromConfig } from "./diffusion/scheduler-config.js";
export { unetDenoiser } from "./diffusion/unet-denoiser.js";
export * from "./errors.js";
export { compileGraph } from "./graph/compile.js";
export { printProgram } from "./graph/print.js";
export type { Program } from "./graph/program.js";
export { type Executable, Session, type SessionOptions, type Trace } from "./graph/session.js";
export { type LoadLoraOptions, ModelAdapters, type SaveLoraOptions } from "./models/adapters.js";
export { type BlipConfig, blipLargeVision, parseMedConfig } from "./models/blip-config.js";
export { type ClipConfig, type ClipTextConfig, type ClipVisionConfig, parseClipConfig, parseClipTextConfig } from "./models/clip-config.js";
export type { ClipTextHostInputs, ClipTextSelection } from "./models/clip-graphs.js";
export {
  Clip,
  type ClipCreateOptions,
  type ClipGradients,
  type ClipHostInputs,
  type ClipImageFeatures,
  type ClipLoadOptions,
  type ClipResults,
} from "./models/clip-model.js";
export {
  ClipText,
  type ClipTextCotangents,
  type ClipTextCreateOptions,
  type ClipTextFeatures,
  type ClipTextLoadOptions,
  type ClipTextRunOptions,
} from "./models/clip-text-model.js";
export type { ModelGradients } from "./models/gradients.js";
export { type LoraFile, readLora } from "./models/lora-file.js";
export type { ComponentName, LoraComponent } from "./models/lora-names.js";
export { type WriteLoraOptions, type WrittenAdapter, writeLora } from "./models/lora-write.js";
export type { ModelCreateOptions, ModelLoadOptions } from "./models/model-handle.js";
export { openClipVitH14, openClipVitL14, openClipWeights, parseOpenClipConfig } from "./models/open-clip.js";
export type { Recompute, RecomputeOptions } from "./models/regions.js";
export { type Conversion, type ConvertControl, type ToDiffusersOptions, type ToSingleFileOptions, toDiffusers, toSingleFile } from "./models/single-file.js";
export { parseUNetConfig, type UNetConfig } from "./models/unet-config.js";
export { UNet, type UNetCreateOptions, type UNetGradients, type UNetLoadOptions } from "./models/unet-model.js";
export { parseVaeConfig, type VaeConfig } from "./models/vae-config.js";
export {
  AutoencoderKL,
  type HostPosterior,
  type PosteriorNoise,
  type VaeCreateOptions,
  type VaeGradientInputs,
  type VaeGradients,
  type VaeLoadOptions,
  type VaeRunOptions,
} from "./models/vae-model.js";
export type { TilingOptions } from "./models/vae-tiles.js";
export { type Adapter, LoraAdapter, type LoraOptions, LoraStack } from "./nn/lora.js";
export { ParameterStore, Params } from "./nn/params.js";
export { adpo } from "./objectives/adpo.js";
export { adpoListwise, type ListwiseOptions, plackettLuce } from "./objectives/adpo-listwise.js";
export { conservativeDpo, type LabelNoiseOptions } from "./objectives/conservative-dpo.js";
export { diffusionDpo } from "./objectives/diffusion-dpo.js";
export { alphaDivergence, type Divergence, forwardKl, jensenShannon, reverseKl } from "./objectives/divergences.js";
export { type DmpoOptions, dmpo } from "./objectives/dmpo.js";
export { dspo } from "./objectives/dspo.js";
export { dspoSdxl } from "./objectives/dspo-sdxl.js";
export { dspoTwoTemperature, type TwoTemperatureOptions } from "./objectives/dspo-two-temperature.js";
export { type FDpoOptions, fDpo } from "./objectives/f-dpo.js";
export { flowDpo } from "./objectives/flow-dpo.js";
export { hinge } from "./objectives/hinge.js";
export { type IpoOptions, ipo } from "./objectives/ipo.js";
export {
  balancedOffset,
  convexUtility,
  type KtoOffset,
  type KtoOptions,
  type KtoUtility,
  kto,
  lossAverseUtility,
  meanOffset,
  prospectUtility,
  riskSeekingUtility,
} from "./objectives/kto.js";
export { type LdDpoOptions, ldDpo } from "./objectives/ld-dpo.js";
export { type MapoOptions, mapo } from "./objectives/mapo.js";
export { type Contrast, type McmDpoOptions, mcmDpo } from "./objectives/mcm-dpo.js";
export { type ModpoOptions, modpo } from "./objectives/modpo.js";
export type { Arm, ErrorSums, Objective, ObjectiveContext, ObjectiveResult, PairInput } from "./objectives/objective.js";
export { cofsDpo, type OfsDpoOptions, ofsFast, ofsSlow } from "./objectives/ofs-dpo.js";
export { exponentialOdds, type LogOdds, negativeError, type OrpoOptions, orpo } from "./objectives/orpo.js";
export { rdpo } from "./objectives/rdpo.js";
export { rewardWeighted } from "./objectives/reward-weighted.js";
export { robustDpo } from "./objectives/robust-dpo.js";
export { sdpo } from "./objectives/sdpo.js";
export { sft } from "./objectives/sft.js";
export { type SmpoOptions, smpo } from "./objectives/smpo.js";
export { type TdpoOptions, tdpo, tdpo1 } from "./objectives/tdpo.js";
export { type TgdpoOptions, tgdpo } from "./objectives/tgdpo.js";
export { givenWeight, minSnr, minSnrVelocity, type PairWeight, weightErrors, weightLosses } from "./objectives/weighting.js";
export type { GenerateOptions, GenerateStep, Size } from "./pipeline/generate-options.js";
export { JointModel, jointProjections } from "./pipeline/joint-model.js";
export { type ModelIndex, readModelIndex } from "./pipeline/model-index.js";
export { DiffusionPipeline, type PipelineLoadOptions, type PipelineLoraOptions } from "./pipeline/pipeline.js";
export { readSchedule } from "./pipeline/schedule-file.js";
export type { EncodePromptOptions, PromptFeatures, TextEncoder } from "./pipeline/text-conditioning.js";
export { certificatePage } from "./report/certificate.js";
export {
  type ClipBackbone,
  type ClipBackboneOptions,
  clipBackbone,
} from "./rewards/clip-backbone.js";
export { aesthetic, type ClipScoreOptions, clipScore, hps, pickScore } from "./rewards/clip-rewards.js";
export {
  fitNormalization,
  linearOnto,
  rankMix,
  regularizedRelevance,
  standardized,
  type WeightedPart,
  weightedSum,
} from "./rewards/compose.js";
export * as contrast from "./rewards/contrast.js";
export { aestheticScore, clipRewardScore } from "./rewards/differentiable.js";
export type { AffineHead } from "./rewards/head.js";
export { hpsImages } from "./rewards/hps-images.js";
export { blipScoreReward, type ImageRewardOptions, imageReward } from "./rewards/image-reward.js";
export { type ImageRewardConfig, ImageRewardModel, imageRewardConfig, imageRewardScore } from "./rewards/image-reward-model.js";
export { loadAestheticHead, loadClipBackbone, loadImageReward } from "./rewards/load.js";
export {
  bradleyTerryLoss,
  choiceDivergences,
  choiceEntropies,
  hpsLoss,
  pickScoreLoss,
  promptClassificationLoss,
  reflLoss,
  type ScoredChoices,
  scaledCosine,
} from "./rewards/losses.js";
export {
  type Choice,
  expectedBestOfN,
  fitTieThreshold,
  inversionScore,
  pairAccuracy,
  type RankedPrompt,
  recallAtK,
  strictPairs,
  tieAccuracy,
} from "./rewards/pair-metrics.js";
export { type Judge, parseAnswer, type Question, type Questionnaire, type QuestionnaireOptions, questionnaire } from "./rewards/questionnaire.js";
export {
  type AlignmentMeasures,
  alignmentMeasures,
  averagePrecisionAtK,
  evaluateAlignment,
  type JudgedPrompt,
  kendall,
  spearman,
} from "./rewards/rank-metrics.js";
export {
  preferenceProbability,
  type RankedImage,
  type Reward,
  type RewardItem,
  type RewardScale,
  type RewardScores,
  rank,
  scoreItems,
} from "./rewards/reward.js";
export { rewardPixels, rewardResize } from "./rewards/reward-pixels.js";
export { type ScoreStreamOptions, type StreamItem, type StreamScore, scoreStream } from "./rewards/score-stream.js";
export { type RewardSelfTestReport, rewardSelfTest } from "./rewards/self-test.js";
export {
  type Combine,
  ensemble,
  ensembleLower,
  ensembleMean,
  ensembleMin,
  fitTemperature,
  normalizedScore,
  type TextNormOptions,
  textNorm,
} from "./rewards/text-norm.js";
export {
  type ChoiceBatch,
  hpsTrains,
  type RewardStep,
  RewardTrainer,
  type RewardTrainerOptions,
} from "./rewards/train-reward.js";
export { type DdimOptions, ddim } from "./schedulers/ddim.js";
export { type DdpmOptions, ddpm } from "./schedulers/ddpm.js";
export { type DpmSolverAlgorithm, type DpmSolverOptions, dpmSolver } from "./schedulers/dpm-solver.js";
export { euler } from "./schedulers/euler.js";
export { type EulerAncestralOptions, eulerAncestral } from "./schedulers/euler-ancestral.js";
export type { ExplodingOptions } from "./schedulers/exploding.js";
export { dynamicShift, type FlowMatchEulerOptions, flowMatchEuler } from "./schedulers/flow-match-euler.js";
export { type HeunOptions, heun } from "./schedulers/heun.js";
export { type LcmOptions, lcm } from "./schedulers/lcm.js";
export { type PndmOptions, pndm } from "./schedulers/pndm.js";
export type { Combination, ForwardProcess, Level, Remembered, Scheduler, SchedulerStep } from "./schedulers/scheduler.js";
export type { FinalSigma, SigmaSpacing } from "./schedulers/sigmas.js";
export type { TimestepSpacing } from "./schedulers/timesteps.js";
export { type UniPCOptions, uniPC } from "./schedulers/unipc.js";
export type { TrainEvent } from "./train/events.js";
export { constant, constantWithWarmup, cosine, cosineWithRestarts, type LearningRateSchedule, linear, polynomial } from "./train/lr-schedule.js";
export { type AdamWOptions, adamW, type Optimizer } from "./train/optimizer.js";
export { type PairBatch, type PairData, tensorPairs } from "./train/pair-data.js";
export { type MemoryPlan, type PlanMemoryOptions, planMemory } from "./train/plan-memory.js";
export { withProgress } from "./train/progress.js";
export type { Trainable } from "./train/trainable.js";
export { PreferenceTrainer } from "./train/trainer.js";
export type { TrainerOptions } from "./train/trainer-options.js";
export { convert, type HostDType, type HostTensor, hostTensor } from "./util/host-tensor.js";
export { parsePythonJson } from "./util/python-json.js";
