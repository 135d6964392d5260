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
