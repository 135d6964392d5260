/**
 * What was done, in order, with a mark up to where it holds. Commands change the picture's state and nothing else does.
 *
 * A command knows how to be undone and done again; both may take a moment, so they are done one after the other.
 */

import { signal } from "./signal.js";

/**
 * @typedef {object} Command
 * @property {string} name what it is called in the text table
 * @property {() => void | Promise<void>} undo
 * @property {() => void | Promise<void>} redo
 * @property {() => Promise<unknown>} [load] what they need is fetched, so that they take no time
 * @property {unknown} kept what is stored of it
 */

export class History {
  constructor() {
    /** @type {Command[]} */
    this.commands = [];
    this.at = signal(0);
    this.length = signal(0);
    /** @type {(change: {at: number, added: Command | null}) => void} */
    this.onchange = () => {};
    this.chain = Promise.resolve();
    /** A step is being taken back or again. */
    this.isMoving = false;
    /** What is being drawn; steps wait for its end. @type {Promise<void> | null} */
    this.hand = null;
    this.#letGo = () => {};
    /** @type {(error: unknown) => void} a step could not be taken */
    this.onfailed = () => {};
  }

  /** @type {() => void} */
  #letGo;

  /** Something is being drawn from now on. */
  hold() {
    this.hand ??= new Promise((resolve) => (this.#letGo = resolve));
  }

  /** It is over. */
  release() {
    this.hand = null;
    this.#letGo();
  }

  /**
   * What was just done. What had been undone is gone with it.
   * @param {Command} command
   */
  add(command) {
    this.commands.length = this.at.peek();
    this.commands.push(command);
    this.#moved(this.commands.length, command);
  }

  /** @returns {Promise<void>} */
  undo() {
    return this.#then("undo");
  }

  /** @returns {Promise<void>} */
  redo() {
    return this.#then("redo");
  }

  /**
   * As it was left.
   * @param {Command[]} commands
   * @param {number} at
   */
  restore(commands, at) {
    this.commands = commands;
    this.length.value = commands.length;
    this.at.value = Math.min(at, commands.length);
  }

  /**
   * @param {number} at
   * @param {Command | null} added
   */
  #moved(at, added) {
    this.length.value = this.commands.length;
    this.at.value = at;
    this.onchange({ at, added });
  }

  /**
   * One step, when those before it are taken, what it needs is loaded, and nobody is drawing.
   * @param {"undo" | "redo"} way
   */
  async #step(way) {
    for (;;) {
      const at = this.at.peek(), command = this.commands[way === "undo" ? at - 1 : at];
      if (!command) return;
      await command.load?.();
      while (this.hand) await this.hand;
      if (this.at.peek() !== at || this.commands.indexOf(command) < 0) continue; // something new was drawn meanwhile
      this.isMoving = true;
      try {
        await command[way]();
      } finally {
        this.isMoving = false;
      }
      return this.#moved(way === "undo" ? at - 1 : at + 1, null);
    }
  }

  /** @param {"undo" | "redo"} way @returns {Promise<void>} */
  #then(way) {
    this.chain = this.chain.then(() => this.#step(way)).catch((error) => this.onfailed(error));
    return this.chain;
  }
}
