/** Adam7, the interlacing of PNG: seven small pictures, each every so many pixels of the whole, one after the other. */

export interface Pass {
  /** First column and row. */
  readonly x: number;
  readonly y: number;
  readonly stepX: number;
  readonly stepY: number;
  /** Pixels of the pass. */
  readonly width: number;
  readonly height: number;
}

const adam7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/** The passes that have pixels, in file order; a picture that is not interlaced is one pass. */
export function passesOf(width: number, height: number, interlaced: boolean): readonly Pass[] {
  if (!interlaced) return [{ x: 0, y: 0, stepX: 1, stepY: 1, width, height }];
  const passes = adam7.map(([x, y, stepX, stepY]) => ({ x, y, stepX, stepY, width: Math.ceil((width - x) / stepX), height: Math.ceil((height - y) / stepY) }));
  return passes.filter(pass => pass.width > 0 && pass.height > 0);
}

/** Puts the samples of a pass where they belong in the whole picture, `samples` per pixel. */
export function scatter(from: ArrayLike<number>, pass: Pass, to: Uint8Array | Uint16Array, width: number, samples: number): void {
  for (let j = 0; j < pass.height; j++)
    for (let i = 0; i < pass.width; i++) {
      const at = ((pass.y + j * pass.stepY) * width + pass.x + i * pass.stepX) * samples;
      for (let c = 0; c < samples; c++) to[at + c] = from[(j * pass.width + i) * samples + c]!;
    }
}
