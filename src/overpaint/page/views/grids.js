/** What does this setting do? The job painted once for each value, or for each pair of two settings' values. */

import { labelOf, t } from "../text/text.js";
import { show } from "./dialogs.js";
import { h, saveFile } from "./dom.js";

/** @typedef {import("./app.js").OverPaint} OverPaint */

/** Settings that are often compared, and values to begin with. */
const AXES = {
  strength: "0.4-0.9 [3]",
  cfg_scale: "3,7,11",
  steps: "10,20,30",
  seed: "1-4",
  sampler: "Euler a,DPM++ 2M",
  scheduler: "Karras,Exponential",
  checkpoint: "",
  clip_skip: "1,2",
  padding: "16,64,128",
  replace: "",
};
const MOST = 400; // characters of the values

/** @param {OverPaint} page */
export function showGrid(page) {
  const axis = (/** @type {"x" | "y"} */ name, /** @type {string} */ first) => {
    const values = /** @type {HTMLInputElement} */ (h("input", { type: "text", name: `${name}-values`, maxlength: MOST, required: name === "x", value: first ? AXES[/** @type {"steps"} */ (first)] : "", "aria-label": () => t("axisValues"), placeholder: "10,20,30" }));
    const fields = Object.keys(AXES);
    const field = /** @type {HTMLSelectElement} */ (h("select", { name: `${name}-field`, "aria-label": () => t("axisField"), onchange: () => { values.value = field.value ? AXES[/** @type {"steps"} */ (field.value)] : ""; } },
      name === "y" ? h("option", { value: "" }, () => t("noAxis")) : null,
      ...fields.map((each) => h("option", { value: each, selected: each === first }, () => labelOf(each)))));
    return { field, values };
  };
  const x = axis("x", "strength"), y = axis("y", "");
  const take = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const fields = { kind: "grid", x: `${x.field.value}=${x.values.value}`, ...(y.field.value ? { y: `${y.field.value}=${y.values.value}` } : {}) };
    dialog.close();
    await page.jobs?.paint(fields);
  };
  const dialog = show(page, () => t("compareSettings"), "menu grid",
    h("p", { class: "hint" }, () => t("gridHint")),
    h("form", { onsubmit: (/** @type {Event} */ event) => void take(event) },
      h("div", { class: "axis" }, h("span", {}, () => t("across")), x.field, x.values),
      h("div", { class: "axis" }, h("span", {}, () => t("down")), y.field, y.values),
      h("div", { class: "answers" }, h("button", { class: "primary" }, () => t("paintGrid")))),
  );
}

/**
 * A sheet, large.
 * @param {OverPaint} page
 * @param {string} key of its file
 */
export async function showSheet(page, key) {
  const file = await page.session?.keeper.file(key);
  if (!file) return;
  const url = URL.createObjectURL(file);
  show(page, () => t("sheet"), "sheet",
    h("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": () => t("sheet") }, h("img", { src: url, alt: () => t("sheet"), onload: () => URL.revokeObjectURL(url) })),
    h("div", { class: "answers" }, h("button", { type: "button", class: "quiet", onclick: () => saveFile(file, "overpaint-grid.png") }, () => t("download"))),
  );
}
