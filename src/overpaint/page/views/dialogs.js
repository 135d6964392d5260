/** What is asked and shown now and then; loaded when it is first wanted. */

import { ApiError, connection, schema, useToken } from "../api/client.js";
import { keyOf, showsMask, theme } from "../state/settings.js";
import { language, LANGUAGES, sizeText, speak, t } from "../text/text.js";
import { decoded } from "../work/session.js";
import { h, iconButton, saveFile } from "./dom.js";
import { changeMask } from "./keys.js";

/** @typedef {import("./app.js").OverPaint} OverPaint */
/** @typedef {import("../text/text.js").Key} Key */

/**
 * @param {OverPaint} page
 * @param {() => string} named
 * @param {string} kind
 * @param {...import("./dom.js").Child} children
 * @returns {HTMLDialogElement}
 */
export function show(page, named, kind, ...children) {
  const title = () => named().replace(/ …$/, ""); // which says that something opens
  const shut = () => dialog.close();
  const dialog = /** @type {HTMLDialogElement} */ (
    h("dialog", { class: kind, "aria-label": title, onclose: () => dialog.remove(), onclick: (/** @type {Event} */ event) => event.target === dialog && shut() },
      h("div", { class: "inside" }, h("header", {}, h("h2", {}, title), iconButton("cross", () => t("close"), shut)), ...children),
    )
  );
  page.append(dialog);
  dialog.showModal();
  return dialog;
}

/** @param {OverPaint} page */
export function askToken(page) {
  if (page.querySelector("dialog.token")) return;
  const field = /** @type {HTMLInputElement} */ (h("input", { type: "password", name: "token", autocomplete: "current-password", required: true, autofocus: true }));
  const wrong = h("small", { class: "error", role: "alert", hidden: true }, () => t("tokenWrong"));
  const take = async (/** @type {Event} */ event) => {
    event.preventDefault();
    wrong.hidden = true;
    useToken(field.value.trim());
    try {
      await schema();
    } catch (error) {
      wrong.hidden = !(error instanceof ApiError && error.status === 401);
      if (!wrong.hidden) return field.select();
    }
    dialog.close();
    void page.panel?.complete();
  };
  const dialog = show(page, () => t("tokenTitle"), "token",
    h("p", {}, () => t("tokenHint")),
    h("form", { onsubmit: (/** @type {Event} */ event) => void take(event) },
      h("label", { class: "field" }, h("span", { class: "name" }, () => t("tokenName")), field, wrong),
      h("button", { class: "primary" }, () => t("tokenUse"))),
  );
  dialog.addEventListener("cancel", (event) => connection.peek() === "token" && event.preventDefault());
}

/** @param {OverPaint} page */
export function showMask(page) {
  const act = (/** @type {Key} */ name, /** @type {() => void} */ work, keys = "") =>
    h("button", { type: "button", class: "row", onclick: () => { dialog.close(); work(); } }, h("span", {}, () => t(name)), h("kbd", {}, keys));
  const amount = /** @type {HTMLInputElement} */ (h("input", { type: "number", min: 1, max: 512, value: 12, "aria-label": () => t("by", { pixels: "" }) }));
  const edge = (/** @type {Key} */ name, /** @type {"grown" | "feathered"} */ work, /** @type {number} */ sign) =>
    h("button", { type: "button", class: "quiet", onclick: () => void moveEdge(page, name, work, sign * Number(amount.value)) }, () => t(name));
  const dialog = show(page, () => t("maskMenu"), "menu",
    act("invert", () => void changeMask(page, "invertAll", "invert"), keyOf("invert")),
    act("all", () => void changeMask(page, "fillAll", "all")),
    act("clear", () => void changeMask(page, "clearAll", "clear"), keyOf("clear")),
    act("clearColours", () => clearColours(page)),
    h("div", { class: "row edges" }, edge("grow", "grown", 1), edge("shrink", "grown", -1), edge("feather", "feathered", 1), amount, "px"),
    act("importMask", () => void importMask(page)),
    act("fromAlpha", () => void fromAlpha(page)),
    act("exportMask", () => void exportMask(page)),
    act("extend", () => showExtend(page), keyOf("extend")),
  );
}

/** The picture's sides in numbers. @param {OverPaint} page */
export function showExtend(page) {
  const sides = /** @type {const} */ (["left", "top", "right", "bottom"]);
  const fields = sides.map((side) => /** @type {HTMLInputElement} */ (h("input", { type: "number", name: side, min: 0, max: 2048, step: 8, value: 0, required: true, autofocus: side === "left" })));
  const take = (/** @type {Event} */ event) => {
    event.preventDefault();
    dialog.close();
    const margins = /** @type {any} */ (Object.fromEntries(sides.map((side, i) => [side, Math.round(Number(fields[i].value))])));
    if (page.view && sides.some((side) => margins[side])) void import("./extending.js").then(({ extend }) => extend(/** @type {any} */ (page.view), margins));
  };
  const dialog = show(page, () => t("extend"), "menu",
    h("form", { onsubmit: take },
      ...sides.map((side, i) => h("label", { class: "row" }, h("span", {}, () => t(side)), fields[i], "px")),
      h("div", { class: "answers" }, h("button", { class: "primary" }, () => t("extend")))),
  );
}

/** @param {OverPaint} page @param {Key} name @param {"grown" | "feathered"} work @param {number} by */
async function moveEdge(page, name, work, by) {
  const edges = await import("../canvas/edges.js");
  const { session } = page;
  if (!session?.mask || !Number.isFinite(by)) return;
  session.changedMask(name, edges[work](session.mask, by));
  page.view?.stage?.redrawMask(null);
}

/** @param {OverPaint} page */
function clearColours({ session, view }) {
  session?.changedMask("clearColours", null, session.colour?.remake(() => null));
  view?.stage?.redrawColour(null);
}

/** @param {OverPaint} page */
function importMask(page) {
  const picker = /** @type {HTMLInputElement} */ (h("input", { type: "file", accept: "image/*", hidden: true, onchange: () => void take() }));
  const take = async () => {
    const file = picker.files?.[0];
    const { mask } = page.session ?? {};
    picker.remove();
    if (!file || !mask) return;
    try {
      const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
      const { readMask } = await import("../canvas/png.js");
      showsMask.value = true;
      page.session?.changedMask("importMask", readMask(mask, bitmap));
      page.view?.stage?.redrawMask(null);
      const { width, height } = bitmap;
      if (width !== mask.width || height !== mask.height) page.say(t("maskSize", { width, height }));
    } catch {
      page.say(t("unreadable"), "failed");
    }
  };
  page.append(picker);
  picker.click();
}

/** @param {OverPaint} page */
async function fromAlpha(page) {
  const { session } = page;
  const level = session?.source.peek()?.levels[0];
  if (!session?.mask || !(level instanceof ImageBitmap)) return;
  const { readMask } = await import("../canvas/png.js");
  session.changedMask("fromAlpha", readMask(session.mask, level, true));
  page.view?.stage?.redrawMask(null);
}

/** @param {OverPaint} page */
async function exportMask(page) {
  const { maskFile } = await import("../canvas/png.js");
  if (page.session?.mask) saveFile(await maskFile(page.session.mask), "mask.png");
}

/** @param {OverPaint} page */
export async function showSettings(page) {
  const { usage = 0 } = (await navigator.storage?.estimate?.()) ?? {};
  const choice = (/** @type {string} */ value, /** @type {() => string} */ name, /** @type {() => string} */ now) =>
    h("option", { value, selected: () => now() === value }, name);
  const dialog = show(page, () => t("settings"), "menu",
    h("label", { class: "row" }, h("span", {}, () => t("theme")),
      h("select", { onchange: (/** @type {any} */ event) => (theme.value = event.target.value) },
        choice("auto", () => t("themeAuto"), () => theme.value),
        choice("light", () => t("themeLight"), () => theme.value),
        choice("dark", () => t("themeDark"), () => theme.value))),
    h("label", { class: "row" }, h("span", {}, () => t("languageName")),
      h("select", { onchange: (/** @type {any} */ event) => void speak(event.target.value) },
        ...Object.entries(LANGUAGES).map(([code, { name }]) => choice(code, () => name, () => language.value)))),
    h("button", { type: "button", class: "row", onclick: () => void page.save() }, h("span", {}, () => t("saveResult")), h("kbd", {}, keyOf("saveResult"))),
    h("button", { type: "button", class: "row", onclick: () => { dialog.close(); void page.dialog("showGallery"); } }, h("span", {}, () => t("gallery")), h("kbd", {}, () => keyOf("gallery"))),
    h("button", { type: "button", class: "row", onclick: () => { dialog.close(); void page.dialog("showKeys"); } }, h("span", {}, () => t("help")), h("kbd", {}, () => keyOf("help"))),
    h("a", { class: "row", href: "docs" }, () => t("routes")),
    h("p", { class: "hint" }, () => t("storage", { size: sizeText(usage) })),
    h("button", { type: "button", class: "row danger", onclick: () => { dialog.close(); void startOver(page); } }, h("span", {}, () => t("startOver"))),
  );
}

/** @param {OverPaint} page */
async function startOver(page) {
  if (!(await isSure(page, "startOver", "startOverAsk", true))) return;
  await page.session?.keeper.forget();
  location.reload();
}

/**
 * @param {OverPaint} page
 * @param {Key} act what is asked about; its name is on the button
 * @param {Key} text
 * @param {boolean} [isDangerous]
 * @returns {Promise<boolean>} whether the answer was yes
 */
export function isSure(page, act, text, isDangerous = false) {
  return new Promise((resolve) => {
    const yes = () => {
      resolve(true);
      dialog.close();
    };
    const dialog = show(page, () => t(act), "ask",
      h("p", {}, () => t(text)),
      h("div", { class: "answers" },
        h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, () => t("cancel")),
        h("button", { type: "button", class: isDangerous ? "primary danger" : "primary", onclick: yes }, () => t(act))),
    );
    dialog.addEventListener("close", () => resolve(false));
  });
}

/** @param {OverPaint} page */
export async function showVersions(page) {
  const { session } = page;
  if (!session) return;
  const { document } = session;
  const list = h("ul", { class: "versions" });
  const dialog = show(page, () => t("history"), "menu", list);
  for (const [i, version] of document.pictures.peek().entries()) {
    const file = await session.keeper.file(version.key);
    if (!file) continue;
    const url = URL.createObjectURL(file);
    const name = () => (i ? t("version", { number: i }) : t("original"));
    const go = async () => {
      dialog.close();
      if (document.picture.peek()?.key === version.key) return;
      await session.show(version, await decoded(file), "history", true);
    };
    const isNow = () => document.picture.value?.key === version.key;
    list.append(h("li", {}, h("button", { type: "button", class: "row", "aria-pressed": () => String(isNow()), onclick: () => void go() },
      h("img", { src: url, alt: "", onload: () => URL.revokeObjectURL(url) }), h("span", {}, name, h("small", {}, `${version.width} × ${version.height}`)))));
  }
}
