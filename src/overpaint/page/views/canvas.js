/** The picture in the middle: what tools do there, and what is shown over it. */

import { Stage } from "../canvas/stage.js";
import { centred, zoomed } from "../canvas/view.js";
import { brush, showsMask, tool } from "../state/settings.js";
import { effect, signal, untracked } from "../state/signal.js";

/** @typedef {import("../canvas/stroke.js").Point} Point */
/** @typedef {import("../canvas/gestures.js").How} How */
/** @typedef {import("../work/session.js").Session} Session */
/** @typedef {{x: number, y: number}} Place */
/**
 * @typedef {object} AreaTool a tool that is no brush; it may take more than one gesture
 * @property {(point: Point, how: How) => boolean} begin false if there is nothing to drag
 * @property {(points: Point[], how: How) => void} move
 * @property {() => void} end
 * @property {() => void} cancel whatever is begun is dropped
 * @property {(pen: CanvasRenderingContext2D, view: import("../canvas/view.js").View, ratio: number) => void} draw
 * @property {(key: string) => boolean} [key] whether it means something now
 * @property {(at: Place | null) => void} [hover]
 * @property {() => void} [taken] it comes into the hand
 * @property {boolean} [isBrush] whether it has the brush's size
 */

/** @type {How} */
const BY_KEYS = { erases: false, shift: false, alt: false };
const BLINK = 600; // milliseconds that each of the two is seen

/** The scale of what is seen, for the bar above. */
export const scale = signal(1);
/** "off", or how a result is compared with the picture before. @typedef {"off" | "slider" | "before" | "blink" | "difference"} Comparison */
export const comparing = signal(/** @type {Comparison} */ ("off"));

export class PictureView extends HTMLElement {
  /** @type {import("../canvas/stroke.js").Stroke | null} */
  stroke = null;
  /** @type {typeof import("../canvas/stroke.js").Stroke | null} it comes with the first picture, as the tools do */
  Stroke = null;
  /** @type {Partial<Record<import("../state/settings.js").Tool, AreaTool>>} they come with the first picture */
  tools = {};
  /** @type {import("./sketching.js").Sketcher | null} what erases colours beside the mask */
  beside = null;
  /** @type {AreaTool | null} the one that is being dragged */
  dragged = null;
  /** @type {(text: string, kind?: string) => void} */
  say = () => {};
  /** @type {How} */
  how = { erases: false, shift: false, alt: false };
  /** @type {Point | null} where the last stroke ended: lines go on from there */
  lastEnd = null;
  /** @type {Place | null} */
  pointer = null;
  /** @type {import("../canvas/gestures.js").Gestures | undefined} */
  gestures = undefined;
  /** @type {import("./slider.js").CompareSlider | null} it comes when it is first wanted */
  slider = null;
  blinking = 0;
  /** Whether the pointer is where arrow keys moved it. */
  byKeys = false;

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
      this.slider?.place();
    };
    stage.drawsOver = (pen, view) => this.#drawOver(pen, view);
    session.onmask = (box) => {
      stage.colour = session.colour;
      stage.redrawMask(box);
      stage.redrawColour(null);
    };
    effect(() => {
      const { value } = session.source;
      stage.mask = session.mask;
      stage.colour = session.colour;
      stage.setSource(value);
      if (value) void this.#takeHand(stage);
    });
    effect(() => {
      stage.showsMask = showsMask.value;
      stage.redrawMask(null);
      stage.redrawColour(null);
    });
    effect(() => {
      const how = comparing.value;
      stage.split = how === "slider" ? 0.5 : how === "before" ? 1 : 0;
      stage.isDifference = how === "difference";
      if (how === "slider" && !this.slider) void import("./slider.js").then(({ CompareSlider }) => (this.slider ??= new CompareSlider(this)));
      clearInterval(this.blinking);
      if (how === "blink") {
        this.blinking = window.setInterval(() => {
          stage.split = stage.split ? 0 : 1;
          stage.redrawPicture();
        }, BLINK);
      }
      stage.redrawPicture();
    });
    effect(() => {
      void brush.value;
      this.#moveCursor();
    });
    effect(() => {
      const isOther = this.dataset.tool !== tool.value;
      if (isOther) this.dragged ? this.cancel() : this.areaTool?.cancel();
      this.dataset.tool = tool.value;
      if (isOther) untracked(() => this.areaTool?.taken?.());
      this.#moveCursor();
      stage.redrawOver();
    });
    this.addEventListener("pointerdown", () => (this.dataset.pointer = ""));
    this.addEventListener("keydown", () => delete this.dataset.pointer);
    addEventListener("keydown", (event) => this.#space(event, true));
    addEventListener("keyup", (event) => this.#space(event, false));
    addEventListener("blur", () => this.gestures && (this.gestures.spaceHeld = false));
  }

  /** @param {Stage} stage */
  async #takeHand(stage) {
    const [{ Gestures }, { Stroke }, { areaTools }] = await Promise.all([
      import("../canvas/gestures.js"),
      import("../canvas/stroke.js"),
      import("./areas.js"),
    ]);
    if (this.gestures) return;
    this.Stroke = Stroke;
    this.tools = areaTools(this);
    this.gestures = new Gestures(stage, this);
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

  /** The tool in hand, unless it is a brush. @returns {AreaTool | undefined} */
  get areaTool() {
    return this.tools[/** @type {import("../state/settings.js").Tool} */ (this.dataset.tool)];
  }

  /** @param {string} key @returns {boolean} whether it means something to the tool in hand */
  key(key) {
    if (key === "Escape" && this.dragged) {
      this.cancel();
      return true;
    }
    return this.areaTool?.key?.(key) ?? false;
  }

  // -- what a hand does -------------------------------------------------------------------------------------------

  /** @param {Point} point @param {How} how @returns {boolean} */
  begin(point, how) {
    const { session, stage, Stroke } = this;
    if (!session?.mask || !stage || !Stroke || session.document.history.isMoving) return false;
    this.how = how;
    const chosen = tool.peek();
    showsMask.value = true; // a mask that is not seen would be used all the same
    if (this.areaTool) {
      this.dragged = this.areaTool.begin(point, how) ? this.areaTool : null;
      if (this.dragged?.isBrush) session.document.history.hold();
      stage.redrawOver();
      return this.dragged !== null;
    }
    const { size, softness, opacity } = brush.peek();
    const erases = how.erases !== (chosen === "eraser");
    session.document.history.hold();
    this.stroke = new Stroke(session.mask, { radius: size / 2, softness, opacity, erases });
    // What is seen is erased, be it mask or colour.
    const { sketch } = this.tools;
    this.beside = erases && sketch && session.colour && !session.colour.isEmpty() ? /** @type {import("./sketching.js").Sketcher} */ (sketch) : null;
    this.beside?.begin(point, { ...how, erases, alt: false });
    if (how.shift && this.lastEnd) stage.redrawMask(this.stroke.to(this.lastEnd));
    stage.redrawMask(this.stroke.to(point));
    return true;
  }

  /** @param {Point[]} points @param {How} how */
  move(points, how) {
    const { stage } = this;
    this.how = { ...how, erases: this.how.erases };
    if (this.stroke) {
      this.beside?.move(points);
      for (const each of points) {
        const box = this.stroke.to(each);
        if (box) stage?.redrawMask(box);
      }
      return;
    }
    this.dragged?.move(points, this.how);
    if (this.dragged) stage?.redrawOver();
  }

  end() {
    if (this.stroke) {
      const erases = this.stroke.brush.erases;
      this.lastEnd = this.stroke.last;
      const change = this.stroke.end();
      this.stroke = null;
      this.session?.changedMask(erases ? "erased" : "painted", change, this.beside?.finish());
    }
    this.dragged?.end();
    this.dragged = null;
    this.session?.document.history.release();
    this.stage?.redrawOver();
  }

  cancel() {
    this.stroke?.cancel();
    this.stroke = null;
    this.beside?.cancel();
    this.dragged?.cancel();
    this.dragged = null;
    this.session?.document.history.release();
    this.stage?.redraw();
  }

  /** @param {Place | null} at */
  hover(at) {
    this.byKeys = false;
    this.pointer = at;
    this.areaTool?.hover?.(at);
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
    this.byKeys = true;
    if (this.areaTool) this.#nudgeArea(to, dx === 0 && dy === 0);
    else if (paints && this.begin({ ...from, pressure: 1 }, BY_KEYS)) {
      this.move([{ ...to, pressure: 1 }], this.how);
      this.end();
    }
    this.#moveCursor();
  }

  /** Enter is where a drag begins and where it ends. @param {Place} to @param {boolean} isEnter */
  #nudgeArea(to, isEnter) {
    this.areaTool?.hover?.(to);
    if (this.dragged) this.move([{ ...to, pressure: 1 }], BY_KEYS);
    if (!isEnter) return;
    if (this.dragged) this.end();
    else this.begin({ ...to, pressure: 1 }, BY_KEYS);
  }

  // -- what is shown over it --------------------------------------------------------------------------------------

  /** @param {CanvasRenderingContext2D} pen @param {import("../canvas/view.js").View} view */
  #drawOver(pen, view) {
    this.areaTool?.draw(pen, view, this.stage?.ratio ?? 1);
    this.slider?.place();
  }

  /** The brush's outline: an element, since moving one costs less than drawing a layer anew. */
  #moveCursor() {
    const { pointer, stage, cursor } = this;
    if (!cursor || !stage) return;
    cursor.hidden = !pointer || !this.session?.mask || (!["brush", "eraser", "sketch"].includes(tool.peek()) && !this.byKeys);
    if (!pointer || cursor.hidden) return;
    const { scale: k, x, y } = stage.view;
    const side = this.areaTool && !this.areaTool.isBrush ? 12 : Math.max(4, brush.peek().size * k);
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

/** @param {number} value @param {number} most */
function clamp(value, most) {
  return Math.min(most, Math.max(0, value));
}
