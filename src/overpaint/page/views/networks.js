/** LoRAs and embeddings to choose from, with their pictures and the words that call them up. */

import { ask } from "../api/client.js";
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
    matching(known.value?.[kind] ?? [], sought.value, MOST).map((each) => card(each, () => add(textOf(each))));
  const dialog = show(page, () => t("networks"), "gallery",
    h("div", { class: "filters" }, h("input", { type: "search", name: "find-network", placeholder: () => t("findNetwork"), "aria-label": () => t("findNetwork"), oninput: (/** @type {any} */ event) => (sought.value = event.target.value.trim()) })),
    h("p", { class: "hint", hidden: () => !known.value || Boolean(known.value.loras.length + known.value.embeddings.length) }, () => t("noNetworks")),
    list({ class: "painted" }, group("loras", tagOf)),
    h("h3", { hidden: () => !known.value?.embeddings.length }, () => t("embeddings")),
    list({ class: "painted" }, group("embeddings", (each) => each.id)),
  );
}

/** @param {Network} network @param {() => void} act */
function card({ id, title, words, picture }, act) {
  const image = picture ? /** @type {HTMLImageElement} */ (h("img", { alt: "" })) : null;
  if (image && picture) {
    void ask("GET", picture.replace(/^\//, "")).then((answer) => answer.blob()).then((file) => {
      image.onload = () => URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(file);
    }, () => image.remove());
  }
  return h("li", { class: "work" },
    h("button", { type: "button", class: "look", "aria-label": `${t("addNetwork")}: ${id}`, onclick: act }, image ?? h("span", { class: "initial", "aria-hidden": true }, id.slice(0, 2))),
    h("p", { title: title === id ? id : `${id} (${title})` }, id, h("small", { title: words.join(", ") }, words.join(", "))));
}
