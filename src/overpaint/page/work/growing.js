/** The picture made larger, as one step; what is new of it is masked, and painted by the server's own tool for it. */

import { isNewOnly, larger, maskNew } from "../canvas/grow.js";
import { allOf, shifted } from "../canvas/colour.js";
import { both, decoded } from "./session.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("../canvas/grow.js").Margins} Margins */

const STRONG = 0.9; // the strength that leaves little of what the new part starts from
const WHOLE = 1024 * 1024; // pixels; of larger pictures the networks see what lies beside the new part
const CONTEXT = 256; // so many pixels of it

/**
 * @param {Session} session
 * @param {Margins} margins
 */
export async function grow(session, margins) {
  const { document, keeper } = session;
  const before = document.picture.peek(), source = session.source.peek(), { mask } = session;
  if (!before || !source || !mask) return;
  const known = before.grown && isNewOnly(mask, before.grown.margins) ? before.grown : { from: before.key, margins: null };
  const file = await larger(source.levels[0], margins);
  const pyramid = await decoded(file);
  const grown = { from: known.from, margins: known.margins ? added(known.margins, margins) : margins };
  const picture = await keeper.addPicture(file, before.name, pyramid, before.key, null, { grown });
  if (document.strength < STRONG) document.fill({ strength: STRONG });
  const masked = mask.isEmpty() ? null : mask.flat([0, 0, mask.width, mask.height]);
  const { colour } = session;
  const colours = colour && !colour.isEmpty() ? shifted(colour, picture.width, picture.height, margins.left, margins.top) : null;
  await session.show(picture, pyramid, "extend", false, (next) => {
    session.colour = colours;
    return both(maskNew(next, masked, margins), colours && allOf(colours));
  });
}

/**
 * The server's tool for a picture that grew and of which just the new part is masked.
 * @param {import("../state/document.js").Picture} picture
 * @param {import("../canvas/mask.js").Mask} mask
 * @returns {{source: string, fields: Record<string, any>} | null}
 */
export function outpaintingOf(picture, mask) {
  if (!picture.grown || !isNewOnly(mask, picture.grown.margins)) return null;
  const { from, margins } = picture.grown;
  const context = picture.width * picture.height > WHOLE ? { context: CONTEXT } : {};
  return { source: from, fields: { kind: "outpaint", ...margins, ...context } };
}

/** @param {Margins} a @param {Margins} b @returns {Margins} */
function added(a, b) {
  return { left: a.left + b.left, top: a.top + b.top, right: a.right + b.right, bottom: a.bottom + b.bottom };
}
