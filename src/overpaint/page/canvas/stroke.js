/**
 * A stroke of the brush or eraser: dabs along a line, each at a tenth of the radius from the last. Of a soft brush whose
 * radius stays what it is, that is how far each pixel lies from the line, and every pixel is looked at once.
 *
 * Within one stroke the strongest dab counts, so a soft brush that goes over a place twice does not build up.
 */

import { SIDE, united } from "./mask.js";

/** @typedef {import("./mask.js").Box} Box */
/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {{x: number, y: number, pressure: number}} Point */
/** @typedef {{radius: number, softness: number, opacity: number, erases: boolean}} Brush */

const SPACING = 0.1; // of the radius
const SOFT_SPACING = 0.2; // a soft edge hides the steps, which are there where the pressure changes
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
    this.isHard = brush.softness === 0 && brush.opacity === 1;
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
    const isEven = Math.abs(this.#radius(point.pressure) - this.#radius(from.pressure)) < 0.25;
    if (isEven && !this.isHard) return this.#softLine(from, point, this.#radius(point.pressure));
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
    if (!this.isHard) return this.#softLine({ x: cx, y: cy }, { x: cx, y: cy }, radius);
    return this.#tiles([cx - radius, cy - radius, cx + radius, cy + radius], (index, clip) => this.#dabTile(index, clip, cx, cy, radius));
  }

  /**
   * @param {{x: number, y: number}} from
   * @param {{x: number, y: number}} to
   * @param {number} radius
   * @returns {Box | null}
   */
  #softLine(from, to, radius) {
    const dx = to.x - from.x, dy = to.y - from.y, length2 = dx * dx + dy * dy || 1;
    const line = { ax: from.x, ay: from.y, dx, dy, length2, radius };
    const box = /** @type {Box} */ ([
      Math.min(from.x, to.x) - radius,
      Math.min(from.y, to.y) - radius,
      Math.max(from.x, to.x) + radius,
      Math.max(from.y, to.y) + radius,
    ]);
    return this.#tiles(box, (index, clip) => this.#lineTile(index, clip, line));
  }

  /**
   * @param {Box} box
   * @param {(index: number, clip: number[]) => void} work with a tile, and the part of it that lies in the box
   * @returns {Box | null} the pixels that were given to it
   */
  #tiles(box, work) {
    const { mask } = this;
    const left = Math.max(0, Math.floor(box[0])), right = Math.min(mask.width - 1, Math.ceil(box[2]));
    const top = Math.max(0, Math.floor(box[1])), bottom = Math.min(mask.height - 1, Math.ceil(box[3]));
    if (left > right || top > bottom) return null;
    for (let ty = top >> SHIFT; ty <= bottom >> SHIFT; ty++) {
      for (let tx = left >> SHIFT; tx <= right >> SHIFT; tx++) {
        const x = tx << SHIFT, y = ty << SHIFT;
        work(ty * mask.across + tx, [Math.max(left, x), Math.max(top, y), Math.min(right, x + 255), Math.min(bottom, y + 255)]);
      }
    }
    return [left, top, right + 1, bottom + 1];
  }

  /**
   * @param {number} index
   * @param {number[]} clip
   * @param {{ax: number, ay: number, dx: number, dy: number, length2: number, radius: number}} line
   */
  #lineTile(index, [left, top, right, bottom], { ax, ay, dx, dy, length2, radius }) {
    const { falloff, mask } = this, { erases } = this.brush;
    const reach = radius * Math.sqrt(length2), radius2 = radius * radius, scale = (LEVELS - 1) / radius2;
    /** @type {{tile: Uint8Array, cover: Uint8Array, before: Uint8Array | null} | null} */
    let here = null;
    for (let y = top; y <= bottom; y++) {
      const py = y + 0.5 - ay;
      if (!dy && Math.abs(py * dx) > reach) continue;
      const middle = dy ? (py * dx) / dy : 0, half = dy ? Math.abs(reach / dy) : Infinity;
      const from = Math.max(left, Math.ceil(ax + middle - half - 0.5)), to = Math.min(right, Math.floor(ax + middle + half - 0.5));
      if (to < from) continue;
      here ??= { tile: mask.tile(index), cover: this.#coverOf(index), before: mask.former(index) };
      const { tile, cover, before } = here, row = (y & 255) << SHIFT;
      for (let x = from, px = from + 0.5 - ax; x <= to; x++, px++) {
        const along = (px * dx + py * dy) / length2, t = along < 0 ? 0 : along > 1 ? 1 : along;
        const ex = px - t * dx, ey = py - t * dy, far2 = ex * ex + ey * ey;
        if (far2 > radius2) continue;
        const strength = falloff[(far2 * scale) | 0], at = row | (x & 255);
        if (strength <= cover[at]) continue;
        cover[at] = strength;
        const was = before ? before[at] : 0;
        tile[at] = erases ? (was * (255 - strength) + 127) / 255 : strength > was ? strength : was;
      }
    }
  }

  /**
   * @param {number} index
   * @param {number[]} clip
   * @param {number} cx
   * @param {number} cy
   * @param {number} radius
   */
  #dabTile(index, [left, top, right, bottom], cx, cy, radius) {
    const tile = this.mask.tile(index), value = this.brush.erases ? 0 : 255;
    const radius2 = radius * radius;
    for (let y = top; y <= bottom; y++) {
      const dy = y + 0.5 - cy, half2 = radius2 - dy * dy;
      if (half2 < 0) continue;
      const half = Math.sqrt(half2), row = (y & 255) << SHIFT;
      const from = Math.max(left, Math.ceil(cx - half - 0.5)), to = Math.min(right, Math.floor(cx + half - 0.5));
      if (to < from) continue;
      tile.fill(value, row | (from & 255), (row | (to & 255)) + 1);
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
