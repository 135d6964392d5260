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
    return this.#then(async () => {
      const at = this.at.peek();
      if (!at) return;
      await this.commands[at - 1].undo();
      this.#moved(at - 1, null);
    });
  }

  /** @returns {Promise<void>} */
  redo() {
    return this.#then(async () => {
      const at = this.at.peek();
      if (at >= this.commands.length) return;
      await this.commands[at].redo();
      this.#moved(at + 1, null);
    });
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

  /** @param {() => Promise<void>} work */
  #then(work) {
    const next = this.chain.then(work);
    this.chain = next.catch(() => {});
    return next;
  }
}
