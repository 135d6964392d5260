/** Every word of the page, in the reader's language. English is complete; what another language lacks is English. */

import { signal } from "../state/signal.js";
import { en } from "./en.js";

/** @typedef {keyof typeof en} Key */
/** @type {Record<string, {name: string, load: () => Promise<Record<string, string>>}>} */
export const LANGUAGES = {
  en: { name: "English", load: async () => en },
  de: { name: "Deutsch", load: async () => (await import("./de.js")).de },
};

const KEPT = "overpaint-language";
const words = signal(/** @type {Record<string, string>} */ (en));
export const language = signal("en");

/**
 * @param {Key} key
 * @param {Record<string, string | number>} [values] for its {names}
 * @returns {string}
 */
export function t(key, values = {}) {
  const text = words.value[key] ?? en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
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
  const loaded = await LANGUAGES[known].load();
  words.value = loaded;
  language.value = known;
  document.documentElement.lang = known;
  localStorage.setItem(KEPT, known);
}

/** @returns {string} what was chosen, or what the browser speaks */
export function preferred() {
  const kept = localStorage.getItem(KEPT);
  return kept ?? navigator.languages.map((each) => each.slice(0, 2)).find((each) => each in LANGUAGES) ?? "en";
}
