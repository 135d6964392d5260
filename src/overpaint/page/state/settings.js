/** What belongs to the painter rather than to a picture: brush, tool, theme. Kept from visit to visit. */

import { effect, signal } from "./signal.js";

/** @typedef {"brush" | "eraser" | "line" | "rectangle" | "ellipse" | "lasso" | "fill" | "hand"} Tool */

const KEPT = "overpaint-settings";

export const tool = signal(/** @type {Tool} */ ("brush"));
export const brush = signal({ size: 80, softness: 0, opacity: 1 });
export const theme = signal(/** @type {"auto" | "light" | "dark"} */ ("auto"));
export const showsMask = signal(true);
/** Where there is little room, only the prompt and the button are there at first. */
export const panelOpen = signal(globalThis.innerWidth > 760);
/** The size the networks see in the next job, as the server plans it. */
export const planned = signal(/** @type {{width: number, height: number} | null} */ (null));

/** Keys, as they are shown beside the buttons. */
export const KEYS = {
  open: "Ctrl+O",
  save: "Ctrl+S",
  undo: "Ctrl+Z",
  redo: "Ctrl+Shift+Z",
  brush: "B",
  eraser: "E",
  rectangle: "R",
  ellipse: "O",
  lasso: "L",
  fill: "G",
  hand: "H",
};

/** @type {Record<string, import("./signal.js").Signal<any>>} */
const kept = { brush, theme, panelOpen };

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
