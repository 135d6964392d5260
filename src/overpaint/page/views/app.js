/** The whole page: bars, picture, form and results in their places, and the keys that work everywhere. */

import { connection } from "../api/client.js";
import { keeping } from "../work/keeper.js";
import { decoded } from "../work/session.js";
import { keyOf, panelOpen, showsMask, tool, TOOLS } from "../state/settings.js";
import { effect, signal } from "../state/signal.js";
import { sizeText, t } from "../text/text.js";
import { scale, PictureView } from "./canvas.js";
import { h, icon, iconButton, saveFile } from "./dom.js";
import { brushSliders, PaintPanel } from "./panel.js";

/** @typedef {import("../work/session.js").Session} Session */
/** @typedef {import("../work/jobs.js").Jobs} Jobs */

/** Where dialogs are that have a file of their own. @type {Record<string, () => Promise<object>>} */
const DIALOGS = {
  others: () => import("./dialogs.js"),
  showGallery: () => import("./gallery.js"),
  showKeys: () => import("./shortcuts.js"),
  showGrid: () => import("./grids.js"),
  showSheet: () => import("./grids.js"),
  showNetworks: () => import("./networks.js"),
  showModels: () => import("./networks.js"),
  showPresets: () => import("./presets.js"),
};
const SAID = 5000; // milliseconds for which a notice is shown
const SLOW = 500; // milliseconds after which it is said that a picture is being opened

export class OverPaint extends HTMLElement {
  /** Counts files that were to be opened. */
  opening = 0;
  notice = signal(/** @type {{text: string, kind: string} | null} */ (null));
  isReady = signal(false);

  /**
   * @param {Session} session
   * @param {Jobs} jobs
   */
  use(session, jobs) {
    this.session = session;
    this.jobs = jobs;
    this.view = new PictureView();
    this.panel = new PaintPanel();
    this.replaceChildren(
      this.#bar(),
      this.#tools(),
      (this.middle = h("main", {}, this.view, this.#empty(), this.#says())),
      this.panel,
      (this.shelf = h("div", { class: "shelf" }, h("p", { class: "hint" }, () => t("noResults")))),
      this.#chooser(),
    );
    this.view.use(session);
    this.view.say = (text, kind) => this.say(text, kind);
    jobs.confirm = async (text) => {
      const { isSure } = await import("./dialogs.js");
      return isSure(this, "accept", text);
    };
    session.document.history.onfailed = (error) => {
      console.error("a step was not taken:", error);
      this.say(t("stepFailed"), "failed");
    };
    this.panel.use(session, jobs);
    effect(() => this.view?.setAttribute("aria-label", t("canvasName")));
    effect(() => this.classList.toggle("panel-closed", !panelOpen.value));
    effect(() => this.classList.toggle("has-picture", Boolean(session.document.picture.value)));
    this.#showStaged();
    this.#takeFiles();
    this.addEventListener("wants", (event) => {
      const [name, ...given] = /** @type {CustomEvent} */ (event).detail;
      void this.dialog(name, ...given);
    });
    this.keys = import("./keys.js").then(({ bindKeys }) => bindKeys(this));
  }

  /** Where results are shown; it comes with the first job. */
  async #showJobs() {
    if (this.strip || !this.jobs) return;
    const { ResultStrip, StagedBar } = await import("./strip.js");
    if (this.strip) return;
    this.strip = new ResultStrip();
    const staged = new StagedBar();
    this.strip.use(this.jobs);
    staged.use(this.jobs, this.strip);
    this.middle?.append(staged);
    this.shelf?.append(this.strip);
  }

  /** Everything is as it was left. */
  async ready() {
    await this.keys;
    this.isReady.value = true;
    const later = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
    later(() => void this.panel?.complete());
    effect(() => {
      if (this.jobs?.document.jobs.value.length) void this.#showJobs();
    });
    const stop = effect(() => {
      if (!this.session?.document.history.length.value || this.plans) return;
      this.plans = true;
      void import("../work/plan.js").then(({ followPlan }) => followPlan(/** @type {Session} */ (this.session), this.view?.stage));
      later(() => void theRest());
    });
    if (this.plans) stop();
    effect(() => {
      if (connection.value === "token") void this.dialog("askToken");
    });
    effect(() => {
      if (keeping.value === "full") this.say(t("storeFull"), "unkept");
      if (keeping.value === "failed") this.say(t("storeFailed"), "unkept");
      if (keeping.value === "kept" && this.notice.peek()?.kind === "unkept") this.notice.value = null;
    });
  }

  /**
   * @param {string} text
   * @param {string} [kind]
   */
  say(text, kind = "told") {
    const said = { text, kind };
    this.notice.value = said;
    if (kind === "told") setTimeout(() => this.notice.peek() === said && (this.notice.value = null), SAID);
  }

  /** @param {string} name of a dialog @param {...any} given */
  async dialog(name, ...given) {
    const dialogs = /** @type {Record<string, any>} */ (await (DIALOGS[name] ?? DIALOGS.others)());
    return dialogs[name](this, ...given);
  }

  /** @param {Blob | null | undefined} file @param {string} [name] */
  async open(file, name = "picture") {
    const { session } = this;
    if (!file || !session) return;
    const turn = ++this.opening;
    const slow = setTimeout(() => this.say(t("openingFile"), "opening"), SLOW);
    const [{ readable, roomFor, NotOpened }] = await Promise.all([import("../work/opening.js"), session.ready]);
    try {
      const picture = await readable(file);
      if (turn !== this.opening) return; // another one was chosen meanwhile
      /** @type {Jobs} */ (this.jobs).staged.value = null;
      await session.open(picture, name);
      this.view?.focus({ preventScroll: true });
      void import("./recipe.js").then(({ offerRecipe }) => offerRecipe(this, picture));
      const most = await roomFor(picture);
      if (most) this.say(t("fileTooLarge", { size: sizeText(picture.size), most: sizeText(most) }), "failed");
    } catch (error) {
      console.warn("not opened:", error);
      return this.say(error instanceof NotOpened ? error.message : t("unreadable"), "failed");
    } finally {
      clearTimeout(slow);
      if (this.notice.peek()?.kind === "opening") this.notice.value = null;
    }
  }

  choose() {
    this.picker?.click();
  }

  async save() {
    const picture = this.session?.document.picture.peek();
    const file = picture && (await this.session?.keeper.file(picture.key));
    if (file) saveFile(file, `${picture.name.replace(/\.\w+$/, "")}-overpaint.${file.type.split("/")[1] || "png"}`);
  }

  #bar() {
    const { history } = /** @type {Session} */ (this.session).document;
    return h("header", { class: "bar" },
      h("h1", { class: "name" }, "overpaint"),
      iconButton("open", () => t("open"), () => this.choose(), { action: "open" }),
      iconButton("save", () => t("saveResult"), () => void this.save(), { action: "saveResult", class: "icon-button wide-only" }),
      h("span", { class: "gap" }),
      iconButton("undo", () => t("undo"), () => void history.undo(), { action: "undo", disabled: () => !history.at.value }),
      iconButton("redo", () => t("redo"), () => void history.redo(), { action: "redo", disabled: () => history.at.value === history.length.value }),
      h("span", { class: "gap" }),
      h("button", { type: "button", class: "quiet zoom", title: () => `${t("full")} (${keyOf("full")})`, onclick: () => this.view?.full() }, () => `${Math.round(scale.value * 100)} %`),
      iconButton("fit", () => t("fit"), () => this.view?.stage?.fit(), { action: "fit" }),
      iconButton("eye", () => t("showMask"), () => (showsMask.value = !showsMask.peek()), { action: "showMask", "aria-pressed": () => String(showsMask.value) }),
      h("span", { class: "push" }),
      h("span", { class: "state", role: "status" }, () => (connection.value === "offline" ? h("span", { class: "warn" }, t("waitingForServer")) : null)),
      iconButton("gallery", () => t("gallery"), () => void this.dialog("showGallery"), { action: "gallery", class: "icon-button wide-only" }),
      iconButton("clock", () => t("history"), () => void this.dialog("showVersions")),
      iconButton("help", () => t("help"), () => void this.dialog("showKeys"), { action: "help", class: "icon-button wide-only" }),
      iconButton("more", () => t("settings"), () => void this.dialog("showSettings")),
      iconButton("sliders", () => t("panel"), () => (panelOpen.value = !panelOpen.peek()), { action: "panel", "aria-pressed": () => String(panelOpen.value) }),
    );
  }

  #tools() {
    const button = (/** @type {import("../state/settings.js").Tool} */ name) =>
      iconButton(name, () => t(name), () => (tool.value = name), { action: name, "aria-pressed": () => String(tool.value === name), "data-tool": name });
    return h("nav", { class: "tools", "aria-label": () => t("tools") },
      h("div", { class: "set", role: "toolbar" }, ...TOOLS.map(button)),
      h("div", { class: "set brush-set" }, ...brushSliders()),
      h("button", { type: "button", class: "quiet mask-menu", "aria-haspopup": "dialog", onclick: () => void this.dialog("showMask") }, () => t("maskMenu")),
    );
  }

  #empty() {
    const { document } = /** @type {Session} */ (this.session);
    return h("section", { class: "empty", hidden: () => Boolean(document.picture.value || this.jobs?.staged.value) || !this.isReady.value },
      icon("brush"),
      h("h2", {}, () => t("dropHere")),
      h("p", {}, () => t("orPaste")),
      h("button", { type: "button", class: "primary", onclick: () => this.choose() }, () => t("choose")),
      h("button", { type: "button", class: "quiet", onclick: () => void blank().then((file) => this.open(file, "sheet.png")) }, () => t("blank")),
    );
  }

  #says() {
    return h("div", { class: "notices", role: "status" }, () => {
      const offline = connection.value === "offline" ? h("p", { class: "notice failed" }, t("offline")) : null;
      const said = this.notice.value;
      const shut = iconButton("cross", () => t("close"), () => (this.notice.value = null), { class: "icon-button small" });
      return [offline, said && h("p", { class: `notice ${said.kind === "unkept" ? "failed" : said.kind}` }, said.text, shut)];
    });
  }

  #chooser() {
    this.picker = /** @type {HTMLInputElement} */ (
      h("input", {
        ...{ type: "file", accept: "image/*,.tif,.tiff,.avif,.heic,.heif,.jp2", hidden: true, "aria-label": () => t("open") },
        onchange: () => {
          const file = this.picker?.files?.[0];
          void this.open(file, file?.name);
          if (this.picker) this.picker.value = "";
        },
      })
    );
    return this.picker;
  }

  #showStaged() {
    let turn = 0;
    effect(() => {
      const { staged, document } = /** @type {Jobs} */ (this.jobs);
      const now = staged.value;
      const result = now && document.jobs.value.find((each) => each.id === now.job)?.results.find((each) => each.number === now.number);
      const file = result?.file ?? null;
      if (file === this.shown) return;
      this.shown = file;
      void this.#look(file, ++turn, () => turn);
    });
    effect(() => {
      const { previews, document } = /** @type {Jobs} */ (this.jobs);
      const stage = this.view?.stage;
      if (!stage) return;
      stage.previews = [...previews.value].flatMap(([id, image]) => {
        const job = document.job(id);
        return job?.crop ? [{ image, box: job.crop, stencil: this.jobs?.stencils.get(id) ?? null }] : [];
      });
      stage.redrawOver();
    });
  }

  /** @type {import("./strip.js").ResultStrip | undefined} */
  strip = undefined;
  plans = false;
  /** @type {string | null} */
  shown = null;

  /** @param {string | null} file @param {number} turn @param {() => number} now */
  async #look(file, turn, now) {
    const stage = this.view?.stage;
    const found = file && (await this.session?.keeper.file(file));
    const bitmap = found && (await decoded(found));
    if (!stage) return;
    if (turn !== now()) return void (bitmap && bitmap.close());
    stage.result?.close();
    stage.result = this.session?.source.peek() ? bitmap || null : null;
    if (!this.session?.source.peek()) this.#showAlone(bitmap || null);
    stage.showsCrop = !bitmap;
    showsMask.value = !bitmap;
    stage.redraw();
  }

  /** A result that was painted without a picture. @param {import("../canvas/pyramid.js").Pyramid | null} pyramid */
  #showAlone(pyramid) {
    const stage = this.view?.stage;
    const before = stage?.source;
    stage?.setSource(pyramid);
    before?.close();
  }

  #takeFiles() {
    addEventListener("dragover", (event) => {
      event.preventDefault();
      this.classList.add("takes");
    });
    for (const name of ["dragleave", "drop", "dragend"]) addEventListener(name, () => this.classList.remove("takes"));
    addEventListener("drop", (event) => {
      if (event.defaultPrevented) return; // a field took it
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file) void this.open(file, file.name);
    });
    addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
      if (file) void this.open(file, file.name);
    });
    const [held] = /** @type {any} */ (globalThis).takeHeldFiles().slice(-1);
    if (held) void this.open(held, held.name);
  }
}

customElements.define("over-paint", OverPaint);

/** Whatever is loaded when it is first wanted, now that somebody paints: the server may go away meanwhile. */
function theRest() {
  void navigator.storage?.persist?.(); // or browsers may throw away what is kept when the disk gets full
  return Promise.allSettled([
    import("../canvas/png.js"),
    import("../canvas/shapes.js"),
    import("../canvas/edges.js"),
    import("../canvas/grow.js"),
    import("../canvas/merge.js"),
    import("../canvas/refine.js"),
    import("../canvas/colour.js"),
    import("../work/asking.js"),
    import("../work/growing.js"),
    import("../work/opening.js"),
    import("../work/selecting.js"),
    import("../api/stream.js"),
    import("../work/copying.js"),
    import("./strip.js"),
    import("./dialogs.js"),
    import("./gallery.js"),
    import("./grids.js"),
    import("./networks.js"),
    import("./presets.js"),
    import("./prompting.js"),
    import("../work/previewing.js"),
    import("./shortcuts.js"),
    import("./slider.js"),
  ]);
}

/** A white sheet. @returns {Promise<Blob>} */
function blank() {
  const sheet = new OffscreenCanvas(768, 768);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d"));
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, 768, 768);
  return sheet.convertToBlob({ type: "image/png" });
}
