/** What a prompt alone says about how hard it is to follow: its length, and words that text-to-image models are known to get wrong (counts, colours, spatial
 *  relations, negation, text to be rendered). English word lists; other languages get the counts that need no list. */

import { type FeatureTable, featureTable } from "./table.js";

const list = (words: string): ReadonlySet<string> => new Set(words.split(" "));

const numberWords = list("one two three four five six seven eight nine ten eleven twelve dozen dozens couple pair several many few hundred thousand");
const colourWords = list(
  "red orange yellow green blue purple violet pink brown black white grey gray gold golden silver beige turquoise teal cyan magenta maroon navy indigo crimson scarlet olive lavender",
);
const negationWords = list("no not without never none nothing nobody neither nor isn't aren't don't doesn't");
const materialWords = list("wooden metal metallic glass plastic leather stone marble paper fabric ceramic rubber fluffy furry rusty shiny");
const linkWords = list("and with plus alongside");
/** Single words, and phrases of words in order. */
const spatialPhrases =
  "left right above below under underneath beneath behind between beside besides inside outside near atop over top bottom;in front of;next to;on top of;surrounded by;in the middle of;in the background;in the foreground";
const spatialWords = list(spatialPhrases.split(";")[0]!);
const spatialSequences = spatialPhrases
  .split(";")
  .slice(1)
  .map(p => p.split(" "));

/** Columns (all counts, unless said): characters (code points), words, wordLength (mean characters per word), uniqueWords (share of distinct words), clauses
 *  (parts between commas, semicolons, full stops), numbers (digits or number words), colours, spatial, negations, materials, links ("and", "with"),
 *  quoted (1 where text in quotation marks asks for lettering). An empty prompt is a row of zeros. */
export function promptStatistics(prompts: readonly string[]): FeatureTable {
  const rows = prompts.map(statistics);
  const names = Object.keys(statistics("")) as (keyof ReturnType<typeof statistics>)[];
  return featureTable(Object.fromEntries(names.map(name => [`prompt.${name}`, rows.map(row => row[name])])));
}

function statistics(prompt: string) {
  const text = prompt.normalize("NFC").toLowerCase().replaceAll("’", "'");
  const words = text.match(/[\p{L}\p{N}]+(?:['-][\p{L}\p{N}]+)*/gu) ?? [];
  const count = (set: ReadonlySet<string>): number => words.filter(w => set.has(w)).length;
  const letters = words.reduce((sum, w) => sum + [...w].length, 0);
  return {
    characters: [...text.trim()].length,
    words: words.length,
    wordLength: words.length === 0 ? 0 : letters / words.length,
    uniqueWords: words.length === 0 ? 0 : new Set(words).size / words.length,
    clauses: text.split(/[,;.]/).filter(part => part.trim() !== "").length,
    numbers: words.filter(w => /^\p{N}/u.test(w)).length + count(numberWords),
    colours: count(colourWords),
    spatial: spatial(words),
    negations: count(negationWords),
    materials: count(materialWords),
    links: count(linkWords),
    quoted: /"[^"]+"|“[^”]+”|«[^»]+»/.test(prompt) ? 1 : 0,
  };
}

/** A phrase counts once, and its words not again. */
function spatial(words: readonly string[]): number {
  let found = 0;
  for (let i = 0; i < words.length; ) {
    const phrase = spatialSequences.find(p => p.every((word, k) => words[i + k] === word));
    if (phrase || spatialWords.has(words[i]!)) found++;
    i += phrase?.length ?? 1;
  }
  return found;
}
