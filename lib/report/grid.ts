/** A table of small pictures as one picture: rows and columns with captions, pixels enlarged without smoothing, ready for encodePng. */

import { type Image, overWhite } from "../data/image.js";
import { ConfigError } from "../errors.js";
import { advance, drawText, lineHeight, textWidth } from "./font.js";

export interface GridOptions {
  /** Row by row; undefined leaves a cell empty. Grey, RGB and RGBA (over white); all pictures have one size. */
  readonly rows: readonly (readonly (Image | undefined)[])[];
  /** Captions above the columns and beside the rows; longer ones are broken at spaces, then cut. */
  readonly columnCaptions?: readonly string[];
  readonly rowCaptions?: readonly string[];
  /** Screen pixels per picture pixel, default 4. */
  readonly zoom?: number;
  /** Screen pixels between cells, default 4. */
  readonly gap?: number;
}

const ink = 0x33;
const captionLines = 2;
const rowCaptionCharacters = 16;

/** Draws the grid as an RGB picture on white. */
export function imageGrid({ rows, columnCaptions = [], rowCaptions = [], zoom = 4, gap = 4 }: GridOptions): Image {
  const first = rows.flat().find(image => image !== undefined);
  if (!first) throw new ConfigError("imageGrid", "rows", "at least one picture", `${rows.length} rows without any`);
  const columns = Math.max(...rows.map(row => row.length));
  const cell = { width: first.width * zoom, height: first.height * zoom };
  const left = rowCaptions.length > 0 ? Math.min(rowCaptionCharacters, Math.max(...rowCaptions.map(c => c.length))) * advance + gap : 0;
  const top = columnCaptions.length > 0 ? captionLines * (lineHeight + 1) + gap : 0;
  const canvas = new Canvas(gap + left + columns * (cell.width + gap), gap + top + rows.length * (cell.height + gap));

  for (const [c, caption] of columnCaptions.entries()) {
    const lines = wrap(caption, Math.floor((cell.width + gap) / advance), captionLines);
    const x = gap + left + c * (cell.width + gap);
    for (const [i, line] of lines.entries())
      canvas.text(line, x + Math.floor((cell.width - textWidth(line)) / 2), gap + (captionLines - lines.length + i) * (lineHeight + 1));
  }
  for (const [r, row] of rows.entries()) {
    const y = gap + top + r * (cell.height + gap);
    const lines = wrap(rowCaptions[r] ?? "", rowCaptionCharacters, Math.max(1, Math.floor(cell.height / (lineHeight + 1))));
    const middle = Math.floor((cell.height - lines.length * (lineHeight + 1)) / 2);
    for (const [i, line] of lines.entries()) canvas.text(line, gap, y + middle + i * (lineHeight + 1));
    for (const [c, image] of row.entries()) {
      if (!image) continue;
      if (image.width !== first.width || image.height !== first.height)
        throw new ConfigError("imageGrid", `rows[${r}][${c}]`, `${first.width} x ${first.height} pixels`, `${image.width} x ${image.height}`);
      canvas.picture(image, gap + left + c * (cell.width + gap), y, zoom);
    }
  }
  return canvas.image;
}

/** `text` in lines of at most `width` characters, broken at spaces; what does not fit ends in ".." */
function wrap(text: string, width: number, maxLines: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ").filter(Boolean)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines.slice(0, maxLines).map(line => (line.length > width ? `${line.slice(0, Math.max(1, width - 2))}..` : line));
}

class Canvas {
  readonly #data: Uint8Array;
  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.#data = new Uint8Array(width * height * 3).fill(255);
  }

  get image(): Image {
    return { width: this.width, height: this.height, channels: 3, data: this.#data };
  }

  text(text: string, x: number, y: number): void {
    drawText(text, (dx, dy) => {
      const inside = x + dx >= 0 && x + dx < this.width && y + dy >= 0 && y + dy < this.height;
      if (inside) this.#data.fill(ink, ((y + dy) * this.width + x + dx) * 3, ((y + dy) * this.width + x + dx) * 3 + 3);
    });
  }

  picture(image: Image, left: number, top: number, zoom: number): void {
    const { data } = overWhite(image);
    for (let y = 0; y < image.height * zoom; y++)
      for (let x = 0; x < image.width * zoom; x++) {
        const from = (Math.floor(y / zoom) * image.width + Math.floor(x / zoom)) * 3;
        this.#data.set(data.subarray(from, from + 3), ((top + y) * this.width + left + x) * 3);
      }
  }
}
