/** Tools that take an area at once: shapes, polygons, fillings, and what the server finds in the picture. */

import { tolerance } from "../state/settings.js";
import { CutOut, looked } from "./cutting.js";
import { Extender } from "./extending.js";
import { line, placed, twice } from "./outlines.js";
import { Sketcher } from "./sketching.js";

/** @typedef {import("./canvas.js").PictureView} PictureView */
/** @typedef {import("./canvas.js").AreaTool} AreaTool */
/** @typedef {import("./canvas.js").Place} Place */
/** @typedef {import("../canvas/stroke.js").Point} Point */
/** @typedef {import("../canvas/gestures.js").How} How */
/** @typedef {import("../canvas/view.js").View} View */

const NEAR = 10; // pixels of the window round a polygon's corner in which it is meant

/** @param {PictureView} view @returns {PictureView["tools"]} */
export function areaTools(view) {
  return {
    rectangle: new Shape(view, "rectangle"),
    ellipse: new Shape(view, "ellipse"),
    lasso: new Shape(view, "lasso"),
    polygon: new Polygon(view),
    fill: new AtPoint((point, erases) => void fill(view, point, erases)),
    wand: new AtPoint((point, erases) => void wand(view, point, erases)),
    cutout: new CutOut(view),
    sketch: new Sketcher(view),
    extend: new Extender(view),
  };
}

/** A shape between two corners, or along a line. @implements {AreaTool} */
class Shape {
  /** @type {Place[]} */
  corners = [];
  erases = false;

  /** @param {PictureView} view @param {"rectangle" | "ellipse" | "lasso"} kind */
  constructor(view, kind) {
    this.view = view;
    this.kind = kind;
  }

  /** @param {Point} point @param {How} how */
  begin(point, how) {
    this.corners = [point, point];
    this.erases = how.erases;
    return true;
  }

  /** @param {Point[]} points @param {How} how */
  move(points, how) {
    const [first] = this.corners, last = points[points.length - 1];
    this.erases ||= how.alt;
    if (this.kind === "lasso") this.corners.push(...points);
    else this.corners = [first, how.shift ? square(first, last) : last];
  }

  end() {
    const { corners, kind } = this;
    this.corners = [];
    void outlined(this.view, kind, this.erases, ({ rectangle, ellipse }) => {
      const [a, b] = corners;
      return kind === "rectangle" ? rectangle(a, b) : kind === "ellipse" ? ellipse(a, b) : corners;
    });
  }

  cancel() {
    this.corners = [];
  }

  /** @param {CanvasRenderingContext2D} pen @param {View} view @param {number} ratio */
  draw(pen, view, ratio) {
    const { corners, kind } = this;
    if (!corners.length) return;
    const [a, b] = corners.map((each) => placed(each, view));
    pen.beginPath();
    if (kind === "lasso") line(pen, view, corners);
    else if (kind === "rectangle") pen.rect(a.x, a.y, b.x - a.x, b.y - a.y);
    else pen.ellipse((a.x + b.x) / 2, (a.y + b.y) / 2, Math.abs(b.x - a.x) / 2, Math.abs(b.y - a.y) / 2, 0, 0, 2 * Math.PI);
    twice(pen, ratio);
  }
}

/** Corner by corner; the first one again, the last one twice, or Enter closes it. @implements {AreaTool} */
class Polygon {
  /** @type {Place[]} */
  corners = [];
  erases = false;
  /** @type {Place | null} */
  pointer = null;

  /** @param {PictureView} view */
  constructor(view) {
    this.view = view;
  }

  /** @param {Point} point @param {How} how */
  begin({ x, y }, how) {
    const at = { x, y };
    this.erases = how.erases || how.alt;
    const { corners } = this;
    const isLast = corners.length > 0 && this.#isNear(at, corners[corners.length - 1]);
    const isFirst = corners.length > 2 && this.#isNear(at, corners[0]);
    if (isLast || isFirst) this.#close();
    else corners.push(at);
    return false;
  }

  move() {}

  end() {}

  cancel() {
    this.corners = [];
  }

  /** @param {string} key */
  key(key) {
    if (!this.corners.length) return false;
    if (key === "Escape") this.corners = [];
    else if (key === "Backspace" || key === "Delete") this.corners.pop();
    else if (key === "Enter" && this.corners.length > 2 && !this.view.byKeys) this.#close();
    else return false;
    this.view.stage?.redrawOver();
    return true;
  }

  /** @param {Place | null} at */
  hover(at) {
    this.pointer = at;
    if (this.corners.length) this.view.stage?.redrawOver();
  }

  /** @param {CanvasRenderingContext2D} pen @param {View} view @param {number} ratio */
  draw(pen, view, ratio) {
    const { corners, pointer } = this;
    if (!corners.length) return;
    pen.beginPath();
    line(pen, view, pointer ? [...corners, pointer] : corners);
    twice(pen, ratio);
    for (const each of corners) {
      const { x, y } = placed(each, view);
      pen.beginPath();
      pen.arc(x, y, 3 * ratio, 0, 2 * Math.PI);
      twice(pen, ratio);
    }
  }

  #close() {
    const { corners, erases } = this;
    this.corners = [];
    if (corners.length > 2) void outlined(this.view, "polygon", erases, () => corners);
    this.view.stage?.redrawOver();
  }

  /** @param {Place} a @param {Place} b */
  #isNear(a, b) {
    return Math.hypot(a.x - b.x, a.y - b.y) * (this.view.stage?.view.scale ?? 1) < NEAR;
  }
}

/** One press is all. @implements {AreaTool} */
class AtPoint {
  /** @param {(point: Place, erases: boolean) => void} act */
  constructor(act) {
    this.act = act;
  }

  /** @param {Point} point @param {How} how */
  begin({ x, y }, how) {
    this.act({ x: Math.floor(x), y: Math.floor(y) }, how.erases || how.alt);
    return false;
  }

  move() {}

  end() {}

  cancel() {}

  draw() {}
}

/**
 * @param {PictureView} view
 * @param {string} name of the step
 * @param {boolean} erases
 * @param {(shapes: typeof import("../canvas/shapes.js")) => Place[]} made
 */
async function outlined({ session, stage }, name, erases, made) {
  const shapes = await import("../canvas/shapes.js");
  if (!session?.mask) return;
  session.changedMask(name, shapes.fillPolygon(session.mask, made(shapes), erases ? 0 : 255));
  stage?.redrawMask(null);
}

/** @param {PictureView} view @param {Place} point @param {boolean} erases */
async function fill({ session, stage }, point, erases) {
  const { fillFrom } = await import("../canvas/shapes.js");
  if (!session?.mask) return;
  session.changedMask("fill", fillFrom(session.mask, point, erases ? 0 : 255));
  stage?.redrawMask(null);
}

/** @param {PictureView} view @param {Place} point @param {boolean} erases */
function wand(view, { x, y }, erases) {
  const expression = `wand ${x},${y} tolerance ${tolerance.peek()}`;
  void looked(view, (session, { drawnByServer }) => drawnByServer(session, expression, "wand", erases));
}

/** @param {Place} a @param {Place} b */
function square(a, b) {
  const side = Math.max(Math.abs(b.x - a.x), Math.abs(b.y - a.y));
  return { x: a.x + side * Math.sign(b.x - a.x || 1), y: a.y + side * Math.sign(b.y - a.y || 1) };
}
