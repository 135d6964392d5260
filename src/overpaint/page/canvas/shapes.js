/** Areas laid over the mask at once: shapes, what they enclose, and what is done to the mask as a whole. */

import { SIDE } from "./mask.js";

/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {import("./mask.js").Box} Box */
/** @typedef {import("./mask.js").Change} Change */
/** @typedef {{x: number, y: number}} Place */

/**
 * @param {Mask} mask
 * @param {Place[]} corners of a polygon; what is inside by the even-odd rule becomes `value`
 * @param {number} value
 * @returns {Change | null}
 */
export function fillPolygon(mask, corners, value) {
  mask.begin();
  const top = Math.max(0, Math.floor(Math.min(...corners.map((each) => each.y))));
  const bottom = Math.min(mask.height, Math.ceil(Math.max(...corners.map((each) => each.y))));
  for (let y = top; y < bottom; y++) {
    const middle = y + 0.5;
    const cuts = [];
    for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
      const a = corners[j], b = corners[i];
      if (a.y <= middle !== b.y <= middle) cuts.push(a.x + ((middle - a.y) * (b.x - a.x)) / (b.y - a.y));
    }
    cuts.sort((a, b) => a - b);
    for (let i = 0; i + 1 < cuts.length; i += 2) fillRow(mask, y, Math.round(cuts[i]), Math.round(cuts[i + 1]), value);
  }
  return mask.end();
}

/**
 * @param {Place} a
 * @param {Place} b
 * @returns {Place[]}
 */
export function rectangle(a, b) {
  return [a, { x: b.x, y: a.y }, b, { x: a.x, y: b.y }];
}

/**
 * @param {Place} a
 * @param {Place} b
 * @returns {Place[]}
 */
export function ellipse(a, b) {
  const x = (a.x + b.x) / 2, y = (a.y + b.y) / 2, rx = Math.abs(b.x - a.x) / 2, ry = Math.abs(b.y - a.y) / 2;
  const count = Math.max(24, Math.min(720, Math.ceil(rx + ry)));
  return Array.from({ length: count }, (_, i) => {
    const angle = (2 * Math.PI * i) / count;
    return { x: x + rx * Math.cos(angle), y: y + ry * Math.sin(angle) };
  });
}

/**
 * What belongs together with a point: everything up to the mask's own edge.
 * @param {Mask} mask
 * @param {Place} from
 * @param {number} value
 * @returns {Change | null}
 */
export function fillFrom(mask, from, value) {
  const x0 = Math.floor(from.x), y0 = Math.floor(from.y);
  if (x0 < 0 || y0 < 0 || x0 >= mask.width || y0 >= mask.height) return null;
  const wasIn = mask.at(x0, y0) > 127;
  if (wasIn === value > 127) return null;
  mask.begin();
  const stack = [[x0, y0]];
  const isSame = (/** @type {number} */ x, /** @type {number} */ y) => mask.at(x, y) > 127 === wasIn;
  for (let next = stack.pop(); next; next = stack.pop()) {
    const [x, y] = next;
    if (!isSame(x, y)) continue;
    let left = x, right = x + 1;
    while (left > 0 && isSame(left - 1, y)) left--;
    while (right < mask.width && isSame(right, y)) right++;
    fillRow(mask, y, left, right, value);
    for (const line of [y - 1, y + 1]) {
      if (line < 0 || line >= mask.height) continue;
      for (let at = left, was = false; at < right; at++) {
        const same = isSame(at, line);
        if (same && !was) stack.push([at, line]);
        was = same;
      }
    }
  }
  return mask.end();
}

/** @param {Mask} mask */
export function fillAll(mask) {
  return mask.remake(() => new Uint8Array(SIDE * SIDE).fill(255));
}

/** @param {Mask} mask */
export function clearAll(mask) {
  return mask.remake(() => null);
}

/** @param {Mask} mask */
export function invertAll(mask) {
  return mask.remake((before) => (before ? before.map((each) => 255 - each) : new Uint8Array(SIDE * SIDE).fill(255)));
}

/**
 * @param {Mask} mask
 * @param {number} y
 * @param {number} from
 * @param {number} to
 * @param {number} value
 */
function fillRow(mask, y, from, to, value) {
  const right = Math.min(mask.width, to);
  for (let x = Math.max(0, from); x < right; ) {
    const end = Math.min(right, (x | 255) + 1);
    const index = (y >> 8) * mask.across + (x >> 8);
    const row = (y & 255) << 8;
    if (value || mask.tiles[index]) mask.tile(index).fill(value, row | (x & 255), (row | (x & 255)) + end - x);
    x = end;
  }
}
