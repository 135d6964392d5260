/**
 * What is seen: three canvases of the window's size, one over the other. The picture, the mask, and what is only shown.
 *
 * While a gesture moves the view the layers are moved by the browser, and drawn anew when it rests.
 */

import { united } from "./mask.js";
import { fit, kept } from "./view.js";

/** @typedef {import("./view.js").View} View */
/** @typedef {import("./mask.js").Box} Box */
/** @typedef {{image: CanvasImageSource, box: Box, stencil: CanvasImageSource | null}} Preview */

const DOUBLED = 3; // times that a difference is made twice as bright
const REST = 90; // milliseconds after which a moved view is drawn anew
/** Colours of the mask as [red, green, blue]; the one that is farthest from the picture's is taken. */
const TINTS = [[255, 0, 170], [0, 190, 255], [255, 150, 0], [90, 230, 0]];

export class Stage {
  /** @param {HTMLElement} host */
  constructor(host) {
    this.host = host;
    this.layers = ["picture", "colour", "mask", "over"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = `layer ${name}`;
      host.append(canvas);
      return canvas;
    });
    const [picture, colour, mask, over] = this.layers.map((each) => /** @type {CanvasRenderingContext2D} */ (each.getContext("2d")));
    this.pens = { picture, colour, mask, over };
    /** @type {import("./pyramid.js").Pyramid | null} */
    this.source = null;
    /** @type {import("./pyramid.js").Pyramid | null} */
    this.result = null;
    /** How much of the width shows the source before the result begins. */
    this.split = 0;
    /** Whether the difference of the two is shown instead. */
    this.isDifference = false;
    /** @type {import("./mask.js").Mask | null} */
    this.mask = null;
    this.showsMask = true;
    /** @type {import("./mask.js").Tiles | null} */
    this.colour = null;
    /** @type {((colour: import("./mask.js").Tiles, view: View, box: Box) => ImageData) | null} */
    this.coloured = null;
    this.tint = TINTS[0];
    /** @type {Preview[]} */
    this.previews = [];
    /** @type {Box | null} */
    this.crop = null;
    this.showsCrop = true;
    /** @type {((pen: CanvasRenderingContext2D, view: View) => void) | null} */
    this.drawsOver = null;
    /** @type {View} */
    this.view = { scale: 1, x: 0, y: 0 };
    /** @type {View} */
    this.drawn = this.view;
    this.size = { width: 1, height: 1 };
    this.ratio = 1;
    this.isFitted = true;
    /** @type {(view: View) => void} */
    this.onview = () => {};
    /** @type {Set<"picture" | "colour" | "mask" | "over">} */
    this.due = new Set();
    /** @type {Box | null | undefined} */
    this.dirty = undefined; // undefined: nothing, null: all of the mask
    /** @type {Box | null | undefined} the same of the colours */
    this.dirtyColour = undefined;
    this.timer = 0;
    new ResizeObserver(() => this.#measure()).observe(host);
    this.#measure();
  }

  /** @param {import("./pyramid.js").Pyramid | null} source */
  setSource(source) {
    const isOther = source?.width !== this.source?.width || source?.height !== this.source?.height;
    this.source = source;
    if (source) this.tint = farthest(source.mean());
    if (isOther && source) this.fit();
    else this.redraw();
  }

  fit() {
    this.isFitted = true;
    if (this.source) this.setView(fit(this.source, this.size), true);
  }

  /**
   * @param {View} view
   * @param {boolean} [atOnce]
   */
  setView(view, atOnce = false) {
    if (!this.source) return;
    this.view = kept(view, this.source, this.size);
    this.onview(this.view);
    clearTimeout(this.timer);
    if (atOnce) return this.redraw();
    const k = this.view.scale / this.drawn.scale;
    const x = this.view.x - this.drawn.x * k, y = this.view.y - this.drawn.y * k;
    for (const each of this.layers) each.style.transform = `translate(${x}px, ${y}px) scale(${k})`;
    this.timer = window.setTimeout(() => this.redraw(), REST);
  }

  /** Everything, at the next frame. */
  redraw() {
    this.dirty = this.dirtyColour = null;
    this.#ask("picture", "colour", "mask", "over");
  }

  redrawOver() {
    this.#ask("over");
  }

  redrawPicture() {
    this.#ask("picture", "over");
  }

  /** @param {Box | null} box what has changed of it; null is all */
  redrawMask(box) {
    this.dirty = both(this.dirty, box);
    this.#ask("mask");
  }

  /** @param {Box | null} box what has changed of the colours; null is all */
  redrawColour(box) {
    this.dirtyColour = both(this.dirtyColour, box);
    this.#ask("colour");
  }

  /** @param {("picture" | "colour" | "mask" | "over")[]} layers */
  #ask(...layers) {
    if (!this.due.size) requestAnimationFrame(() => this.#draw());
    for (const each of layers) this.due.add(each);
  }

  #draw() {
    const { due } = this;
    const isMoved = this.drawn !== this.view;
    this.due = new Set();
    if (isMoved) {
      this.drawn = this.view;
      this.dirty = this.dirtyColour = null;
      for (const each of ["picture", "colour", "mask", "over"]) due.add(/** @type {"picture"} */ (each));
      for (const each of this.layers) each.style.transform = "";
    }
    if (due.has("picture")) this.#drawPicture();
    if (due.has("colour")) this.#drawColour();
    if (due.has("mask")) this.#drawMask();
    if (due.has("over")) this.#drawOver();
  }

  /** @returns {View} in device pixels */
  get #device() {
    const { scale, x, y } = this.drawn;
    return { scale: scale * this.ratio, x: Math.round(x * this.ratio), y: Math.round(y * this.ratio) };
  }

  #drawPicture() {
    const pen = this.pens.picture, view = this.#device;
    pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
    this.source?.draw(pen, view);
    if (!this.result || !this.source) return;
    if (this.isDifference) return this.#drawDifference(pen, view);
    pen.save();
    pen.beginPath();
    const from = Math.round(view.x + this.split * this.source.width * view.scale);
    pen.rect(this.split > 0 ? from : -1e5, -1e5, 1e6, 1e6);
    pen.clip();
    const grown = view.scale * (this.source.width / this.result.width);
    this.result.draw(pen, { ...view, scale: grown });
    pen.restore();
  }

  /**
   * What differs, several times as bright as it is; what is black is the same in both.
   * @param {CanvasRenderingContext2D} pen
   * @param {View} view
   */
  #drawDifference(pen, view) {
    const { source, result } = this;
    if (!source || !result) return;
    // NOTE: drawn apart first; browsers scale with another precision where they blend, and the same would differ.
    const sheet = document.createElement("canvas");
    sheet.width = pen.canvas.width;
    sheet.height = pen.canvas.height;
    result.draw(/** @type {CanvasRenderingContext2D} */ (sheet.getContext("2d")), { ...view, scale: view.scale * (source.width / result.width) });
    pen.globalCompositeOperation = "difference";
    pen.drawImage(sheet, 0, 0);
    sheet.width = 0;
    pen.globalCompositeOperation = "lighter";
    for (let twice = 0; twice < DOUBLED; twice++) pen.drawImage(pen.canvas, 0, 0);
    pen.globalCompositeOperation = "source-over";
  }

  #drawMask() {
    const pen = this.pens.mask, { mask } = this, { dirty } = this;
    this.dirty = undefined;
    if (dirty === null) pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
    if (!mask || !this.showsMask || dirty === undefined) return;
    const box = this.#inWindow(dirty ?? [0, 0, mask.width, mask.height]);
    if (box) pen.putImageData(tinted(mask, this.#device, box, this.tint), box[0], box[1]);
  }

  #drawColour() {
    const pen = this.pens.colour, { colour, dirtyColour: dirty, coloured } = this;
    this.dirtyColour = undefined;
    if (dirty === null) pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
    if (!colour || !coloured || !this.showsMask || dirty === undefined) return;
    const box = this.#inWindow(dirty ?? [0, 0, colour.width, colour.height]);
    if (box) pen.putImageData(coloured(colour, this.#device, box), box[0], box[1]);
  }

  /** Where a part of the picture is seen, with a little round it. @param {Box} box @returns {Box | null} */
  #inWindow([a, b, c, d]) {
    const { scale, x, y } = this.#device, { width, height } = this.pens.mask.canvas;
    const left = Math.max(0, Math.floor(a * scale + x) - 2), right = Math.min(width, Math.ceil(c * scale + x) + 2);
    const top = Math.max(0, Math.floor(b * scale + y) - 2), bottom = Math.min(height, Math.ceil(d * scale + y) + 2);
    return right > left && bottom > top ? [left, top, right, bottom] : null;
  }

  #drawOver() {
    const pen = this.pens.over, view = this.#device;
    pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
    for (const each of this.previews) this.#drawPreview(pen, view, each);
    if (this.crop && this.showsCrop && this.source) drawFrame(pen, view, this.crop, this.ratio);
    if (this.result && this.source && this.split > 0 && this.split < 1) this.#drawSlider(pen, view);
    this.drawsOver?.(pen, view);
  }

  /**
   * Smooth, in its place, and only where the job's own mask lets it be.
   * @param {CanvasRenderingContext2D} pen
   * @param {View} view
   * @param {Preview} preview
   */
  #drawPreview(pen, view, { image, box, stencil }) {
    const [left, top, right, bottom] = box;
    const at = /** @type {const} */ ([left * view.scale + view.x, top * view.scale + view.y]);
    const size = /** @type {const} */ ([(right - left) * view.scale, (bottom - top) * view.scale]);
    const wide = Math.min(1024, Math.max(1, Math.round(size[0]))), high = Math.max(1, Math.round((wide * size[1]) / size[0]));
    const sheet = new OffscreenCanvas(wide, high);
    const own = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d"));
    own.imageSmoothingQuality = "high";
    own.drawImage(image, 0, 0, wide, high);
    own.globalCompositeOperation = "destination-in";
    if (stencil) own.drawImage(stencil, 0, 0, wide, high);
    pen.drawImage(sheet, ...at, ...size);
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {View} view
   */
  #drawSlider(pen, view) {
    const { width, height } = /** @type {import("./pyramid.js").Pyramid} */ (this.source);
    const x = Math.round(view.x + this.split * width * view.scale);
    pen.fillStyle = "#fff";
    pen.shadowColor = "#000a";
    pen.shadowBlur = 4 * this.ratio;
    pen.fillRect(x - this.ratio, view.y, 2 * this.ratio, height * view.scale);
    pen.shadowBlur = 0;
  }

  #measure() {
    const { clientWidth: width, clientHeight: height } = this.host;
    this.size = { width: Math.max(1, width), height: Math.max(1, height) };
    this.ratio = Math.min(2, window.devicePixelRatio || 1);
    for (const each of this.layers) {
      each.width = Math.round(this.size.width * this.ratio);
      each.height = Math.round(this.size.height * this.ratio);
    }
    if (this.source && this.isFitted) this.view = fit(this.source, this.size);
    else if (this.source) this.view = kept(this.view, this.source, this.size);
    this.onview(this.view);
    this.redraw();
  }
}

/**
 * What has to be drawn anew, with one more part.
 * @param {Box | null | undefined} dirty
 * @param {Box | null} box
 */
function both(dirty, box) {
  if (dirty === undefined || box === null) return box;
  return dirty && united(dirty, box);
}

/**
 * The mask as it is seen: a tint, and a line of black and white where it begins, which shows on any picture.
 * @param {import("./mask.js").Mask} mask
 * @param {View} view
 * @param {Box} box in the window
 * @param {number[]} tint
 * @returns {ImageData}
 */
function tinted(mask, view, [left, top, right, bottom], tint) {
  const wide = right - left, high = bottom - top;
  const image = new ImageData(wide, high);
  const out = new Uint32Array(image.data.buffer);
  const colour = (tint[2] << 16) | (tint[1] << 8) | tint[0];
  const xs = new Int32Array(wide + 1);
  for (let i = 0; i <= wide; i++) xs[i] = Math.floor((left + i - 0.5 - view.x) / view.scale);
  let above = new Uint8Array(wide + 1), row = new Uint8Array(wide + 1);
  for (let j = -1; j < high; j++) {
    const y = Math.floor((top + j + 0.5 - view.y) / view.scale);
    sample(mask, xs, y, row);
    for (let i = 0, at = j * wide; j >= 0 && i < wide; i++, at++) {
      const value = row[i + 1];
      const isEdge = value >> 7 !== row[i] >> 7 || value >> 7 !== above[i + 1] >> 7;
      if (isEdge) out[at] = (left + i + top + j) & 4 ? 0xffffffff : 0xff000000;
      else if (value) out[at] = ((value * 0.5) << 24) | colour;
    }
    [above, row] = [row, above];
  }
  return image;
}

/**
 * @param {import("./mask.js").Mask} mask
 * @param {Int32Array} xs
 * @param {number} y
 * @param {Uint8Array} out
 */
function sample(mask, xs, y, out) {
  if (y < 0 || y >= mask.height) return void out.fill(0);
  const first = (y >> 8) * mask.across, line = (y & 255) << 8;
  for (let i = 0; i < xs.length; i++) {
    const x = xs[i];
    const tile = x >= 0 && x < mask.width ? mask.tiles[first + (x >> 8)] : null;
    out[i] = tile ? tile[line | (x & 255)] : 0;
  }
}

/**
 * What would be painted again, as the server plans it.
 * @param {CanvasRenderingContext2D} pen
 * @param {View} view
 * @param {Box} box
 * @param {number} ratio
 */
function drawFrame(pen, view, [left, top, right, bottom], ratio) {
  const at = /** @type {const} */ ([
    Math.round(left * view.scale + view.x) + 0.5,
    Math.round(top * view.scale + view.y) + 0.5,
    Math.round((right - left) * view.scale),
    Math.round((bottom - top) * view.scale),
  ]);
  pen.lineWidth = ratio;
  for (const [style, dash] of /** @type {const} */ ([["#000b", 0], ["#fffe", 6 * ratio]])) {
    pen.setLineDash(dash ? [dash, dash] : []);
    pen.strokeStyle = style;
    pen.strokeRect(...at);
  }
  pen.setLineDash([]);
}

/** @param {[number, number, number]} mean */
function farthest(mean) {
  const far = (/** @type {number[]} */ tint) => tint.reduce((sum, value, i) => sum + (value - mean[i]) ** 2, 0);
  return TINTS.reduce((best, each) => (far(each) > far(best) + 4000 ? each : best));
}
