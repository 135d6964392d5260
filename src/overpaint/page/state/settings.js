/** What belongs to the painter rather than to a picture: brush, tool, theme, keys. Kept from visit to visit. */

import { effect, signal } from "./signal.js";

/** Every tool, in the order in which they are shown. */
export const TOOLS = /** @type {const} */ ([
  "brush", "eraser", "rectangle", "ellipse", "lasso", "polygon", "fill", "wand", "cutout", "sketch", "extend", "hand",
]);
/** @typedef {(typeof TOOLS)[number]} Tool */

const KEPT = "overpaint-settings";

export const tool = signal(/** @type {Tool} */ ("brush"));
export const brush = signal({ size: 80, softness: 0, opacity: 1 });
/** How far a colour may be from the one under the wand, of 255. */
export const tolerance = signal(24);
/** Whether a gray mask means less strength rather than a softer edge. */
export const graysAreStrength = signal(false);
/** The colour that is sketched with. */
export const ink = signal("#d03030");
export const theme = signal(/** @type {"auto" | "light" | "dark"} */ ("auto"));
export const showsMask = signal(true);
/** Where there is little room, only the prompt and the button are there at first. */
export const panelOpen = signal(globalThis.innerWidth > 760);
/** The size the networks see in the next job, as the server plans it. */
export const planned = signal(/** @type {{width: number, height: number} | null} */ (null));

/** What can be done by keys, and by which: the first of each is shown beside its button, and may be changed. */
const FIRST_KEYS = {
  paint: ["Ctrl+Enter"],
  open: ["Ctrl+O"],
  saveResult: ["Ctrl+S"],
  undo: ["Ctrl+Z"],
  redo: ["Ctrl+Shift+Z", "Ctrl+Y"],
  brush: ["B"],
  eraser: ["E"],
  rectangle: ["R"],
  ellipse: ["O"],
  lasso: ["L"],
  polygon: ["N"],
  fill: ["G"],
  wand: ["W"],
  cutout: ["S"],
  sketch: ["K"],
  extend: ["X"],
  hand: ["H"],
  brushSmaller: ["["],
  brushLarger: ["]"],
  harder: ["{"],
  softer: ["}"],
  showMask: ["M"],
  invert: ["Ctrl+I"],
  fit: ["0"],
  full: ["1"],
  zoomIn: ["+", "="],
  zoomOut: ["-"],
  next: ["ArrowRight"],
  previous: ["ArrowLeft"],
  accept: ["Enter"],
  discard: ["Delete", "Backspace"],
  clear: ["Delete", "Backspace"],
  letBe: ["Escape"],
  slider: ["C"],
  before: ["\\"],
  blink: ["Shift+C"],
  difference: ["D"],
  panel: ["P"],
  gallery: ["V"],
  help: ["?"],
};
/** @typedef {keyof typeof FIRST_KEYS} Action */
export const ACTIONS = /** @type {Action[]} */ (Object.keys(FIRST_KEYS));

/** Keys that were changed. */
export const ownKeys = signal(/** @type {Partial<Record<Action, string>>} */ ({}));

/** @param {Action} action @returns {string[]} */
export function keysOf(action) {
  const own = ownKeys.value[action];
  return own === undefined ? FIRST_KEYS[action] : own ? [own] : [];
}

const SHOWN = /** @type {Record<string, string>} */ ({ ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", "-": "−" });

/** The key of an action as it is shown; "" where it has none. @param {Action} action @returns {string} */
export function keyOf(action) {
  const [first = ""] = keysOf(action);
  return SHOWN[first] ?? first;
}

/** @type {Record<string, import("./signal.js").Signal<any>>} */
const kept = { brush, theme, panelOpen, tolerance, ink, graysAreStrength, ownKeys };

export function keepSettings() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    for (const [name, each] of Object.entries(kept)) if (name in found) each.value = found[name];
  } catch {
    localStorage.removeItem(KEPT);
  }
  effect(() => {
    const values = Object.fromEntries(Object.entries(kept).map(([name, each]) => [name, each.value]));
    localStorage.setItem(KEPT, JSON.stringify(values));
    document.documentElement.dataset.theme = theme.value;
  });
}
