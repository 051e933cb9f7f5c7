/** Near misses of a prompt: what a picture must not fit as well as the prompt itself. Rules for counts, colours, places and things, lists of the user's own, and
 *  any function. `counting` and `composition` give the sets that TextNorm's authors published (github.com/kykim0/TextNorm), word for word. */

import { ConfigError } from "../errors.js";
import { counted, nounPhrases, plural, replaced, withArticle } from "./nouns.js";

/** Near misses of a prompt; none where a rule has nothing to say. */
export type Contrast = (prompt: string) => readonly string[] | Promise<readonly string[]>;

/** Other counts of each thing: k - span to k + span, at least 1, one thing changed at a time. */
export function counting({ span = 2 }: { readonly span?: number } = {}): Contrast {
  if (!(Number.isSafeInteger(span) && span >= 1)) throw new ConfigError("counting", "span", "a whole number >= 1", span);
  return prompt =>
    nounPhrases(prompt).flatMap(({ start, end, count, noun }) => {
      const counts = Array.from({ length: 2 * span + 1 }, (_, i) => count - span + i).filter(k => k >= 1 && k !== count);
      return counts.map(k => replaced(prompt, [{ start, end, text: counted(k, noun) }]));
    });
}

/** Of a prompt that ends in "an A and a B": either alone, wrong counts of both up to three, and a blend of the two. The paper's twelve, in its order. */
export function composition(): Contrast {
  return prompt => {
    const [a, b, ...others] = nounPhrases(prompt);
    if (!a || !b || others.length > 0 || a.count !== 1 || b.count !== 1 || prompt.slice(a.end, b.start).trim() !== "and") return [];
    const [before, after] = [prompt.slice(0, a.start), prompt.slice(b.end)];
    const [oneA, oneB] = [withArticle(a.noun), withArticle(b.noun)];
    const [manyA, manyB] = [plural(a.noun), plural(b.noun)];
    return [
      oneA,
      oneB,
      `two ${manyA} and ${oneB}`,
      `${oneA} and two ${manyB}`,
      `two ${manyA} two ${manyB}`,
      `three ${manyA} and ${oneB}`,
      `${oneA} and three ${manyB}`,
      `three ${manyA} two ${manyB}`,
      `two ${manyA} and three ${manyB}`,
      `three ${manyA} three ${manyB}`,
      `${oneA}-like ${b.noun}`,
      `${oneB}-like ${a.noun}`,
    ].map(text => before + text + after);
  };
}

const plainColours = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"] as const;

/** Each colour word changed for every other of `colours`; and where a prompt has two colours, these exchanged (the classic binding error). */
export function colours({ words = plainColours }: { readonly words?: readonly string[] } = {}): Contrast {
  const pattern = wordPattern(words, "colours");
  return prompt => {
    const found = places(prompt, pattern);
    const changed = found.flatMap(place =>
      words.filter(w => w !== place.word).map(word => replaced(prompt, articles(prompt, [{ ...place, text: cased(place.text, word) }]))),
    );
    const [a, b] = found;
    if (!a || !b || a.word === b.word) return changed;
    return [
      ...changed,
      replaced(
        prompt,
        articles(prompt, [
          { ...a, text: cased(a.text, b.word) },
          { ...b, text: cased(b.text, a.word) },
        ]),
      ),
    ];
  };
}

const opposites: readonly (readonly [string, string])[] = [
  ["to the left of", "to the right of"],
  ["on the left of", "on the right of"],
  ["left of", "right of"],
  ["in front of", "behind"],
  ["on top of", "under"],
  ["above", "below"],
  ["over", "beneath"],
  ["inside", "outside"],
];

/** Each relation in space changed for its opposite. */
export function relations({ pairs = opposites }: { readonly pairs?: readonly (readonly [string, string])[] } = {}): Contrast {
  const opposite = new Map(pairs.flatMap(([a, b]) => [[a, b] as const, [b, a] as const]));
  const pattern = wordPattern([...opposite.keys()], "relations");
  return prompt => places(prompt, pattern).map(place => replaced(prompt, [{ ...place, text: cased(place.text, opposite.get(place.word)!) }]));
}

/** Two things exchange their places ("a cat on a dog" for "a dog on a cat"), and each is changed for every one of `others`. */
export function objects({ others = [] }: { readonly others?: readonly string[] } = {}): Contrast {
  return prompt => {
    const found = nounPhrases(prompt);
    const swaps = found.flatMap((a, i) => found.slice(i + 1).map(b => [a, b] as const));
    const exchanged = swaps
      .filter(([a, b]) => a.noun !== b.noun)
      .map(([a, b]) =>
        replaced(prompt, [
          { ...a, text: counted(b.count, b.noun) },
          { ...b, text: counted(a.count, a.noun) },
        ]),
      );
    const changed = found.flatMap(place => others.filter(o => o !== place.noun).map(o => replaced(prompt, [{ ...place, text: counted(place.count, o) }])));
    return [...exchanged, ...changed].filter(text => text !== prompt);
  };
}

/** A user's own lists. A prompt that has none throws ConfigError: normalised over nothing it would score 1. */
export function listed(sets: Readonly<Record<string, readonly string[]>> | ReadonlyMap<string, readonly string[]>): Contrast {
  const map = sets instanceof Map ? (sets as ReadonlyMap<string, readonly string[]>) : new Map(Object.entries(sets));
  return prompt => {
    const own = map.get(prompt);
    if (!own) throw new ConfigError("listed", "the near misses", `given for ${JSON.stringify(prompt)}`, undefined);
    return own;
  };
}

/** All that several rules give, each text once, without the prompt. `atMost` keeps the first so many. */
export function anyOf(rules: readonly Contrast[], { atMost = Number.POSITIVE_INFINITY }: { readonly atMost?: number } = {}): Contrast {
  return async prompt => {
    const all = await Promise.all(rules.map(rule => rule(prompt)));
    return [...new Set(all.flat())].filter(text => text !== prompt).slice(0, atMost);
  };
}

interface Place {
  readonly start: number;
  readonly end: number;
  /** As it stands in the prompt. */
  readonly text: string;
  /** In lower case. */
  readonly word: string;
}

function wordPattern(words: readonly string[], subject: string): RegExp {
  if (words.length === 0 || words.some(w => !/^[\p{L} -]+$/u.test(w))) throw new ConfigError(subject, "words", "words of letters, at least one", words);
  const longestFirst = [...words].sort((a, b) => b.length - a.length);
  return new RegExp(`(?<![\\p{L}-])(?:${longestFirst.join("|")})(?![\\p{L}-])`, "giu");
}

function places(prompt: string, pattern: RegExp): Place[] {
  return [...prompt.matchAll(pattern)].map(m => ({ start: m.index, end: m.index + m[0].length, text: m[0], word: m[0].toLowerCase() }));
}

/** `word` with a capital where the old one had it. */
function cased(old: string, word: string): string {
  return old[0] === old[0]!.toLowerCase() ? word : word[0]!.toUpperCase() + word.slice(1);
}

/** "a" before a changed word becomes "an" where it must, and back: the places, and those of such articles. */
function articles(prompt: string, changes: readonly { readonly start: number; readonly end: number; readonly text: string }[]) {
  return changes.map(change => {
    const article = /\b(an?)(\s+)$/i.exec(prompt.slice(0, change.start));
    if (!article) return change;
    const needed = withArticle(change.text).split(" ")[0]!;
    return { start: article.index, end: change.end, text: cased(article[1]!, needed) + article[2]! + change.text };
  });
}
