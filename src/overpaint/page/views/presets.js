/** Styles, and settings kept by name on the server: taken, kept, deleted. */

import * as api from "../api/client.js";
import { signal } from "../state/signal.js";
import { t } from "../text/text.js";
import { show } from "./dialogs.js";
import { h, iconButton, list } from "./dom.js";

/** @typedef {{name: string, request: Record<string, any>}} Preset */

/** @param {import("./app.js").OverPaint} page */
export function showPresets(page) {
  const document = page.session?.document;
  if (!document) return;
  const presets = signal(/** @type {Preset[] | null} */ (null));
  const styles = signal(/** @type {{name: string, prompt: string, negative_prompt: string}[]} */ ([]));
  const problem = signal("");
  const failed = (/** @type {Error} */ error) => void (problem.value = error.message);
  const load = () => api.presets().then((found) => (presets.value = found.presets), failed);
  void load();
  void api.styles().then((found) => (styles.value = found.styles), failed);
  const take = (/** @type {Preset} */ { name, request }) => {
    document.fill(request);
    dialog.close();
    page.say(t("presetTaken", { name }));
  };
  const field = /** @type {HTMLInputElement} */ (h("input", { type: "text", name: "preset-name", maxlength: 80, required: true, pattern: "[^\\/]+", placeholder: () => t("presetName"), "aria-label": () => t("presetName") }));
  const keep = (/** @type {Event} */ event) => {
    event.preventDefault();
    problem.value = "";
    void api.keepPreset(field.value.trim(), document.form.peek()).then(() => { field.value = ""; return load(); }, failed);
  };
  const chosen = () => /** @type {string[]} */ (document.form.value.styles ?? []);
  const toggle = (/** @type {string} */ name, /** @type {boolean} */ isOn) => {
    const next = chosen().filter((each) => each !== name);
    if (isOn) next.push(name);
    document.fill({ styles: next.length ? next : undefined });
  };
  const dialog = show(page, () => t("presets"), "menu",
    h("p", { class: "problem", role: "alert", hidden: () => !problem.value }, () => problem.value),
    h("p", { class: "hint", hidden: () => presets.value?.length !== 0 }, () => t("noPresets")),
    list({}, () => (presets.value ?? []).map((each) =>
      h("li", { class: "row" },
        h("button", { type: "button", class: "row", onclick: () => take(each) }, h("span", {}, each.name)),
        iconButton("trash", () => `${t("deletePreset")}: ${each.name}`, () => void api.dropPreset(each.name).then(load, failed), { class: "icon-button small" })))),
    h("form", { class: "row", onsubmit: keep }, field, h("button", { class: "quiet" }, () => t("keepPreset"))),
    h("h3", { hidden: () => !styles.value.length }, () => t("styles")),
    list({}, () => styles.value.map(({ name, prompt, negative_prompt }) =>
      h("li", {}, h("label", { class: "row", title: [prompt, negative_prompt].filter(Boolean).join(" · ") },
        h("span", {}, name),
        h("input", { type: "checkbox", checked: () => chosen().includes(name), onchange: (/** @type {any} */ event) => toggle(name, event.target.checked) }))))),
  );
}
