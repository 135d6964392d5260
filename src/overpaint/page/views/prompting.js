/** Help while a prompt is written: what it may go on with, and how long it is. Loaded when a prompt is first touched. */

import { countTokens, models } from "../api/client.js";
import { effect, signal } from "../state/signal.js";
import { t } from "../text/text.js";
import { completionAt, replaced } from "../work/completing.js";
import { h, list } from "./dom.js";

/** @typedef {import("../work/completing.js").Networks} Networks */
/** @typedef {import("../work/completing.js").Completion} Completion */
/** @typedef {import("../state/document.js").Document} Document */

const TYPING = 350; // milliseconds of silence after which a prompt is counted
const FRESH = 60_000; // milliseconds for which the list of networks is good

/** @type {{at: number, known: Promise<Networks>} | null} */
let held = null;

/** LoRAs and embeddings of the server. @returns {Promise<Networks>} */
export function networks() {
  if (!held || Date.now() - held.at > FRESH) {
    const none = () => [];
    const all = Promise.all([models("lora").catch(none), models("embedding").catch(none)]);
    held = { at: Date.now(), known: all.then(([loras, embeddings]) => ({ loras, embeddings })) };
  }
  return held.known;
}

/**
 * @param {HTMLTextAreaElement} area
 * @param {Document} document
 * @param {"prompt" | "negative_prompt"} name
 */
export function helpWith(area, document, name) {
  const shown = signal(/** @type {Completion | null} */ (null));
  const chosen = signal(0);
  const id = `${name}-choices`;
  const choices = list({ class: "choices", role: "listbox", id, "aria-label": () => t("completions"), hidden: () => !shown.value }, () =>
    (shown.value?.choices ?? []).map((each, i) =>
      h("li", { role: "option", id: `${id}-${i}`, "aria-selected": () => String(chosen.value === i), onpointerdown: (/** @type {Event} */ event) => { event.preventDefault(); take(i); } },
        each.label, each.about ? h("small", {}, each.about) : null)),
  );
  area.after(choices);
  area.setAttribute("aria-autocomplete", "list");
  area.setAttribute("aria-controls", id);
  effect(() => {
    if (shown.value) area.setAttribute("aria-activedescendant", `${id}-${chosen.value}`);
    else area.removeAttribute("aria-activedescendant");
  });
  const take = (/** @type {number} */ i) => {
    const now = shown.peek();
    if (!now) return;
    const { text, cursor } = replaced(area.value, now.from, now.to, now.choices[i].text);
    shown.value = null;
    document.fill({ [name]: text });
    area.value = text;
    area.setSelectionRange(cursor, cursor);
  };
  const look = async () => {
    const known = await networks();
    const isHere = area.ownerDocument.activeElement === area && area.selectionStart === area.selectionEnd;
    chosen.value = 0;
    shown.value = isHere ? completionAt(area.value, area.selectionStart, known) : null;
  };
  area.addEventListener("input", () => void look());
  area.addEventListener("blur", () => (shown.value = null));
  area.addEventListener("keydown", (event) => {
    const count = shown.peek()?.choices.length ?? 0;
    if (!count || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") chosen.value = (chosen.peek() + (event.key === "ArrowDown" ? 1 : count - 1)) % count;
    else if (event.key === "Enter" || event.key === "Tab") take(chosen.peek());
    else if (event.key === "Escape") shown.value = null;
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  void look(); // something may have been written before this came
  count(area, document, name);
}

/**
 * The length of the prompt, beside its name.
 * @param {HTMLTextAreaElement} area
 * @param {Document} document
 * @param {"prompt" | "negative_prompt"} name
 */
function count(area, document, name) {
  const told = signal(/** @type {{tokens: number, room: number} | null} */ (null));
  const output = h("output", { class: "tokens", title: () => t("tokens") }, () => (told.value?.tokens ? `${told.value.tokens} / ${told.value.room}` : ""));
  area.parentElement?.querySelector(".name")?.append(output);
  let timer = 0, turn = 0;
  effect(() => {
    const text = String(document.form.value[name] ?? "");
    const own = ++turn;
    clearTimeout(timer);
    timer = window.setTimeout(() => void countTokens(text).then((found) => own === turn && (told.value = found), () => (told.value = null)), TYPING);
  });
}
