/** What one picture changed of another, laid over a third, pixel by pixel; all of one size. */

import { pictureFile } from "./encode.js";

const STRIP = 256;

/**
 * @param {ImageBitmap} before
 * @param {ImageBitmap} after
 * @param {ImageBitmap} ground
 * @returns {Promise<Blob | null>} null where the sizes differ
 */
export async function merged(before, after, ground) {
  const { width, height } = ground;
  const all = [before, after, ground];
  if (all.some((each) => each.width !== width || each.height !== height)) return null;
  const pens = all.map(() => {
    const sheet = new OffscreenCanvas(width, STRIP);
    return /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d", { willReadFrequently: true }));
  });
  return pictureFile(width, height, (top, high) => {
    const [a, b, c] = pens.map((pen, i) => {
      pen.clearRect(0, 0, width, STRIP);
      pen.drawImage(all[i], 0, -top);
      return new Uint32Array(pen.getImageData(0, 0, width, high).data.buffer);
    });
    for (let i = 0; i < c.length; i++) if (a[i] !== b[i]) c[i] = b[i];
    return new Uint8Array(c.buffer);
  }, STRIP);
}
