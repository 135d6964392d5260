/** A picture with its halves, so that whatever is shown is drawn from about as many pixels as the window has. */

const SMALLEST = 512;

/** @typedef {import("./view.js").View} View */

export class Pyramid {
  /** @param {ImageBitmap} picture */
  constructor(picture) {
    this.width = picture.width;
    this.height = picture.height;
    /** @type {(ImageBitmap | OffscreenCanvas)[]} */
    this.levels = [picture];
    let { width, height } = picture;
    while (Math.max(width, height) > SMALLEST) {
      width = Math.ceil(width / 2);
      height = Math.ceil(height / 2);
      const level = new OffscreenCanvas(width, height);
      const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (level.getContext("2d"));
      pen.imageSmoothingQuality = "medium";
      pen.drawImage(this.levels[this.levels.length - 1], 0, 0, width, height);
      this.levels.push(level);
    }
  }

  /**
   * The part that is in sight.
   * @param {CanvasRenderingContext2D} pen
   * @param {View} view in device pixels
   */
  draw(pen, view) {
    let at = 0;
    while (at + 1 < this.levels.length && view.scale <= 0.5 ** (at + 1)) at++;
    const level = this.levels[at];
    const kx = level.width / this.width, ky = level.height / this.height;
    const left = Math.max(0, -view.x / view.scale), right = Math.min(this.width, (pen.canvas.width - view.x) / view.scale);
    const top = Math.max(0, -view.y / view.scale), bottom = Math.min(this.height, (pen.canvas.height - view.y) / view.scale);
    const wide = right - left, high = bottom - top;
    if (wide <= 0 || high <= 0) return;
    pen.imageSmoothingEnabled = view.scale < 3;
    pen.imageSmoothingQuality = "low";
    pen.drawImage(
      level,
      ...[left * kx, top * ky, wide * kx, high * ky],
      ...[left * view.scale + view.x, top * view.scale + view.y, wide * view.scale, high * view.scale],
    );
  }

  /**
   * The picture's mean colour.
   * @returns {[number, number, number]}
   */
  mean() {
    const dot = new OffscreenCanvas(1, 1);
    const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (dot.getContext("2d", { willReadFrequently: true }));
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.levels[this.levels.length - 1], 0, 0, 1, 1);
    const [red, green, blue] = pen.getImageData(0, 0, 1, 1).data;
    return [red, green, blue];
  }

  close() {
    const [first] = this.levels;
    if (first instanceof ImageBitmap) first.close();
    for (const each of this.levels) if (each instanceof OffscreenCanvas) each.width = 0;
  }
}
