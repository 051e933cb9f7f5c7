/** The demo's question of trust, asked of each model while it is open: its pictures of the held-out prompts are judged, further pictures of the same prompts say how sure it
 *  is, and at the end certificates are written and measured. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as conformal from "../../lib/conformal/index.js";
import type { Image } from "../../lib/data/image.js";
import { certificatePage } from "../../lib/report/certificate.js";
import type { Drawings } from "./drawings.js";
import { ConceptFidelity } from "./measures.js";
import type { EmojiModel } from "./model.js";
import { samplePictures } from "./sample.js";
import { certifyPictures, type JudgedPictures, measureTrust, type Trust } from "./trust.js";
import { trustFeatures } from "./trust-features.js";

export interface TrustRun {
  readonly drawings: Drawings;
  /** Concepts that occur in no pair. */
  readonly heldOut: readonly number[];
  readonly seed: number;
  readonly output: string;
  readonly signal?: AbortSignal | undefined;
}

/** One model's answers. */
export interface TrustedModel extends Trust {
  /** Shares of wrong ones among what is certified when the base model's pictures calibrate; absent for the base model. */
  readonly stale?: Trust["levels"];
  /** Pictures of the test half of the certificate on file, most trusted first. */
  readonly certified: readonly Image[];
  readonly refused: readonly Image[];
  /** Path of the page, from the report. */
  readonly page: string;
}

/** Further pictures of each prompt, from noise of their own. */
const others = 1;
/** Of the certificate on file. */
const alpha = 0.1;

export class TrustInquiry {
  readonly #models: { readonly judged: JudgedPictures; readonly pictures: readonly Image[] }[] = [];

  constructor(readonly run: TrustRun) {}

  get prompts(): string[] {
    return this.run.heldOut.map(c => this.run.drawings.concepts[c]!);
  }

  /** Looks at a model that has drawn one picture of each held-out prompt. The first one is the base model. */
  async look(name: string, model: EmojiModel, pictures: readonly Image[]): Promise<void> {
    const { drawings, heldOut, seed, signal } = this.run,
      { prompts } = this,
      sets: Image[][] = [];
    for (let k = 1; k <= others; k++) sets.push(await samplePictures(model, { prompts, seed: seed + 100 + k, signal }));
    const style = drawings.drawings.filter(d => !heldOut.includes(d.concept));
    const features = await trustFeatures(model, { prompts, pictures, others: sets }, { style, seed, signal });
    const fidelity = new ConceptFidelity(drawings.drawings);
    this.#models.push({ judged: { model: name, features, shows: pictures.map((picture, i) => Number(fidelity.shows(picture, heldOut[i]!))) }, pictures });
  }

  /** Measures every model, and writes a certificate of each as JSON and as a page. */
  async answers(): Promise<TrustedModel[]> {
    const { seed, output } = this.run,
      [base] = this.#models,
      out: TrustedModel[] = [];
    mkdirSync(join(output, "certificates"), { recursive: true });
    for (const { judged, pictures } of this.#models) {
      const certificate = await certifyPictures(judged, { prompts: this.prompts, alpha, seed });
      const file = join("certificates", judged.model.toLowerCase().replace(/[^a-z0-9]+/g, "-"));
      await conformal.writeCertificate(join(output, `${file}.json`), certificate);
      writeFileSync(join(output, `${file}.html`), certificatePage(certificate));
      out.push({
        ...measureTrust(judged, { seed }),
        ...(judged !== base!.judged && { stale: measureTrust(judged, { seed, calibrator: base!.judged }).levels }),
        ...this.#shown(certificate, pictures),
        page: `${file}.html`,
      });
    }
    return out;
  }

  #shown({ inputs, result }: conformal.Certificate, pictures: readonly Image[]): Pick<TrustedModel, "certified" | "refused"> {
    const { prompts } = this,
      chosen = new Set(result.selected.map(s => s.index));
    const order = inputs.test.scores.map((score, j) => ({ j, score: Number(score) })).sort((a, b) => b.score - a.score);
    const of = (j: number): Image => pictures[prompts.indexOf(inputs.test.ids![j]!)]!;
    return { certified: order.filter(({ j }) => chosen.has(j)).map(({ j }) => of(j)), refused: order.filter(({ j }) => !chosen.has(j)).map(({ j }) => of(j)) };
  }
}
