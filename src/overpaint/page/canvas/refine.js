/** A mask mended by a stroke: of all that was found anew, only what hangs together with the stroke counts. */

/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {import("./mask.js").Box} Box */

/**
 * @param {Mask} mask
 * @param {Mask} found of the same size
 * @param {Mask} stroke what is certainly in, or with `erases` certainly out
 * @param {Box} box within which anything may change
 * @param {boolean} erases
 * @returns {import("./mask.js").Change | null}
 */
export function refined(mask, found, stroke, box, erases) {
  const wide = box[2] - box[0];
  const now = mask.flat(box), anew = found.flat(box), sure = stroke.flat(box);
  const value = erases ? 0 : 255;
  const differs = now.map((each, i) => Number(each !== value && (sure[i] > 127 || anew[i] > 127 !== erases)));
  const stack = new Int32Array(differs.length);
  let count = 0;
  const visit = (/** @type {number} */ i) => {
    if (!differs[i]) return;
    differs[i] = 0;
    now[i] = value;
    stack[count++] = i;
  };
  sure.forEach((each, i) => each > 127 && visit(i));
  while (count) {
    const i = stack[--count], x = i % wide;
    if (x > 0) visit(i - 1);
    if (x < wide - 1) visit(i + 1);
    if (i >= wide) visit(i - wide);
    if (i + wide < differs.length) visit(i + wide);
  }
  mask.begin();
  mask.put(box, now);
  return mask.end();
}
