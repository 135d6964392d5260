/** All that was painted and is still kept on the server: sought, pinned, taken up again, deleted. */

import * as api from "../api/client.js";
import { signal } from "../state/signal.js";
import { durationText, language, sizeText, t } from "../text/text.js";
import { isSure, show } from "./dialogs.js";
import { h, iconButton, list, saveFile } from "./dom.js";
import { useRecipe } from "./recipe.js";

/** @typedef {import("./app.js").OverPaint} OverPaint */
/** @typedef {{id: string, prompt: string, pinned: boolean, bytes: number, ended: number, pictures: any[]}} Painted */
/** @typedef {{jobs: Painted[], found: number, pinned_bytes: number, most_pinned_bytes: number, keep_seconds: number}} Found */

const PAGE = 40; // jobs that are asked for at a time
const SIDE = 320; // pixels of a small picture
const TYPING = 250; // milliseconds of silence after which a search begins

/** @param {OverPaint} page */
export function showGallery(page) {
  const found = signal(/** @type {Found | null} */ (null));
  const problem = signal("");
  const sought = { search: "", pinned: false };
  let turn = 0, timer = 0;
  const look = async (isMore = false) => {
    const own = ++turn;
    try {
      const before = isMore ? found.peek()?.jobs ?? [] : [];
      const next = await api.gallery({ ...sought, skip: before.length, limit: PAGE });
      if (own !== turn) return;
      problem.value = "";
      found.value = { ...next, jobs: [...before, ...next.jobs] };
    } catch (error) {
      if (own === turn) problem.value = /** @type {Error} */ (error).message;
    }
  };
  const search = (/** @type {any} */ event) => {
    sought.search = event.target.value.trim();
    clearTimeout(timer);
    timer = window.setTimeout(() => void look(), TYPING);
  };
  const isMore = () => (found.value ? found.value.found > found.value.jobs.length : false);
  const dialog = show(page, () => t("gallery"), "gallery",
    h("div", { class: "filters" },
      h("input", { type: "search", name: "find-painted", placeholder: () => t("findPainted"), "aria-label": () => t("findPainted"), oninput: search }),
      h("label", { class: "only" },
        h("input", { type: "checkbox", onchange: (/** @type {any} */ event) => { sought.pinned = event.target.checked; void look(); } }),
        () => t("onlyPinned"))),
    h("p", { class: "problem", role: "alert", hidden: () => !problem.value }, () => problem.value),
    h("p", { class: "hint", role: "status" }, () => stateOf(found.value, sought)),
    list({ class: "painted" }, () => (found.value?.jobs ?? []).flatMap((job) => cards(page, job, () => dialog.close(), () => look()))),
    h("button", { type: "button", class: "quiet", hidden: () => !isMore(), onclick: () => void look(true) }, () => t("showMore")),
    h("p", { class: "hint" }, () => (found.value ? keptFor(found.value) : "")),
  );
  dialog.addEventListener("close", () => pictures.disconnect());
  void look();
}

/**
 * @param {OverPaint} page
 * @param {Painted} job
 * @param {() => void} shut
 * @param {() => Promise<void>} again
 */
function cards(page, job, shut, again) {
  const failed = (/** @type {Error} */ error) => page.say(error.message, "failed");
  const turn = (/** @type {Promise<unknown>} */ work) => void work.then(again, failed);
  return job.pictures.filter((each) => ["picture", "grid"].includes(each.kind)).map((picture) => {
    const { number, seed } = picture;
    const open = async () => {
      const file = await api.picture(job.id, number);
      shut();
      await page.open(file, `${job.id}-${number}.png`);
    };
    const use = async () => {
      const { request } = await api.job(job.id);
      shut();
      useRecipe(page, { ...request, ...(typeof seed === "number" ? { seed } : {}) });
    };
    const save = async () => {
      const file = await api.picture(job.id, number);
      saveFile(file, `overpaint-${seed ?? job.id}.${file.type.split("/")[1] || "png"}`);
    };
    const name = job.prompt || t("noPrompt");
    const image = /** @type {HTMLImageElement} */ (h("img", { alt: "", width: picture.width, height: picture.height, "data-job": job.id, "data-number": number }));
    pictures.observe(image);
    const starred = () => t(job.pinned ? "unpin" : "pin");
    return h("li", { class: "work" },
      h("button", { type: "button", class: "look", title: () => t("openPainted"), "aria-label": () => `${t("openPainted")}: ${name}`, onclick: () => void open().catch(failed) }, image),
      h("p", { title: name }, name, h("small", {}, `${picture.width} × ${picture.height} · ${dateOf(job.ended)}`)),
      h("div", { class: "acts" },
        iconButton("star", starred, () => turn(api.pin(job.id, !job.pinned)), { class: "icon-button small", "aria-pressed": String(job.pinned) }),
        iconButton("again", () => t("sameAgain"), () => void use().catch(failed), { class: "icon-button small" }),
        iconButton("save", () => t("download"), () => void save().catch(failed), { class: "icon-button small" }),
        iconButton("trash", () => t("deletePainted"), () => void isSure(page, "deletePainted", "deleteAsk", true).then((yes) => yes && turn(api.remove(job.id))), { class: "icon-button small" }),
      ),
    );
  });
}

/** Small pictures are fetched when they come into sight; an `img` alone could not send the token. */
const pictures = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) {
    if (!isIntersecting) continue;
    pictures.unobserve(target);
    const image = /** @type {HTMLImageElement} */ (target);
    void api.thumbnail(String(image.dataset.job), Number(image.dataset.number), SIDE).then(
      (file) => {
        image.onload = () => URL.revokeObjectURL(image.src);
        image.src = URL.createObjectURL(file);
      },
      () => image.classList.add("missing"),
    );
  }
}, { rootMargin: "200px" });

/** @param {Found | null} found @param {{search: string, pinned: boolean}} sought */
function stateOf(found, sought) {
  if (!found) return t("looking");
  if (found.found) return t("paintedFound", { count: found.found });
  return t(sought.search || sought.pinned ? "nothingFound" : "nothingPainted");
}

/** @param {number} seconds */
function dateOf(seconds) {
  return new Date(1000 * seconds).toLocaleString(language.value, { dateStyle: "short", timeStyle: "short" });
}

/** @param {Found} found */
function keptFor({ pinned_bytes, most_pinned_bytes, keep_seconds }) {
  return t("pinnedTake", { used: sizeText(pinned_bytes), most: sizeText(most_pinned_bytes), time: durationText(keep_seconds) });
}
