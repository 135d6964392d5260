/** Pictures that an edit model looks at beside the one that is painted over: dropped or chosen, shown small, taken away. */

import { t } from "../text/text.js";
import { NotOpened, readable } from "../work/opening.js";
import { h, iconButton, list } from "./dom.js";
import { fieldError, fieldErrors, forgetError } from "./panel.js";

/** @typedef {import("../work/session.js").Session} Session */

const FIELD = "references";

/** @param {Session} session @returns {HTMLElement} */
export function referenceRow({ document, keeper }) {
  const add = async (/** @type {Iterable<File>} */ files) => {
    forgetError(FIELD);
    for (const file of files) {
      try {
        const key = await keeper.keepFile(await readable(file));
        document.references.value = [...document.references.peek(), { key, name: file.name }];
      } catch (error) {
        fieldErrors.value = { ...fieldErrors.peek(), [FIELD]: error instanceof NotOpened ? error.message : t("unreadable") };
      }
    }
  };
  const remove = (/** @type {string} */ key) => {
    forgetError(FIELD);
    document.references.value = document.references.peek().filter((each) => each.key !== key);
  };
  const picker = /** @type {HTMLInputElement} */ (
    h("input", {
      ...{ type: "file", name: FIELD, accept: "image/*,.tif,.tiff,.avif,.heic,.heif,.jp2", multiple: true, hidden: true, "aria-label": () => t("addReference") },
      onchange: () => void add([...(picker.files ?? [])]).then(() => (picker.value = "")),
    })
  );
  const takes = (/** @type {DragEvent} */ event) => {
    const files = [...(event.dataTransfer?.files ?? [])];
    if (!files.length) return;
    event.preventDefault(); // the page would open it as the picture
    void add(files);
  };
  return h("div", { class: "field references", role: "group", "aria-label": () => t("references"), ondrop: takes },
    h("span", { class: "name" }, () => t("references")),
    list({ class: "thumbs" }, () => [
      ...document.references.value.map(({ key, name }) => h("li", {}, thumb(keeper, key, name), iconButton("cross", () => `${t("removeReference")}: ${name}`, () => remove(key), { class: "icon-button small corner" }))),
      h("li", {}, iconButton("open", () => t("addReference"), () => picker.click(), { class: "icon-button add" })),
    ]),
    picker,
    h("small", { class: "hint" }, () => t("referencesHint")),
    fieldError(FIELD),
  );
}

/**
 * @param {import("../work/keeper.js").Keeper} keeper
 * @param {string} key
 * @param {string} name
 */
function thumb(keeper, key, name) {
  const image = /** @type {HTMLImageElement} */ (h("img", { alt: name, title: name }));
  void keeper.file(key).then((file) => {
    if (!file) return;
    image.onload = () => URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
  });
  return image;
}
