/** Parts of the picture that the server finds: what is connected with a point, and things in a box. */

import { drawMask } from "../api/client.js";
import { isForgotten, referenceOf } from "./sources.js";

/** @typedef {import("./session.js").Session} Session */

/**
 * @param {Session} session
 * @param {string} expression of the mask in words
 * @param {string} name of the step
 * @param {boolean} erases
 * @returns {Promise<boolean>} whether the mask is other than before
 */
export async function drawnByServer(session, expression, name, erases) {
  const picture = session.document.picture.peek();
  if (!picture) return false;
  const ask = async () => drawMask({ picture: await referenceOf(session, picture.key), expression });
  const file = await ask().catch((error) => {
    if (!isForgotten(error)) throw error;
    session.keeper.named(picture.key, null);
    return ask();
  });
  const [{ layOver }, found] = await Promise.all([import("../canvas/png.js"), createImageBitmap(file, { colorSpaceConversion: "none" })]);
  const { mask } = session;
  const isSame = mask && session.document.picture.peek()?.key === picture.key;
  const change = isSame ? layOver(mask, found, erases) : null; // another picture may have come meanwhile
  found.close();
  session.changedMask(name, change);
  return change !== null;
}
