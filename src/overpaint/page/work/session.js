/** The document in this tab: opened, changed by commands, kept from the first stroke on. */

import { Mask } from "../canvas/mask.js";
import { randomName } from "../api/client.js";
import { signal } from "../state/signal.js";
import { packed, unpacked } from "../state/database.js";
import { Keeper } from "./keeper.js";

/** @typedef {import("../state/document.js").Document} Document */
/** @typedef {import("../state/document.js").Picture} Picture */
/** @typedef {import("../canvas/pyramid.js").Pyramid} Pyramid */
/** @typedef {import("../canvas/mask.js").Change} Change */
/** @typedef {import("../state/history.js").Command} Command */
/** @typedef {[number, Uint8Array][]} PackedChange */
/** @typedef {{kind: "mask" | "picture", name: string, tiles: PackedChange, after?: PackedChange, from?: string | null, to?: string | null}} KeptCommand */

const COLOURS = 1 << 20; // the number of the first tile of the colours, in changes and in what is kept
const RAW = 4e6; // bytes of the last changes that are at hand unpacked
const PACKED = 1e6; // and of those before them that are at hand at all; the others are in the browser's store

/** A change of the mask: unpacked while it is new, then packed, then in the browser's store alone. */
class MaskChange {
  /** @param {Change | null} raw @param {PackedChange} [small] */
  constructor(raw, small) {
    this.raw = raw;
    this.small = small ?? null;
    /** Where it is kept, once it is. @type {(() => Promise<PackedChange>) | null} */
    this.kept = null;
  }

  /** @returns {Promise<Change>} */
  async get() {
    if (this.raw) return this.raw;
    const pairs = (await this.pack()).map(async ([index, bytes]) => /** @type {const} */ ([index, await unpacked(bytes)]));
    return new Map(await Promise.all(pairs));
  }

  /** It is at hand without waiting, until others are newer. */
  async load() {
    this.raw = await this.get();
  }

  /** @returns {Promise<PackedChange>} */
  async pack() {
    if (this.small) return this.small;
    if (!this.raw) return this.kept ? this.kept() : [];
    const pairs = [...this.raw].map(async ([index, bytes]) => /** @type {[number, Uint8Array]} */ ([index, await packed(bytes)]));
    return (this.small ??= await Promise.all(pairs));
  }

  /** Only the packed form is held from now on. */
  async settle() {
    if (!this.kept) await this.pack();
    this.raw = null;
  }

  /** Nothing is held from now on of what is kept. */
  drop() {
    if (this.kept && !this.raw) this.small = null;
  }

  /** @returns {number} bytes of the packed form that are held */
  get packedBytes() {
    return (this.small ?? []).reduce((sum, [, bytes]) => sum + bytes.length, 0);
  }
}

export class Session {
  /** @param {Document} document */
  constructor(document) {
    this.document = document;
    /** @type {Mask | null} */
    this.mask = null;
    /** @type {import("../canvas/colour.js").Colour | null} what is sketched over the picture; there from the first colour on */
    this.colour = null;
    this.source = signal(/** @type {Pyramid | null} */ (null));
    this.keeper = new Keeper(this);
    this.isRestoring = false;
    /** What undoing may take of the memory. */
    this.room = { raw: RAW, packed: PACKED };
    /** When everything is as it was left; what is done before that would be written over. @type {Promise<void>} */
    this.ready = new Promise((resolve) => (this.begin = resolve));
    /** @type {WeakMap<Command, MaskChange>} */
    this.changes = new WeakMap();
    /** @type {WeakMap<Command, MaskChange>} what is masked of a new picture from the start */
    this.masked = new WeakMap();
    /** @type {(box: import("../canvas/mask.js").Box | null) => void} the mask looks otherwise */
    this.onmask = () => {};
    document.history.onchange = ({ at, added }) => {
      this.#settle();
      void this.keeper.moved(at, added);
    };
  }

  /** Changes that are far from the present step are held packed, and those that are kept are not held at all. */
  #settle() {
    const { commands, at } = this.document.history;
    const now = at.peek();
    let bytes = 0, small = 0;
    const far = (/** @type {number} */ i) => Math.abs(i + 0.5 - now);
    for (const i of [...commands.keys()].sort((a, b) => far(a) - far(b))) {
      const command = commands[i];
      for (const change of [this.changes.get(command), this.masked.get(command)]) {
        if (change?.raw && bytes > this.room.raw) void change.settle();
        for (const each of change?.raw?.values() ?? []) bytes += each.length;
        small += change?.packedBytes ?? 0;
        if (small > this.room.packed) change?.drop();
      }
    }
  }

  /**
   * What is stored of these steps is there now, and need not be in memory as well.
   * @param {Command[]} commands
   */
  areKept(commands) {
    for (const each of commands) this.#isKept(each);
    this.#settle();
  }

  /** @param {Command} command */
  #isKept(command) {
    const from = (/** @type {"tiles" | "after"} */ part) => async () => {
      const kept = await this.keeper.command(this.document.history.commands.indexOf(command));
      return kept[part] ?? [];
    };
    for (const [changes, part] of /** @type {const} */ ([[this.changes, "tiles"], [this.masked, "after"]])) {
      const change = changes.get(command);
      if (change) change.kept ??= from(part);
    }
  }

  /**
   * A picture from outside becomes the one that is painted on.
   * @param {Blob} file
   * @param {string} name
   */
  async open(file, name) {
    const pyramid = await decoded(file);
    const picture = await this.keeper.addPicture(file, name, pyramid, null);
    await this.show(picture, pyramid, "opened");
  }

  /**
   * Another version of the picture, as one step that can be undone.
   * @param {Picture} picture
   * @param {Pyramid} pyramid
   * @param {string} name of the step
   * @param {boolean} [keepsMask]
   * @param {(mask: Mask) => Change | null} [masked] what is masked of it from the start
   */
  async show(picture, pyramid, name, keepsMask = false, masked = () => null) {
    const { document } = this;
    const from = document.picture.peek();
    const isSameSize = from?.width === picture.width && from?.height === picture.height;
    const change = new MaskChange(keepsMask && isSameSize ? new Map() : this.#cleared());
    this.#take(picture, pyramid);
    const after = new MaskChange(masked(/** @type {Mask} */ (this.mask)) ?? new Map());
    const command = this.#pictureCommand(name, change, after, from?.key ?? null, picture.key);
    document.history.add(command);
    document.maskChanges.value++;
    this.onmask(null);
  }

  /**
   * The mask was changed, and the colours with it.
   * @param {string} name of the step
   * @param {Change | null} mask
   * @param {Change | null} [colours]
   */
  changedMask(name, mask, colours = null) {
    const change = both(mask, colours);
    if (!change.size) return;
    this.document.history.add(this.#maskCommand(name, new MaskChange(change)));
    this.document.maskChanges.value++;
  }

  /** What is drawn now, and on what. The next strokes leave it alone. */
  layers() {
    const colour = this.colour?.isEmpty() ? null : this.colour;
    const [mask, over] = [this.mask?.copied() ?? null, colour?.copied() ?? null];
    return { mask, colour: over, picture: this.document.picture.peek(), source: this.source.peek() };
  }

  /** Mask and colours are emptied. @returns {Change} */
  #cleared() {
    return both(this.mask?.remake(() => null), this.colour?.remake(() => null));
  }

  /** A change of the mask, of the colours, or of both. @param {Change} change */
  async #apply(change) {
    const colours = new Map([...change].filter(([index]) => index >= COLOURS).map(([index, bytes]) => [index - COLOURS, bytes]));
    this.mask?.apply(new Map([...change].filter(([index]) => index < COLOURS)));
    if (colours.size) (await this.#withColour())?.apply(colours);
  }

  async #withColour() {
    const { mask } = this;
    const { Colour } = await import("../canvas/colour.js");
    return (this.colour ??= mask && new Colour(mask.width, mask.height));
  }

  /** The tiles that hold something, by their numbers in changes. @returns {[number, Uint8Array][]} */
  allTiles() {
    const { mask, colour } = this; // a stroke that is not over does not count
    const found = [...(mask?.tiles.keys() ?? [])].map((index) => /** @type {const} */ ([index, mask?.former(index)]));
    const colours = [...(colour?.tiles.keys() ?? [])].map((index) => /** @type {const} */ ([COLOURS + index, colour?.former(index)]));
    return /** @type {[number, Uint8Array][]} */ ([...found, ...colours].filter(([, tile]) => tile));
  }

  /** @param {number} index as in changes @returns {Uint8Array | null} */
  tileAt(index) {
    return (index < COLOURS ? this.mask?.tiles[index] : this.colour?.tiles[index - COLOURS]) ?? null;
  }

  /** @param {KeptCommand} kept @returns {Command} */
  commandOf(kept) {
    const change = new MaskChange(null, kept.tiles);
    if (kept.kind === "mask") return this.#maskCommand(kept.name, change);
    return this.#pictureCommand(kept.name, change, new MaskChange(null, kept.after ?? []), kept.from ?? null, kept.to ?? null);
  }

  /** @param {Command} command @returns {Promise<KeptCommand>} */
  async keptOf(command) {
    const [tiles, after] = await Promise.all([this.changes, this.masked].map(async (each) => (await each.get(command)?.pack()) ?? []));
    return { .../** @type {KeptCommand} */ (command.kept), tiles, after };
  }

  /**
   * The picture and mask as they were left.
   * @param {Picture} picture
   * @param {Pyramid} pyramid
   * @param {[number, Uint8Array][]} tiles
   */
  async restored(picture, pyramid, tiles) {
    this.#take(picture, pyramid);
    await this.#apply(new Map(tiles));
    this.document.maskChanges.value++;
    this.onmask(null);
  }

  /** @param {Picture | null} picture @param {Pyramid | null} pyramid */
  #take(picture, pyramid) {
    const isSame = this.mask?.width === picture?.width && this.mask?.height === picture?.height;
    if (!isSame) {
      this.mask = picture && new Mask(picture.width, picture.height);
      this.colour = null;
    }
    const before = this.source.peek();
    this.document.picture.value = picture;
    this.source.value = pyramid;
    before?.close();
    this.document.maskChanges.value++;
    this.onmask(null);
  }

  /** @param {string} name @param {MaskChange} change @returns {Command} */
  #maskCommand(name, change) {
    const turn = async () => {
      await this.#apply(await change.get());
      this.document.maskChanges.value++;
      this.onmask(null);
    };
    const command = { name, undo: turn, redo: turn, load: () => change.load(), kept: { kind: "mask", name } };
    this.changes.set(command, change);
    return command;
  }

  /**
   * @param {string} name
   * @param {MaskChange} change
   * @param {MaskChange} after
   * @param {string | null} from
   * @param {string | null} to
   * @returns {Command}
   */
  #pictureCommand(name, change, after, from, to) {
    const go = async (/** @type {string | null} */ key) => {
      const picture = this.document.pictures.peek().find((each) => each.key === key) ?? null;
      const file = key && (await this.keeper.file(key));
      this.#take(picture, picture && file ? await decoded(file) : null);
    };
    const command = {
      name,
      undo: async () => {
        await this.#apply(await after.get());
        await go(from);
        await this.#apply(await change.get());
        this.document.maskChanges.value++;
        this.onmask(null);
      },
      redo: async () => {
        await this.#apply(await change.get());
        await go(to);
        await this.#apply(await after.get());
        this.document.maskChanges.value++;
        this.onmask(null);
      },
      load: () => Promise.all([change.load(), after.load()]),
      kept: { kind: "picture", name, from, to },
    };
    this.changes.set(command, change);
    this.masked.set(command, after);
    return command;
  }
}

/**
 * A change of the mask and one of the colours as one.
 * @param {Change | null} [mask]
 * @param {Change | null} [colours]
 * @returns {Change}
 */
export function both(mask, colours) {
  const moved = [...(colours ?? [])].map(([index, bytes]) => /** @type {const} */ ([COLOURS + index, bytes]));
  return new Map([...(mask ?? []), ...moved]);
}

/**
 * @param {Blob} file
 * @returns {Promise<Pyramid>}
 */
export async function decoded(file) {
  const [{ Pyramid }, bitmap] = await Promise.all([import("../canvas/pyramid.js"), bitmapOf(file)]);
  return new Pyramid(bitmap);
}

/**
 * @param {Blob} file
 * @returns {Promise<ImageBitmap>}
 */
export function bitmapOf(file) {
  return createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" });
}

/** @returns {string} */
export const newKey = () => randomName(16);
