/** Pictures as PNG files written strip by strip: a canvas of a whole picture is more than some browsers have. */

import { chunk, SIGNATURE } from "./png.js";
import { packed } from "../state/database.js";

/**
 * @param {number} width
 * @param {number} height
 * @param {(top: number, high: number) => Uint8Array} strip its pixels as red, green, blue, alpha
 * @param {number} step rows of a strip
 * @returns {Promise<Blob>}
 */
export async function pictureFile(width, height, strip, step) {
  const line = width * 4 + 1;
  const lines = new Uint8Array(line * height);
  for (let top = 0; top < height; top += step) {
    const high = Math.min(step, height - top);
    const pixels = strip(top, high);
    for (let y = 0; y < high; y++) lines.set(pixels.subarray(y * width * 4, (y + 1) * width * 4), (top + y) * line + 1);
  }
  for (let at = line * height - 1; at >= 0; at--) {
    const x = at % line;
    if (x === 0) lines[at] = 1; // each byte is told by its difference from the pixel to its left
    else if (x > 4) lines[at] -= lines[at - 4];
  }
  const head = new Uint8Array(13);
  const numbers = new DataView(head.buffer);
  numbers.setUint32(0, width);
  numbers.setUint32(4, height);
  head.set([8, 6, 0, 0, 0], 8);
  const parts = [new Uint8Array(SIGNATURE), chunk("IHDR", head), chunk("IDAT", await packed(lines, "deflate")), chunk("IEND", new Uint8Array())];
  return new Blob(/** @type {any[]} */ (parts), { type: "image/png" });
}
