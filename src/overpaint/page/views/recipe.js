/** A picture that was painted says how: its settings go back into the form. */

import { ApiError, recipe } from "../api/client.js";
import { t } from "../text/text.js";
import { h, iconButton } from "./dom.js";

/** What belongs to a picture rather than to a form. */
const LEFT_OUT = ["images", "mask", "latent_mask", "kind", "controls", "overrides"];

/**
 * @param {import("./app.js").OverPaint} page
 * @param {Blob} file
 */
export async function offerRecipe(page, file) {
  const found = await recipe(file).catch((error) => {
    if (!(error instanceof ApiError)) throw error;
    return null;
  });
  if (!found?.request) return;
  offer(page, t("recipeAsk"), t("recipeUse"), () => useRecipe(page, found.request));
}

/**
 * @param {import("./app.js").OverPaint} page
 * @param {Record<string, any>} request
 */
export function useRecipe(page, request) {
  const kept = Object.entries(request).filter(([name, value]) => !LEFT_OUT.includes(name) && value !== null);
  page.session?.document.fill(Object.fromEntries(kept));
  page.say(t("recipeFound"));
}

/**
 * A notice that asks; it goes away when it is answered.
 * @param {import("./app.js").OverPaint} page
 * @param {string} text
 * @param {string} answer
 * @param {() => void} act
 */
function offer(page, text, answer, act) {
  const shut = () => notice.remove();
  const notice = h("p", { class: "notice offer", role: "status" }, text,
    h("button", { type: "button", class: "quiet", onclick: () => { shut(); act(); } }, answer),
    iconButton("cross", () => t("close"), shut, { class: "icon-button small" }),
  );
  page.querySelector("main")?.append(notice);
}
