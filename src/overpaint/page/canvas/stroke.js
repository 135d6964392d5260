/**
 * A stroke of the brush or eraser: dabs along a line, each at a tenth of the radius from the last.
 *
 * Within one stroke the strongest dab counts, so a soft brush that goes over a place twice does not build up.
 */

import { SIDE, united } from "./mask.js";

/** @typedef {import("./mask.js").Box} Box */
/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {{x: number, y: number, pressure: number}} Point */
/** @typedef {{radius: number, softness: number, opacity: number, erases: boolean}} Brush */

const SPACING = 0.1; // of the radius
const SOFT_SPACING = 0.2; // a soft edge hides the steps
const LEVELS = 4096; // of a soft dab, from its middle to its edge
const SHIFT = 8;

export class Stroke {
  /**
   * @param {Mask} mask
   * @param {Brush} brush
   */
  constructor(mask, brush) {
    this.mask = mask;
    this.brush = brush;
    /** @type {Map<number, Uint8Array>} */
    this.cover = new Map();
    this.falloff = falloffOf(brush);
    /** @type {Point | null} */
    this.last = null;
    mask.begin();
  }

  /**
   * On to the next point.
   * @param {Point} point
   * @returns {Box | null} what has changed
   */
  to(point) {
    const from = this.last;
    this.last = point;
    if (!from) return this.#dab(point.x, point.y, this.#radius(point.pressure));
    const far = Math.hypot(point.x - from.x, point.y - from.y);
    const steps = Math.max(1, Math.ceil(far / Math.max(1, this.#radius(point.pressure) * (this.brush.softness > 0.3 ? SOFT_SPACING : SPACING))));
    /** @type {Box | null} */
    let changed = null;
    for (let i = 1; i <= steps; i++) {
      const t = i / steps;
      const radius = this.#radius(from.pressure + (point.pressure - from.pressure) * t);
      changed = united(changed, this.#dab(from.x + (point.x - from.x) * t, from.y + (point.y - from.y) * t, radius));
    }
    return changed;
  }

  /** @returns {import("./mask.js").Change | null} */
  end() {
    return this.mask.end();
  }

  cancel() {
    this.mask.cancel();
  }

  /** @param {number} pressure */
  #radius(pressure) {
    return Math.max(0.5, this.brush.radius * pressure);
  }

  /**
   * @param {number} cx
   * @param {number} cy
   * @param {number} radius
   * @returns {Box | null}
   */
  #dab(cx, cy, radius) {
    const { mask } = this;
    const left = Math.max(0, Math.floor(cx - radius)), right = Math.min(mask.width - 1, Math.ceil(cx + radius));
    const top = Math.max(0, Math.floor(cy - radius)), bottom = Math.min(mask.height - 1, Math.ceil(cy + radius));
    if (left > right || top > bottom) return null;
    for (let ty = top >> SHIFT; ty <= bottom >> SHIFT; ty++) {
      for (let tx = left >> SHIFT; tx <= right >> SHIFT; tx++) {
        const clip = [
          Math.max(left, tx << SHIFT),
          Math.max(top, ty << SHIFT),
          Math.min(right, (tx << SHIFT) + 255),
          Math.min(bottom, (ty << SHIFT) + 255),
        ];
        this.#dabTile(ty * mask.across + tx, clip, cx, cy, radius);
      }
    }
    return [left, top, right + 1, bottom + 1];
  }

  /**
   * @param {number} index
   * @param {number[]} clip
   * @param {number} cx
   * @param {number} cy
   * @param {number} radius
   */
  #dabTile(index, [left, top, right, bottom], cx, cy, radius) {
    const { softness, opacity, erases } = this.brush;
    const tile = this.mask.tile(index);
    const isHard = softness === 0 && opacity === 1;
    const cover = isHard ? null : this.#coverOf(index);
    const soft = { tile, cover, before: this.mask.former(index), erases, scale: (LEVELS - 1) / (radius * radius), cx };
    const radius2 = radius * radius;
    for (let y = top; y <= bottom; y++) {
      const dy = y + 0.5 - cy, half2 = radius2 - dy * dy;
      if (half2 < 0) continue;
      const half = Math.sqrt(half2), row = (y & 255) << SHIFT;
      const from = Math.max(left, Math.ceil(cx - half - 0.5)), to = Math.min(right, Math.floor(cx + half - 0.5));
      if (to < from) continue;
      if (isHard) tile.fill(erases ? 0 : 255, row | (from & 255), (row | (to & 255)) + 1);
      else this.#softRow(soft, row, from, to, dy * dy);
    }
  }

  /**
   * @param {{tile: Uint8Array, cover: Uint8Array | null, before: Uint8Array | null, erases: boolean, scale: number, cx: number}} dab
   * @param {number} row
   * @param {number} from
   * @param {number} to
   * @param {number} dy2
   */
  #softRow({ tile, cover, before, erases, scale, cx }, row, from, to, dy2) {
    const { falloff } = this;
    if (!cover) return;
    for (let x = from, dx = from + 0.5 - cx; x <= to; x++, dx++) {
      const strength = falloff[((dx * dx + dy2) * scale) | 0];
      const at = row | (x & 255);
      if (strength <= cover[at]) continue;
      cover[at] = strength;
      const was = before ? before[at] : 0;
      tile[at] = erases ? (was * (255 - strength) + 127) / 255 : strength > was ? strength : was;
    }
  }

  /** @param {number} index */
  #coverOf(index) {
    let cover = this.cover.get(index);
    if (!cover) this.cover.set(index, (cover = new Uint8Array(SIDE * SIDE)));
    return cover;
  }
}

/**
 * How strong a dab is, by the square of the distance from its middle; roots for each pixel would be the most of the work.
 * @param {Brush} brush
 * @returns {Uint8Array}
 */
function falloffOf({ softness, opacity }) {
  const full = Math.round(255 * opacity), inner = 1 - softness;
  return Uint8Array.from({ length: LEVELS }, (_, i) => {
    const far = Math.sqrt(i / (LEVELS - 1));
    return far <= inner ? full : (full * (1 - far)) / softness;
  });
}

/** Pressure with its jitter taken out: the middle of three counts most. */
export class Pressure {
  constructor() {
    /** @type {number[]} */
    this.seen = [];
  }

  /**
   * @param {number} value
   * @returns {number}
   */
  next(value) {
    this.seen = [...this.seen, value].slice(-3);
    const [a, b = a, c = b] = this.seen;
    return 0.2 * a + 0.6 * b + 0.2 * c;
  }
}
