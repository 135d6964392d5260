/** Jobs and their results side by side, and what may be done with the one that is looked at. */

import { keyOf } from "../state/settings.js";
import { effect, signal, untracked } from "../state/signal.js";
import { t } from "../text/text.js";
import { h, icon, iconButton, saveFile } from "./dom.js";
import { comparing } from "./canvas.js";
import { wants } from "./panel.js";

/** @typedef {import("../state/document.js").Job} Job */
/** @typedef {import("../work/jobs.js").Jobs} Jobs */

const THUMB = 160;
const VARIATIONS = 3, VARIATION = 0.25; // how many, and how far they go from the seed's own noise

export class ResultStrip extends HTMLElement {
  /** @type {Map<string, string>} file -> URL of its small picture */
  thumbs = new Map();
  /** Counts small pictures that were drawn. */
  drawn = signal(0);

  /** @param {Jobs} jobs */
  use(jobs) {
    this.jobs = jobs;
    this.setAttribute("role", "region");
    this.setAttribute("aria-label", t("results"));
    effect(() => {
      const all = jobs.document.jobs.value;
      this.hidden = !all.length;
    });
    const list = h("ul", { class: "cards" });
    effect(() => list.replaceChildren(...[...jobs.document.jobs.value].reverse().flatMap((job) => this.#cards(job))));
    this.append(list);
  }

  /** Every result that can be looked at, in the order of the strip. */
  #all() {
    const jobs = [.../** @type {Jobs} */ (this.jobs).document.jobs.peek()].reverse();
    return jobs.flatMap((job) => job.results.filter((each) => each.file && !each.isSheet).map((each) => ({ job: job.id, number: each.number })));
  }

  /** @param {number} by */
  step(by) {
    const all = this.#all();
    const { staged } = /** @type {Jobs} */ (this.jobs);
    const now = staged.peek();
    const at = all.findIndex((each) => each.job === now?.job && each.number === now.number);
    if (all.length) staged.value = all[(at + by + all.length) % all.length];
  }

  /** @param {Job} job */
  #cards(job) {
    if (!job.results.length) return [this.#waiting(job)];
    return job.results.map((result) => {
      const isHere = () => jobs.staged.value?.job === job.id && jobs.staged.value.number === result.number;
      const jobs = /** @type {Jobs} */ (this.jobs);
      const label = () => result.isSheet ? t("sheet") : `${t("finished")}, ${t("seedIs", { seed: result.seed ?? "?" })}`;
      const look = () => result.isSheet ? wants(this, "showSheet", result.file) : (jobs.staged.value = isHere() ? null : { job: job.id, number: result.number });
      return h("li", { class: () => (isHere() ? "card here" : "card") },
        h("button", { type: "button", class: "look", "aria-pressed": () => String(isHere()), "aria-label": label, title: label, onclick: look },
          result.file ? this.#thumb(result.file, result.isSheet ? null : job.crop) : h("span", { class: "spinner" }),
        ),
        iconButton("cross", () => t("removeJob"), () => jobs.discard(job.id), { class: "icon-button small corner" }),
      );
    });
  }

  /** @param {Job} job */
  #waiting(job) {
    const jobs = /** @type {Jobs} */ (this.jobs);
    const isOpen = ["sending", "queued", "running"].includes(job.state);
    const part = job.steps ? job.step / job.steps : 0;
    const shut = isOpen ? () => jobs.cancel(job.id) : () => jobs.discard(job.id);
    return h("li", { class: `card job ${job.state}` },
      h("div", { class: "state" },
        isOpen ? ring(job.state === "running" ? part : null) : icon(job.state === "failed" ? "cross" : "stop"),
        h("span", { role: "status" }, () => stateOf(job)),
        job.eta !== null && job.state === "running" ? h("small", {}, () => t("secondsLeft", { seconds: Math.ceil(job.eta ?? 0) })) : null,
      ),
      job.state === "running" ? iconButton("check", () => t("finishEarly"), () => void jobs.finish(job.id), { class: "icon-button small corner early" }) : null,
      iconButton(isOpen ? "stop" : "cross", () => t(isOpen ? "cancelJob" : "removeJob"), shut, { class: "icon-button small corner" }),
    );
  }

  /** @param {string} file @param {Job["crop"]} crop */
  #thumb(file, crop) {
    void this.drawn.value;
    const url = this.thumbs.get(file);
    if (!url) void untracked(() => this.#draw(file, crop));
    return url ? h("img", { src: url, alt: "", width: THUMB / 2, height: THUMB / 2 }) : h("span", { class: "spinner" });
  }

  /**
   * Where the job painted, small.
   * @param {string} file
   * @param {Job["crop"]} crop
   */
  async #draw(file, crop) {
    const found = await /** @type {Jobs} */ (this.jobs).session.keeper.file(file);
    if (!found || this.thumbs.has(file)) return;
    this.thumbs.set(file, "");
    const bitmap = await createImageBitmap(found);
    const isCut = crop && crop[2] <= bitmap.width && crop[3] <= bitmap.height;
    const [left, top, right, bottom] = isCut && crop ? crop : [0, 0, bitmap.width, bitmap.height];
    const side = Math.max(right - left, bottom - top);
    const sheet = new OffscreenCanvas(THUMB, THUMB);
    const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d"));
    pen.imageSmoothingQuality = "high";
    const k = Math.max(THUMB / (right - left), THUMB / (bottom - top));
    const wide = (right - left) * k, high = (bottom - top) * k;
    pen.drawImage(bitmap, left, top, right - left, bottom - top, (THUMB - wide) / 2, (THUMB - high) / 2, wide, high);
    bitmap.close();
    this.thumbs.set(file, URL.createObjectURL(await sheet.convertToBlob({ type: "image/webp", quality: side ? 0.85 : 1 })));
    this.drawn.value++;
  }
}

customElements.define("result-strip", ResultStrip);

/** What may be done with the result that is looked at; it lies over the picture. */
export class StagedBar extends HTMLElement {
  /**
   * @param {Jobs} jobs
   * @param {ResultStrip} strip
   */
  use(jobs, strip) {
    this.setAttribute("role", "toolbar");
    this.setAttribute("aria-label", t("results"));
    effect(() => {
      this.hidden = !jobs.staged.value;
      if (this.hidden && comparing.peek() !== "off") comparing.value = "off";
    });
    const discard = () => jobs.staged.peek() && jobs.discard(/** @type {any} */ (jobs.staged.peek()).job);
    /** @param {"slider" | "blink" | "difference"} how @param {import("./dom.js").Icon} drawing */
    const compares = (how, drawing) => {
      const isOn = () => comparing.value === how;
      return iconButton(drawing, () => t(how), () => (comparing.value = isOn() ? "off" : how), { action: how, "aria-pressed": () => String(isOn()) });
    };
    this.append(
      iconButton("undo", () => t("previous"), () => strip.step(-1), { action: "previous", class: "icon-button flip" }),
      iconButton("redo", () => t("next"), () => strip.step(1), { action: "next", class: "icon-button flip" }),
      compares("slider", "compare"),
      compares("blink", "blink"),
      compares("difference", "difference"),
      h("span", { class: "seam", title: () => t("seamAbout") }, () => seamOf(jobs)),
      iconButton("again", () => t("sameAgain"), () => useSettings(jobs)),
      iconButton("variations", () => t("variations"), () => vary(jobs)),
      iconButton("save", () => t("download"), () => void download(jobs)),
      h("button", { type: "button", class: "quiet", title: () => `${t("discard")} (${keyOf("discard")})`, onclick: discard }, icon("trash"), h("span", {}, () => t("discard"))),
      h("button", { type: "button", class: "primary", title: () => `${t("accept")} (${keyOf("accept")})`, onclick: () => void jobs.accept() }, icon("check"), h("span", {}, () => t("accept"))),
    );
  }
}

customElements.define("staged-bar", StagedBar);

/** How visible the edge of what was painted is, where the server has measured it. @param {Jobs} jobs */
function seamOf(jobs) {
  const staged = jobs.staged.value;
  const { seam } = jobs.document.jobs.value.find((each) => each.id === staged?.job)?.results.find((each) => each.number === staged?.number) ?? {};
  if (!seam) return "";
  return t("seam", { step: Number(seam.step ?? 0).toFixed(1), outside: seam.outside ?? 0 });
}

/** The form becomes what this result was painted with, its seed too. @param {Jobs} jobs */
function useSettings(jobs) {
  const staged = jobs.staged.peek();
  const job = staged && jobs.document.job(staged.job);
  const seed = job?.results.find((each) => each.number === staged?.number)?.seed;
  if (job) jobs.document.fill({ ...job.request, ...(typeof seed === "number" ? { seed } : {}) });
}

/** A few more that are much like it. @param {Jobs} jobs */
function vary(jobs) {
  const staged = jobs.staged.peek();
  const result = staged && jobs.document.job(staged.job)?.results.find((each) => each.number === staged.number);
  if (!staged || !result) return;
  const seed = typeof result.seed === "number" ? { seed: result.seed } : {};
  void jobs.again(staged.job, { ...seed, variation_strength: VARIATION, variation_seed: -1, batch_size: 1, iterations: VARIATIONS });
}

/** @param {Jobs} jobs */
async function download(jobs) {
  const staged = jobs.staged.peek();
  const result = staged && jobs.document.job(staged.job)?.results.find((each) => each.number === staged.number);
  const file = result?.file && (await jobs.session.keeper.file(result.file));
  if (file) saveFile(file, `overpaint-${result.seed ?? result.number}.${file.type.split("/")[1] || "png"}`);
}

/** @param {Job} job */
function stateOf(job) {
  if (job.state === "queued") return job.position ? t("queued", { position: job.position }) : t("queuedNext");
  if (job.state === "running") return job.step ? t("running", { step: job.step, steps: job.steps }) : t("starting");
  if (job.state === "sending" && job.error) return t("waitingForServer");
  return t(job.state);
}

/** @param {number | null} part null turns */
function ring(part) {
  const element = h("span", { class: part === null ? "ring turns" : "ring", "aria-hidden": true });
  element.style.setProperty("--part", String(part ?? 0.25));
  return element;
}
