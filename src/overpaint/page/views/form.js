/** The settings, made from the API's own schema: a field that the server learns of appears here by itself. */

import { models, schema } from "../api/client.js";
import { effect, signal } from "../state/signal.js";
import { aboutOf, choiceOf, labelOf, t } from "../text/text.js";
import { h, iconButton } from "./dom.js";
import { fieldError, fieldErrors, forgetError, wants } from "./panel.js";

/** @typedef {import("../state/document.js").Document} Document */
/** @typedef {{name: string, about: string, schema: any, choices: string[] | null, of_source: boolean}} Field */

/** Those that painters use every day, in this order; `prompt` and `strength` stand above them. */
const COMMON = [
  "masked_content", "only_masked", "padding", "mask_blur_x", "steps", "cfg_scale", "seed", "batch_size", "sampler", "scheduler", "checkpoint",
];
const ABOVE = ["prompt", "negative_prompt", "strength", "images", "mask"];
const SLIDERS = /** @type {Record<string, [number, number, number]>} */ ({
  padding: [0, 256, 4],
  mask_blur_x: [0, 64, 1],
  steps: [1, 60, 1],
  cfg_scale: [1, 20, 0.5],
  batch_size: [1, 8, 1],
});

export class SettingsForm extends HTMLElement {
  sought = signal("");

  /** @param {import("../work/session.js").Session} session */
  async use(session) {
    this.session = session;
    const document = (this.document = session.document);
    /** @type {Field[]} */
    let fields;
    try {
      fields = (await schema()).fields;
    } catch {
      this.replaceChildren(
        h("p", { class: "problem" }, () => t("schemaFailed")),
        h("button", { type: "button", class: "quiet", onclick: () => void this.use(session) }, () => t("tryAgain")),
      );
      return;
    }
    document.sourceFields = fields.filter((each) => each.of_source).map((each) => each.name);
    const known = new Map(fields.map((each) => [each.name, each]));
    const common = COMMON.flatMap((name) => known.get(name) ?? []);
    const others = fields.filter((each) => !ABOVE.includes(each.name) && !COMMON.includes(each.name) && !isPicture(each.schema));
    const references = h("div", { class: "slot", hidden: () => !document.seesPictures.value });
    this.replaceChildren(
      references,
      ...common.map((each) => this.#field(each)),
      h("details", { class: "everything" },
        h("summary", {}, () => t("everything")),
        h("input", { type: "search", name: "find-setting", placeholder: () => t("search"), "aria-label": () => t("search"), oninput: (/** @type {any} */ event) => (this.sought.value = event.target.value.toLowerCase()) }),
        ...others.map((each) => this.#field(each, true)),
        h("p", { class: "hint", hidden: () => others.some((each) => this.#matches(each)) }, () => t("noSetting")),
      ),
      this.#copies(),
      h("div", { class: "helpers" }, h("button", { type: "button", class: "quiet", "aria-haspopup": "dialog", onclick: () => wants(this, "showGrid") }, () => t("compareSettings"))),
    );
    this.#references(references);
  }

  /** Which models look at further pictures is asked once somebody begins. @param {HTMLElement} place for them */
  #references(place) {
    const { document } = /** @type {import("../work/session.js").Session} */ (this.session);
    const begin = () => {
      if (this.hasBegun) return;
      this.hasBegun = true;
      void this.#askModels(place);
    };
    this.closest("paint-panel")?.addEventListener("focusin", begin, { once: true });
    effect(() => {
      if (document.history.length.value || document.references.value.length) begin();
    });
  }

  hasBegun = false;

  /** @param {HTMLElement} place */
  async #askModels(place) {
    const session = /** @type {import("../work/session.js").Session} */ (this.session);
    const { document } = session;
    const known = await models("checkpoint").catch(() => []);
    effect(() => {
      const chosen = document.form.value.checkpoint;
      const found = known.find((/** @type {any} */ each) => (chosen ? [each.id, each.title, each.hash].includes(chosen) : each.served));
      document.usual.value = found?.usual ?? {};
      document.seesPictures.value = known.length ? Boolean(found?.sees_pictures) : null;
      if (!document.seesPictures.value || place.hasChildNodes()) return;
      void import("./references.js").then(({ referenceRow }) => place.hasChildNodes() || place.append(referenceRow(session)));
    });
  }

  /** @param {Field} field */
  #matches(field) {
    const text = [field.name, labelOf(field.name), aboutOf(field)].join(" ").toLowerCase();
    return this.sought.value.split(/\s+/).every((each) => text.includes(each));
  }

  /**
   * @param {Field} field
   * @param {boolean} [isFolded]
   */
  #field(field, isFolded = false) {
    const { name } = field;
    const given = { title: () => aboutOf(field), hidden: () => isFolded && !this.#matches(field) };
    const about = isFolded ? h("small", { class: "about" }, () => aboutOf(field)) : null;
    if (kindOf(field) === "boolean") {
      return h("label", { class: "field check", ...given }, this.#input(field), h("span", { class: "name" }, () => labelOf(name)), about, fieldError(name));
    }
    const shown = h("output", {}, () => (name in SLIDERS ? String(this.#value(field)) : ""));
    return h("label", { class: `field ${name in SLIDERS ? "slider" : ""} ${name}`, ...given },
      h("span", { class: "name" }, () => labelOf(name), shown),
      name === "seed" ? this.#seed(field) : name === "checkpoint" ? this.#model(field) : this.#input(field),
      about,
      fieldError(name),
    );
  }

  /** @param {Field} field */
  #value(field) {
    const { form, usual } = /** @type {Document} */ (this.document);
    return form.value[field.name] ?? usual.value[field.name] ?? plainSchema(field.schema).default ?? field.schema.default ?? "";
  }

  /** @param {string} name @param {any} value undefined is what the server does by itself */
  #set(name, value) {
    forgetError(name);
    const changes = name === "mask_blur_x" ? { mask_blur_x: value, mask_blur_y: value } : { [name]: value };
    /** @type {Document} */ (this.document).fill(changes);
  }

  /** @param {Field} field @returns {HTMLElement} */
  #input(field) {
    const { name } = field;
    const kind = kindOf(field);
    const own = plainSchema(field.schema);
    const invalid = () => name in fieldErrors.value;
    const given = { name, "aria-invalid": invalid, "aria-label": () => labelOf(name) };
    if (kind === "boolean") {
      return h("input", { type: "checkbox", ...given, checked: () => Boolean(this.#value(field)), onchange: (/** @type {any} */ event) => this.#set(name, event.target.checked) });
    }
    if (kind === "choice") return this.#select(field, given);
    if (kind === "number") {
      const [min, max, step] = SLIDERS[name] ?? [own.minimum, own.maximum, own.type === "integer" ? 1 : "any"];
      const take = (/** @type {any} */ event) => this.#set(name, event.target.value === "" ? undefined : Number(event.target.value));
      const type = name in SLIDERS ? "range" : "number";
      return h("input", { type, min, max, step, placeholder: () => t("standard"), ...given, value: () => this.#value(field), oninput: take });
    }
    if (kind === "text") {
      return h("input", { type: "text", ...given, value: () => this.#value(field), oninput: (/** @type {any} */ event) => this.#set(name, event.target.value || undefined) });
    }
    return this.#json(field, given);
  }

  /** @param {Field} field @param {Record<string, any>} given */
  #select(field, given) {
    const own = plainSchema(field.schema);
    const choices = field.choices ?? own.enum ?? [];
    const usual = own.default ?? field.schema.default ?? "";
    const all = usual && !choices.includes(usual) ? [usual, ...choices] : choices;
    const isOpen = usual === "";
    return h("select", { ...given, onchange: (/** @type {any} */ event) => this.#set(field.name, event.target.value || undefined) },
      isOpen ? h("option", { value: "", selected: () => !this.#value(field) }, () => t("standard")) : null,
      ...all.map((/** @type {string} */ each) => h("option", { value: each, selected: () => this.#value(field) === each }, () => choiceOf(field.name, each))),
    );
  }

  /** What has parts is written as JSON. @param {Field} field @param {Record<string, any>} given */
  #json(field, given) {
    const area = /** @type {HTMLTextAreaElement} */ (h("textarea", {
      ...{ rows: 1, spellcheck: "false", class: "code", placeholder: "JSON", ...given },
      value: () => textOf(this.#value(field)),
      onchange: () => {
        if (!area.value.trim()) return this.#set(field.name, undefined);
        try {
          this.#set(field.name, JSON.parse(area.value));
        } catch (error) {
          fieldErrors.value = { ...fieldErrors.peek(), [field.name]: String(error) };
        }
      },
    }));
    return area;
  }

  /** @param {Field} field */
  #seed(field) {
    const { form, jobs } = /** @type {Document} */ (this.document);
    const isRandom = () => Number(form.value.seed ?? -1) < 0;
    const last = () => [...jobs.value].reverse().flatMap((each) => each.results).find((each) => each.seed !== null)?.seed;
    const turn = () => this.#set("seed", isRandom() ? last() ?? Math.floor(Math.random() * 2 ** 31) : -1);
    return h("span", { class: "with-button" },
      h("input", {
        ...{ type: "number", name: "seed", step: 1, min: -1, placeholder: () => t("random"), "aria-label": () => labelOf("seed") },
        value: () => (isRandom() ? "" : this.#value(field)),
        oninput: (/** @type {any} */ event) => this.#set("seed", event.target.value === "" ? -1 : Number(event.target.value)),
      }),
      iconButton("dice", () => t(isRandom() ? "lockSeed" : "newSeed"), turn, { "aria-pressed": () => String(isRandom()) }),
    );
  }

  /** A list of names, and the way to their pictures. @param {Field} field */
  #model(field) {
    return h("span", { class: "with-button" }, this.#input(field), iconButton("gallery", () => t("chooseModel"), () => wants(this, "showModels"), { "aria-haspopup": "dialog" }));
  }

  #copies() {
    const copy = (/** @type {"curl" | "python" | "command" | "json"} */ form, /** @type {string} */ name) =>
      h("button", { type: "button", class: "quiet", onclick: async (/** @type {any} */ event) => {
        const { copied } = await import("../work/copying.js");
        const button = event.target;
        await copied(form, /** @type {import("../work/session.js").Session} */ (this.session));
        button.textContent = t("copied");
        setTimeout(() => (button.textContent = name), 1500);
      } }, name);
    return h("div", { class: "copies" }, h("span", { class: "name" }, () => t("copyAs")), copy("curl", "curl"), copy("python", "Python"), copy("command", "CLI"), copy("json", "JSON"));
  }
}

customElements.define("settings-form", SettingsForm);

/** Of several forms the first that is not "nothing". @param {any} schema */
function plainSchema(schema) {
  return schema.anyOf?.find((/** @type {any} */ each) => each.type !== "null") ?? schema;
}

/** @param {Field} field @returns {"boolean" | "choice" | "number" | "text" | "parts"} */
function kindOf({ schema: given, choices }) {
  const own = plainSchema(given);
  if (choices || own.enum) return "choice";
  if (own.type === "boolean") return "boolean";
  if (own.type === "integer" || own.type === "number") return "number";
  return own.type === "string" ? "text" : "parts";
}

/** @param {any} schema */
function isPicture(schema) {
  return JSON.stringify(schema).includes('"format":"picture"') && plainSchema(schema).type !== "object";
}

/** @param {any} value */
function textOf(value) {
  return value === "" || value === null || (Array.isArray(value) && !value.length) ? "" : JSON.stringify(value);
}
