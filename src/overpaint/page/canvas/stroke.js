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

const SPACING = 0.1;
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
    const steps = Math.max(1, Math.ceil(far / Math.max(1, this.#radius(point.pressure) * SPACING)));
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
    const tile = this.mask.tile(index), before = this.mask.former(index);
    let cover = this.cover.get(index);
    if (!cover) this.cover.set(index, (cover = new Uint8Array(SIDE * SIDE)));
    const inner = radius * (1 - softness), band = radius - inner || 1, full = Math.round(255 * opacity);
    const inner2 = inner * inner, radius2 = radius * radius;
    for (let y = top; y <= bottom; y++) {
      const dy = y + 0.5 - cy, half2 = radius2 - dy * dy;
      if (half2 < 0) continue;
      const half = Math.sqrt(half2), row = (y & 255) << SHIFT;
      const from = Math.max(left, Math.ceil(cx - half - 0.5)), to = Math.min(right, Math.floor(cx + half - 0.5));
      for (let x = from; x <= to; x++) {
        const dx = x + 0.5 - cx, d2 = dx * dx + dy * dy;
        const strength = d2 <= inner2 ? full : ((full * (radius - Math.sqrt(d2))) / band) | 0;
        const at = row | (x & 255);
        if (strength <= cover[at]) continue;
        cover[at] = strength;
        const was = before ? before[at] : 0;
        tile[at] = erases ? (was * (255 - strength) + 127) / 255 : strength > was ? strength : was;
      }
    }
  }
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
