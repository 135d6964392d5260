/** The mask as a PNG of one gray channel, written here: a canvas would make four channels of it, and round them. */

import { Mask, SIDE } from "./mask.js";
import { packed } from "../state/database.js";

export const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHECKS = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/**
 * @param {Mask} mask
 * @returns {Promise<Blob>}
 */
export async function maskFile(mask) {
  const { width, height } = mask;
  const lines = new Uint8Array((width + 1) * height); // each line begins with its filter, which is none
  for (let y = 0; y < height; y++) {
    for (let tx = 0; tx < mask.across; tx++) {
      const tile = mask.tiles[(y >> 8) * mask.across + tx];
      if (!tile) continue;
      const row = (y & 255) << 8, wide = Math.min(SIDE, width - tx * SIDE);
      lines.set(tile.subarray(row, row + wide), y * (width + 1) + 1 + tx * SIDE);
    }
  }
  const head = new Uint8Array(13);
  const numbers = new DataView(head.buffer);
  numbers.setUint32(0, width);
  numbers.setUint32(4, height);
  head.set([8, 0, 0, 0, 0], 8); // 8 bits of gray
  const parts = [new Uint8Array(SIGNATURE), chunk("IHDR", head), chunk("IDAT", await packed(lines, "deflate")), chunk("IEND", new Uint8Array())];
  return new Blob(/** @type {any[]} */ (parts), { type: "image/png" });
}

/**
 * A mask of the same places without grays.
 * @param {Mask} mask
 * @returns {Mask} another one
 */
export function hardened(mask) {
  const hard = new Mask(mask.width, mask.height);
  hard.tiles = mask.tiles.map((tile) => tile && tile.map((value) => (value ? 255 : 0)));
  return hard;
}

/**
 * A mask from a picture: its alpha if it has any, else how light it is. Another size is stretched.
 * @param {Mask} mask
 * @param {ImageBitmap} picture
 * @param {boolean} [alphaOnly]
 * @returns {import("./mask.js").Change | null} null where nothing differs
 */
export function readMask(mask, picture, alphaOnly = false) {
  const sheet = new OffscreenCanvas(SIDE, SIDE);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d", { willReadFrequently: true }));
  pen.imageSmoothingEnabled = picture.width !== mask.width || picture.height !== mask.height;
  const shown = (/** @type {number} */ index) => {
    const x = (index % mask.across) * SIDE, y = Math.floor(index / mask.across) * SIDE;
    pen.clearRect(0, 0, SIDE, SIDE);
    pen.drawImage(picture, -x, -y, mask.width, mask.height);
    const wide = Math.min(SIDE, mask.width - x), high = Math.min(SIDE, mask.height - y);
    return { wide, high, data: pen.getImageData(0, 0, wide, high).data };
  };
  let hasAlpha = alphaOnly;
  for (let i = 0; i < mask.tiles.length && !hasAlpha; i++) {
    const { data } = shown(i);
    for (let at = 3; at < data.length && !hasAlpha; at += 4) hasAlpha = data[at] < 255;
  }
  return mask.remake((_, index) => {
    const { wide, high, data } = shown(index);
    const tile = new Uint8Array(SIDE * SIDE);
    for (let y = 0, at = 0; y < high; y++) {
      for (let x = 0; x < wide; x++, at += 4) {
        const light = hasAlpha ? data[at + 3] : (data[at] * 299 + data[at + 1] * 587 + data[at + 2] * 114 + 500) / 1000;
        tile[(y << 8) | x] = alphaOnly ? 255 - light : light;
      }
    }
    return tile;
  });
}

/**
 * A gray picture of the mask's size laid over it: white is added, or taken away.
 * @param {Mask} mask
 * @param {ImageBitmap} picture
 * @param {boolean} erases
 * @returns {import("./mask.js").Change | null}
 */
export function layOver(mask, picture, erases) {
  const sheet = new OffscreenCanvas(SIDE, SIDE);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d", { willReadFrequently: true }));
  return mask.remake((before, index) => {
    const x = (index % mask.across) * SIDE, y = Math.floor(index / mask.across) * SIDE;
    pen.clearRect(0, 0, SIDE, SIDE);
    pen.drawImage(picture, -x, -y);
    const { data } = pen.getImageData(0, 0, SIDE, SIDE);
    const tile = before ? before.slice() : new Uint8Array(SIDE * SIDE);
    for (let at = 0; at < tile.length; at++) {
      const light = data[4 * at];
      tile[at] = erases ? Math.min(tile[at], 255 - light) : Math.max(tile[at], light);
    }
    return tile;
  });
}

/**
 * @param {string} name
 * @param {Uint8Array} data
 */
export function chunk(name, data) {
  const out = new Uint8Array(12 + data.length);
  const numbers = new DataView(out.buffer);
  numbers.setUint32(0, data.length);
  out.set([...name].map((each) => each.charCodeAt(0)), 4);
  out.set(data, 8);
  numbers.setUint32(8 + data.length, check(out.subarray(4, 8 + data.length)));
  return out;
}

/** @param {Uint8Array} bytes */
function check(bytes) {
  let value = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) value = CHECKS[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
