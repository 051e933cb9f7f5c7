/** The little English that rules about prompts need: how many of what. A noun phrase is a count word and what stands behind it up to a preposition, a
 *  conjunction or a comma; its last word takes the plural. What the rules do not see they leave alone. */

export const numberWords: readonly string[] = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];

const irregular: ReadonlyMap<string, string> = new Map([
  ...["deer", "sheep", "fish", "moose", "aircraft", "bison", "series", "species"].map((same): [string, string] => [same, same]),
  ...([
    ["man", "men"],
    ["woman", "women"],
    ["child", "children"],
    ["person", "people"],
    ["mouse", "mice"],
    ["goose", "geese"],
    ["foot", "feet"],
    ["tooth", "teeth"],
    ["ox", "oxen"],
    ["knife", "knives"],
    ["leaf", "leaves"],
    ["wolf", "wolves"],
    ["shelf", "shelves"],
    ["loaf", "loaves"],
    ["tomato", "tomatoes"],
    ["potato", "potatoes"],
    ["hero", "heroes"],
    ["cactus", "cacti"],
  ] as const),
]);
const irregularSingulars: ReadonlyMap<string, string> = new Map([...irregular].map(([one, many]) => [many, one]));

/** "teddy bear" -> "teddy bears": the last word's plural. */
export function plural(noun: string): string {
  return changed(noun, word => {
    const known = irregular.get(word);
    if (known !== undefined) return known;
    if (/(s|x|z|ch|sh)$/.test(word)) return `${word}es`;
    if (/[^aeiou]y$/.test(word)) return `${word.slice(0, -1)}ies`;
    return `${word}s`;
  });
}

/** The inverse of `plural`, as far as endings tell. */
export function singular(noun: string): string {
  return changed(noun, word => {
    const known = irregularSingulars.get(word);
    if (known !== undefined) return known;
    if (/(ss|x|z|ch|sh)es$/.test(word)) return word.slice(0, -2);
    if (/(bus|us)es$/.test(word)) return word.slice(0, -2);
    if (/[^aeiou]ies$/.test(word)) return `${word.slice(0, -3)}y`;
    return /[^s]s$/.test(word) ? word.slice(0, -1) : word;
  });
}

function changed(noun: string, change: (last: string) => string): string {
  const [, before = "", last = ""] = /^(.*?)([^ ]+)$/s.exec(noun) ?? [];
  return before + change(last);
}

/** "an apple", "a cup". By the first letter, but for the few words whose first sound is another. */
export function withArticle(noun: string): string {
  const vowel = /^(hour|honest|heir)/i.test(noun) || (/^[aeiou]/i.test(noun) && !/^(uni(?!n)|use|euro|one\b|once)/i.test(noun));
  return `${vowel ? "an" : "a"} ${noun}`;
}

/** "an airplane", "two airplanes", "13 airplanes". */
export function counted(count: number, noun: string): string {
  return count === 1 ? withArticle(noun) : `${numberWords[count] ?? count} ${plural(noun)}`;
}

export interface NounPhrase {
  /** Its place in the prompt. */
  readonly start: number;
  readonly end: number;
  readonly count: number;
  /** Singular, with adjectives. */
  readonly noun: string;
}

const stops = [
  ["and", "or", "with", "without", "of", "in", "on", "at", "by", "to", "from", "for", "over", "under", "above", "below", "beside", "behind", "near", "next"],
  ["inside", "outside", "between", "around", "through", "into", "onto", "across", "against", "along", "is", "are", "was", "were", "that", "which", "who"],
  ["wearing", "holding", "sitting", "standing", "flying", "riding", "playing", "eating", "climbing", "tripping", "to", "left", "right", "as", "like"],
].flat();
const phrase = new RegExp(`\\b(a|an|${numberWords.slice(1).join("|")}|\\d{1,3})\\s+((?:(?!(?:${stops.join("|")})\\b)[\\p{L}'-]+\\s?)+)`, "giu");
/** "a realistic photo of": what the picture is, not what is in it. */
const medium =
  /^\s*(?:(?:an?|the)\s+)?(?:[\p{L}-]+\s+){0,4}?(?:photo|photograph|picture|image|painting|drawing|illustration|rendering|render|sketch|portrait|statue)\s+of\s+/iu;

/** The counted things of a prompt, in order. */
export function nounPhrases(prompt: string): NounPhrase[] {
  const from = medium.exec(prompt)?.[0].length ?? 0;
  return [...prompt.slice(from).matchAll(phrase)].map(match => {
    const text = match[2]!.trimEnd();
    const word = match[1]!.toLowerCase();
    const count = word === "a" || word === "an" ? 1 : /^\d/.test(word) ? Number(word) : numberWords.indexOf(word);
    const start = from + match.index;
    return { start, end: start + match[0].trimEnd().length, count, noun: count === 1 ? text : singular(text) };
  });
}

/** The prompt with other words in these places, which do not overlap. */
export function replaced(prompt: string, places: readonly { readonly start: number; readonly end: number; readonly text: string }[]): string {
  return [...places].sort((a, b) => b.start - a.start).reduce((text, { start, end, text: other }) => text.slice(0, start) + other + text.slice(end), prompt);
}
