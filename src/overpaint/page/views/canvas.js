/** The picture in the middle: what tools do there, and what is shown over it. */

import { Stage } from "../canvas/stage.js";
import { Stroke } from "../canvas/stroke.js";
import { centred, zoomed } from "../canvas/view.js";
import { brush, showsMask, tool } from "../state/settings.js";
import { effect, signal } from "../state/signal.js";

/** @typedef {import("../canvas/stroke.js").Point} Point */
/** @typedef {import("../canvas/gestures.js").How} How */
/** @typedef {import("../work/session.js").Session} Session */
/** @typedef {{x: number, y: number}} Place */

const SHAPES = ["rectangle", "ellipse", "lasso"];
const SLIDER_REACH = 14; // pixels beside the slider in which it is taken

/** The scale of what is seen, for the bar above. */
export const scale = signal(1);
/** "off", or what is compared: with a slider, or by holding the picture before. */
export const comparing = signal(/** @type {"off" | "slider" | "before"} */ ("off"));

export class PictureView extends HTMLElement {
  /** @type {Stroke | null} */
  stroke = null;
  /** @type {Place[]} of a shape that is being drawn */
  corners = [];
  /** @type {How} */
  how = { erases: false, shift: false, alt: false };
  /** @type {Point | null} where the last stroke ended: lines go on from there */
  lastEnd = null;
  /** @type {Place | null} */
  pointer = null;
  /** @type {import("../canvas/gestures.js").Gestures | undefined} */
  gestures = undefined;
  dragsSlider = false;

  /** @param {Session} session */
  use(session) {
    this.session = session;
    this.tabIndex = 0;
    this.setAttribute("role", "application");
    const stage = (this.stage = new Stage(this));
    this.cursor = document.createElement("div");
    this.cursor.className = "cursor";
    this.append(this.cursor);
    stage.onview = (view) => {
      scale.value = view.scale;
      this.#moveCursor();
    };
    stage.drawsOver = (pen, view) => this.#drawOver(pen, view);
    session.onmask = (box) => stage.redrawMask(box);
    effect(() => {
      const { value } = session.source;
      stage.mask = session.mask;
      stage.setSource(value);
      if (value) void this.#takeHand(stage);
    });
    effect(() => {
      stage.showsMask = showsMask.value;
      stage.redrawMask(null);
    });
    effect(() => {
      stage.split = comparing.value === "slider" ? 0.5 : comparing.value === "before" ? 1 : 0;
      stage.redrawPicture();
    });
    effect(() => {
      void brush.value, tool.value;
      this.dataset.tool = tool.value;
      this.#moveCursor();
    });
    this.addEventListener("pointerdown", () => (this.dataset.pointer = ""));
    this.addEventListener("keydown", () => delete this.dataset.pointer);
    addEventListener("keydown", (event) => this.#space(event, true));
    addEventListener("keyup", (event) => this.#space(event, false));
    addEventListener("blur", () => this.gestures && (this.gestures.spaceHeld = false));
  }

  /** @param {Stage} stage */
  async #takeHand(stage) {
    const { Gestures } = await import("../canvas/gestures.js");
    this.gestures ??= new Gestures(stage, this);
  }

  /** @param {number} factor */
  zoom(factor) {
    const { stage } = this;
    if (!stage?.source) return;
    stage.isFitted = false;
    stage.setView(zoomed(stage.view, factor, stage.size.width / 2, stage.size.height / 2), true);
  }

  full() {
    const { stage } = this;
    if (!stage?.source) return;
    stage.isFitted = false;
    stage.setView(centred(stage.source, stage.size, 1), true);
  }

  get pans() {
    return tool.peek() === "hand";
  }

  // -- what a hand does -------------------------------------------------------------------------------------------

  /** @param {Point} point @param {How} how @returns {boolean} */
  begin(point, how) {
    const { session, stage } = this;
    if (!session?.mask || !stage) return false;
    this.how = how;
    if (this.#isOnSlider(point)) return (this.dragsSlider = true);
    const chosen = tool.peek();
    showsMask.value = true; // a mask that is not seen would be used all the same
    if (SHAPES.includes(chosen)) {
      this.corners = [point, point];
      return true;
    }
    if (chosen === "fill") {
      void this.#fill(point, how.erases);
      return false;
    }
    const { size, softness, opacity } = brush.peek();
    const erases = how.erases !== (chosen === "eraser");
    this.stroke = new Stroke(session.mask, { radius: size / 2, softness, opacity, erases });
    if (how.shift && this.lastEnd) stage.redrawMask(this.stroke.to(this.lastEnd));
    stage.redrawMask(this.stroke.to(point));
    return true;
  }

  /** @param {Point[]} points @param {How} how */
  move(points, how) {
    const { stage } = this;
    const last = points[points.length - 1];
    this.how = { ...how, erases: this.how.erases };
    if (this.dragsSlider && stage?.source) {
      stage.split = Math.min(0.999, Math.max(0.001, last.x / stage.source.width));
      return stage.redrawPicture();
    }
    if (this.stroke) {
      for (const each of points) {
        const box = this.stroke.to(each);
        if (box) stage?.redrawMask(box);
      }
      return;
    }
    if (!this.corners.length) return;
    if (tool.peek() === "lasso") this.corners.push(...points);
    else this.corners = [this.corners[0], how.shift ? square(this.corners[0], last) : last];
    stage?.redrawOver();
  }

  end() {
    this.dragsSlider = false;
    if (this.stroke) {
      const erases = this.stroke.brush.erases;
      this.lastEnd = this.stroke.last;
      const change = this.stroke.end();
      this.stroke = null;
      this.session?.changedMask(erases ? "erased" : "painted", change);
    }
    if (this.corners.length) void this.#shape(this.corners, tool.peek(), this.how.erases || this.how.alt);
    this.corners = [];
    this.stage?.redrawOver();
  }

  cancel() {
    this.dragsSlider = false;
    this.stroke?.cancel();
    this.stroke = null;
    this.corners = [];
    this.stage?.redraw();
  }

  /** @param {Place | null} at */
  hover(at) {
    this.pointer = at;
    this.#moveCursor();
  }

  /**
   * The brush moved by keys: arrows move it, Enter dabs.
   * @param {number} dx
   * @param {number} dy
   * @param {boolean} paints while it moves
   */
  nudge(dx, dy, paints) {
    const { stage, session } = this;
    if (!stage?.source || !session?.mask) return;
    const from = this.pointer ?? { x: stage.source.width / 2, y: stage.source.height / 2 };
    const k = 1 / stage.view.scale;
    const to = { x: clamp(from.x + dx * k, stage.source.width), y: clamp(from.y + dy * k, stage.source.height) };
    this.pointer = to;
    if (paints && this.begin({ ...from, pressure: 1 }, { erases: false, shift: false, alt: false })) {
      this.move([{ ...to, pressure: 1 }], this.how);
      this.end();
    }
    this.#moveCursor();
  }

  /** @param {Place[]} corners @param {string} shape @param {boolean} erases */
  async #shape(corners, shape, erases) {
    const { fillPolygon, rectangle, ellipse } = await import("../canvas/shapes.js");
    const { session } = this;
    if (!session?.mask || corners.length < 2) return;
    const [a, b] = corners;
    const outline = shape === "rectangle" ? rectangle(a, b) : shape === "ellipse" ? ellipse(a, b) : corners;
    session.changedMask(shape, fillPolygon(session.mask, outline, erases ? 0 : 255));
    this.stage?.redrawMask(null);
  }

  /** @param {Point} point @param {boolean} erases */
  async #fill(point, erases) {
    const { fillFrom } = await import("../canvas/shapes.js");
    const { session } = this;
    if (!session?.mask) return;
    session.changedMask("fill", fillFrom(session.mask, point, erases ? 0 : 255));
    this.stage?.redrawMask(null);
  }

  // -- what is shown over it --------------------------------------------------------------------------------------

  /** @param {Place} point */
  #isOnSlider(point) {
    const { stage } = this;
    if (!stage?.result || !stage.source || comparing.peek() !== "slider") return false;
    return Math.abs(point.x - stage.split * stage.source.width) * stage.view.scale < SLIDER_REACH;
  }

  /** @param {CanvasRenderingContext2D} pen @param {import("../canvas/view.js").View} view */
  #drawOver(pen, view) {
    const chosen = tool.peek();
    const outline = this.corners;
    if (outline.length) {
      pen.beginPath();
      const [a, b] = outline;
      if (chosen === "lasso") outline.forEach((each) => pen.lineTo(each.x * view.scale + view.x, each.y * view.scale + view.y));
      else if (chosen === "rectangle") pen.rect(a.x * view.scale + view.x, a.y * view.scale + view.y, (b.x - a.x) * view.scale, (b.y - a.y) * view.scale);
      else pen.ellipse(...middle(a, b, view), 0, 0, 2 * Math.PI);
      twice(pen, this.stage?.ratio ?? 1);
    }
  }

  /** The brush's outline: an element, since moving one costs less than drawing a layer anew. */
  #moveCursor() {
    const { pointer, stage, cursor } = this;
    if (!cursor || !stage) return;
    cursor.hidden = !pointer || !this.session?.mask || !["brush", "eraser"].includes(tool.peek());
    if (!pointer || cursor.hidden) return;
    const { scale: k, x, y } = stage.view;
    const side = Math.max(4, brush.peek().size * k);
    cursor.style.width = cursor.style.height = `${side}px`;
    cursor.style.transform = `translate(${pointer.x * k + x - side / 2}px, ${pointer.y * k + y - side / 2}px)`;
  }

  /** @param {KeyboardEvent} event @param {boolean} isDown */
  #space(event, isDown) {
    if (event.code !== "Space" || !this.gestures) return;
    const isCanvas = document.activeElement === this || document.activeElement === document.body;
    if (isDown && !isCanvas) return;
    this.gestures.spaceHeld = isDown;
    this.classList.toggle("moves", isDown);
    if (isDown) event.preventDefault();
  }
}

customElements.define("picture-view", PictureView);

/** @param {Place} a @param {Place} b */
function square(a, b) {
  const side = Math.max(Math.abs(b.x - a.x), Math.abs(b.y - a.y));
  return { x: a.x + side * Math.sign(b.x - a.x || 1), y: a.y + side * Math.sign(b.y - a.y || 1) };
}

/** @param {Place} a @param {Place} b @param {import("../canvas/view.js").View} view @returns {[number, number, number, number]} */
function middle(a, b, { scale: k, x, y }) {
  return [((a.x + b.x) / 2) * k + x, ((a.y + b.y) / 2) * k + y, (Math.abs(b.x - a.x) / 2) * k, (Math.abs(b.y - a.y) / 2) * k];
}

/** A line that shows on anything. @param {CanvasRenderingContext2D} pen @param {number} ratio */
function twice(pen, ratio) {
  pen.lineWidth = 3 * ratio;
  pen.strokeStyle = "#0009";
  pen.stroke();
  pen.lineWidth = 1.25 * ratio;
  pen.strokeStyle = "#fff";
  pen.stroke();
}

/** @param {number} value @param {number} most */
function clamp(value, most) {
  return Math.min(most, Math.max(0, value));
}
