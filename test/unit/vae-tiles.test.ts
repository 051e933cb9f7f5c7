/** Tiles: whatever their size and overlap, a function that looks at one latent at a time comes out whole. */

import { inTiles, needsTiles, type TileGrid, tileSteps } from "../../lib/models/vae-tiles.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { numbers } from "../support/gradients.js";
import { Rng } from "../support/rng.js";
import { pseudoRandom } from "../support/unet.js";

/** Every latent becomes factor x factor pixels of its value. */
function enlarged({ shape, data }: HostTensor, factor: number): HostTensor {
  const [batch, channels, height, width] = shape as [number, number, number, number];
  const made = hostTensor("f64", [batch, channels, height * factor, width * factor]);
  for (let p = 0; p < batch * channels; p++)
    for (let y = 0; y < height * factor; y++)
      for (let x = 0; x < width * factor; x++)
        made.data[(p * height * factor + y) * width * factor + x] = Number(data[(p * height + Math.floor(y / factor)) * width + Math.floor(x / factor)]);
  return made;
}

/** The first pixel of every whole square of factor x factor. */
function reduced({ shape, data }: HostTensor, factor: number): HostTensor {
  const [batch, channels, height, width] = shape as [number, number, number, number];
  const [rows, columns] = [Math.floor(height / factor), Math.floor(width / factor)];
  const made = hostTensor("f64", [batch, channels, rows, columns]);
  for (let p = 0; p < batch * channels; p++)
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) made.data[(p * rows + y) * columns + x] = Number(data[(p * height + y * factor) * width + x * factor]);
  return made;
}

test("both ways, 50 shapes and grids", async () => {
  const random = new Rng(5, 0);
  const pick = (low: number, high: number): number => low + Math.floor(random.uniform() * (high - low + 1));
  for (let i = 0; i < 50; i++) {
    const factor = 2 ** pick(0, 3);
    const tile = pick(1, 9);
    const stride = pick(1, tile);
    const latents = pseudoRandom([pick(1, 2), pick(1, 3), pick(1, 20), pick(1, 20)], i);
    const what = `factor ${factor}, tile ${tile}, stride ${stride}, [${latents.shape}]`;
    const decoding: TileGrid = { tile, stride, from: 1, to: factor };
    expectClose(numbers(await inTiles(latents, decoding, async part => enlarged(part, factor))), numbers(enlarged(latents, factor)), 1e-15, what);
    const [batch, channels, height, width] = latents.shape as [number, number, number, number];
    const pixels = pseudoRandom([batch, channels, height * factor + pick(0, factor - 1), width * factor + pick(0, factor - 1)], i);
    const encoding: TileGrid = { tile, stride, from: factor, to: 1 };
    const sizes: number[] = [];
    const encoded = await inTiles(pixels, encoding, async part => {
      sizes.push(...part.shape.slice(2));
      return reduced(part, factor);
    });
    expectClose(numbers(encoded), numbers(reduced(pixels, factor)), 1e-15, what);
    expect(Math.min(...sizes)).toBeGreaterThanOrEqual(factor); // no tile is less than a latent
    expect(Math.max(...sizes)).toBeLessThanOrEqual(tile * factor);
  }
});

test("where four tiles meet, the upper neighbour fades in first and then the left one, each as it was left by its own neighbours", async () => {
  const grid: TileGrid = { tile: 6, stride: 4, from: 1, to: 1 }; // tiles at 0 and 4 share two rows and columns
  let tile = 0;
  const values = [3, 5, 11, 17];
  const constant = async ({ shape }: HostTensor): Promise<HostTensor> =>
    hostTensor("f64", shape, new Float64Array(shape.reduce((n, d) => n * d, 1)).fill(values[tile++]!));
  const { data } = await inTiles(hostTensor("f64", [1, 1, 8, 8]), grid, constant);
  const [a, b, c, d] = values as [number, number, number, number];
  for (let y = 0; y < 8; y++)
    for (let x = 0; x < 8; x++) {
      const [down, across] = [y, x].map(i => Math.min(Math.max(i - 4, 0) / 2, 1)) as [number, number]; // 0 where the next tile begins, 1 past the overlap
      const mix = (from: number, to: number, share: number): number => (1 - share) * from + share * to;
      const expected = y < 4 ? (x < 4 ? a : mix(a, b, across)) : x < 4 ? mix(a, c, down) : mix(mix(a, c, down), mix(mix(a, b, across), d, down), across);
      expect([y, x, Number(data[y * 8 + x])]).toEqual([y, x, expect.closeTo(expected, 12)]);
    }
});

test("the default is a quarter of overlap between tiles of the size that the model was made for, as in diffusers", () => {
  expect(tileSteps({}, 512, 8)).toEqual({ tile: 64, stride: 48 });
  expect(tileSteps({ size: 1024, overlap: 0.5 }, 512, 8)).toEqual({ tile: 128, stride: 64 });
  expect([64, 65].map(height => needsTiles(pseudoRandom([1, 4, height, 64]), { tile: 64, from: 1 }))).toEqual([false, true]);
});
