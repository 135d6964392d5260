/** Where the picture lies in the window: window = picture * scale + (x, y), in CSS pixels. Values only. */

/** @typedef {{scale: number, x: number, y: number}} View */
/** @typedef {{width: number, height: number}} Size */

export const LARGEST = 64;
const MARGIN = 24;
const SEEN = 48; // pixels of the picture that can never be pushed out of the window

/**
 * All of the picture, in the middle, never larger than it is twice.
 * @param {Size} picture
 * @param {Size} window
 * @returns {View}
 */
export function fit(picture, window) {
  const margin = Math.min(MARGIN, window.width / 20, window.height / 20);
  const across = (window.width - 2 * margin) / picture.width, down = (window.height - 2 * margin) / picture.height;
  return centred(picture, window, Math.max(1e-3, Math.min(across, down, 8)));
}

/**
 * @param {Size} picture
 * @param {Size} window
 * @param {number} scale
 * @returns {View}
 */
export function centred(picture, window, scale) {
  return { scale, x: (window.width - picture.width * scale) / 2, y: (window.height - picture.height * scale) / 2 };
}

/**
 * Larger or smaller, with the point under (x, y) staying where it is.
 * @param {View} view
 * @param {number} factor
 * @param {number} x
 * @param {number} y
 * @param {number} [least]
 * @returns {View}
 */
export function zoomed(view, factor, x, y, least = 0.01) {
  const scale = Math.min(LARGEST, Math.max(least, view.scale * factor));
  const k = scale / view.scale;
  return { scale, x: x - (x - view.x) * k, y: y - (y - view.y) * k };
}

/**
 * Held so that a part of the picture stays in sight.
 * @param {View} view
 * @param {Size} picture
 * @param {Size} window
 * @returns {View}
 */
export function kept(view, picture, window) {
  const wide = picture.width * view.scale, high = picture.height * view.scale;
  return {
    scale: view.scale,
    x: Math.min(window.width - SEEN, Math.max(SEEN - wide, view.x)),
    y: Math.min(window.height - SEEN, Math.max(SEEN - high, view.y)),
  };
}

/**
 * @param {View} view
 * @param {number} x
 * @param {number} y
 * @returns {{x: number, y: number}}
 */
export function toPicture(view, x, y) {
  return { x: (x - view.x) / view.scale, y: (y - view.y) / view.scale };
}
