/** Elements from values. Texts are always texts: nothing here reads markup, so nothing that is shown can become code. */

import { keyOf } from "../state/settings.js";
import { effect } from "../state/signal.js";

/** @typedef {Node | string | number | null | undefined | false} Plain */
/** @typedef {Plain | Plain[] | (() => Plain | Plain[])} Child */

/**
 * `on...` listens, a function follows its signals, true and false set and remove an attribute.
 * @param {string} name
 * @param {Record<string, any>} [given]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function h(name, given = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (typeof value === "function") effect(() => assign(element, key, value()));
    else assign(element, key, value);
  }
  add(element, children);
  return element;
}

/**
 * A list whose items follow signals; they are its own children, as those who listen to the page expect.
 * @param {Record<string, any>} given
 * @param {() => Node[]} items
 */
export function list(given, items) {
  const element = h("ul", given);
  effect(() => element.replaceChildren(...items()));
  return element;
}

/**
 * @param {Element} element
 * @param {string} key
 * @param {any} value
 */
function assign(element, key, value) {
  if (key === "value" || key === "checked" || key === "disabled" || key === "open" || key === "selected") {
    /** @type {any} */ (element)[key] = value;
  } else if (value === false || value === null || value === undefined) element.removeAttribute(key);
  else element.setAttribute(key, value === true ? "" : String(value));
}

/**
 * @param {Element} element
 * @param {Child[]} children
 */
function add(element, children) {
  for (const each of children) {
    if (typeof each !== "function") element.append(...plain(each));
    else {
      const holder = document.createElement("x-slot");
      element.append(holder);
      effect(() => holder.replaceChildren(...plain(each())));
    }
  }
}

/**
 * @param {Plain | Plain[]} value
 * @returns {(Node | string)[]}
 */
function plain(value) {
  const all = Array.isArray(value) ? value : [value];
  return all.filter((each) => each !== null && each !== undefined && each !== false).map((each) => (each instanceof Node ? each : String(each)));
}

const DRAWN = "http://www.w3.org/2000/svg";

/** Lines of the icons, on a grid of 24. */
const ICONS = /** @type {const} */ ({
  brush: "M4 20c3 0 5-1 5-4a2.5 2.5 0 0 0-5 0c0 2-1 3-2 3 .5.6 1.2 1 2 1ZM9.5 13.5 19 4a1.4 1.4 0 0 1 2 2l-9.5 9.5",
  eraser: "M8 20h12M5.5 16.500l8-8 5 5-6.5 6.500H8zM13.5 8.500l2-2a1.5 1.5 0 0 1 2.1 0l2.9 2.900a1.5 1.5 0 0 1 0 2.100l-2 2",
  line: "M5 19 19 5M3 21l3-1-2-2zM21 3l-3 1 2 2z",
  rectangle: "M4 6h16v12H4z",
  ellipse: "M12 5c5 0 9 3 9 7s-4 7-9 7-9-3-9-7 4-7 9-7Z",
  lasso: "M7 17c-3-1-4-3-4-5 0-4 4-7 9-7s9 2.5 9 6-4 6-8 6c-2 0-3-.5-4-.5A2 2 0 1 0 9 20c0 1-.5 2-2 2",
  polygon: "M12 3 21 10l-4 10H7L3 9zM12 3h.01M21 10h.01M17 20h.01M7 20h.01M3 9h.01",
  wand: "M5 19 15 9M17.5 3v3M21 6.500h-3M17.5 10V8M12 4.500h1.500M19.5 3.500l-1 1M3 21l2-2",
  cutout: "M4 8V5a1 1 0 0 1 1-1h3M16 4h3a1 1 0 0 1 1 1v3M20 16v3a1 1 0 0 1-1 1h-3M8 20H5a1 1 0 0 1-1-1v-3M12 8a4 4 0 0 1 2 7.400V17h-4v-1.600A4 4 0 0 1 12 8Z",
  sketch: "M4 20l1-5L16 4l4 4L9 19zM14 6l4 4M4 20l3-1",
  extend: "M9 9h6v6H9zM12 6V2m0 0-2 2m2-2 2 2M12 18v4m0 0-2-2m2 2 2-2M6 12H2m0 0 2-2m-2 2 2 2M18 12h4m0 0-2-2m2 2-2 2",
  fill: "M5 12 12 5l7 7-6 6a2 2 0 0 1-2.8 0zM5 12h14M9 2l3 3M21 16c1 1.5 1.5 2.3 1.5 3a1.5 1.5 0 0 1-3 0c0-.7.5-1.5 1.5-3Z",
  hand: "M8 13V6a1.5 1.5 0 0 1 3 0v5V4.500a1.5 1.5 0 0 1 3 0V11 6a1.5 1.5 0 0 1 3 0v8c0 4-2 7-5.5 7-3 0-4-1.5-5-3.500L4.5 14a1.5 1.5 0 0 1 2.6-1.500L8 14",
  undo: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  redo: "m15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h3",
  open: "M3 18V6a1 1 0 0 1 1-1h5l2 2h8a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1Z",
  save: "M12 4v11m0 0 4-4m-4 4-4-4M4 19h16",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  compare: "M12 3v18M5 6h7v12H5zM15 6h4v12h-4",
  blink: "M4 5h9v9H4zM11 10h9v9h-9zM7 17v3M17 7V4",
  difference: "M9 6a6 6 0 1 0 0 12A6 6 0 0 0 9 6ZM15 6a6 6 0 1 1 0 12 6 6 0 0 1 0-12Z",
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12ZM12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6Z",
  more: "M4.4 12a.6.6 0 1 0 1.2 0a.6.6 0 1 0-1.2 0M11.4 12a.6.6 0 1 0 1.2 0a.6.6 0 1 0-1.2 0M18.4 12a.6.6 0 1 0 1.2 0a.6.6 0 1 0-1.2 0",
  check: "m5 13 4 4L19 7",
  cross: "M6 6l12 12M18 6 6 18",
  stop: "M7 7h10v10H7z",
  dice: "M4 4h16v16H4zM8.500 8.500h.1v.1h-.1zM15.500 15.500h.1v.1h-.1zM15.500 8.500h.1v.1h-.1zM8.500 15.500h.1v.1h-.1zM12 12h.1v.1h-.1z",
  again: "M20 12a8 8 0 1 1-2.3-5.700M20 3v5h-5",
  variations: "M4 9h7v7H4zM9 4h7v7M14 14h6v6h-6",
  copy: "M9 9h11v11H9zM15 9V5a1 1 0 0 0-1-1H5a1 1 0 0 0-1 1v9a1 1 0 0 0 1 1h4",
  sliders: "M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4",
  help: "M9 9a3 3 0 1 1 4 2.800c-.7.3-1 .8-1 1.700M12 17h.01M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18Z",
  clock: "M12 7v5l3 2M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18Z",
  gallery: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  star: "m12 4 2.500 5 5.500.800-4 3.900.9 5.500-4.900-2.600-4.900 2.600.9-5.500-4-3.900 5.500-.800z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
});
/** @typedef {keyof typeof ICONS} Icon */

/** @param {Icon} name */
export function icon(name) {
  const drawing = document.createElementNS(DRAWN, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(DRAWN, "path");
  path.setAttribute("d", ICONS[name]);
  drawing.append(path);
  return drawing;
}

/**
 * A button with a picture and a name; `action` is what has a shortcut, which is shown.
 * @param {Icon} drawing
 * @param {() => string} name
 * @param {() => void} act
 * @param {Record<string, any> & {action?: import("../state/settings.js").Action}} [given]
 */
export function iconButton(drawing, name, act, { action, ...given } = {}) {
  const keys = () => (action ? keyOf(action) : "");
  const told = () => (keys() ? `${name()} (${keys()})` : name());
  const shortcut = () => keys() || null;
  return h("button", { type: "button", class: "icon-button", title: told, "aria-label": name, "aria-keyshortcuts": shortcut, onclick: act, ...given }, icon(drawing));
}

/**
 * @param {Blob} file
 * @param {string} name
 */
export function saveFile(file, name) {
  const url = URL.createObjectURL(file);
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
