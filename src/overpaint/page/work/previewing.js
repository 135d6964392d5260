/** Previews of running jobs: what came, and the small mask that it is cut with. */

const SIDE = 512; // of the mask, at most

/** @param {string} url a data URL @returns {Promise<ImageBitmap>} */
export function imageOf(url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (each) => each.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

/**
 * @param {Blob} file of the mask
 * @param {[number, number, number, number]} crop the part that is painted
 * @returns {Promise<ImageBitmap>} as opaque as the mask is white
 */
export async function cutStencil(file, [left, top, right, bottom]) {
  const mask = await createImageBitmap(file);
  const k = Math.min(1, SIDE / Math.max(right - left, bottom - top));
  const sheet = new OffscreenCanvas(Math.max(1, (right - left) * k), Math.max(1, (bottom - top) * k));
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d"));
  pen.drawImage(mask, left, top, right - left, bottom - top, 0, 0, sheet.width, sheet.height);
  const pixels = pen.getImageData(0, 0, sheet.width, sheet.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
  pen.putImageData(pixels, 0, 0);
  mask.close();
  return sheet.transferToImageBitmap();
}
