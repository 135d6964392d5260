/** What to paint: the prompt and the button. The other settings come from the API's own schema, a moment later. */

import { brush, graysAreStrength, ink, planned, tolerance, tool } from "../state/settings.js";
import { effect, signal } from "../state/signal.js";
import { t } from "../text/text.js";
import { h } from "./dom.js";

/** @typedef {import("../work/session.js").Session} Session */
/** @typedef {import("../work/jobs.js").Jobs} Jobs */

/** Sentences of the server, by the field that they are about. */
export const fieldErrors = signal(/** @type {Record<string, string>} */ ({}));

export class PaintPanel extends HTMLElement {
  /**
   * @param {Session} session
   * @param {Jobs} jobs
   */
  use(session, jobs) {
    this.session = session;
    this.jobs = jobs;
    const document = session.document;
    this.setAttribute("aria-label", t("panel"));
    this.append(
      h("div", { class: "fields" },
        textField(document, "prompt", () => t("prompt"), () => t("promptHint"), 3),
        textField(document, "negative_prompt", () => t("negative"), () => t("negativeHint"), 1),
        h("div", { class: "helpers" }, this.#opens("networks", "showNetworks"), this.#opens("presets", "showPresets")),
        this.#strength(),
        h("label", { class: "field check", title: () => t("graysAbout") },
          h("input", { type: "checkbox", name: "grays", checked: () => graysAreStrength.value, onchange: (/** @type {any} */ event) => (graysAreStrength.value = event.target.checked) }),
          h("span", { class: "name" }, () => t("grays"))),
        (this.rest = h("div", { class: "rest", "aria-busy": true })),
      ),
      h("div", { class: "action" },
        h("p", { class: "problem", role: "alert", hidden: () => !generalError(jobs) }, () => generalError(jobs)),
        h("button", { type: "button", class: "primary paint", onclick: () => this.paint(), "aria-keyshortcuts": "Control+Enter" },
          h("span", {}, () => this.#what()),
          h("small", {}, () => this.#where()),
        ),
      ),
    );
    /** What was said once is not said again, when other jobs come and go. @type {Set<string>} */
    const told = new Set();
    effect(() => {
      const failed = [...document.jobs.value].reverse().find((each) => each.state === "failed" || each.error);
      const { field = null, message = "" } = failed?.error ?? {};
      if (!failed || !field || told.has(failed.id)) return;
      told.add(failed.id);
      fieldErrors.value = { [field.split(/[.[]/)[0]]: message };
    });
  }

  /** The rest of the settings. */
  async complete() {
    const { SettingsForm } = await import("./form.js");
    const { rest } = this;
    if (!rest || !this.session) return;
    const form = new SettingsForm();
    rest.replaceChildren(form);
    rest.removeAttribute("aria-busy");
    await form.use(this.session);
  }

  paint() {
    fieldErrors.value = {};
    void this.jobs?.paint();
  }

  /** @param {import("../text/text.js").Key} name @param {string} dialog */
  #opens(name, dialog) {
    return h("button", { type: "button", class: "quiet", "aria-haspopup": "dialog", onclick: () => wants(this, dialog) }, () => t(name));
  }

  #what() {
    const { session } = this;
    if (!session?.document.picture.value) return t("paintNew");
    void session.document.maskChanges.value;
    return session.mask?.isEmpty() ? t("paintWhole") : t("paint");
  }

  #where() {
    const { document, mask } = /** @type {Session} */ (this.session);
    const size = planned.value, seconds = document.secondsOf(size ?? this.#wholeSize());
    void document.maskChanges.value;
    if (size) return seconds ? t("paintBoxSeconds", { ...size, seconds: atLeastOne(seconds) }) : t("paintBox", size);
    const isWhole = !mask || mask.isEmpty() || !document.form.value.only_masked; // else the server has not told the size yet
    return seconds && isWhole ? t("paintSeconds", { seconds: atLeastOne(seconds) }) : "";
  }

  /** By which jobs on the whole picture, or without one, are known again. */
  #wholeSize() {
    const { picture, form } = /** @type {Session} */ (this.session).document;
    const { width = 0, height = 0 } = picture.value ?? form.value;
    return { width: Number(width), height: Number(height) };
  }

  #strength() {
    const { document } = /** @type {Session} */ (this.session);
    const value = () => document.strength;
    return h("label", { class: "field slider" },
      h("span", { class: "name" }, () => t("strength"), h("output", {}, () => `${Math.round(value() * 100)} %`)),
      h("input", {
        ...{ type: "range", min: 0, max: 1, step: 0.01, name: "strength" },
        value,
        oninput: (/** @type {any} */ event) => document.fill({ strength: Number(event.target.value) }),
      }),
      h("span", { class: "ends", "aria-hidden": true }, h("small", {}, () => t("strengthLow")), h("small", {}, () => t("strengthHigh"))),
      fieldError("strength"),
    );
  }
}

customElements.define("paint-panel", PaintPanel);

/**
 * @param {import("../state/document.js").Document} document
 * @param {"prompt" | "negative_prompt"} name
 * @param {() => string} label
 * @param {() => string} hint
 * @param {number} rows
 */
function textField(document, name, label, hint, rows) {
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", {
      ...{ name, rows, spellcheck: "true", placeholder: hint, "aria-invalid": () => name in fieldErrors.value },
      value: () => document.form.value[name] ?? "",
      oninput: () => {
        document.fill({ [name]: area.value });
        forgetError(name);
      },
      onkeydown: (/** @type {KeyboardEvent} */ event) => weigh(event, area, document, name),
    })
  );
  const help = async () => {
    area.removeEventListener("focus", help);
    // Without the server there is no help, which is no reason not to write; it comes with the next touch.
    await import("./prompting.js").then(({ helpWith }) => helpWith(area, document, name), () => area.addEventListener("focus", help));
  };
  area.addEventListener("focus", help);
  return h("label", { class: "field" }, h("span", { class: "name" }, label), area, fieldError(name));
}

/**
 * Ctrl and an arrow give what is marked, or the word at the cursor, more or less weight: (word:1.1).
 * @param {KeyboardEvent} event
 * @param {HTMLTextAreaElement} area
 * @param {import("../state/document.js").Document} document
 * @param {string} name
 */
function weigh(event, area, document, name) {
  if (!(event.ctrlKey || event.metaKey) || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  const step = event.key === "ArrowUp" ? 1 : -1;
  const { text, start, end } = weighed(area.value, area.selectionStart, area.selectionEnd, step);
  area.value = text;
  area.setSelectionRange(start, end);
  document.fill({ [name]: text });
}

/**
 * @param {string} text
 * @param {number} start
 * @param {number} end
 * @param {number} step in tenths
 * @returns {{text: string, start: number, end: number}}
 */
export function weighed(text, start, end, step) {
  const around = /\(([^()]*):(\d*\.?\d+)\)/g;
  for (const found of text.matchAll(around)) {
    const from = found.index, to = from + found[0].length;
    if (from > start || to < end) continue;
    const weight = Math.max(0, Math.round(Number(found[2]) * 10 + step) / 10);
    const next = weight === 1 ? found[1] : `(${found[1]}:${weight})`;
    const inner = weight === 1 ? from : from + 1;
    return { text: text.slice(0, from) + next + text.slice(to), start: inner, end: inner + found[1].length };
  }
  if (start === end) {
    while (start > 0 && /[^\s,()]/.test(text[start - 1])) start--;
    while (end < text.length && /[^\s,()]/.test(text[end])) end++;
  }
  if (start === end) return { text, start, end };
  const word = text.slice(start, end);
  const next = `(${word}:${(10 + step) / 10})`;
  return { text: text.slice(0, start) + next + text.slice(end), start: start + 1, end: start + 1 + word.length };
}

/**
 * The page is asked to open a dialog.
 * @param {HTMLElement} from
 * @param {string} dialog
 * @param {unknown[]} given
 */
export function wants(from, dialog, ...given) {
  from.dispatchEvent(new CustomEvent("wants", { detail: [dialog, ...given], bubbles: true }));
}

/** @param {number} seconds */
const atLeastOne = (seconds) => Math.max(1, Math.round(seconds));

/** @param {string} name */
export function fieldError(name) {
  return h("small", { class: "error", role: "alert", hidden: () => !(name in fieldErrors.value) }, () => fieldErrors.value[name] ?? "");
}

/** @param {string} name */
export function forgetError(name) {
  if (!(name in fieldErrors.peek())) return;
  const { [name]: _, ...others } = fieldErrors.peek();
  fieldErrors.value = others;
}

/** What went wrong and is about no field. @param {Jobs} jobs */
function generalError(jobs) {
  const last = jobs.document.jobs.value[jobs.document.jobs.value.length - 1];
  if (!last?.error || last.error.field) return "";
  // What is tried again without asking is told, too: only a person can free a disk. The rest has words elsewhere.
  const isTold = last.state === "sending" && ["offline", "error", "unauthorized"].includes(last.error.code);
  return isTold ? "" : last.error.message;
}

/** Sliders for the brush, for the bar of tools. */
export function brushSliders() {
  const slider = (/** @type {"size" | "softness" | "opacity"} */ name, /** @type {number} */ max, /** @type {number} */ step) =>
    h("label", { class: "brush-slider" },
      h("span", {}, () => t(name)),
      h("input", {
        ...{ type: "range", min: name === "size" ? 1 : name === "opacity" ? 0.05 : 0, max, step },
        value: () => (name === "size" ? Math.sqrt(brush.value.size) : brush.value[name]),
        oninput: (/** @type {any} */ event) => {
          const given = Number(event.target.value);
          brush.value = { ...brush.peek(), [name]: name === "size" ? Math.round(given * given) : given };
        },
      }),
      h("output", {}, () => (name === "size" ? String(brush.value.size) : `${Math.round(brush.value[name] * 100)} %`)),
    );
  const isWand = () => tool.value === "wand";
  const nearness = h("label", { class: "brush-slider", hidden: () => !isWand() },
    h("span", {}, () => t("tolerance")),
    h("input", { type: "range", min: 0, max: 128, step: 1, value: () => tolerance.value, oninput: (/** @type {any} */ event) => (tolerance.value = Number(event.target.value)) }),
    h("output", {}, () => String(tolerance.value)),
  );
  const picker = h("label", { class: "brush-slider ink", hidden: () => tool.value !== "sketch", title: () => t("inkHint") },
    h("span", {}, () => t("ink")),
    h("input", { type: "color", name: "ink", value: () => ink.value, oninput: (/** @type {any} */ event) => (ink.value = event.target.value) }),
  );
  return [slider("size", 32, 0.1), slider("softness", 1, 0.05), slider("opacity", 1, 0.05), nearness, picker];
}
