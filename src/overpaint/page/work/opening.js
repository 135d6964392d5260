/** Files from outside, made into such that browser and server both understand. Nothing is decoded before its size is known. */

import { ApiError, asPng, connection, limits } from "../api/client.js";
import { t } from "../text/text.js";
import { bitmapOf } from "./session.js";

const MOST = 50e6; // pixels
const STRIP = 256;
const SURE = 16e6; // bytes of a file that every server takes

/** Why a file cannot be opened, in words for who chose it. */
export class NotOpened extends Error {}

/**
 * The file itself where jobs take it; a PNG of it where they do not, which the server makes with all the bits there are.
 * @param {Blob} file
 * @returns {Promise<Blob>}
 */
export async function readable(file) {
  if (!(await isTaken(file))) return converted(file);
  await checkSize(file);
  return file;
}

/**
 * What the server takes, where the file is larger: that is better said before somebody has painted a mask.
 * @param {Blob} file
 * @returns {Promise<number | null>} bytes
 */
export async function roomFor(file) {
  if (file.size < SURE) return null;
  const { picture_bytes = Infinity } = await limits().catch(() => ({}));
  return file.size > picture_bytes ? picture_bytes : null;
}

/** Whether jobs take it: PNG, JPEG or WebP, by its first bytes. @param {Blob} file */
async function isTaken(file) {
  const bytes = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  const start = String.fromCharCode(...bytes);
  return start.startsWith("\x89PNG\r\n\x1a\n") || start.startsWith("\xff\xd8\xff") || (start.startsWith("RIFF") && start.endsWith("WEBP"));
}

/** @param {Blob} file @returns {Promise<Blob>} */
async function converted(file) {
  try {
    return await asPng(file);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 413 || error.message.includes("max_source_pixels")) throw new NotOpened(error.message);
    if (error.status === 422) throw new NotOpened(t("unreadable"));
  }
  return convertedHere(file); // the server is away, or wants a token first
}

/** With 8 bits, as the browser shows it. @param {Blob} file @returns {Promise<Blob>} */
async function convertedHere(file) {
  await checkSize(file, t(connection.peek() === "online" ? "unreadable" : "unreadableNow"));
  const [bitmap, { pictureFile }] = await Promise.all([bitmapOf(file), import("../canvas/encode.js")]);
  const { width, height } = bitmap;
  const sheet = new OffscreenCanvas(width, STRIP);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d", { willReadFrequently: true }));
  const png = await pictureFile(width, height, (top, rows) => {
    pen.clearRect(0, 0, width, STRIP);
    pen.drawImage(bitmap, 0, -top);
    return new Uint8Array(pen.getImageData(0, 0, width, rows).data.buffer);
  }, STRIP);
  bitmap.close();
  return png;
}

/**
 * Browsers read the size of a picture long before its pixels, of which there may be more than they can hold.
 * @param {Blob} file
 * @param {string} [otherwise] what is said of a file that is no picture
 */
async function checkSize(file, otherwise = t("unreadable")) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = () => reject(new NotOpened(otherwise));
      image.src = url;
    });
    const pixels = image.naturalWidth * image.naturalHeight;
    if (pixels > MOST) throw new NotOpened(t("tooLarge", { pixels: Math.round(pixels / 1e6), most: MOST / 1e6 }));
  } finally {
    image.src = "";
    URL.revokeObjectURL(url);
  }
}
