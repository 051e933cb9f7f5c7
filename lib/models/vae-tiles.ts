/** Pictures too large for memory, tile by tile: neighbours overlap, and the overlap fades linearly from one to the next, above first and then left, as
 *  diffusers does. The result is close to that of the whole, not equal: a tile's norms and attention see that tile alone. */

import { ConfigError } from "../errors.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";

export interface TilingOptions {
  /** Side of a tile in pixels, rounded down to whole latents; the config's sample_size by default. */
  readonly size?: number;
  /** Share of a tile that it has in common with the next, in [0, 1): 0.25 by default. */
  readonly overlap?: number;
}

/** Lengths are counted in latents; one latent is `from` elements of what is cut and `to` elements of what is made. */
export interface TileGrid {
  readonly tile: number;
  readonly stride: number;
  readonly from: number;
  readonly to: number;
}

/** @throws ConfigError naming the option that leaves no tile, or no progress from one to the next. */
export function tileSteps({ size, overlap = 0.25 }: TilingOptions, sampleSize: number, factor: number): Pick<TileGrid, "tile" | "stride"> {
  const side = size ?? sampleSize;
  if (!Number.isSafeInteger(side) || side < factor) throw new ConfigError("tiling", "size", `a whole number of pixels >= ${factor}`, side);
  if (!(overlap >= 0 && overlap < 1)) throw new ConfigError("tiling", "overlap", "a number in [0, 1)", overlap);
  const tile = Math.floor(side / factor);
  const stride = Math.floor(tile * (1 - overlap));
  if (stride < 1) throw new ConfigError("tiling", "overlap", `less, for tiles of ${tile} x ${tile} latents`, overlap);
  return { tile, stride };
}

/** Latents that a map [B, C, H, W] has, down and across. */
function extent(x: HostTensor, from: number): readonly [number, number] {
  return [Math.floor(x.shape[2]! / from), Math.floor(x.shape[3]! / from)];
}

/** Whether it takes more than one tile. */
export function needsTiles(x: HostTensor, { tile, from }: Pick<TileGrid, "tile" | "from">): boolean {
  return extent(x, from).some(n => n > tile);
}

/** Cuts x [B, C, H, W] into tiles, has each worked on by `run`, and joins what it makes (f32 or f64) -> [B, C', h * to, w * to]. */
export async function inTiles(x: HostTensor, grid: TileGrid, run: (tile: HostTensor) => Promise<HostTensor>): Promise<HostTensor> {
  const { stride, to } = grid;
  const [rows, columns] = extent(x, grid.from);
  const blend = (grid.tile - stride) * to;
  let whole: HostTensor | undefined;
  let above: HostTensor[] = [];
  for (let row = 0; row < rows; row += stride) {
    const line: HostTensor[] = [];
    for (let column = 0; column < columns; column += stride) {
      const made = await run(cut(x, grid, row, column));
      const upper = above[line.length];
      if (upper) fade(upper, made, blend, "down");
      if (line.length > 0) fade(line.at(-1)!, made, blend, "across");
      whole ??= hostTensor(made.dtype, [made.shape[0]!, made.shape[1]!, rows * to, columns * to]);
      place(made, whole, row * to, column * to, stride * to);
      line.push(made);
    }
    above = line;
  }
  return whole!;
}

/** Planes of x of shape [B, C, H, W]. */
const planes = ({ shape }: HostTensor): number => shape[0]! * shape[1]!;

function cut(x: HostTensor, { tile, from }: TileGrid, row: number, column: number): HostTensor {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const [top, left] = [row * from, column * from];
  const [h, w] = [Math.min(tile * from, height - top), Math.min(tile * from, width - left)];
  const part = hostTensor(x.dtype, [batch, channels, h, w]);
  const [source, target] = [x.data as Float32Array, part.data as Float32Array];
  for (let plane = 0; plane < batch * channels; plane++)
    for (let y = 0; y < h; y++) {
      const start = (plane * height + top + y) * width + left;
      target.set(source.subarray(start, start + w), (plane * h + y) * w);
    }
  return part;
}

/** Over the first `length` rows (or columns) of `next`, goes linearly from what `before` has at its end to what `next` has. */
function fade(before: HostTensor, next: HostTensor, length: number, way: "down" | "across"): void {
  const axis = way === "down" ? 2 : 3;
  const n = Math.min(before.shape[axis]!, next.shape[axis]!, length);
  const [from, to] = [before.data as Float32Array, next.data as Float32Array];
  const [, , height, width] = next.shape as [number, number, number, number];
  const [, , beforeHeight, beforeWidth] = before.shape as [number, number, number, number];
  const [rows, columns] = way === "down" ? [n, width] : [height, n];
  const [skipRows, skipColumns] = way === "down" ? [beforeHeight - n, 0] : [0, beforeWidth - n];
  for (let plane = 0; plane < planes(next); plane++)
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) {
        const share = (way === "down" ? y : x) / n;
        const i = (plane * height + y) * width + x;
        to[i] = from[(plane * beforeHeight + y + skipRows) * beforeWidth + x + skipColumns]! * (1 - share) + to[i]! * share;
      }
}

/** Copies the first `limit` rows and columns of a tile to their place. */
function place(tile: HostTensor, whole: HostTensor, top: number, left: number, limit: number): void {
  const [, , h, w] = tile.shape as [number, number, number, number];
  const [, , height, width] = whole.shape as [number, number, number, number];
  const [source, target] = [tile.data as Float32Array, whole.data as Float32Array];
  for (let plane = 0; plane < planes(tile); plane++)
    for (let y = 0; y < Math.min(h, limit); y++) {
      const start = (plane * h + y) * w;
      target.set(source.subarray(start, start + Math.min(w, limit)), (plane * height + top + y) * width + left);
    }
}
