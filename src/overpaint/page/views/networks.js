/** LoRAs, embeddings and models to choose from, with their pictures and the words that call them up. */

import { ask, models } from "../api/client.js";
import { signal } from "../state/signal.js";
import { t } from "../text/text.js";
import { matching, tagOf } from "../work/completing.js";
import { show } from "./dialogs.js";
import { h, list } from "./dom.js";
import { networks } from "./prompting.js";

/** @typedef {import("../work/completing.js").Network} Network */

const MOST = 200; // that are shown at once; a search finds the others

/** @param {import("./app.js").OverPaint} page */
export function showNetworks(page) {
  const known = signal(/** @type {import("../work/completing.js").Networks | null} */ (null));
  const sought = signal("");
  void networks().then((found) => (known.value = found));
  const add = (/** @type {string} */ text) => {
    const prompt = String(page.session?.document.form.peek().prompt ?? "");
    page.session?.document.fill({ prompt: prompt.trim() ? `${prompt.trimEnd().replace(/,$/, "")}, ${text}` : text });
    page.say(t("networkAdded"));
    dialog.close();
  };
  const group = (/** @type {"loras" | "embeddings"} */ kind, /** @type {(each: Network) => string} */ textOf) => () =>
    matching(known.value?.[kind] ?? [], sought.value, MOST).map((each) => card(each, t("addNetwork"), () => add(textOf(each))));
  const dialog = show(page, () => t("networks"), "gallery",
    h("div", { class: "filters" }, h("input", { type: "search", name: "find-network", placeholder: () => t("findNetwork"), "aria-label": () => t("findNetwork"), oninput: (/** @type {any} */ event) => (sought.value = event.target.value.trim()) })),
    h("p", { class: "hint", hidden: () => !known.value || Boolean(known.value.loras.length + known.value.embeddings.length) }, () => t("noNetworks")),
    list({ class: "painted names" }, group("loras", tagOf)),
    h("h3", { hidden: () => !known.value?.embeddings.length }, () => t("embeddings")),
    list({ class: "painted names" }, group("embeddings", (each) => each.id)),
  );
}

/** The model of the next job. @param {import("./app.js").OverPaint} page */
export function showModels(page) {
  const known = signal(/** @type {Network[] | null} */ (null));
  const sought = signal("");
  void models("checkpoint").then((found) => (known.value = found), (error) => page.say(error.message, "failed"));
  const found = () => matching(known.value ?? [], sought.value, MOST);
  const take = (/** @type {string} */ id) => {
    page.session?.document.fill({ checkpoint: id });
    dialog.close();
  };
  const dialog = show(page, () => t("models"), "gallery",
    h("div", { class: "filters" }, h("input", { type: "search", name: "find-model", placeholder: () => t("findModel"), "aria-label": () => t("findModel"), oninput: (/** @type {any} */ event) => (sought.value = event.target.value.trim()) })),
    h("p", { class: "hint", hidden: () => !known.value || Boolean(found().length) }, () => t("noModels")),
    list({ class: "painted names" }, () => found().map((each) => card(each, t("field_checkpoint"), () => take(each.id), page.session?.document.form.value.checkpoint === each.id))),
  );
}

/**
 * @param {Network} network
 * @param {string} label of the button, before the name
 * @param {() => void} act
 * @param {boolean} [isChosen]
 */
function card({ id, title, words, picture }, label, act, isChosen) {
  const image = picture ? /** @type {HTMLImageElement} */ (h("img", { alt: "" })) : null;
  if (image && picture) {
    void ask("GET", picture.replace(/^\//, "")).then((answer) => answer.blob()).then((file) => {
      image.onload = () => URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(file);
    }, () => image.remove());
  }
  return h("li", { class: "work" },
    h("button", { type: "button", class: "look", "aria-label": `${label}: ${id}`, "aria-pressed": isChosen === undefined ? null : String(isChosen), onclick: act }, image ?? h("span", { class: "initial", "aria-hidden": true }, id.slice(0, 2))),
    h("p", { title: title === id ? id : `${id} (${title})` }, id, h("small", { title: words.join(", ") }, words.join(", "))));
}
