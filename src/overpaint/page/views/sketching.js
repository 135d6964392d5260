/** A brush with a colour: what it paints is what the next job begins from, and where it paints. */

import { brush, ink } from "../state/settings.js";
import { Colour, ColourStroke, shown } from "../canvas/colour.js";
import { t } from "../text/text.js";

/** @typedef {import("./canvas.js").PictureView} PictureView */
/** @typedef {import("./canvas.js").AreaTool} AreaTool */
/** @typedef {import("../canvas/stroke.js").Point} Point */
/** @typedef {import("../canvas/gestures.js").How} How */

/** @implements {AreaTool} */
export class Sketcher {
  /** @type {ColourStroke | null} */
  stroke = null;
  isBrush = true;

  /** @param {PictureView} view */
  constructor(view) {
    this.view = view;
    const { stage } = view;
    if (stage) stage.coloured = shown;
  }

  taken() {
    if (this.view.session?.document.picture.peek()?.isDeep) this.view.say(t("deepSketch"));
  }

  /** @param {Point} point @param {How} how */
  begin(point, how) {
    const { session, stage } = this.view;
    if (!session || !stage?.source) return false;
    if (how.alt) {
      ink.value = hex(colourAt(stage.source.levels[0], point));
      return false;
    }
    const colour = (session.colour ??= new Colour(stage.source.width, stage.source.height));
    stage.colour = colour;
    const { size, softness, opacity } = brush.peek();
    this.stroke = new ColourStroke(colour, { radius: size / 2, softness, opacity, erases: how.erases }, numbers(ink.peek()));
    stage.redrawColour(this.stroke.to(point));
    return true;
  }

  /** @param {Point[]} points */
  move(points) {
    for (const each of points) {
      const box = this.stroke?.to(each);
      if (box) this.view.stage?.redrawColour(box);
    }
  }

  end() {
    const name = this.stroke?.erases ? "erased" : "sketched";
    this.view.session?.changedMask(name, null, this.finish());
  }

  /** The stroke is over, and whoever began it tells of it. @returns {import("../canvas/mask.js").Change | null} */
  finish() {
    const change = this.stroke?.end() ?? null;
    this.stroke = null;
    return change;
  }

  cancel() {
    this.stroke?.cancel();
    this.stroke = null;
    this.view.stage?.redrawColour(null);
  }

  draw() {}
}

/**
 * @param {ImageBitmap | OffscreenCanvas} picture
 * @param {{x: number, y: number}} at
 * @returns {[number, number, number]}
 */
function colourAt(picture, { x, y }) {
  const dot = new OffscreenCanvas(1, 1);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (dot.getContext("2d", { willReadFrequently: true }));
  pen.drawImage(picture, Math.floor(x), Math.floor(y), 1, 1, 0, 0, 1, 1);
  const [red, green, blue] = pen.getImageData(0, 0, 1, 1).data;
  return [red, green, blue];
}

/** @param {string} colour as #rrggbb @returns {[number, number, number]} */
function numbers(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return [red, green, blue];
}

/** @param {number[]} colour */
function hex(colour) {
  return `#${colour.map((each) => each.toString(16).padStart(2, "0")).join("")}`;
}
