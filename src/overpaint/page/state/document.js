/** One document: the picture with all that was done to it, and the form. Everything here is kept. */

import { signal } from "./signal.js";
import { History } from "./history.js";

/**
 * @typedef {object} Picture a version of the picture; accepting a result makes the next one
 * @property {string} key of its file in the browser's store
 * @property {string} name
 * @property {number} width
 * @property {number} height
 * @property {string | null} reference what names it on the server, once it is there
 * @property {string | null} parent the version it was painted on
 * @property {boolean} [isDeep] whether its file has 16 bits a channel, of which the browser sees 8
 * @property {{from: string, margins: import("../canvas/grow.js").Margins}} [grown] of what it was made larger, and by how much
 */

/**
 * @typedef {object} Result
 * @property {number} number
 * @property {number | null} seed
 * @property {string} infotext
 * @property {number} width
 * @property {number} height
 * @property {string | null} file its key in the browser's store, once it is there
 * @property {boolean} [isSheet] whether it shows all pictures of the job side by side
 * @property {Record<string, any> | null} [seam] how visible the edge is, where the server says so
 */

/**
 * @typedef {object} Job
 * @property {string} id
 * @property {"sending" | "queued" | "running" | "finished" | "failed" | "cancelled"} state
 * @property {Record<string, any>} request without its pictures
 * @property {{source: string | null, fields: Record<string, any>} | null} [tool] that paints it, if it is no plain job
 * @property {string | null} picture key of the version it paints on
 * @property {boolean} isMasked
 * @property {string | null} mask key of its mask's file, once that is written
 * @property {string | null} [map] key of the file that says how strong it paints where
 * @property {string[]} [references] keys of further pictures that the model looks at
 * @property {[number, number, number, number] | null} crop
 * @property {[number, number] | null} [size] at which the networks see it where only a part is painted; else that of the picture
 * @property {number | null} [seconds] that it was painted for
 * @property {number} created
 * @property {number} after the last event that was heard of
 * @property {number} step
 * @property {number} steps
 * @property {number | null} position
 * @property {number | null} eta
 * @property {{code: string, message: string, field: string | null} | null} error
 * @property {string[]} warnings
 * @property {Result[]} results
 */

/** @type {Record<string, any>} what the page sends unless it is told otherwise */
export const FIRST_FORM = {
  prompt: "",
  negative_prompt: "",
  masked_content: "original",
  only_masked: true,
  padding: 32,
  seed: -1,
};

/** What decides, beside its size, how long a job takes. */
const COSTS = ["width", "height", "steps", "strength", "cfg_scale", "sampler", "batch_size", "iterations", "checkpoint", "enable_hr"];

export class Document {
  /** @param {string} id */
  constructor(id) {
    this.id = id;
    this.history = new History();
    this.picture = signal(/** @type {Picture | null} */ (null));
    this.pictures = signal(/** @type {Picture[]} */ ([]));
    this.form = signal(FIRST_FORM);
    this.jobs = signal(/** @type {Job[]} */ ([]));
    /** Fields that mean nothing without a picture; the server's list takes the place of this one. */
    this.sourceFields = ["strength", "masked_content", "only_masked", "padding"];
    /** Further pictures that an edit model looks at. */
    this.references = signal(/** @type {{key: string, name: string}[]} */ ([]));
    /** Whether the model of the form looks at them; null until the server has said so. */
    this.seesPictures = signal(/** @type {boolean | null} */ (null));
    /** What the model of the form is painted with where the form says nothing, as far as the server has told. */
    this.usual = signal(/** @type {Record<string, number>} */ ({}));
    /** Counts changes of the mask. */
    this.maskChanges = signal(0);
  }

  /** How much may become something else: as the form says, or else as the model wants it. */
  get strength() {
    return this.form.value.strength ?? this.usual.value.strength ?? 0.75;
  }

  /** @param {Record<string, any>} changes */
  fill(changes) {
    const next = { ...this.form.peek(), ...changes };
    for (const [name, value] of Object.entries(next)) if (value === undefined) delete next[name];
    this.form.value = next;
  }

  /**
   * How long a job that costs as much as the next one took when it was painted last.
   * @param {{width: number, height: number}} size
   * @returns {number | null} seconds
   */
  secondsOf({ width, height }) {
    const form = this.form.value;
    // A sheet is painted many times over.
    const isAlike = (/** @type {Job} */ { request, size, tool }) => !tool?.fields.kind && size?.[0] === width && size[1] === height && COSTS.every((name) => request[name] === form[name]);
    return [...this.jobs.value].reverse().find((each) => each.seconds && isAlike(each))?.seconds ?? null;
  }

  /** @param {string} id */
  job(id) {
    return this.jobs.peek().find((each) => each.id === id) ?? null;
  }

  /**
   * @param {string} id
   * @param {Partial<Job>} changes
   * @returns {Job | null} as it is now; null if it is not known
   */
  patch(id, changes) {
    const found = this.job(id);
    if (!found) return null;
    const next = { ...found, ...changes };
    this.jobs.value = this.jobs.peek().map((each) => (each.id === id ? next : each));
    return next;
  }
}

/** For how long jobs were painted, by this page's clock: from the first step on, since a model may have to be loaded before. */
export class JobClock {
  /** @type {Map<string, {at: number, step: number}>} */
  begun = new Map();

  /** @param {string} id @param {string} name of what is heard of it @param {{step?: number, steps?: number}} data */
  heard(id, name, { step = 0, steps = 0 }) {
    const isFirst = name === "progress" && step > 0 && step < steps && !this.begun.get(id)?.step;
    if (name === "started" || isFirst) this.begun.set(id, { at: performance.now(), step: isFirst ? step : 0 });
  }

  /** @param {string} id @param {number} steps @returns {number | null} where it was heard from its start on */
  secondsOf(id, steps) {
    const begun = this.begun.get(id);
    if (!begun) return null;
    const part = steps > begun.step ? (steps - begun.step) / steps : 1;
    return (performance.now() - begun.at) / 1000 / part;
  }
}
