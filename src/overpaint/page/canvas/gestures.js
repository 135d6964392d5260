/**
 * Fingers, pens, mice and wheels, told as what they mean: a tool that is used, or a view that is moved.
 *
 * One finger paints where no pen was seen, two always move the picture; where there is a pen, fingers only move it.
 */

import { Pressure } from "./stroke.js";
import { toPicture, zoomed } from "./view.js";

/** @typedef {import("./stroke.js").Point} Point */
/** @typedef {{erases: boolean, shift: boolean, alt: boolean}} How */
/**
 * @typedef {object} Hand what does things at points of the picture
 * @property {boolean} pans whether it moves the picture instead
 * @property {(point: Point, how: How) => boolean} begin false if there is nothing to do
 * @property {(points: Point[], how: How) => void} move
 * @property {() => void} end
 * @property {() => void} cancel
 * @property {(at: {x: number, y: number} | null) => void} hover
 */

const WHEEL = 0.0016;
const GRACE = 220; // milliseconds in which a second finger takes the first one's dab back

export class Gestures {
  /**
   * @param {import("./stage.js").Stage} stage
   * @param {Hand} hand
   */
  constructor(stage, hand) {
    this.stage = stage;
    this.hand = hand;
    /** @type {Map<number, {x: number, y: number}>} */
    this.fingers = new Map();
    /** @type {{id: number, kind: "paint" | "pan", since: number, x: number, y: number, pressure: Pressure, how: How} | null} */
    this.active = null;
    this.penSeen = false;
    this.spaceHeld = false;
    this.pinched = false;
    const host = stage.host;
    /** @type {[string, (event: any) => void][]} */
    const handlers = [
      ["pointerdown", (event) => this.#down(event)],
      ["pointermove", (event) => this.#move(event)],
      ["pointerup", (event) => this.#up(event)],
      ["pointercancel", (event) => this.#lost(event)],
      ["pointerleave", () => this.hand.hover(null)],
      ["contextmenu", (event) => event.preventDefault()],
    ];
    for (const [name, handle] of handlers) host.addEventListener(name, handle);
    host.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** @param {PointerEvent} event */
  #down(event) {
    this.stage.host.setPointerCapture?.(event.pointerId);
    this.stage.host.focus({ preventScroll: true });
    event.preventDefault();
    if (event.pointerType === "pen") this.penSeen = true;
    const at = this.#at(event);
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, at);
      if (this.fingers.size === 2) return this.#pinch();
      if (this.fingers.size > 2) return;
    }
    if (this.active) return;
    const how = { erases: event.button === 2 || (event.buttons & 32) !== 0, shift: event.shiftKey, alt: event.altKey };
    const pans = event.button === 1 || this.spaceHeld || this.hand.pans || (event.pointerType === "touch" && this.penSeen);
    this.active = { id: event.pointerId, kind: pans ? "pan" : "paint", since: event.timeStamp, ...at, pressure: new Pressure(), how };
    if (!pans && !this.hand.begin(this.#point(event, this.active.pressure), how)) this.active = null;
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const at = this.#at(event);
    if (this.fingers.size >= 2 && this.fingers.has(event.pointerId)) return this.#pinchTo(event.pointerId, at);
    if (event.pointerType !== "touch") this.hand.hover(toPicture(this.stage.view, at.x, at.y));
    const { active } = this;
    if (!active || active.id !== event.pointerId) return;
    if (active.kind === "pan") {
      this.stage.isFitted = false;
      const { scale, x, y } = this.stage.view;
      this.stage.setView({ scale, x: x + at.x - active.x, y: y + at.y - active.y });
      Object.assign(active, at);
      return;
    }
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map((each) => this.#point(each, active.pressure));
    this.hand.move(points, { ...active.how, shift: event.shiftKey, alt: event.altKey });
  }

  /** @param {PointerEvent} event */
  #up(event) {
    this.fingers.delete(event.pointerId);
    if (!this.fingers.size) this.pinched = false;
    if (this.active?.id !== event.pointerId) return;
    const { kind } = this.active;
    this.active = null;
    if (kind === "paint") this.hand.end();
  }

  /** @param {PointerEvent} event */
  #lost(event) {
    this.fingers.delete(event.pointerId);
    if (!this.fingers.size) this.pinched = false;
    if (this.active?.id !== event.pointerId) return;
    if (this.active.kind === "paint") this.hand.cancel();
    this.active = null;
  }

  #pinch() {
    const { active } = this;
    this.active = null;
    this.pinched = true;
    if (active?.kind !== "paint") return;
    if (performance.now() - active.since < GRACE) this.hand.cancel();
    else this.hand.end();
  }

  /**
   * @param {number} id
   * @param {{x: number, y: number}} at
   */
  #pinchTo(id, at) {
    const [first, second] = [...this.fingers.keys()];
    if (id !== first && id !== second) return;
    const other = /** @type {{x: number, y: number}} */ (this.fingers.get(id === first ? second : first));
    const before = /** @type {{x: number, y: number}} */ (this.fingers.get(id));
    this.fingers.set(id, at);
    const factor = Math.hypot(at.x - other.x, at.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    const middle = { x: (before.x + other.x) / 2, y: (before.y + other.y) / 2 };
    const next = zoomed(this.stage.view, factor, middle.x, middle.y);
    this.stage.isFitted = false;
    this.stage.setView({ ...next, x: next.x + (at.x - before.x) / 2, y: next.y + (at.y - before.y) / 2 });
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    if (!this.stage.source) return;
    this.stage.isFitted = false;
    const lines = event.deltaMode === 1 ? 20 : 1;
    if (event.shiftKey && !event.ctrlKey) {
      const { scale, x, y } = this.stage.view;
      return this.stage.setView({ scale, x: x - (event.deltaX || event.deltaY) * lines, y });
    }
    const { x, y } = this.#at(event);
    const speed = event.ctrlKey ? 6 * WHEEL : WHEEL;
    const factor = Math.exp(-Math.max(-400, Math.min(400, event.deltaY * lines)) * speed);
    this.stage.setView(zoomed(this.stage.view, factor, x, y));
  }

  /** @param {MouseEvent} event */
  #at(event) {
    const { left, top } = this.stage.host.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  /**
   * @param {PointerEvent} event
   * @param {Pressure} pressure
   * @returns {Point}
   */
  #point(event, pressure) {
    const { x, y } = this.#at(event);
    return { ...toPicture(this.stage.view, x, y), pressure: event.pointerType === "pen" ? pressure.next(event.pressure || 0.5) : 1 };
  }
}
