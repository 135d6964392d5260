/** What every key does. Letters count only where nothing is being written. */

import { brush, KEYS, panelOpen, showsMask, tool } from "../state/settings.js";
import { comparing } from "./canvas.js";

/** @typedef {import("./app.js").OverPaint} OverPaint */

const STEP = 20; // pixels of the window that an arrow moves the brush by

/** @param {OverPaint} page */
export function bindKeys(page) {
  /** @type {Record<string, () => void>} with Ctrl or Command */
  const commands = {
    z: () => void page.session?.document.history.undo(),
    "shift+z": () => void page.session?.document.history.redo(),
    y: () => void page.session?.document.history.redo(),
    o: () => page.choose(),
    s: () => void page.save(),
    enter: () => page.panel?.paint(),
    i: () => void changeMask(page, "invertAll", "invert"),
  };
  const letters = lettersOf(page);
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase();
    const withShift = event.shiftKey && key.length === 1 ? `shift+${key}` : key;
    if (event.ctrlKey || event.metaKey) {
      const isText = isWriting(event.target) && ["z", "shift+z", "y"].includes(withShift);
      const act = isText ? null : commands[withShift] ?? commands[key];
      if (act) event.preventDefault();
      return act?.();
    }
    if (isWriting(event.target) || event.altKey) return;
    if (onCanvas(page, event)) return event.preventDefault();
    const act = letters[withShift] ?? letters[key];
    if (!act || (event.target instanceof HTMLButtonElement && ["enter", " "].includes(key))) return;
    event.preventDefault();
    act();
  });
  addEventListener("keyup", (event) => {
    if (event.key === "\\" && comparing.peek() === "before") comparing.value = "off";
  });
}

/** @param {OverPaint} page @returns {Record<string, () => void>} */
function lettersOf(page) {
  const grow = (/** @type {number} */ factor) => {
    const size = Math.round(Math.max(1, Math.min(1024, brush.peek().size * factor + Math.sign(factor - 1))));
    brush.value = { ...brush.peek(), size };
  };
  const soften = (/** @type {number} */ by) => {
    brush.value = { ...brush.peek(), softness: Math.min(1, Math.max(0, brush.peek().softness + by)) };
  };
  const { jobs } = page;
  /** @type {Record<string, () => void>} */
  const letters = {
    "[": () => grow(0.85),
    "]": () => grow(1.18),
    "shift+{": () => soften(-0.1),
    "shift+}": () => soften(0.1),
    0: () => page.view?.stage?.fit(),
    1: () => page.view?.full(),
    "+": () => page.view?.zoom(1.25),
    "=": () => page.view?.zoom(1.25),
    "-": () => page.view?.zoom(0.8),
    m: () => (showsMask.value = !showsMask.peek()),
    c: () => jobs?.staged.peek() && (comparing.value = comparing.peek() === "slider" ? "off" : "slider"),
    "\\": () => jobs?.staged.peek() && (comparing.value = "before"),
    p: () => (panelOpen.value = !panelOpen.peek()),
    "?": () => void page.dialog("showKeys"),
    "shift+?": () => void page.dialog("showKeys"),
    arrowleft: () => page.strip?.step(-1),
    arrowright: () => page.strip?.step(1),
    enter: () => void jobs?.accept(),
    delete: () => discard(page),
    backspace: () => discard(page),
    escape: () => jobs && (jobs.staged.value = null),
  };
  for (const name of /** @type {const} */ (["brush", "eraser", "rectangle", "ellipse", "lasso", "fill", "hand"])) {
    letters[KEYS[name].toLowerCase()] = () => (tool.value = name);
  }
  return letters;
}

/** @param {OverPaint} page */
function discard(page) {
  const staged = page.jobs?.staged.peek();
  if (staged) page.jobs?.discard(staged.job);
  else void changeMask(page, "clearAll", "clear");
}

/**
 * With the picture in focus and nothing staged, arrows move the brush and Enter paints a dab; with Shift it paints on the way.
 * @param {OverPaint} page
 * @param {KeyboardEvent} event
 * @returns {boolean} whether the key was meant so
 */
function onCanvas(page, event) {
  if (document.activeElement !== page.view || page.jobs?.staged.peek()) return false;
  /** @type {Record<string, [number, number]>} */
  const ways = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP], Enter: [0, 0] };
  const way = ways[event.key];
  if (!way) return false;
  page.view?.nudge(way[0], way[1], event.shiftKey || event.key === "Enter");
  return true;
}

/**
 * What is done to the mask as a whole.
 * @param {OverPaint} page
 * @param {"fillAll" | "clearAll" | "invertAll"} work
 * @param {string} name of the step
 */
export async function changeMask(page, work, name) {
  const shapes = await import("../canvas/shapes.js");
  const mask = page.session?.mask;
  if (!mask) return;
  showsMask.value = true;
  page.session?.changedMask(name, shapes[work](mask));
  page.view?.stage?.redrawMask(null);
}

/** @param {EventTarget | null} target */
function isWriting(target) {
  if (target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true;
  return target instanceof HTMLInputElement && !["button", "checkbox", "radio", "file"].includes(target.type);
}
