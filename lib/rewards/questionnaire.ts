/** Rewards that ask: a judge, any model that answers questions about a picture, is asked each question of a prompt, and the reward is the weighted share of points.
 *  TIFA (Hu et al. 2023), EvalAlign (Tan et al. 2024) and VisionReward are of this kind. The judge is the user's. */

import type { Image } from "../data/image.js";
import { ConfigError, DataError } from "../errors.js";
import { inBatches } from "./batches.js";
import type { Reward, RewardOptions } from "./reward.js";

export interface Question {
  /** What is asked, in words that the judge understands. */
  readonly text: string;
  /** Answers are whole points from 0 to this: 1 of yes and no. */
  readonly points: number;
  /** Of this question in the reward; 1 by default. */
  readonly weight?: number;
  /** What it is about ("count", "colour"); scores are also given by it. */
  readonly dimension?: string;
}

/** The answer to a question about a picture, as text or points. */
export type Judge = (question: Question, image: Image, prompt: string, options: RewardOptions) => Promise<string | number>;

export interface QuestionnaireOptions {
  readonly name: string;
  readonly version?: string;
  readonly judge: Judge;
  /** The questions of a prompt. */
  readonly questions: (prompt: string) => readonly Question[] | Promise<readonly Question[]>;
  /** Questions asked at once; 1 by default. */
  readonly concurrency?: number;
}

export interface Questionnaire extends Reward {
  /** One picture's share of points, in all and by dimension; a dimension without a question is absent, not 0. */
  judged(prompt: string, image: Image, options?: RewardOptions): Promise<{ readonly score: number; readonly dimensions: Readonly<Record<string, number>> }>;
}

/** The first whole number of an answer in words, 0 where it has none, as EvalAlign reads it; "yes" is 1 and "no" 0 where the answer begins so. */
export function parseAnswer(answer: string | number, points: number): number {
  if (typeof answer === "number") return answer;
  const yesOrNo = /^\s*["'*]*(yes|no)\b/i.exec(answer)?.[1]?.toLowerCase();
  if (points === 1 && yesOrNo) return yesOrNo === "yes" ? 1 : 0;
  return Number(/\d+/.exec(answer)?.[0] ?? 0);
}

/** Throws ConfigError for questions without points; DataError for an answer out of its range. */
export function questionnaire({ name, version, judge, questions, concurrency = 1 }: QuestionnaireOptions): Questionnaire {
  const judged: Questionnaire["judged"] = async (prompt, image, options = {}) => {
    const asked = await questions(prompt);
    if (asked.length === 0) throw new ConfigError(name, "questions", `at least one for ${JSON.stringify(prompt)}`, 0);
    for (const { points, weight = 1, text } of asked)
      if (!(points > 0 && weight > 0)) throw new ConfigError(name, `question ${JSON.stringify(text)}`, "points and weight > 0", [points, weight]);
    const shares = await inBatches(asked, { batchSize: concurrency, signal: options.signal }, batch =>
      Promise.all(
        batch.map(async question => {
          const points = parseAnswer(await judge(question, image, prompt, options), question.points);
          if (!(points >= 0 && points <= question.points))
            throw new DataError(name, `expected an answer in 0 .. ${question.points}, received ${points}`, { field: question.text });
          return points / question.points;
        }),
      ),
    );
    const dimensions = new Set(asked.flatMap(q => q.dimension ?? []));
    const of = (dimension: string): number => weighted(asked, shares, q => q.dimension === dimension);
    return { score: weighted(asked, shares, () => true), dimensions: Object.fromEntries([...dimensions].map(d => [d, of(d)])) };
  };
  return {
    name,
    ...(version !== undefined && { version }),
    scale: { unit: "weighted share of points", typical: [0, 1] },
    judged,
    async score(items, options = {}) {
      const scores: number[] = [];
      for (const { prompt, image } of items) scores.push((await judged(prompt, image, options)).score);
      return scores;
    },
  };
}

function weighted(asked: readonly Question[], shares: readonly number[], counts: (question: Question) => boolean): number {
  let [sum, total] = [0, 0];
  for (const [i, question] of asked.entries()) {
    if (!counts(question)) continue;
    sum += (question.weight ?? 1) * shares[i]!;
    total += question.weight ?? 1;
  }
  return sum / total;
}
