/** The picture's edges, dragged outwards: the new area becomes mask. */

import { t } from "../text/text.js";
import { twice } from "./outlines.js";

/** @typedef {import("./canvas.js").PictureView} PictureView */
/** @typedef {import("./canvas.js").AreaTool} AreaTool */
/** @typedef {import("../canvas/grow.js").Margins} Margins */
/** @typedef {import("../canvas/view.js").View} View */

const REACH = 36; // pixels of the window beside an edge in which it is taken
const ROOM = 0.7; // of the size at which the picture fills the window
const STEP = 8; // sizes are multiples of it: the networks see cells of that side
const MOST = 2048; // pixels at a side
const MOST_PIXELS = 50e6;
const NONE = { left: 0, top: 0, right: 0, bottom: 0 };

/** @implements {AreaTool} */
export class Extender {
  /** @type {{left: boolean, top: boolean, right: boolean, bottom: boolean} | null} the edges that are dragged */
  edges = null;
  /** @type {Margins} */
  margins = NONE;

  /** @param {PictureView} view */
  constructor(view) {
    this.view = view;
  }

  /** There is to be room to drag to. */
  taken() {
    if (this.view.stage?.isFitted) this.view.zoom(ROOM);
    if (this.view.session?.document.picture.peek()?.isDeep) this.view.say(t("deepExtend"));
  }

  /** @param {import("../canvas/stroke.js").Point} point */
  begin({ x, y }) {
    const { stage } = this.view;
    if (!stage?.source) return false;
    const { width, height } = stage.source;
    const reach = Math.min(REACH / stage.view.scale, width / 3, height / 3);
    this.edges = { left: x < reach, top: y < reach, right: x > width - reach, bottom: y > height - reach };
    this.margins = NONE;
    if (Object.values(this.edges).some(Boolean)) return true;
    this.edges = null;
    this.view.say(t("extendHint"));
    return false;
  }

  /** @param {import("../canvas/stroke.js").Point[]} points @param {import("../canvas/gestures.js").How} how */
  move(points, { shift }) {
    const { edges } = this, source = this.view.stage?.source;
    if (!edges || !source) return;
    const { x, y } = points[points.length - 1];
    const [left, right] = pair(edges.left ? -x : 0, edges.right ? x - source.width : 0, source.width, shift);
    const [top, bottom] = pair(edges.top ? -y : 0, edges.bottom ? y - source.height : 0, source.height, shift);
    this.margins = { left, top, right, bottom };
  }

  end() {
    const { margins } = this;
    this.cancel();
    if (Object.values(margins).some(Boolean)) void extend(this.view, margins);
  }

  cancel() {
    this.edges = null;
    this.margins = NONE;
  }

  /** @param {CanvasRenderingContext2D} pen @param {View} view @param {number} ratio */
  draw(pen, view, ratio) {
    const source = this.view.stage?.source;
    if (!source) return;
    const { left, top, right, bottom } = this.margins;
    const width = source.width + left + right, height = source.height + top + bottom;
    const x = view.x - left * view.scale, y = view.y - top * view.scale;
    const wide = width * view.scale, high = height * view.scale;
    pen.beginPath();
    pen.rect(x, y, wide, high);
    twice(pen, ratio);
    const long = Math.min(32 * ratio, wide / 4, high / 4), thick = 5 * ratio;
    for (const [cx, cy, w, h] of [
      [x, y + high / 2, thick, long], [x + wide, y + high / 2, thick, long],
      [x + wide / 2, y, long, thick], [x + wide / 2, y + high, long, thick],
      ...[[x, y], [x + wide, y], [x, y + high], [x + wide, y + high]].map(([a, b]) => [a, b, 2 * thick, 2 * thick]),
    ]) {
      pen.beginPath();
      pen.rect(cx - w / 2, cy - h / 2, w, h);
      pen.fillStyle = "#fff";
      pen.fill();
      pen.lineWidth = ratio;
      pen.strokeStyle = "#000b";
      pen.stroke();
    }
    if (this.edges) label(pen, `${width} × ${height}`, x + wide / 2, y + high / 2, ratio);
  }
}

/**
 * @param {PictureView} view
 * @param {Margins} margins
 */
export async function extend({ session, say }, margins) {
  const picture = session?.document.picture.peek();
  if (!session || !picture) return;
  const width = picture.width + margins.left + margins.right, height = picture.height + margins.top + margins.bottom;
  if (width * height > MOST_PIXELS) return say(t("tooLarge", { pixels: Math.round((width * height) / 1e6), most: 50 }), "failed");
  const { grow } = await import("../work/growing.js");
  await grow(session, margins);
  say(t("extended"));
}

/**
 * Two sides that grow, so that the whole is of a size that the networks like.
 * @param {number} before
 * @param {number} after
 * @param {number} size
 * @param {boolean} isEven whether both grow by as much
 * @returns {[number, number]}
 */
function pair(before, after, size, isEven) {
  const most = Math.min(MOST, Math.max(0, before, after));
  if (most < STEP / 2) return [0, 0];
  const whole = (/** @type {number} */ by) => Math.max(STEP, Math.round((size + by) / STEP) * STEP - size);
  if (isEven) {
    const half = Math.ceil(whole(2 * most) / 2);
    return [half, half];
  }
  const by = whole(most);
  return before > after ? [by, 0] : [0, by];
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {string} text
 * @param {number} x
 * @param {number} y
 * @param {number} ratio
 */
function label(pen, text, x, y, ratio) {
  pen.font = `600 ${15 * ratio}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineWidth = 4 * ratio;
  pen.strokeStyle = "#000b";
  pen.strokeText(text, x, y);
  pen.fillStyle = "#fff";
  pen.fillText(text, x, y);
}
