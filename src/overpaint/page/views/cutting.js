/** Things that the server finds in a box; lines in the box mend what it found. */

import { t } from "../text/text.js";
import { line, placed, twice } from "./outlines.js";

/** @typedef {import("./canvas.js").PictureView} PictureView */
/** @typedef {import("./canvas.js").AreaTool} AreaTool */
/** @typedef {import("./canvas.js").Place} Place */
/** @typedef {import("../canvas/stroke.js").Point} Point */
/** @typedef {import("../canvas/gestures.js").How} How */
/** @typedef {import("../canvas/mask.js").Box} Box */
/** @typedef {import("../canvas/view.js").View} View */

const LEAST = 4; // pixels of the picture: the side of a box
const PEN = 5; // pixels of the window: the radius of a line
const MOST = 300; // points of a line
const INSIDE = "#2fd36fb0", OUTSIDE = "#ff4d4db0";

/** @implements {AreaTool} */
export class CutOut {
  /** @type {{box: Box, picture: string | undefined} | null} in which was looked last */
  last = null;
  /** @type {Place[]} of what is being drawn */
  points = [];
  /** Whether it is a line in the last box, rather than a new box. */
  mends = false;
  erases = false;

  /** @param {PictureView} view */
  constructor(view) {
    this.view = view;
  }

  taken() {
    this.last = null;
  }

  /** @param {Point} point @param {How} how */
  begin({ x, y }, how) {
    const box = this.#box();
    this.points = [{ x, y }];
    this.erases = how.erases || how.alt;
    this.mends = Boolean(box && x >= box[0] && y >= box[1] && x < box[2] && y < box[3]);
    return true;
  }

  /** @param {Point[]} points @param {How} how */
  move(points, how) {
    this.erases ||= how.alt;
    for (const { x, y } of points) this.mends ? this.points.push({ x, y }) : (this.points[1] = { x, y });
  }

  end() {
    const { points, mends } = this;
    this.points = [];
    if (mends) this.#mend(points);
    else this.#find(points);
  }

  cancel() {
    this.points = [];
  }

  /** @param {string} key */
  key(key) {
    if (key !== "Escape" || !this.#box()) return false;
    this.last = null;
    this.view.stage?.redrawOver();
    return true;
  }

  /** @param {CanvasRenderingContext2D} pen @param {View} view @param {number} ratio */
  draw(pen, view, ratio) {
    const box = this.#box(), { points } = this;
    if (points.length && this.mends) {
      pen.save();
      pen.beginPath();
      line(pen, view, points.length > 1 ? points : [points[0], points[0]]);
      pen.lineCap = pen.lineJoin = "round";
      pen.lineWidth = 2 * PEN * ratio;
      pen.strokeStyle = this.erases ? OUTSIDE : INSIDE;
      pen.stroke();
      pen.restore();
    }
    const [a, b] = points.length && !this.mends ? points : box ? [{ x: box[0], y: box[1] }, { x: box[2], y: box[3] }] : [];
    if (!a || !b) return;
    const from = placed(a, view), to = placed(b, view);
    pen.beginPath();
    pen.rect(from.x, from.y, to.x - from.x, to.y - from.y);
    twice(pen, ratio);
  }

  /** The last box, as long as its picture is there. */
  #box() {
    const { last } = this;
    return last && last.picture === this.#picture() ? last.box : null;
  }

  #picture() {
    return this.view.session?.document.picture.peek()?.key;
  }

  /** @param {Place[]} corners */
  #find([a, b]) {
    const source = this.view.stage?.source, { erases } = this;
    if (!source || !b) return this.view.say(t("cutoutHint"));
    /** @type {Box} */
    const box = [
      Math.max(0, Math.floor(Math.min(a.x, b.x))),
      Math.max(0, Math.floor(Math.min(a.y, b.y))),
      Math.min(source.width, Math.ceil(Math.max(a.x, b.x))),
      Math.min(source.height, Math.ceil(Math.max(a.y, b.y))),
    ];
    if (box[2] - box[0] < LEAST || box[3] - box[1] < LEAST) return this.view.say(t("cutoutHint"));
    this.last = { box, picture: this.#picture() };
    const expression = `cut-out ${box.join(",")} | fill-holes`;
    void looked(this.view, (session, { drawnByServer }) => drawnByServer(session, expression, "cutout", erases), t("cutoutFound"));
  }

  /** @param {Place[]} drawn */
  #mend(drawn) {
    const box = this.#box(), { erases } = this, scale = this.view.stage?.view.scale ?? 1;
    if (!box) return;
    const step = Math.ceil(drawn.length / MOST);
    const points = drawn.filter((_, i) => i % step === 0 || i === drawn.length - 1).map(({ x, y }) => ({
      x: Math.min(box[2] - 0.5, Math.max(box[0], x)),
      y: Math.min(box[3] - 0.5, Math.max(box[1], y)),
    }));
    const radius = Math.min(1000, Math.max(1, PEN / scale));
    void looked(this.view, (session, { mendedByServer }) => mendedByServer(session, box, { points, radius, erases }, "cutout"), t("cutoutFound"));
  }
}

/**
 * What the server finds in the picture; painting goes on meanwhile.
 * @param {PictureView} view
 * @param {(session: import("../work/session.js").Session, selecting: typeof import("../work/selecting.js")) => Promise<boolean>} look
 * @param {string} [said] when something was found
 */
export async function looked(view, look, said = t("found")) {
  const { session, stage } = view;
  if (!session) return;
  view.say(t("looking"));
  try {
    const isFound = await look(session, await import("../work/selecting.js"));
    view.say(isFound ? said : t("foundNothing"));
    stage?.redrawMask(null);
    stage?.redrawOver();
  } catch (error) {
    view.say(/** @type {Error} */ (error).message, "failed");
  }
}
