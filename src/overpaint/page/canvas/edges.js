/** The mask's edge moved outwards or inwards, or made soft. Distances are exact (Meijster, 2000). */

/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {import("./mask.js").Box} Box */

/**
 * @param {Mask} mask
 * @param {number} by pixels; below zero it shrinks
 * @returns {import("./mask.js").Change | null}
 */
export function grown(mask, by) {
  return changed(mask, Math.max(0, by) + 1, (bytes, wide, high) => {
    const isIn = by > 0 ? (/** @type {number} */ value) => value > 127 : (/** @type {number} */ value) => value <= 127;
    const far = distances(bytes, wide, high, isIn);
    const most = by * by, inner = by > 0 ? 255 : 0;
    return bytes.map((value, i) => (far[i] <= most ? inner : value));
  });
}

/**
 * @param {Mask} mask
 * @param {number} by pixels over which it fades
 * @returns {import("./mask.js").Change | null}
 */
export function feathered(mask, by) {
  const radius = Math.max(1, Math.round(by / 3));
  return changed(mask, 3 * radius + 1, (bytes, wide, high) => {
    let now = bytes;
    for (let round = 0; round < 3; round++) {
      now = boxBlurred(now, wide, high, 1, wide, radius);
      now = boxBlurred(now, high, wide, wide, 1, radius);
    }
    return now;
  });
}

/**
 * @param {Mask} mask
 * @param {number} room round what there is
 * @param {(bytes: Uint8Array, wide: number, high: number) => Uint8Array} made
 */
function changed(mask, room, made) {
  const box = mask.box();
  if (!box) return null;
  /** @type {Box} */
  const around = [
    Math.max(0, box[0] - room),
    Math.max(0, box[1] - room),
    Math.min(mask.width, box[2] + room),
    Math.min(mask.height, box[3] + room),
  ];
  const bytes = made(mask.flat(around), around[2] - around[0], around[3] - around[1]);
  mask.begin();
  mask.put(around, bytes);
  return mask.end();
}

/**
 * Squares of the distances to the nearest pixel that is in.
 * @param {Uint8Array} bytes
 * @param {number} wide
 * @param {number} high
 * @param {(value: number) => boolean} isIn
 * @returns {Float32Array}
 */
function distances(bytes, wide, high, isIn) {
  const far = wide + high;
  const down = new Int32Array(wide * high);
  for (let x = 0; x < wide; x++) {
    for (let y = 0, last = far; y < high; y++) down[y * wide + x] = last = isIn(bytes[y * wide + x]) ? 0 : last + 1;
    for (let y = high - 1, last = far; y >= 0; y--) {
      last = Math.min(down[y * wide + x], last + 1);
      down[y * wide + x] = last;
    }
  }
  const out = new Float32Array(wide * high);
  const at = new Int32Array(wide), from = new Float64Array(wide);
  for (let y = 0; y < high; y++) lowestParabolas(down.subarray(y * wide, (y + 1) * wide), out.subarray(y * wide, (y + 1) * wide), at, from);
  return out;
}

/**
 * @param {Int32Array} heights
 * @param {Float32Array} out
 * @param {Int32Array} at
 * @param {Float64Array} from
 */
function lowestParabolas(heights, out, at, from) {
  let count = 0;
  for (let x = 0; x < heights.length; x++) {
    let start = -Infinity;
    while (count) {
      const other = at[count - 1];
      start = (x * x + heights[x] ** 2 - other * other - heights[other] ** 2) / (2 * (x - other));
      if (start > from[count - 1]) break;
      count--;
      start = -Infinity;
    }
    at[count] = x;
    from[count++] = start;
  }
  for (let x = 0, i = 0; x < heights.length; x++) {
    while (i + 1 < count && from[i + 1] <= x) i++;
    out[x] = (x - at[i]) ** 2 + heights[at[i]] ** 2;
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {number} length of a line
 * @param {number} lines
 * @param {number} step within a line
 * @param {number} jump from line to line
 * @param {number} radius
 */
function boxBlurred(bytes, length, lines, step, jump, radius) {
  const out = new Uint8Array(bytes.length);
  const size = 2 * radius + 1;
  for (let line = 0; line < lines; line++) {
    const first = line * jump;
    const value = (/** @type {number} */ i) => bytes[first + Math.min(length - 1, Math.max(0, i)) * step];
    let sum = 0;
    for (let i = -radius; i <= radius; i++) sum += value(i);
    for (let i = 0; i < length; i++) {
      out[first + i * step] = sum / size + 0.5;
      sum += value(i + radius + 1) - value(i - radius);
    }
  }
  return out;
}
