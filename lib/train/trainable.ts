/** What can be trained: a denoiser, its weights, and the session that holds them. UNets, pipelines and models of one's own fit it. */

import type { Denoiser } from "../diffusion/denoiser.js";
import type { Session } from "../graph/session.js";
import type { ParameterStore } from "../nn/params.js";

export interface Trainable {
  readonly denoiser: Denoiser;
  /** The weights that `denoiser.predict` is called with: complete, and with their values in the session. Full fine-tuning needs a trainable store; what else the
   *  model holds (a word-embedding table, a text encoder) is frozen and the denoiser's own. */
  readonly store: ParameterStore;
  readonly session: Session;
}
