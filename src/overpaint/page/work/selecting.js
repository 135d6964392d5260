/** Parts of the picture that the server finds: what is connected with a point, and things in a box. */

import { drawMask } from "../api/client.js";
import { Mask } from "../canvas/mask.js";
import { isForgotten, referenceOf } from "./sources.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("../canvas/mask.js").Box} Box */
/** @typedef {import("../canvas/mask.js").Change} Change */
/** @typedef {{x: number, y: number}} Place */
/** @typedef {{points: Place[], radius: number, erases: boolean}} Scribble a line that is certainly part of the thing, or is not */

/**
 * @param {Session} session
 * @param {string} expression of the mask in words
 * @param {string} name of the step
 * @param {boolean} erases
 * @returns {Promise<boolean>} whether the mask is other than before
 */
export async function drawnByServer(session, expression, name, erases) {
  const { layOver } = await import("../canvas/png.js");
  return changed(session, expression, name, (mask, found) => layOver(mask, found, erases));
}

/**
 * The thing in a box, mended where a line was drawn.
 * @param {Session} session
 * @param {Box} box
 * @param {Scribble} scribble
 * @param {string} name of the step
 */
export async function mendedByServer(session, box, { points, radius, erases }, name) {
  const [{ layOver }, { refined }, { Stroke }] = await Promise.all([
    import("../canvas/png.js"),
    import("../canvas/refine.js"),
    import("../canvas/stroke.js"),
  ]);
  const told = points.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  const expression = `cut-out ${box.join(",")} ${erases ? "outside" : "inside"} ${told} radius ${radius.toFixed(2)} | fill-holes`;
  return changed(session, expression, name, (mask, found) => {
    const anew = new Mask(mask.width, mask.height), line = new Mask(mask.width, mask.height);
    layOver(anew, found, false);
    const stroke = new Stroke(line, { radius, softness: 0, opacity: 1, erases: false });
    for (const each of points) stroke.to({ ...each, pressure: 1 });
    stroke.end();
    return refined(mask, anew, line, box, erases);
  });
}

/**
 * @param {Session} session
 * @param {string} expression
 * @param {string} name
 * @param {(mask: Mask, found: ImageBitmap) => Change | null} laid what is found over the mask
 */
async function changed(session, expression, name, laid) {
  const picture = session.document.picture.peek();
  if (!picture) return false;
  const ask = async () => drawMask({ picture: await referenceOf(session, picture.key), expression });
  const file = await ask().catch((error) => {
    if (!isForgotten(error)) throw error;
    session.keeper.named(picture.key, null);
    return ask();
  });
  const found = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { mask } = session;
  const isSame = mask && session.document.picture.peek()?.key === picture.key;
  const change = isSame ? laid(mask, found) : null; // another picture may have come meanwhile
  found.close();
  session.changedMask(name, change);
  return change !== null;
}
