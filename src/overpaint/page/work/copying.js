/** The request as other doors take it: curl, Python, the command line, plain JSON. */

import { upload } from "../api/client.js";
import { referenceOf } from "./sources.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {{image: string | null, mask: string | null}} References of the picture and its mask on the server */

/** Field of a request -> option of the command line; those that are switches say so. */
const OPTIONS = /** @type {Record<string, string | [string, string]>} */ ({
  negative_prompt: "--negative",
  strength: "--strength",
  masked_content: "--fill",
  only_masked: ["--only-masked", "--whole"],
  padding: "--padding",
  mask_blur_x: "--mask-blur",
  invert_mask: ["--invert-mask", "--no-invert-mask"],
  steps: "--steps",
  cfg_scale: "--cfg",
  seed: "--seed",
  batch_size: "--batch-size",
  iterations: "--count",
  sampler: "--sampler",
  scheduler: "--scheduler",
  checkpoint: "--model",
  clip_skip: "--clip-skip",
  tiling: ["--tiling", "--no-tiling"],
});

/**
 * @param {"curl" | "python" | "command" | "json"} form
 * @param {Session} session
 */
export async function copied(form, session) {
  const { document } = session;
  const isSent = form === "curl" || form === "json"; // the others name files
  const given = isSent ? await references(session).catch(() => null) : null; // without the server it is copied all the same
  await toClipboard(written(form, document.form.peek(), given, new URL(".", location.href).href));
}

/** @param {Session} session @returns {Promise<References>} */
async function references(session) {
  const { mask, document } = session;
  const picture = document.picture.peek();
  if (!picture || !mask) return { image: null, mask: null };
  const { maskFile } = await import("../canvas/png.js");
  const [image, own] = await Promise.all([referenceOf(session, picture.key), mask.isEmpty() ? null : upload(await maskFile(mask))]);
  return { image, mask: own };
}

/**
 * @param {"curl" | "python" | "command" | "json"} form
 * @param {Record<string, any>} fields
 * @param {References | null} references without them a file is named
 * @param {string} base
 * @returns {string}
 */
export function written(form, fields, references, base) {
  const reference = references?.image ?? null;
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const masked = references?.mask ? { mask: references.mask } : {};
  const request = { kind: "paint", ...Object.fromEntries(given), images: [reference ?? "sha256:..."], ...masked };
  if (form === "json") return JSON.stringify(request, null, 2);
  if (form === "curl") return curl(request, reference, base);
  return form === "python" ? python(given) : command(given);
}

/** @param {object} request @param {string | null} reference @param {string} base */
function curl(request, reference, base) {
  const upload = reference ? "" : `# This names the picture; put it in the place of sha256:...\ncurl -T picture.png ${base}v1/pictures\n\n`;
  return `${upload}curl ${base}v1/jobs -H 'Content-Type: application/json' -H 'Prefer: wait' -d ${quoted(JSON.stringify(request))}\n`;
}

/** @param {[string, any][]} given */
function python(given) {
  given = given.filter(([name]) => !["batch_size", "iterations"].includes(name)); // one picture, to be saved
  const lines = given.map(([name, value]) => `    ${name}=${literal(value)},\n`).join("");
  return `import overpaint\n\npicture = overpaint.img2img(\n    "picture.png",\n${lines}    mask="mask.png",\n)\npicture.save("painted.png")\n`;
}

/** @param {[string, any][]} given */
function command(given) {
  const words = ["overpaint", "paint", "picture.png", "--mask", "mask.png"];
  for (const [name, value] of given) {
    const option = OPTIONS[name];
    if (name === "prompt") words.splice(3, 0, quoted(String(value)));
    else if (Array.isArray(option)) words.push(option[value ? 0 : 1]);
    else if (option && !(name === "seed" && value < 0)) words.push(option, quoted(String(value)));
  }
  return `${words.join(" ")}\n`;
}

/** As Python writes it. @param {any} value @returns {string} */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${literal(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/** For a shell. @param {string} text */
function quoted(text) {
  return /^[\w.,:/+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Where pages may not use the clipboard (plain http from elsewhere) the old way still works. @param {string} text */
async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
