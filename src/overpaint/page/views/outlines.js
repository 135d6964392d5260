/** Lines over the picture, seen on any colour. */

/** @typedef {{x: number, y: number}} Place */
/** @typedef {import("../canvas/view.js").View} View */

/** @param {Place} place @param {View} view @returns {Place} */
export function placed({ x, y }, view) {
  return { x: x * view.scale + view.x, y: y * view.scale + view.y };
}

/** @param {CanvasRenderingContext2D} pen @param {View} view @param {Place[]} places */
export function line(pen, view, places) {
  for (const each of places) {
    const { x, y } = placed(each, view);
    pen.lineTo(x, y);
  }
}

/** A line that shows on anything. @param {CanvasRenderingContext2D} pen @param {number} ratio */
export function twice(pen, ratio) {
  pen.lineWidth = 3 * ratio;
  pen.strokeStyle = "#0009";
  pen.stroke();
  pen.lineWidth = 1.25 * ratio;
  pen.strokeStyle = "#fff";
  pen.stroke();
}
