/** Jobs from the press of the button to a result that is taken over: sent, followed, found again after a reload. */

import * as api from "../api/client.js";
import { JobClock } from "../state/document.js";
import { effect, signal } from "../state/signal.js";
import { t } from "../text/text.js";
import { bitmapOf, decoded } from "./session.js";

/** @typedef {import("../state/document.js").Job} Job */
/** @typedef {import("../state/document.js").Result} Result */
/** @typedef {import("./session.js").Session} Session */
/** @typedef {Pick<Job, "request" | "isMasked" | "picture" | "references">} Wish */

const PATIENCE = [500, 1000, 2000, 5000, 10000]; // milliseconds between tries
const OPEN = ["queued", "running"];

export class Jobs {
  /** @param {Session} session */
  constructor(session) {
    this.session = session;
    this.document = session.document;
    /** What is being looked at instead of the picture. */
    this.staged = signal(/** @type {{job: string, number: number} | null} */ (null));
    /** @type {import("../state/signal.js").Signal<Map<string, ImageBitmap>>} */
    this.previews = signal(new Map());
    /** @type {Map<string, ImageBitmap>} */
    this.stencils = new Map();
    /** @type {Map<string, number>} job -> the mask it was sent with, by its count of changes */
    this.sentWith = new Map();
    /** Those that were called off in this tab. @type {Set<string>} */
    this.cancelledHere = new Set();
    this.clock = new JobClock();
    this.tries = 0;
    this.following = "";
    this.stop = new AbortController();
  }

  /** Take up what was left, and follow whatever is not over. */
  start() {
    for (const each of this.document.jobs.peek()) {
      // Without its mask it would paint over the whole picture.
      if (each.state === "sending" && each.isMasked && !each.mask) this.document.patch(each.id, { state: "cancelled" });
      else if (each.state === "sending") void this.#send(each.id);
      if (each.state === "finished") void this.#fetchResults(each.id);
    }
    effect(() => {
      const ids = this.document.jobs.value.filter((each) => OPEN.includes(each.state)).map((each) => each.id).join(",");
      if (ids !== this.following) this.#follow(ids);
    });
    addEventListener("online", () => this.#again());
    effect(() => {
      if (api.connection.value === "online" && this.waitsForToken) this.#again();
      this.waitsForToken = api.connection.value === "token";
    });
  }

  waitsForToken = false;
  /** Whether somebody wants it after this sentence. @type {(text: import("../text/text.js").Key) => Promise<boolean>} */
  confirm = async () => true;

  /**
   * Ask for it: the job has its own copy of the mask, so painting goes on at once.
   * @param {Record<string, any>} [fields] of the tool that paints it, if it is no plain job
   */
  async paint(fields) {
    const { document, session } = this;
    await session.ready;
    const id = api.randomName(20);
    const [wish, layers] = [wishOf(session), session.layers()]; // NOTE: before anything is waited for, for painting goes on
    /** @type {Job} */
    const job = {
      ...wish,
      ...{ id, state: "sending", tool: fields ? { source: null, fields } : null },
      ...{ mask: null, crop: null, created: Date.now(), after: 0 },
      ...{ step: 0, steps: 0, position: null, eta: null, error: null, warnings: [], results: [] },
    };
    this.sentWith.set(id, document.maskChanges.peek());
    document.jobs.value = [...document.jobs.peek(), job];
    try {
      if (wish.isMasked) {
        const { drawn } = await import("./asking.js");
        document.patch(id, await drawn(layers, fields, (file) => session.keeper.keepFile(file)));
      }
    } catch (error) {
      return this.#refused(id, new api.ApiError(0, "mask", String(error), null), true);
    }
    await this.#send(id);
  }

  /** @param {string} id */
  async #send(id) {
    const { document } = this;
    const job = document.job(id);
    if (!job) return;
    try {
      const request = await this.#requestOf(job);
      await this.#plan(job);
      const told = await api.submit(id, request);
      this.#told(id, told);
    } catch (error) {
      this.#refused(id, error);
    }
  }

  /** @param {Job} job @returns {Promise<Record<string, any>>} */
  async #requestOf(job) {
    const isOfWords = !(job.picture || job.tool?.source || job.references?.length);
    if (isOfWords) return { kind: "paint", ...job.request, ...job.tool?.fields };
    return (await import("./asking.js")).requestOf(this.session, job);
  }

  /**
   * The box that is painted, for the preview's place; the whole picture where only the mask's part is not asked for.
   * @param {Job} job
   */
  async #plan(job) {
    const picture = this.document.pictures.peek().find((each) => each.key === job.picture);
    if (!picture) return void this.document.patch(job.id, { size: [job.request.width ?? 0, job.request.height ?? 0] });
    const { width, height } = picture;
    const whole = /** @type {const} */ ([0, 0, width, height]);
    if (!job.request.only_masked || !job.crop || job.tool?.fields.kind === "outpaint") return void this.document.patch(job.id, { crop: [...whole], size: [width, height] });
    const asked = { source: [width, height], box: job.crop, ...sizes(job.request) };
    const planned = await api.planBox(asked, this.stop.signal);
    this.document.patch(job.id, { crop: planned.crop ?? [...whole], size: planned.size });
  }

  /**
   * @param {string} id
   * @param {unknown} error
   * @param {boolean} [isFinal] whether trying again would not help
   */
  #refused(id, error, isFinal = false) {
    const known = error instanceof api.ApiError ? error : new api.ApiError(0, "error", String(error), null);
    const job = this.document.job(id);
    if (!job) return;
    const key = job.tool?.source ?? job.picture;
    if (known.status === 422 && known.message.includes("PUT /v1/pictures") && key) {
      this.session.keeper.named(key, null); // it was kept long enough there; it is sent once more
      if (this.tries++ < 3) return void this.#send(id);
    }
    if (!isFinal && [0, 401, 429, 503].includes(known.status)) {
      this.document.patch(id, { error: { code: known.code, message: known.message, field: null } });
      if (known.status !== 401) setTimeout(() => this.#send(id), PATIENCE[Math.min(this.tries++, 4)]);
      return;
    }
    this.document.patch(id, { state: "failed", error: { code: known.code, message: known.message, field: known.field } });
  }

  #again() {
    for (const each of this.document.jobs.peek()) if (each.state === "sending") void this.#send(each.id);
    this.following = "";
    const ids = this.document.jobs.peek().filter((each) => OPEN.includes(each.state)).map((each) => each.id).join(",");
    this.#follow(ids);
  }

  /**
   * A job as the server tells of it.
   * @param {string} id
   * @param {any} told
   */
  #told(id, told) {
    this.tries = 0;
    const { state, step, steps, position, eta, error, warnings = [] } = told;
    const results = (told.pictures ?? [])
      .filter((/** @type {any} */ each) => ["picture", "grid"].includes(each.kind))
      .map((/** @type {any} */ { kind, number, seed, infotext, width, height, seam = null }) => ({ number, seed, infotext, width, height, seam, isSheet: kind === "grid", file: null }));
    const seconds = state === "finished" ? this.clock.secondsOf(id, steps) : null;
    const isElsewhere = state === "cancelled" && !this.cancelledHere.has(id);
    const said = isElsewhere ? { code: "cancelled", message: t("cancelledElsewhere"), field: null } : error;
    this.document.patch(id, { state, step, steps, position, eta, error: said, warnings, results, seconds });
    if (state === "finished" || state === "cancelled") void this.#fetchResults(id);
    if (!OPEN.includes(state)) this.#forgetPreview(id);
  }

  /** @param {string} ids */
  async #follow(ids) {
    this.following = ids;
    this.stop.abort();
    const stop = (this.stop = new AbortController());
    if (!ids) return;
    const { follow, placeIn } = await import("../api/stream.js");
    for (let tries = 0; !stop.signal.aborted; tries = Math.min(tries + 1, PATIENCE.length - 1)) {
      const open = ids.split(",").map((id) => /** @type {[string, number]} */ ([id, this.document.job(id)?.after ?? 0]));
      try {
        const isOver = await follow(new Map(open), stop.signal, (message) => {
          tries = 0;
          this.#heard(message, placeIn(message));
        });
        if (isOver) await this.#ask(ids);
        if (isOver && !ids.split(",").some((id) => OPEN.includes(this.document.job(id)?.state ?? ""))) return;
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error instanceof api.ApiError && error.status === 404) await this.#ask(ids).catch(() => {});
      }
      await new Promise((resolve) => setTimeout(resolve, PATIENCE[tries]));
    }
  }

  /** @param {string} ids of which the story may have been missed */
  async #ask(ids) {
    for (const id of ids.split(",").filter((each) => OPEN.includes(this.document.job(each)?.state ?? ""))) {
      await api.job(id).then(
        (told) => this.#told(id, told),
        (error) => error instanceof api.ApiError && error.status === 404 && this.#refused(id, error),
      );
    }
  }

  /**
   * @param {import("../api/stream.js").Message} message
   * @param {number} after its number in the job's story
   */
  #heard({ name, data }, after) {
    const { document } = this;
    const job = document.job(data.job);
    if (!job) return;
    this.clock.heard(job.id, name, data);
    if (name === "started") document.patch(job.id, { after, state: "running", position: 0, steps: data.steps ?? job.steps, warnings: data.warnings ?? [], crop: data.crop ?? job.crop });
    else if (name === "progress") document.patch(job.id, { after, state: "running", step: data.step, steps: data.steps, eta: data.eta ?? null });
    else if (name === "preview" && data.image) void this.#preview(job, data.image);
    else if (data.result) {
      document.patch(job.id, { after });
      this.#told(job.id, data.result);
    } else document.patch(job.id, { after });
  }

  /** @param {Job} job @param {string} url a data URL */
  async #preview(job, url) {
    const { cutStencil, imageOf } = await import("./previewing.js");
    const image = await imageOf(url);
    const crop = this.document.job(job.id)?.crop;
    const mask = !this.stencils.has(job.id) && crop && job.mask && (await this.session.keeper.file(job.mask));
    if (mask) this.stencils.set(job.id, await cutStencil(mask, crop));
    if (this.document.job(job.id)?.state !== "running") return image.close();
    this.previews.value = new Map(this.previews.peek()).set(job.id, image);
  }

  /** @param {string} id */
  #forgetPreview(id) {
    const next = new Map(this.previews.peek());
    next.get(id)?.close();
    if (next.delete(id)) this.previews.value = next;
    this.stencils.delete(id);
  }

  /** @param {string} id */
  async #fetchResults(id) {
    for (const { number, file } of this.document.job(id)?.results ?? []) {
      if (file) continue;
      try {
        const key = await this.session.keeper.keepFile(await api.picture(id, number));
        const results = this.document.job(id)?.results.map((each) => (each.number === number ? { ...each, file: key } : each));
        if (results) this.document.patch(id, { results });
        const isSheet = results?.find((each) => each.number === number)?.isSheet;
        if (!this.staged.peek() && !isSheet) this.staged.value = { job: id, number };
      } catch (error) {
        console.warn("a result could not be fetched:", error);
      }
    }
  }

  /**
   * A job once more, with its own picture and mask, and some fields other than before.
   * @param {string} id
   * @param {Record<string, any>} changes
   */
  async again(id, changes) {
    const { document } = this;
    const before = document.job(id);
    if (!before) return;
    /** @type {Job} */
    const job = {
      ...before,
      ...{ id: api.randomName(20), state: "sending", request: { ...before.request, ...changes }, created: Date.now(), after: 0 },
      ...{ step: 0, steps: 0, position: null, eta: null, error: null, warnings: [], results: [], seconds: null },
    };
    this.sentWith.set(job.id, this.sentWith.get(id) ?? -1);
    document.jobs.value = [...document.jobs.peek(), job];
    await this.#send(job.id);
  }

  /** @param {string} id */
  async cancel(id) {
    const job = this.document.job(id);
    if (!job) return;
    if (job.state === "sending") return void this.document.patch(id, { state: "cancelled" });
    this.cancelledHere.add(id);
    await api.cancel(id).then((told) => this.#told(id, told), () => this.#ask(id));
  }

  /**
   * The running job ends with what it has by now.
   * @param {string} id
   */
  async finish(id) {
    await api.finish(id).catch(() => this.#ask(id));
  }

  /**
   * A job leaves the strip; what was accepted of it stays in the history.
   * @param {string} id
   */
  discard(id) {
    if (this.staged.peek()?.job === id) this.staged.value = null;
    this.document.jobs.value = this.document.jobs.peek().filter((each) => each.id !== id);
  }

  /** The staged result becomes the picture. */
  async accept() {
    const staged = this.staged.peek();
    const job = staged && this.document.job(staged.job);
    const result = job?.results.find((each) => each.number === staged?.number);
    const file = result?.file && (await this.session.keeper.file(result.file));
    if (!job || !result || !file) return;
    const now = this.document.picture.peek();
    const isElsewhere = now && job.picture && now.key !== job.picture;
    if (isElsewhere && now.isDeep && !(await this.confirm("deepMerge"))) return;
    const keepsMask = this.sentWith.get(job.id) !== this.document.maskChanges.peek();
    const next = isElsewhere ? await this.#merged(job, file) : file;
    const reference = next === file ? await api.keepResult(job.id, result.number).catch(() => null) : null;
    const bitmap = await decoded(next);
    const picture = await this.session.keeper.addPicture(next, now?.name ?? "picture", bitmap, now?.key ?? null, reference);
    this.staged.value = null;
    await this.session.show(picture, bitmap, "accepted", keepsMask);
  }

  /**
   * What the job changed of its own picture, laid over the one of now: jobs side by side do not undo each other.
   * @param {Job} job
   * @param {Blob} file
   * @returns {Promise<Blob>}
   */
  async #merged(job, file) {
    const own = await this.session.keeper.file(/** @type {string} */ (job.picture));
    const now = await this.session.keeper.file(/** @type {string} */ (this.document.picture.peek()?.key));
    if (!own || !now) return file;
    const { merged } = await import("../canvas/merge.js");
    const [before, after, ground] = await Promise.all([own, file, now].map(bitmapOf));
    return (await merged(before, after, ground)) ?? file;
  }
}

/** @param {Record<string, any>} request what decides the box */
export function sizes({ width, height, padding, checkpoint }) {
  const given = { width, height, padding, checkpoint };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== null && value !== ""));
}

/**
 * What the form says now, without what means nothing for this picture, mask and model.
 * @param {Session} session
 * @returns {Wish}
 */
export function wishOf({ document, mask, colour }) {
  const picture = document.picture.peek();
  const isMasked = Boolean(mask && ((colour && !colour.isEmpty()) || !mask.isEmpty()));
  const { only_masked, padding, ...rest } = document.form.peek();
  const fits = (/** @type {[string, any]} */ [name]) => picture || !document.sourceFields.includes(name);
  const form = Object.fromEntries(Object.entries(rest).filter(fits));
  const references = document.seesPictures.peek() === false ? [] : document.references.peek().map(({ key }) => key);
  return { request: isMasked ? { only_masked, padding, ...form } : form, isMasked, picture: picture?.key ?? null, references };
}
