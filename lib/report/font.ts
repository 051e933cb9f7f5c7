/** A 5 x 8 bitmap font for captions inside pictures: most of printable ASCII, one base-32 digit per row of five pixels, the last row for descenders. */

// biome-ignore format: a table
const glyphs: { readonly [character: string]: string } = {
  " ": "00000000", "!": "44440040", '"': "aa000000", "#": "aavavaa0", "%": "op248j30", "&": "cik8lid0", "'": "c4800000", "(": "24888420",
  ")": "84222480", "*": "04lel400", "+": "044v4400", ",": "00000c48", "-": "000v0000", ".": "00000cc0", "/": "01248g00", ":": "0cc0cc00",
  "<": "248g8420", "=": "00v0v000", ">": "84212480", "?": "eh124040", "[": "e88888e0", "]": "e22222e0", _: "000000v0",
  "0": "ehjlphe0", "1": "4c4444e0", "2": "eh1248v0", "3": "v2421he0", "4": "26aiv220", "5": "vgu11he0", "6": "68guhhe0", "7": "v1248880",
  "8": "ehhehhe0", "9": "ehhf12c0",
  A: "ehhvhhh0", B: "uhhuhhu0", C: "ehggghe0", D: "uhhhhhu0", E: "vgguggv0", F: "vgguggg0", G: "ehgnhhf0", H: "hhhvhhh0", I: "e44444e0",
  J: "72222ic0", K: "hikokih0", L: "ggggggv0", M: "hrllhhh0", N: "hhpljhh0", O: "ehhhhhe0", P: "uhhuggg0", Q: "ehhhlid0", R: "uhhukih0",
  S: "fgge11u0", T: "v4444440", U: "hhhhhhe0", V: "hhhhha40", W: "hhhllla0", X: "hha4ahh0", Y: "hhha4440", Z: "v1248gv0",
  a: "00e1fhf0", b: "ggmphhu0", c: "00egghe0", d: "11djhhf0", e: "00ehvge0", f: "698s8880", g: "00fhhf1e", h: "ggmphhh0", i: "40c444e0",
  j: "206222ic", k: "ggikoki0", l: "c44444e0", m: "00qllhh0", n: "00mphhh0", o: "00ehhhe0", p: "00uhhugg", q: "00fhhf11", r: "00mpggg0",
  s: "00ege1u0", t: "88s88960", u: "00hhhjd0", v: "00hhha40", w: "00hhlla0", x: "00ha4ah0", y: "00hhhf1e", z: "00v248v0",
};
const unknown = "vhhhhhv0";

/** Height of a line, and the advance of one character, in pixels. */
export const lineHeight = 8;
export const advance = 6;

/** Width of a line of text in pixels, without the gap after its last character. */
export function textWidth(text: string): number {
  return Math.max(0, text.length * advance - 1);
}

/** Calls `ink` for every dark pixel of a line of text whose top left corner is (0, 0). */
export function drawText(text: string, ink: (x: number, y: number) => void): void {
  for (const [at, character] of [...text].entries())
    for (const [y, digit] of [...(glyphs[character] ?? unknown)].entries())
      for (let x = 0, bits = Number.parseInt(digit, 32); x < 5; x++) if (bits & (16 >> x)) ink(at * advance + x, y);
}
