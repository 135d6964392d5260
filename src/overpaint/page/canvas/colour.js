/** A layer of colours over the picture, in tiles like the mask: red, green, blue and how opaque they are. */

import { Mask, SIDE, Tiles } from "./mask.js";
import { pictureFile } from "./encode.js";
import { Stroke } from "./stroke.js";

/** @typedef {import("./mask.js").Box} Box */
/** @typedef {import("./mask.js").Change} Change */
/** @typedef {import("./stroke.js").Point} Point */
/** @typedef {import("./stroke.js").Brush} Brush */
/** @typedef {import("./view.js").View} View */

export class Colour extends Tiles {
  /** @param {number} width @param {number} height */
  constructor(width, height) {
    super(width, height, 4);
  }
}

/** A stroke of one colour. Its cover is drawn on a mask of its own, so that it does not build up where it crosses itself. */
export class ColourStroke {
  /**
   * @param {Colour} colour
   * @param {Brush} brush
   * @param {[number, number, number]} ink
   */
  constructor(colour, brush, ink) {
    this.colour = colour;
    this.cover = new Mask(colour.width, colour.height);
    this.stroke = new Stroke(this.cover, { ...brush, erases: false });
    this.erases = brush.erases;
    this.ink = ink;
    colour.begin();
  }

  /** @param {Point} point @returns {Box | null} what has changed */
  to(point) {
    const box = this.stroke.to(point);
    if (!box) return null;
    const { across } = this.colour;
    for (let ty = box[1] >> 8; ty <= (box[3] - 1) >> 8; ty++) {
      for (let tx = box[0] >> 8; tx <= (box[2] - 1) >> 8; tx++) this.#compose(ty * across + tx, tx, ty, box);
    }
    return box;
  }

  /** @returns {Change | null} */
  end() {
    this.cover.cancel();
    return this.colour.end();
  }

  cancel() {
    this.cover.cancel();
    this.colour.cancel();
  }

  /** @param {number} index @param {number} tx @param {number} ty @param {Box} box */
  #compose(index, tx, ty, [left, top, right, bottom]) {
    const cover = this.cover.tiles[index];
    const before = this.colour.former(index);
    if (!cover || (this.erases && !before)) return;
    const tile = this.colour.tile(index);
    const [red, green, blue] = this.ink;
    const x0 = Math.max(left, tx * SIDE) - tx * SIDE, x1 = Math.min(right, (tx + 1) * SIDE) - tx * SIDE;
    const y0 = Math.max(top, ty * SIDE) - ty * SIDE, y1 = Math.min(bottom, (ty + 1) * SIDE) - ty * SIDE;
    for (let y = y0; y < y1; y++) {
      for (let x = x0, at = (y << 8) | x0; x < x1; x++, at++) {
        const strength = cover[at];
        if (!strength) continue;
        const i = at << 2;
        const was = before ? (before[i + 3] * (255 - strength)) / 255 : 0;
        if (this.erases) {
          tile[i + 3] = was + 0.5;
          if (!tile[i + 3]) tile[i] = tile[i + 1] = tile[i + 2] = 0;
          continue;
        }
        const whole = strength + was, part = strength / whole;
        tile[i] = red * part + (before ? before[i] : 0) * (1 - part) + 0.5;
        tile[i + 1] = green * part + (before ? before[i + 1] : 0) * (1 - part) + 0.5;
        tile[i + 2] = blue * part + (before ? before[i + 2] : 0) * (1 - part) + 0.5;
        tile[i + 3] = whole + 0.5;
      }
    }
  }
}

/**
 * A part of the window, as the colours look there.
 * @param {Tiles} colour
 * @param {View} view
 * @param {Box} box in the window
 * @returns {ImageData}
 */
export function shown(colour, view, [left, top, right, bottom]) {
  const wide = right - left, high = bottom - top;
  const image = new ImageData(wide, high);
  const out = new Uint32Array(image.data.buffer);
  const tiles = colour.tiles.map((each) => each && new Uint32Array(each.buffer, each.byteOffset, SIDE * SIDE));
  const xs = Int32Array.from({ length: wide }, (_, i) => Math.floor((left + i + 0.5 - view.x) / view.scale));
  for (let j = 0; j < high; j++) {
    const y = Math.floor((top + j + 0.5 - view.y) / view.scale);
    if (y < 0 || y >= colour.height) continue;
    const first = (y >> 8) * colour.across, line = (y & 255) << 8;
    for (let i = 0; i < wide; i++) {
      const x = xs[i];
      const tile = x >= 0 && x < colour.width ? tiles[first + (x >> 8)] : null;
      if (tile) out[j * wide + i] = tile[line | (x & 255)];
    }
  }
  return image;
}

/**
 * The colours on a larger picture, at the place where the old one lies in it.
 * @param {Tiles} colour
 * @param {number} width
 * @param {number} height
 * @param {number} left
 * @param {number} top
 * @returns {Colour} another one
 */
export function shifted(colour, width, height, left, top) {
  const next = new Colour(width, height);
  colour.tiles.forEach((tile, index) => {
    if (!tile) return;
    const from = new Uint32Array(tile.buffer, tile.byteOffset, SIDE * SIDE);
    const x0 = (index % colour.across) * SIDE + left, y0 = Math.floor(index / colour.across) * SIDE + top;
    for (let y = 0; y < SIDE; y++) {
      for (let x = 0; x < SIDE; x++) {
        const pixel = from[(y << 8) | x];
        if (!pixel) continue;
        const to = next.tile(((y0 + y) >> 8) * next.across + ((x0 + x) >> 8));
        new Uint32Array(to.buffer)[(((y0 + y) & 255) << 8) | ((x0 + x) & 255)] = pixel;
      }
    }
  });
  return next;
}

/**
 * All of a layer as a change of an empty one.
 * @param {Tiles} layer
 * @returns {Change}
 */
export function allOf(layer) {
  return new Map(layer.tiles.flatMap((tile, index) => (tile ? [/** @type {[number, Uint8Array]} */ ([index, tile.slice()])] : [])));
}

/**
 * The box round all that has colour.
 * @param {Tiles} colour
 * @returns {Box | null}
 */
export function boxOf(colour) {
  return joined(new Mask(colour.width, colour.height), colour).box();
}

/**
 * The picture with its colours, as a file.
 * @param {ImageBitmap | OffscreenCanvas} picture
 * @param {Tiles} colour
 * @returns {Promise<Blob>}
 */
export function flattened(picture, colour) {
  const { width, height } = colour;
  const sheet = new OffscreenCanvas(width, SIDE);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d", { willReadFrequently: true }));
  return pictureFile(width, height, (top, rows) => {
    pen.clearRect(0, 0, width, SIDE);
    pen.drawImage(picture, 0, -top);
    const { data } = pen.getImageData(0, 0, width, rows);
    for (let tx = 0; tx < colour.across; tx++) {
      const tile = colour.tiles[(top >> 8) * colour.across + tx];
      if (tile) layOver(data, width, rows, tx * SIDE, tile);
    }
    return new Uint8Array(data.buffer);
  }, SIDE);
}

/**
 * @param {Uint8ClampedArray} data
 * @param {number} width
 * @param {number} rows
 * @param {number} left
 * @param {Uint8Array} tile
 */
function layOver(data, width, rows, left, tile) {
  const wide = Math.min(SIDE, width - left);
  for (let y = 0; y < rows; y++) {
    for (let x = 0, from = y << 10, to = (y * width + left) * 4; x < wide; x++, from += 4, to += 4) {
      const part = tile[from + 3] / 255;
      if (!part) continue;
      for (let k = 0; k < 3; k++) data[to + k] = tile[from + k] * part + data[to + k] * (1 - part);
    }
  }
}

/**
 * The mask with all that has colour.
 * @param {Mask} mask
 * @param {Tiles} colour
 * @returns {Mask} another one
 */
export function joined(mask, colour) {
  const all = new Mask(mask.width, mask.height);
  all.tiles = mask.tiles.map((own, index) => {
    const over = colour.tiles[index];
    if (!over) return own;
    const tile = own ? own.slice() : new Uint8Array(SIDE * SIDE);
    for (let at = 0; at < tile.length; at++) if (over[(at << 2) | 3]) tile[at] = 255;
    return tile;
  });
  return all;
}
