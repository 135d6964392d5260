/** All keys, and what they do; each may be another one. */

import { ACTIONS, keyOf, keysOf, ownKeys } from "../state/settings.js";
import { signal } from "../state/signal.js";
import { t } from "../text/text.js";
import { show } from "./dialogs.js";
import { h } from "./dom.js";
import { combination } from "./keys.js";

/** @typedef {import("../state/settings.js").Action} Action */
/** @typedef {import("../text/text.js").Key} Key */

/** What may share a key: one of them means nothing while the other does. */
const APART = [["discard", "clear"]];
const ALONE = ["Shift", "Control", "Alt", "Meta", "AltGraph", "CapsLock", "Dead", "Tab"];

/** @param {import("./app.js").OverPaint} page */
export function showKeys(page) {
  const waiting = signal(/** @type {Action | null} */ (null));
  const told = signal("");
  const take = (/** @type {KeyboardEvent} */ event) => {
    const action = waiting.peek();
    if (!action || ALONE.includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    waiting.value = null;
    if (event.key === "Escape") return;
    told.value = given(action, event.key === "Delete" || event.key === "Backspace" ? "" : combination(event));
  };
  const button = (/** @type {Action} */ name) =>
    h("button", {
      ...{ type: "button", class: () => (waiting.value === name ? "key waits" : "key"), "data-action": name },
      "aria-label": () => `${t(name)}: ${waiting.value === name ? t("pressKey") : keyOf(name) || t("noKey")}`,
      onclick: () => (waiting.value = waiting.peek() === name ? null : name),
    }, h("kbd", {}, () => (waiting.value === name ? t("pressKey") : keyOf(name) || "–")));
  const line = (/** @type {Key} */ name) => h("p", {}, () => t(name));
  const dialog = show(page, () => t("keysTitle"), "keys",
    h("p", {}, () => t("keysHint")),
    h("p", { class: "told", role: "status" }, () => told.value),
    h("dl", {}, ...ACTIONS.map((name) => h("div", {}, h("dt", {}, () => t(name)), h("dd", {}, button(name))))),
    line("keyPan"), line("keyZoom"), line("keyLine"), line("keyErase"),
    h("div", { class: "answers" }, h("button", { type: "button", class: "quiet", onclick: () => { ownKeys.value = {}; told.value = ""; } }, () => t("firstKeys"))),
  );
  dialog.addEventListener("keydown", take, { capture: true });
  // Escape ends the waiting before it closes the dialog.
  dialog.addEventListener("cancel", (event) => waiting.peek() && event.preventDefault());
}

/**
 * An action has another key from now on; whatever had it has none.
 * @param {Action} action
 * @param {string} keys
 * @returns {string} what is to be said of it
 */
function given(action, keys) {
  const others = ACTIONS.filter((each) => each !== action && keys && keysOf(each).includes(keys) && !share(action, each));
  const changes = Object.fromEntries([...others.map((each) => [each, ""]), [action, keys]]);
  ownKeys.value = { ...ownKeys.peek(), ...changes };
  return others.length ? t("keyTaken", { action: others.map((each) => t(each)).join(", ") }) : "";
}

/** @param {Action} one @param {Action} other */
function share(one, other) {
  return APART.some((each) => each.includes(one) && each.includes(other));
}
