/** Every public name of attune. */

export { decodePng, encodePng, type Image } from "./data/image.js";
export { type DeferredTensor, readSafetensors, SafetensorsFile, writeSafetensors } from "./data/safetensors.js";
export { readWeights } from "./data/weights.js";
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
export { unetDenoiser } from "./diffusion/unet-denoiser.js";
export * from "./errors.js";
export { compileGraph } from "./graph/compile.js";
export { printProgram } from "./graph/print.js";
export type { Program } from "./graph/program.js";
export { type Executable, Session, type SessionOptions, type Trace } from "./graph/session.js";
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
export type { ModelCreateOptions, ModelLoadOptions } from "./models/model-handle.js";
export type { Recompute, RecomputeOptions } from "./models/regions.js";
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
export { LoraAdapter, type LoraOptions } from "./nn/lora.js";
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
export { type DdimOptions, ddim, ddimFromConfig } from "./schedulers/ddim.js";
export { type DdpmOptions, ddpm, ddpmFromConfig } from "./schedulers/ddpm.js";
export type { Scheduler, SchedulerStep } from "./schedulers/scheduler.js";
export type { TrainEvent } from "./train/events.js";
export { constant, constantWithWarmup, cosine, cosineWithRestarts, type LearningRateSchedule, linear, polynomial } from "./train/lr-schedule.js";
export { type AdamWOptions, adamW, type Optimizer } from "./train/optimizer.js";
export { type PairBatch, type PairData, tensorPairs } from "./train/pair-data.js";
export { withProgress } from "./train/progress.js";
export type { Trainable } from "./train/trainable.js";
export { PreferenceTrainer } from "./train/trainer.js";
export type { TrainerOptions } from "./train/trainer-options.js";
export { convert, type HostDType, type HostTensor, hostTensor } from "./util/host-tensor.js";
