/** Every word of the page, in the reader's language. English is complete; what another language lacks is English. */

import { signal } from "../state/signal.js";
import { en } from "./en.js";

/** @typedef {keyof typeof en} Key */
/**
 * @typedef {object} Table what a language has words for
 * @property {Record<string, string>} words
 * @property {Record<string, [string, string]>} fields of requests: their names, and what they are for
 * @property {Record<string, Record<string, string>>} choices by field: the values that are chosen
 */
const ENGLISH = { words: en, fields: {}, choices: {} }; // the server tells its fields in English
/** @type {Record<string, {name: string, load: () => Promise<Table>}>} */
export const LANGUAGES = {
  en: { name: "English", load: async () => ENGLISH },
  de: { name: "Deutsch", load: async () => { const { de, fields, choices } = await import("./de.js"); return { words: de, fields, choices }; } },
};

const KEPT = "overpaint-language";
const table = signal(/** @type {Table} */ (ENGLISH));
export const language = signal("en");

/**
 * @param {Key} key
 * @param {Record<string, string | number>} [values] for its {names}
 * @returns {string}
 */
export function t(key, values = {}) {
  const text = table.value.words[key] ?? en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** @param {string} name of a field @returns {string} */
export function labelOf(name) {
  const key = /** @type {any} */ (`field_${name}`);
  const found = t(key);
  if (found !== key) return found;
  return table.value.fields[name]?.[0] ?? (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");
}

/** @param {{name: string, about: string}} field @returns {string} */
export function aboutOf({ name, about }) {
  return table.value.fields[name]?.[1] ?? about;
}

/** @param {string} name of a field @param {string} value that is chosen @returns {string} */
export function choiceOf(name, value) {
  return table.value.choices[name]?.[value] ?? value;
}

/** So many bytes, as people say it: "2.1 GB". @param {number} bytes @returns {string} */
export function sizeText(bytes) {
  const at = UNITS.findIndex((_, i) => bytes < 999.5 * 1000 ** (i + 1) || i === UNITS.length - 1);
  return counted(bytes / 1000 ** (at + 1), UNITS[at], "short");
}

/** So long, as people say it: "1 hour". @param {number} seconds @returns {string} */
export function durationText(seconds) {
  const [unit, length] = LENGTHS.find(([, each]) => seconds >= each) ?? LENGTHS[LENGTHS.length - 1];
  return counted(seconds / length, unit, "long");
}

/** @param {number} value @param {string} unit @param {"short" | "long"} unitDisplay */
function counted(value, unit, unitDisplay) {
  return new Intl.NumberFormat(language.value, { style: "unit", unit, unitDisplay, maximumFractionDigits: value < 10 ? 1 : 0 }).format(value);
}

const UNITS = ["kilobyte", "megabyte", "gigabyte", "terabyte"];
const LENGTHS = /** @type {[string, number][]} */ ([["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]]);

/** @param {string} code */
export async function speak(code) {
  const known = code in LANGUAGES ? code : "en";
  table.value = await LANGUAGES[known].load();
  language.value = known;
  document.documentElement.lang = known;
  localStorage.setItem(KEPT, known);
}

/** @returns {string} what was chosen, or what the browser speaks */
export function preferred() {
  const kept = localStorage.getItem(KEPT);
  return kept ?? navigator.languages.map((each) => each.slice(0, 2)).find((each) => each in LANGUAGES) ?? "en";
}
