/** The line between a result and the picture before it: dragged with a mouse, a pen or a finger, or moved by keys. */

import { t } from "../text/text.js";
import { comparing } from "./canvas.js";
import { h } from "./dom.js";

const STEP = 0.01, LEAP = 0.1; // of the picture's width
/** By how much a key moves it. @type {Record<string, number>} */
const KEYS = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP, PageDown: -LEAP, PageUp: LEAP, Home: -1, End: 1 };

export class CompareSlider {
  /** @param {import("./canvas.js").PictureView} view */
  constructor(view) {
    this.view = view;
    const held = (/** @type {PointerEvent} */ event) => this.element.hasPointerCapture(event.pointerId) && this.#follow(event);
    this.element = h("div", {
      ...{ class: "compare-slider", role: "slider", tabindex: 0, hidden: true },
      ...{ "aria-label": () => t("slider"), "aria-valuemin": 0, "aria-valuemax": 100 },
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
      onpointerdown: (/** @type {PointerEvent} */ event) => {
        event.stopPropagation(); // nothing is painted with it
        this.element.setPointerCapture(event.pointerId);
      },
      onpointermove: held,
      onpointerup: (/** @type {PointerEvent} */ event) => event.stopPropagation(),
    });
    view.append(this.element);
    this.place();
  }

  /** Where the line is now, if there is one. */
  place() {
    const { stage } = this.view, { element } = this;
    element.hidden = comparing.peek() !== "slider" || !stage?.result || !stage.source;
    if (element.hidden || !stage?.source) return;
    const { scale, x } = stage.view;
    element.style.transform = `translateX(${x + stage.split * stage.source.width * scale}px)`;
    element.setAttribute("aria-valuenow", String(Math.round(100 * stage.split)));
    element.setAttribute("aria-valuetext", `${Math.round(100 * stage.split)} %`);
  }

  /** @param {PointerEvent} event */
  #follow(event) {
    const { stage } = this.view;
    if (!stage?.source) return;
    const { scale, x } = stage.view;
    this.#move((event.clientX - stage.host.getBoundingClientRect().left - x) / (stage.source.width * scale));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const by = KEYS[event.key];
    if (by === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation(); // arrows go from one result to the next elsewhere
    this.#move((this.view.stage?.split ?? 0.5) + by * (event.shiftKey && Math.abs(by) === STEP ? LEAP / STEP : 1));
  }

  /** @param {number} split */
  #move(split) {
    const { stage } = this.view;
    if (!stage) return;
    stage.split = Math.min(0.999, Math.max(0.001, split)); // the line stays in sight
    stage.redrawPicture();
    this.place();
  }
}
