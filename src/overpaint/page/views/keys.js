/** What every key does. Letters count only where nothing is being written. */

import { ACTIONS, brush, keysOf, panelOpen, showsMask, tool, TOOLS } from "../state/settings.js";
import { comparing } from "./canvas.js";

/** @typedef {import("./app.js").OverPaint} OverPaint */
/** @typedef {import("../state/settings.js").Action} Action */
/** @typedef {() => unknown} Act what it does; false if it does not apply now */

const STEP = 20; // pixels of the window that an arrow moves the brush by
const TYPED = ["Ctrl+Z", "Ctrl+Shift+Z", "Ctrl+Y"]; // which mean the text where something is being written

/** @param {OverPaint} page */
export function bindKeys(page) {
  const acts = actsOf(page);
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const pressed = combination(event);
    const isCommand = pressed.startsWith("Ctrl+");
    if (isWriting(event.target, event.key) && (!isCommand || TYPED.includes(pressed))) return;
    if (!isCommand && onCanvas(page, event)) return event.preventDefault();
    if (event.target instanceof HTMLButtonElement && ["Enter", " "].includes(pressed)) return;
    for (const action of ACTIONS) {
      if (!keysOf(action).includes(pressed) || acts[action]() === false) continue;
      return event.preventDefault();
    }
  });
  addEventListener("keyup", (event) => {
    if (keysOf("before").includes(combination(event)) && comparing.peek() === "before") comparing.value = "off";
  });
}

/**
 * Keys as they are written: "Ctrl+Shift+Z", "[", "ArrowLeft". Signs that are typed with Shift are what they are.
 * @param {KeyboardEvent} event
 * @returns {string}
 */
export function combination(event) {
  const { key } = event;
  const isLetter = /^\p{L}$/u.test(key);
  const name = isLetter ? key.toUpperCase() : key;
  const shift = event.shiftKey && (isLetter || key.length > 1) ? "Shift+" : "";
  if (event.getModifierState("AltGraph")) return name; // which some systems tell as Ctrl and Alt
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${shift}${name}`;
}

/** @param {OverPaint} page @returns {Record<Action, Act>} */
function actsOf(page) {
  const grow = (/** @type {number} */ factor) => {
    const size = Math.round(Math.max(1, Math.min(1024, brush.peek().size * factor + Math.sign(factor - 1))));
    brush.value = { ...brush.peek(), size };
  };
  const soften = (/** @type {number} */ by) => {
    brush.value = { ...brush.peek(), softness: Math.min(1, Math.max(0, brush.peek().softness + by)) };
  };
  const { jobs } = page;
  const history = () => page.session?.document.history;
  const isStaged = () => Boolean(jobs?.staged.peek());
  const compare = (/** @type {"slider" | "blink" | "difference"} */ how) => isStaged() && (comparing.value = comparing.peek() === how ? "off" : how);
  const tools = Object.fromEntries(TOOLS.map((name) => [name, () => (tool.value = name)]));
  return {
    .../** @type {Record<import("../state/settings.js").Tool, Act>} */ (tools),
    paint: () => page.panel?.paint(),
    open: () => page.choose(),
    saveResult: () => void page.save(),
    undo: () => void history()?.undo(),
    redo: () => void history()?.redo(),
    brushSmaller: () => grow(0.85),
    brushLarger: () => grow(1.18),
    harder: () => soften(-0.1),
    softer: () => soften(0.1),
    showMask: () => void (showsMask.value = !showsMask.peek()),
    invert: () => void changeMask(page, "invertAll", "invert"),
    fit: () => page.view?.stage?.fit(),
    full: () => page.view?.full(),
    zoomIn: () => page.view?.zoom(1.25),
    zoomOut: () => page.view?.zoom(0.8),
    next: () => page.strip?.step(1),
    previous: () => page.strip?.step(-1),
    accept: () => isStaged() && void jobs?.accept(),
    discard: () => isStaged() && jobs?.discard(/** @type {any} */ (jobs.staged.peek()).job),
    clear: () => void changeMask(page, "clearAll", "clear"),
    letBe: () => jobs && void (jobs.staged.value = null),
    slider: () => compare("slider"),
    blink: () => compare("blink"),
    difference: () => compare("difference"),
    before: () => isStaged() && (comparing.value = "before"),
    panel: () => void (panelOpen.value = !panelOpen.peek()),
    gallery: () => void page.dialog("showGallery"),
    help: () => void page.dialog("showKeys"),
  };
}

/**
 * With the picture in focus and nothing staged, arrows move the brush and Enter paints a dab; with Shift it paints on the
 * way. A tool that is in the middle of something has its keys first.
 * @param {OverPaint} page
 * @param {KeyboardEvent} event
 * @returns {boolean} whether the key was meant so
 */
function onCanvas(page, event) {
  if (document.activeElement !== page.view || page.jobs?.staged.peek()) return false;
  if (page.view?.key(event.key)) return true;
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
  if (!mask || page.view?.stroke) return; // a stroke is a change of its own, which has to end first
  showsMask.value = true;
  page.session?.changedMask(name, shapes[work](mask));
  page.view?.stage?.redrawMask(null);
}

/** @param {EventTarget | null} target @param {string} key */
function isWriting(target, key) {
  if (target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true;
  if (target instanceof HTMLInputElement && target.type === "range") return /^(Arrow|Page|Home|End)/.test(key);
  return target instanceof HTMLInputElement && !["button", "checkbox", "radio", "file"].includes(target.type);
}
