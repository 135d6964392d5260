/** A picture with more room at its sides; what is new goes on with the colours of the edge until it is painted. */

import { pictureFile } from "./encode.js";

/** @typedef {{left: number, top: number, right: number, bottom: number}} Margins */

const STRIP = 256;

/**
 * @param {ImageBitmap | OffscreenCanvas} picture
 * @param {Margins} margins
 * @returns {Promise<Blob>}
 */
export function larger(picture, { left, top, right, bottom }) {
  const { width, height } = picture;
  const wide = left + width + right, high = top + height + bottom;
  const sheet = new OffscreenCanvas(wide, STRIP);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d", { willReadFrequently: true }));
  pen.imageSmoothingEnabled = false;
  /** Pieces of either direction: where they come from, how long they are there and here, and where they go. */
  const across = [[0, 1, 0, left], [0, width, left, width], [width - 1, 1, left + width, right]];
  const down = [[0, 1, 0, top], [0, height, top, height], [height - 1, 1, top + height, bottom]];
  return pictureFile(wide, high, (from, rows) => {
    pen.clearRect(0, 0, wide, STRIP);
    for (const [y, h, toY, toH] of down) {
      for (const [x, w, toX, toW] of across) if (toW && toH) pen.drawImage(picture, x, y, w, h, toX, toY - from, toW, toH);
    }
    return new Uint8Array(pen.getImageData(0, 0, wide, rows).data.buffer);
  }, STRIP);
}

/**
 * The new area, and what was masked before.
 * @param {import("./mask.js").Mask} mask of the larger picture
 * @param {Uint8Array | null} old what was masked before, row by row
 * @param {Margins} margins
 * @returns {import("./mask.js").Change | null}
 */
export function maskNew(mask, old, { left, top, right, bottom }) {
  const inside = /** @type {const} */ ([left, top, mask.width - right, mask.height - bottom]);
  const wide = inside[2] - inside[0];
  const line = new Uint8Array(mask.width);
  mask.begin();
  for (let y = 0; y < mask.height; y++) {
    line.fill(255);
    if (y >= inside[1] && y < inside[3]) {
      line.fill(0, inside[0], inside[2]);
      if (old) line.set(old.subarray((y - top) * wide, (y - top + 1) * wide), left);
    }
    mask.put([0, y, mask.width, y + 1], line);
  }
  return mask.end();
}

/**
 * Whether the mask is the new area and nothing else.
 * @param {import("./mask.js").Mask} mask
 * @param {Margins} margins
 */
export function isNewOnly(mask, { left, top, right, bottom }) {
  for (let y = 0; y < mask.height; y++) {
    const isNewLine = y < top || y >= mask.height - bottom;
    const line = mask.flat([0, y, mask.width, y + 1]);
    for (let x = 0; x < line.length; x++) {
      const isNew = isNewLine || x < left || x >= mask.width - right;
      if (line[x] !== (isNew ? 255 : 0)) return false;
    }
  }
  return true;
}
