/**
 * The mask: one byte a pixel, in tiles of 256, of which only those exist that hold something.
 *
 * Whoever changes it does so between `begin` and `end`, which gives the change as the tiles' differences. Laying a
 * difference over the mask undoes the change, and laying it over once more does it again.
 */

export const SIDE = 256;
const SHIFT = 8;
const AREA = SIDE * SIDE;
/** All that is wholly opaque is one tile for each depth, which nobody writes to. @type {Map<number, Uint8Array>} */
const FULL = new Map();

/** @typedef {[number, number, number, number]} Box left, top, right, bottom; the last two are outside */
/** @typedef {Map<number, Uint8Array>} Change tile -> what differs, by exclusive or */

/** A layer in tiles, with its changes. */
export class Tiles {
  /**
   * @param {number} width
   * @param {number} height
   * @param {number} depth bytes of a pixel
   */
  constructor(width, height, depth) {
    this.depth = depth;
    this.width = width;
    this.height = height;
    this.across = Math.ceil(width / SIDE);
    this.down = Math.ceil(height / SIDE);
    /** @type {(Uint8Array | null)[]} */
    this.tiles = new Array(this.across * this.down).fill(null);
    /** @type {Map<number, Uint8Array | null> | null} */
    this.before = null;
    /** @type {Map<number, Box | null>} */
    this.boxes = new Map();
  }

  /** The same as it is now, which later changes leave alone. @returns {this} */
  copied() {
    const full = FULL.get(this.depth);
    const tiles = this.tiles.map((tile) => (tile && tile !== full ? tile.slice() : tile));
    return Object.assign(Object.create(Object.getPrototypeOf(this)), this, { tiles, before: null, boxes: new Map(this.boxes) });
  }

  /** A change begins. */
  begin() {
    this.before = new Map();
  }

  /**
   * The tile to write to.
   * @param {number} index
   * @returns {Uint8Array}
   */
  tile(index) {
    const found = this.tiles[index];
    const isShared = found !== null && found === FULL.get(this.depth);
    if (this.before && !this.before.has(index)) this.before.set(index, found && !isShared ? found.slice() : found);
    this.boxes.delete(index);
    if (found && !isShared) return found;
    return (this.tiles[index] = found ? found.slice() : new Uint8Array(AREA * this.depth));
  }

  /**
   * The tile as it was before the change.
   * @param {number} index
   * @returns {Uint8Array | null}
   */
  former(index) {
    return this.before?.has(index) ? (this.before.get(index) ?? null) : this.tiles[index];
  }

  /**
   * The change is over. Null if nothing is other than before.
   * @returns {Change | null}
   */
  end() {
    /** @type {Change} */
    const change = new Map();
    for (const [index, before] of this.before ?? []) {
      const now = /** @type {Uint8Array} */ (this.tiles[index]);
      const difference = exclusive(now, before);
      if (difference) change.set(index, difference);
      this.tiles[index] = this.#small(now);
    }
    this.before = null;
    return change.size ? change : null;
  }

  /** The change is taken back while it is made. */
  cancel() {
    for (const [index, before] of this.before ?? []) {
      this.tiles[index] = before;
      this.boxes.delete(index);
    }
    this.before = null;
  }

  /** @param {Change} change */
  apply(change) {
    for (const [index, difference] of change) {
      const now = this.tiles[index];
      const next = now ? exclusive(now, difference) : difference.slice();
      this.tiles[index] = next && this.#small(next);
      this.boxes.delete(index);
    }
  }

  /** As it is held: nothing for an empty tile, and the same one for all that are full. @param {Uint8Array} tile */
  #small(tile) {
    if (isEmpty(tile)) return null;
    if (!isFull(tile)) return tile;
    if (!FULL.has(this.depth)) FULL.set(this.depth, tile.slice());
    return /** @type {Uint8Array} */ (FULL.get(this.depth));
  }

  /**
   * Everything white, black, or turned round.
   * @param {(before: Uint8Array | null, index: number) => Uint8Array | null} made
   * @returns {Change | null}
   */
  remake(made) {
    this.begin();
    for (let index = 0; index < this.tiles.length; index++) {
      const next = made(this.tiles[index], index);
      const tile = next || this.tiles[index] ? this.tile(index) : null;
      if (tile) next ? tile.set(next) : tile.fill(0);
      if (tile) this.trim(tile, index);
    }
    return this.end();
  }

  isEmpty() {
    return this.tiles.every((each) => !each || isEmpty(each));
  }

  /**
   * What lies beyond the picture's edge stays empty.
   * @param {Uint8Array} tile
   * @param {number} index
   */
  trim(tile, index) {
    const { depth } = this;
    const wide = Math.min(SIDE, this.width - (index % this.across) * SIDE);
    const high = Math.min(SIDE, this.height - Math.floor(index / this.across) * SIDE);
    if (wide < SIDE) for (let y = 0; y < SIDE; y++) tile.fill(0, (y * SIDE + wide) * depth, (y + 1) * SIDE * depth);
    if (high < SIDE) tile.fill(0, high * SIDE * depth);
  }
}

export class Mask extends Tiles {
  /**
   * @param {number} width
   * @param {number} height
   */
  constructor(width, height) {
    super(width, height, 1);
  }

  /** @param {number} x @param {number} y */
  at(x, y) {
    const tile = this.tiles[(y >> SHIFT) * this.across + (x >> SHIFT)];
    return tile ? tile[((y & 255) << SHIFT) | (x & 255)] : 0;
  }

  /**
   * The smallest box round all that is not black.
   * @returns {Box | null}
   */
  box() {
    /** @type {Box | null} */
    let all = null;
    for (let index = 0; index < this.tiles.length; index++) {
      const tile = this.tiles[index];
      if (!tile) continue;
      if (!this.boxes.has(index)) this.boxes.set(index, boxOf(tile));
      const own = this.boxes.get(index);
      if (!own) continue;
      const left = (index % this.across) * SIDE, top = Math.floor(index / this.across) * SIDE;
      all = united(all, [left + own[0], top + own[1], left + own[2], top + own[3]]);
    }
    return all;
  }

  /**
   * A part of it, row by row.
   * @param {Box} box
   * @returns {Uint8Array}
   */
  flat([left, top, right, bottom]) {
    const wide = right - left;
    const out = new Uint8Array(wide * (bottom - top));
    for (let y = Math.max(0, top); y < Math.min(this.height, bottom); y++) {
      for (let x = Math.max(0, left); x < Math.min(this.width, right); ) {
        const end = Math.min(right, this.width, (x | 255) + 1);
        const tile = this.tiles[(y >> SHIFT) * this.across + (x >> SHIFT)];
        const row = ((y & 255) << SHIFT) | (x & 255);
        if (tile) out.set(tile.subarray(row, row + end - x), (y - top) * wide + x - left);
        x = end;
      }
    }
    return out;
  }

  /**
   * Write a part of it; to be called within a change.
   * @param {Box} box
   * @param {Uint8Array} bytes
   */
  put([left, top, right, bottom], bytes) {
    const wide = right - left;
    for (let y = Math.max(0, top); y < Math.min(this.height, bottom); y++) {
      for (let x = Math.max(0, left); x < Math.min(this.width, right); ) {
        const end = Math.min(right, this.width, (x | 255) + 1);
        const index = (y >> SHIFT) * this.across + (x >> SHIFT);
        const from = (y - top) * wide + x - left;
        const row = ((y & 255) << SHIFT) | (x & 255);
        const given = bytes.subarray(from, from + end - x);
        if (this.tiles[index] || given.some(Boolean)) this.tile(index).set(given, row);
        x = end;
      }
    }
  }
}

/**
 * @param {Uint8Array} now
 * @param {Uint8Array | null} before
 * @returns {Uint8Array | null} null where they are equal
 */
function exclusive(now, before) {
  const out = now.slice();
  if (!before) return isEmpty(out) ? null : out;
  const wide = new Uint32Array(out.buffer), other = new Uint32Array(before.buffer, before.byteOffset, before.length / 4);
  let any = 0;
  for (let i = 0; i < wide.length; i++) any |= wide[i] ^= other[i];
  return any ? out : null;
}

/** @param {Uint8Array} tile */
function isEmpty(tile) {
  const wide = new Uint32Array(tile.buffer, tile.byteOffset, tile.length / 4);
  for (let i = 0; i < wide.length; i++) if (wide[i]) return false;
  return true;
}

/** @param {Uint8Array} tile */
function isFull(tile) {
  const wide = new Uint32Array(tile.buffer, tile.byteOffset, tile.length / 4);
  for (let i = 0; i < wide.length; i++) if (wide[i] !== 0xffffffff) return false;
  return true;
}

/**
 * @param {Uint8Array} tile
 * @returns {Box | null}
 */
function boxOf(tile) {
  let left = SIDE, top = SIDE, right = 0, bottom = 0;
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      if (!tile[(y << SHIFT) | x]) continue;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      bottom = y + 1;
    }
  }
  return right ? [left, top, right, bottom] : null;
}

/**
 * @param {Box | null} a
 * @param {Box | null} b
 * @returns {Box | null}
 */
export function united(a, b) {
  if (!a || !b) return a ?? b;
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}
