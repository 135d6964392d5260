/** Writes a document down as it changes and finds it again. Writes follow one another, each whole or not at all. */

import { randomName } from "../api/client.js";
import { FIRST_FORM } from "../state/document.js";
import { packed, read, readAll, removeDocument, unpacked, write } from "../state/database.js";
import { effect, signal } from "../state/signal.js";

/** @typedef {import("../state/document.js").Picture} Picture */
/** @typedef {import("../state/document.js").Job} Job */
/** @typedef {import("./session.js").Session} Session */

const TAB = "overpaint-document";
const RELOAD = 1500; // milliseconds in which a page that is left gives its document back
const AGREED = 400; // milliseconds in which another tab says that it has the document
const AGAIN = 3000; // milliseconds after which it is tried again to write
const LATER = 300; // milliseconds, for what changes with every key

/** Whether all is kept, or why not. */
export const keeping = signal(/** @type {"kept" | "full" | "failed"} */ ("kept"));

export class Keeper {
  /** @param {Session} session */
  constructor(session) {
    this.session = session;
    this.chain = Promise.resolve();
    this.timer = 0;
    /** What could not be read must not be written over. */
    this.isBroken = false;
    /** Whether something could not be written: then everything is, as soon as there is room. */
    this.missed = false;
    this.again = 0;
  }

  get id() {
    return this.session.document.id;
  }

  /** From now on the form and the jobs are kept too. */
  watch() {
    const { document } = this.session;
    /** @type {Map<string, Job>} */
    let known = new Map(document.jobs.peek().map((each) => [each.id, each]));
    effect(() => {
      void document.form.value;
      void document.references.value;
      clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.#do(() => this.#head()), LATER);
    });
    effect(() => {
      const jobs = document.jobs.value;
      const changed = jobs.filter((each) => known.get(each.id) !== each);
      const gone = [...known.keys()].filter((id) => !jobs.some((each) => each.id === id));
      known = new Map(jobs.map((each) => [each.id, each]));
      const puts = changed.map((each) => ({ table: "jobs", put: { ...each, key: [this.id, each.id], document: this.id } }));
      const removes = gone.map((id) => ({ table: "jobs", remove: [this.id, id] }));
      if (puts.length + removes.length) this.#do(async () => [...puts, ...removes]);
    });
    addEventListener("pagehide", () => this.#do(() => this.#head()));
  }

  /**
   * A step was taken, forwards or back.
   * @param {number} at
   * @param {import("../state/history.js").Command | null} added
   */
  moved(at, added) {
    const { session } = this;
    const touched = added ? session.changes.get(added)?.raw : null;
    const everything = !touched || /** @type {any} */ (added?.kept)?.kind === "picture";
    const changed = everything ? session.allTiles() : [...touched.keys()].map((index) => /** @type {const} */ ([index, session.tileAt(index)]));
    const tiles = changed.map(([index, tile]) => [index, tile?.slice() ?? null]);
    const head = this.#head();
    return this.#do(async () => {
      const small = await Promise.all(tiles.map(async ([index, tile]) => [index, tile && (await packed(/** @type {Uint8Array} */ (tile)))]));
      const writes = (await head).slice();
      if (everything) writes.push({ table: "tiles", from: [this.id, -1] });
      for (const [index, bytes] of small) {
        const key = [this.id, /** @type {number} */ (index)];
        writes.push(bytes ? { table: "tiles", put: { key, document: this.id, bytes } } : { table: "tiles", remove: key });
      }
      if (added) {
        const kept = await this.session.keptOf(added);
        writes.push({ table: "commands", from: [this.id, at - 1] });
        writes.push({ table: "commands", put: { key: [this.id, at - 1], document: this.id, kept } });
      }
      return writes;
    }, () => added && session.areKept([added]));
  }

  /**
   * @param {Blob} file
   * @param {string} name
   * @param {{width: number, height: number}} size
   * @param {string | null} parent
   * @param {string | null} [reference]
   * @param {Partial<Picture>} [more]
   * @returns {Promise<Picture>}
   */
  async addPicture(file, name, { width, height }, parent, reference = null, more = {}) {
    const key = await this.keepFile(file);
    /** @type {Picture} */
    const picture = { key, name, width, height, reference, parent, isDeep: await isDeep(file), ...more };
    const { pictures } = this.session.document;
    pictures.value = [...pictures.peek(), picture];
    return picture;
  }

  /**
   * What names a version of the picture on the server is known now, or known to be forgotten.
   * @param {string} key
   * @param {string | null} reference
   */
  named(key, reference) {
    const { pictures, picture } = this.session.document;
    pictures.value = pictures.peek().map((each) => (each.key === key ? { ...each, reference } : each));
    if (picture.peek()?.key === key) picture.value = pictures.peek().find((each) => each.key === key) ?? null;
    this.#do(() => this.#head());
  }

  /** @type {Map<string, Blob>} what could not be written is at least there until the tab is closed */
  held = new Map();

  /**
   * @param {Blob} file
   * @returns {Promise<string>} its key
   */
  async keepFile(file) {
    const key = randomName(16);
    this.held.set(key, file);
    if (this.held.size > 6 && !this.isBroken && !this.missed) this.held.delete(/** @type {string} */ (this.held.keys().next().value));
    await this.#do(async () => [{ table: "blobs", put: { key, document: this.id, file } }]);
    return key;
  }

  /**
   * @param {string} key
   * @returns {Promise<Blob | null>}
   */
  async file(key) {
    return this.held.get(key) ?? (this.isBroken ? null : ((await read("blobs", key))?.file ?? null));
  }

  /** @returns {Promise<import("../state/database.js").Write[]>} */
  async #head() {
    const { document } = this.session;
    const { history, form, picture, pictures, references } = document;
    const put = {
      key: this.id,
      touched: Date.now(),
      at: history.at.peek(),
      form: form.peek(),
      picture: picture.peek()?.key ?? null,
      pictures: pictures.peek(),
      references: references.peek(),
    };
    return [{ table: "documents", put }];
  }

  /**
   * @param {() => Promise<import("../state/database.js").Write[]>} made
   * @param {() => unknown} [written] is told when it is done
   */
  #do(made, written = () => {}) {
    if (this.isBroken || this.session.isRestoring) return this.chain;
    this.chain = this.chain.then(async () => {
      try {
        await write(await made());
        written();
        if (!this.missed) keeping.value = "kept";
      } catch (error) {
        this.missed = true;
        keeping.value = /** @type {Error} */ (error).name === "QuotaExceededError" ? "full" : "failed";
        console.error("not kept:", error);
        clearTimeout(this.again);
        this.again = window.setTimeout(() => this.#everything(), AGAIN);
      }
    });
    return this.chain;
  }

  /** Everything is written; nothing is missing after it. */
  #everything() {
    const commands = [...this.session.document.history.commands];
    this.#do(() => this.#all(), () => {
      this.missed = false;
      this.session.areKept(commands);
    });
  }

  /**
   * What is kept of a step.
   * @param {number} index
   * @returns {Promise<import("./session.js").KeptCommand>}
   */
  async command(index) {
    const found = await read("commands", [this.id, index]);
    if (!found) throw new Error(`step ${index} is not in the browser's store`);
    return found.kept;
  }

  /** Everything, after some of it could not be written. @returns {Promise<import("../state/database.js").Write[]>} */
  async #all() {
    const { session, id } = this, { document } = session;
    const tiles = session.allTiles().map(([index, tile]) => /** @type {const} */ ([index, tile.slice()]));
    const commands = [...document.history.commands];
    const [head, small, kept] = await Promise.all([
      this.#head(),
      Promise.all(tiles.map(async ([index, tile]) => ({ key: [id, index], document: id, bytes: await packed(tile) }))),
      Promise.all(commands.map((each) => session.keptOf(each))),
    ]);
    return [
      ...[...this.held].map(([key, file]) => ({ table: "blobs", put: { key, document: id, file } })),
      ...head,
      { table: "tiles", from: [id, -1] },
      ...small.map((put) => ({ table: "tiles", put })),
      { table: "commands", from: [id, -1] },
      ...kept.map((each, i) => ({ table: "commands", put: { key: [id, i], document: id, kept: each } })),
      ...document.jobs.peek().map((each) => ({ table: "jobs", put: { ...each, key: [id, each.id], document: id } })),
    ];
  }

  /**
   * The document as it was left.
   * @param {(file: Blob) => Promise<import("./session.js").Pyramid>} decode
   * @returns {Promise<boolean>} whether there was a picture
   */
  async restore(decode) {
    const { document } = this.session;
    const head = await read("documents", this.id);
    if (!head) return false;
    const [commands, tiles, jobs] = await Promise.all(["commands", "tiles", "jobs"].map((table) => readAll(table, this.id)));
    commands.sort((a, b) => a.key[1] - b.key[1]);
    const typed = Object.entries(document.form.peek()).filter(([name, value]) => FIRST_FORM[name] !== value);
    document.form.value = { ...head.form, ...Object.fromEntries(typed) }; // somebody may have begun already
    document.pictures.value = head.pictures;
    document.references.value = head.references ?? [];
    document.jobs.value = jobs.sort((a, b) => a.created - b.created).map(({ key, document: _, ...job }) => job);
    const picture = head.pictures.find((/** @type {Picture} */ each) => each.key === head.picture);
    const file = picture && (await this.file(picture.key));
    if (file) {
      const pairs = tiles.map(async (each) => /** @type {[number, Uint8Array]} */ ([each.key[1], await unpacked(each.bytes)]));
      const [bitmap, ...flat] = await Promise.all([decode(file), ...pairs]);
      await this.session.restored(picture, bitmap, flat);
    }
    const steps = commands.map((each) => this.session.commandOf(each.kept));
    document.history.restore(steps, head.at);
    this.session.areKept(steps);
    return Boolean(file);
  }

  /** Nothing can be read here: the page goes on with what it has in memory, and says so. */
  giveUp() {
    this.isBroken = true;
    keeping.value = "failed";
  }

  /** Everything of this document is deleted. */
  async forget() {
    await this.chain;
    await removeDocument(this.id);
    sessionStorage.removeItem(TAB);
  }
}

/** Whether it is a PNG of 16 bits a channel, by its first bytes. @param {Blob} file */
async function isDeep(file) {
  const bytes = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  return bytes.length === 26 && String.fromCharCode(...bytes.subarray(1, 4)) === "PNG" && bytes[24] === 16;
}

/**
 * The document of this tab: its own after a reload, else the last one that no other tab has open, else a new one.
 * @returns {Promise<string>}
 */
export async function documentOfTab() {
  const own = sessionStorage.getItem(TAB);
  const known = (await readAll("documents").catch(() => [])).sort((a, b) => b.touched - a.touched).map((each) => each.key);
  if (own && (await locked(own, RELOAD))) return remembered(own);
  for (const id of known) if (await locked(id)) return remembered(id);
  const id = randomName(12);
  await locked(id);
  return remembered(id);
}

/** @param {string} id */
function remembered(id) {
  sessionStorage.setItem(TAB, id);
  return id;
}

/**
 * Held for as long as the tab is open.
 * @param {string} id
 * @param {number} [patience] milliseconds to wait for it
 * @returns {Promise<boolean>}
 */
function locked(id, patience = 0) {
  if (!navigator.locks) return agreed(id);
  const how = patience ? { signal: AbortSignal.timeout(patience) } : { ifAvailable: true };
  return new Promise((resolve) => {
    const held = navigator.locks.request(`overpaint ${id}`, how, (lock) => {
      resolve(lock !== null);
      return lock && new Promise(() => {});
    });
    held.catch(() => resolve(!patience));
  });
}

/**
 * Where browsers have no locks (plain http from elsewhere) the tabs ask each other; of two that ask at once one goes first.
 * @param {string} id
 * @returns {Promise<boolean>} whether no other tab has it
 */
function agreed(id) {
  const channel = new BroadcastChannel(`overpaint ${id}`), own = Math.random();
  return new Promise((resolve) => {
    let isHeld = false;
    channel.onmessage = ({ data }) => {
      if (data.asks !== undefined && (isHeld || own > data.asks)) channel.postMessage({ holds: true });
      if (!data.holds || isHeld) return;
      channel.close();
      resolve(false);
    };
    channel.postMessage({ asks: own });
    setTimeout(() => resolve((isHeld = true)), AGREED);
  });
}
